"""The object store, on a folder and on a real S3 server."""

from __future__ import annotations

import hashlib
import os
import threading
import urllib.error
import urllib.request
import uuid
from pathlib import Path
from typing import Any

import pytest

from services.errors import PermanentError, TemporaryError
from services.settings import Settings
from services.storage import ObjectMissing, ObjectStore, input_key, poster_key, video_key
from tests.servers import S3Server, s3_settings

SHA = "a" * 64


@pytest.fixture
def folder_store(tmp_path: Path) -> ObjectStore:
    return ObjectStore.from_settings(Settings(data_dir=tmp_path))


@pytest.fixture
def s3_store(s3_server: S3Server) -> ObjectStore:
    store = ObjectStore.from_settings(s3_settings(s3_server, f"b-{uuid.uuid4().hex}"))
    store.ensure_bucket()
    return store


@pytest.fixture(params=["folder", "s3"])
def store(request: pytest.FixtureRequest) -> Any:
    return request.getfixturevalue(f"{request.param}_store")


def test_object_comes_back_whole_and_in_pieces(store: ObjectStore) -> None:
    data = os.urandom(3_000_000)
    key = video_key("anm_1", hashlib.sha256(data).hexdigest(), "mp4")
    store.put(key, data, "video/mp4")
    assert store.get(key) == data
    pieces = list(store.stream(key))
    assert b"".join(pieces) == data
    assert len(pieces) > 1, "the whole object was held in memory"
    assert b"".join(store.stream(key, start=2_999_990)) == data[-10:]
    assert b"".join(store.stream(key, start=5, length=7)) == data[5:12]
    assert list(store.stream(key, length=0)) == []
    info = store.head(key)
    assert info is not None
    assert (info.key, info.bytes) == (key, len(data))


def test_file_is_stored_from_disk(store: ObjectStore, tmp_path: Path) -> None:
    path = tmp_path / "film.mp4"
    path.write_bytes(b"film" * 1000)
    store.put(video_key("anm_1", SHA, "mp4"), path, "video/mp4")
    assert store.get(video_key("anm_1", SHA, "mp4")) == b"film" * 1000
    assert store.fetch(video_key("anm_1", SHA, "mp4"), tmp_path / "fetched") == b"film" * 1000
    assert (tmp_path / "fetched").read_bytes() == b"film" * 1000


def test_missing_object_is_told_apart_from_an_outage(store: ObjectStore, tmp_path: Path) -> None:
    key = input_key("anm_1", SHA)
    assert store.head(key) is None
    for ask in (store.get, store.stream, lambda key: store.fetch(key, tmp_path / "fetched")):
        with pytest.raises(ObjectMissing) as missing:
            ask(key)
        assert missing.value.code == "gone"
    store.delete([key, key])


def test_delete_removes_what_is_named_and_nothing_else(store: ObjectStore) -> None:
    keys = [input_key("anm_1", SHA), video_key("anm_1", SHA, "gif"), poster_key("anm_1", SHA)]
    for key in keys:
        store.put(key, b"x", "image/gif")
    store.delete(keys[:2])
    assert [store.head(key) is None for key in keys] == [True, True, False]


def test_objects_are_listed_by_prefix(store: ObjectStore) -> None:
    for job_id in ("anm_1", "anm_2"):
        store.put(video_key(job_id, SHA, "gif"), b"x", "image/gif")
    store.put(input_key("anm_1", SHA), b"x", "image/png")
    assert sorted(found.key for found in store.list_objects("results")) == [
        video_key("anm_1", SHA, "gif"),
        video_key("anm_2", SHA, "gif"),
    ]
    assert [found.key for found in store.list_objects("results/anm_1")] == [video_key("anm_1", SHA, "gif")]


def test_ping_answers(store: ObjectStore) -> None:
    store.ping()


@pytest.mark.parametrize(
    "key",
    ["../x", "a/../../x", "/etc/passwd", "a//b", "a/./b", "", ".", "a\\b", "a\x00b", "a b", "%2e%2e/x", "a/..", "é"],
)
def test_no_key_leads_out_of_the_store(folder_store: ObjectStore, tmp_path: Path, key: str) -> None:
    before = sorted(tmp_path.rglob("*"))
    for act in (
        lambda: folder_store.put(key, b"x", "text/plain"),
        lambda: folder_store.get(key),
        lambda: folder_store.fetch(key, tmp_path / "x"),
        lambda: folder_store.stream(key),
        lambda: folder_store.head(key),
        lambda: folder_store.delete([key]),
        lambda: folder_store.presign(key, 60) or folder_store.get(key),
    ):
        with pytest.raises(ValueError, match="not a key"):
            act()
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("job_id", "sha256", "ext"),
    [("../x", SHA, "mp4"), ("a/b", SHA, "mp4"), ("a", "x" * 64, "mp4"), ("a", SHA, "../mp4"), ("", SHA, "mp4")],
)
def test_keys_are_made_of_checked_parts(job_id: str, sha256: str, ext: str) -> None:
    with pytest.raises(ValueError, match="not a key"):
        video_key(job_id, sha256, ext)


def test_keys_of_two_contents_differ() -> None:
    keys = {input_key("anm_1", SHA), poster_key("anm_1", SHA), video_key("anm_1", SHA, "mp4")}
    keys |= {video_key("anm_1", "b" * 64, "mp4"), video_key("anm_2", SHA, "mp4")}
    assert len(keys) == 5


def test_folder_write_is_synced_before_put_returns(
    folder_store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    real = os.fsync

    def fsync(descriptor: int) -> None:
        synced.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    key = input_key("anm_1", SHA)
    folder_store.put(key, b"x", "image/png")
    objects = tmp_path / "objects"
    assert set(synced) == {str(path) for path in (objects / key, objects / "inputs/anm_1", objects / "inputs", objects)}
    synced.clear()
    keys = [video_key("anm_1", SHA, "mp4"), poster_key("anm_1", SHA)]
    folder_store.put_all([(key, b"x", "video/mp4", "film.mp4") for key in keys])
    assert {str(objects / key) for key in keys} <= set(synced)
    assert {folder_store.get(key) for key in keys} == {b"x"}


def test_folder_gives_no_urls(folder_store: ObjectStore) -> None:
    assert folder_store.presign(input_key("anm_1", SHA), 60) is None


def test_full_or_forbidden_folder_is_a_temporary_error(folder_store: ObjectStore, tmp_path: Path) -> None:
    (tmp_path / "objects" / "inputs").write_text("a file where a folder must be")
    with pytest.raises(TemporaryError) as refusal:
        folder_store.put(input_key("anm_1", SHA), b"x", "image/png")
    assert refusal.value.code == "storage-failed"


def test_presigned_url_serves_an_attachment(s3_store: ObjectStore) -> None:
    key = video_key("anm_1", SHA, "mp4")
    s3_store.put(key, b"film", "video/mp4", download_name="anm_1.mp4")
    url = s3_store.presign(key, 60)
    assert url is not None
    with urllib.request.urlopen(url, timeout=60) as answer:
        assert answer.read() == b"film"
        assert answer.headers["Content-Type"] == "video/mp4"
        assert answer.headers["Content-Disposition"] == 'attachment; filename="anm_1.mp4"'
    assert "X-Amz-Expires=900&" in (s3_store.presign(key, 10_000) or "") + "&"
    for forged in (url.split("?")[0], url.replace("anm_1", "anm_2"), url[:-4] + "0000"):
        with pytest.raises(urllib.error.HTTPError) as refusal:
            urllib.request.urlopen(forged, timeout=60)
        assert refusal.value.code == 403


def test_without_a_public_endpoint_nothing_is_presigned(s3_server: S3Server) -> None:
    settings = s3_settings(s3_server, "private").model_copy(update={"s3_public_endpoint": ""})
    assert ObjectStore.from_settings(settings).presign(input_key("anm_1", SHA), 60) is None


def test_bucket_is_made_once_and_missed_before(s3_server: S3Server) -> None:
    store = ObjectStore.from_settings(s3_settings(s3_server, f"b-{uuid.uuid4().hex}"))
    with pytest.raises((TemporaryError, ObjectMissing)):
        store.ping()
    threads = [threading.Thread(target=store.ensure_bucket) for _ in range(4)]  # services start together
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    store.ping()
    store.ensure_bucket()
    store.ping()
    store.ensure_bucket()
    store.put(input_key("anm_1", SHA), b"x", "image/png")


def test_wrong_secret_and_absent_server_are_temporary_errors(s3_server: S3Server) -> None:
    settings = s3_settings(s3_server, "bucket")
    wrong = [
        {"s3_access_key_id": "nobody"},
        {"s3_endpoint": "http://127.0.0.1:1"},
    ]
    for change in wrong:
        store = ObjectStore.from_settings(settings.model_copy(update=change))
        for act in (store.ping, store.ensure_bucket, lambda store=store: store.put("inputs/a/b", b"x", "image/png")):
            with pytest.raises(TemporaryError) as refusal:
                act()
            assert refusal.value.code == "storage-failed"


@pytest.mark.parametrize("url", ["ftp://host/x", "s3://", "s3:bucket", "http://host/bucket"])
def test_unknown_store_is_refused(url: str) -> None:
    with pytest.raises(PermanentError) as refusal:
        ObjectStore.from_settings(Settings(storage_url=url))
    assert refusal.value.code == "settings-invalid"


def test_folder_may_be_named_by_path_or_url(tmp_path: Path) -> None:
    for url in (str(tmp_path / "a b"), (tmp_path / "a b").as_uri()):
        store = ObjectStore.from_settings(Settings(storage_url=url))
        store.put(input_key("anm_1", SHA), b"x", "image/png")
        assert (tmp_path / "a b" / input_key("anm_1", SHA)).read_bytes() == b"x"
