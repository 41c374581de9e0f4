"""Keys of the object store, made of whatever somebody might get into an id: none leads out of its folder."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.errors import TemporaryError
from services.settings import Settings
from services.storage import ObjectMissing, ObjectStore, input_key, poster_key, video_key
from tests.fuzz.mutants import blamed, how_many, make_mutants

SHA = "0123456789abcdef" * 4
PIECES = r"(\.{1,3}|/{1,2}|\\|%2e|%2f|%00|\x00|\n| |~|C:|[A-Za-z0-9_-])"
hostile = st.text(max_size=40) | st.from_regex(PIECES + "{0,20}", fullmatch=True)
parts = st.one_of(hostile, st.just("anm_1"), st.just(SHA), st.just("mp4"))
quick = partial(settings, derandomize=True, deadline=None, database=None)


@pytest.fixture(scope="module")
def outside(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a file that is none of the store's business; the store lies in it."""
    folder = tmp_path_factory.mktemp("outside")
    (folder / "secret").write_bytes(b"secret")
    return folder


@pytest.fixture(scope="module")
def store(outside: Path) -> ObjectStore:
    return ObjectStore.from_settings(Settings(data_dir=outside / "data"))


@quick(max_examples=how_many(300))
@given(job_id=parts, sha256=parts, ext=parts)
def test_no_part_of_a_key_leads_anywhere_else(job_id: str, sha256: str, ext: str) -> None:
    makers: tuple[Callable[[], str], ...] = (
        lambda: input_key(job_id, sha256),
        lambda: video_key(job_id, sha256, ext),
        lambda: poster_key(job_id, sha256),
    )
    for make in makers:
        try:
            key = make()
        except ValueError:
            continue
        folder, job, name = key.split("/")
        assert folder in {"inputs", "results"}
        assert job == job_id
        assert name.startswith(sha256)
        assert not {".", ".."} & {job, name}


@quick(max_examples=how_many(200))
@given(key=hostile)
def test_no_key_reads_or_writes_outside_of_the_store(key: str, store: ObjectStore, outside: Path) -> None:
    check_key(key, store, outside)


def test_damaged_keys_stay_inside(store: ObjectStore, outside: Path) -> None:
    corpus = {"key": video_key("anm_1", SHA, "mp4").encode(), "out": b"results/../../secret", "root": b"/etc/passwd"}
    for mutant in make_mutants(corpus, how_many(300)):
        with blamed(mutant):
            check_key(mutant.data.decode("latin-1"), store, outside)


def check_key(key: str, store: ObjectStore, outside: Path) -> None:
    """Write, read and delete under a key: refused, or done inside the store."""
    try:
        assert store.head(key) is None
        store.put(key, b"written", "text/plain")
        assert store.get(key) == b"written"
        store.delete([key])
    except (ValueError, ObjectMissing):
        pass
    except TemporaryError:
        # A name that the file system does not take, too long for instance.
        pass
    assert [path.name for path in outside.iterdir() if path.name != "data"] == ["secret"]
    assert (outside / "secret").read_bytes() == b"secret"
