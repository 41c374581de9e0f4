"""A local folder as durable store: whole files or none, and room for those who tidy it meanwhile."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from services.durable_folder import DurableFolder
from services.settings import Settings
from services.storage import ObjectStore, input_key, video_key

SHA = "a" * 64


@pytest.fixture
def folder(tmp_path: Path) -> DurableFolder:
    return DurableFolder(tmp_path)


def test_a_write_that_fails_leaves_what_was_there_and_nothing_else(
    folder: DurableFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.write("results/job/film", b"old")

    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(OSError, match="No space"):
        folder.write("results/job/film", b"new")
    with pytest.raises(FileNotFoundError):
        folder.write("results/job/other", tmp_path / "absent")
    assert [path.name for path in (tmp_path / "results/job").iterdir()] == ["film"]
    assert folder.read("results/job/film") == b"old"


def test_a_file_in_the_making_is_listed_as_such_and_not_as_an_object(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = ObjectStore.from_settings(Settings(data_dir=tmp_path))
    replace, seen = os.replace, []

    def look_first(unfinished: str, path: Path) -> None:
        seen.append((Path(unfinished), list(store.list_unfinished()), list(store.list_objects("results"))))
        replace(unfinished, path)

    monkeypatch.setattr(os, "replace", look_first)
    store.put(video_key("anm_1", SHA, "mp4"), b"film", "video/mp4")
    ((unfinished, listed, objects),) = seen
    assert (listed, objects) == ([unfinished], [])
    assert list(store.list_unfinished()) == []


def test_who_tidies_an_empty_folder_away_stops_nobody_from_writing_into_it(tmp_path: Path) -> None:
    store = ObjectStore.from_settings(Settings(data_dir=tmp_path))
    over = threading.Event()

    def tidy() -> None:
        while not over.is_set():
            store.delete([input_key("anm_1", "b" * 64)])
            store.put(input_key("anm_1", "b" * 64), b"x", "image/png")

    tidier = threading.Thread(target=tidy)
    tidier.start()
    try:
        for _ in range(100):
            store.put(input_key("anm_1", SHA), b"x", "image/png")
            store.delete([input_key("anm_1", SHA)])
    finally:
        over.set()
        tidier.join()


@pytest.mark.parametrize("linked", [True, False])
def test_a_film_is_the_stores_own_whatever_becomes_of_the_scratch_file(
    folder: DurableFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, linked: bool
) -> None:
    if not linked:

        def refuse(*_: object) -> None:
            raise OSError(18, "Invalid cross-device link")

        monkeypatch.setattr(os, "link", refuse)
    film = tmp_path / "film.mp4"
    film.write_bytes(b"film" * 1000)
    for _ in range(2):  # as a second attempt does
        folder.write("results/job/film", film)
    assert list((tmp_path / "results/job").iterdir()) == [tmp_path / "results/job/film"]
    assert ((tmp_path / "results/job/film").stat().st_ino == film.stat().st_ino) is linked
    film.unlink()
    folder.share("results/job/film", tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == b"film" * 1000
    (tmp_path / "again").unlink()
    assert folder.read("results/job/film") == b"film" * 1000
