"""The object store: pictures in, videos and posters out; a local folder or anything that speaks S3 (by obstore).

Keys are made by the functions below and by nothing else; a client never names one. No SQL, no HTTP routes, no models.
"""

from __future__ import annotations

import os
import re
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Self, TypeVar
from urllib.parse import unquote, urlsplit

import obstore
from obstore.exceptions import BaseError
from obstore.store import LocalStore, S3Store

from services.durable_folder import DurableFolder
from services.errors import PermanentError, TemporaryError
from services.settings import Settings

CHUNK_BYTES = 256 * 1024
UPLOADS_AT_ONCE = 4
JOB_FOLDERS = ("inputs", "results")
# Tells whose store this is: the name of the database whose jobs it serves.
DATABASE_KEY = "service/database"
_KEY = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*(/[A-Za-z0-9_][A-Za-z0-9_.-]*)*")
_JOB_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_JOB_OBJECT = re.compile(rf"(?:{'|'.join(JOB_FOLDERS)})/([A-Za-z0-9_-]{{1,64}})/[A-Za-z0-9_][A-Za-z0-9_.-]*")
_EXTENSION = re.compile(r"[a-z0-9]{1,8}")
_Result = TypeVar("_Result")


def input_key(job_id: str, sha256: str) -> str:
    """Return the key of a job's accepted picture."""
    return f"inputs/{_checked(_JOB_ID, job_id)}/{_checked(_SHA256, sha256)}"


def video_key(job_id: str, sha256: str, ext: str) -> str:
    """Return the key of a job's video; it holds the content's hash, so a second attempt never overwrites the first."""
    name = f"{_checked(_SHA256, sha256)}.{_checked(_EXTENSION, ext)}"
    return f"results/{_checked(_JOB_ID, job_id)}/{name}"


def poster_key(job_id: str, sha256: str) -> str:
    """Return the key of a job's poster (JPEG)."""
    return f"results/{_checked(_JOB_ID, job_id)}/{_checked(_SHA256, sha256)}.poster.jpg"


def job_of(key: str) -> str | None:
    """Return the id of the job that an object belongs to, None for anything that is not as we make it."""
    found = _JOB_OBJECT.fullmatch(key)
    return found.group(1) if found else None


class ObjectMissing(PermanentError):  # noqa: N818 - it reads as what happened
    """There is no such object: it has expired, or was never stored."""

    def __init__(self) -> None:
        super().__init__("gone", "The stored file is no longer there.", "Post the animation again.")


@dataclass(frozen=True)
class ObjectInfo:
    """What the store knows of one object."""

    key: str
    bytes: int
    modified_at: datetime


class ObjectStore:
    """One bucket or folder. Thread-safe.

    Args:
        store: obstore's handle.
        folder: its directory when it is a local one: writes are then synced to disk before ``put`` returns, and whole
            objects written and read without obstore.
        signing_store: the same bucket under the endpoint that clients reach; None: nothing is presigned.
    """

    def __init__(
        self, store: LocalStore | S3Store, *, folder: Path | None = None, signing_store: S3Store | None = None
    ) -> None:
        self._store = store
        self._folder = None if folder is None else DurableFolder(folder)
        self._signing_store = signing_store
        self._uploading = ThreadPoolExecutor(UPLOADS_AT_ONCE, "upload")

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        """Return the store that the settings name. Raises: PermanentError("settings-invalid")."""
        url = urlsplit(settings.resolved_storage_url)
        if url.scheme == "s3" and url.netloc:
            store = _s3_store(settings, url.netloc, url.path, settings.s3_endpoint)
            public = settings.s3_public_endpoint
            signing = _s3_store(settings, url.netloc, url.path, public) if public else None
            return cls(store, signing_store=signing)
        if url.scheme in {"", "file"} and url.netloc in {"", "localhost"} and url.path:
            folder = Path(unquote(url.path)).absolute()
            try:
                folder.mkdir(parents=True, exist_ok=True)
                return cls(LocalStore(folder, automatic_cleanup=True), folder=folder)
            except OSError as error:
                raise PermanentError(
                    "settings-invalid",
                    f"The folder of ANIMATO_STORAGE_URL can't be used: {error.strerror or 'refused'}.",
                    "Name a folder that this user may write to.",
                ) from error
        raise PermanentError(
            "settings-invalid",
            "ANIMATO_STORAGE_URL names no store that is known.",
            "Leave it empty for a local folder, or set it to s3://bucket.",
        )

    def put(self, key: str, data: bytes | Path, media_type: str, download_name: str | None = None) -> None:
        """Store one object, whole or not at all; durable when this returns.

        Args:
            data: the bytes, or a file to read them from, which does not change any more.
            download_name: the file name that a browser offers; default: the key's last part. S3 always serves the
                object as an attachment, so that nothing stored can run as a page of its origin.

        Raises: TemporaryError("storage-failed").
        """
        path = _checked(_KEY, key)
        name = _checked(_KEY, download_name or key.rsplit("/", 1)[-1])
        if self._folder is not None:
            self.put_all([(path, data, media_type, name)])
            return
        attributes: dict[Any, str] = {
            "Content-Type": media_type,
            "Content-Disposition": f'attachment; filename="{name}"',
        }
        _putting(lambda: obstore.put(self._store, path, data, attributes=attributes))

    def put_all(self, objects: Iterable[tuple[str, bytes | Path, str, str]]) -> None:
        """Store several objects at once, each as ``put`` does: what takes time is waiting for a disk or another host.

        Raises: TemporaryError("storage-failed"); some may be stored then.
        """
        folder = self._folder
        if folder is None:
            list(self._uploading.map(lambda each: self.put(*each), objects))
            return
        files = [(_checked(_KEY, key), data) for key, data, _media_type, _name in objects]

        def write_all() -> None:
            for path, data in files:
                folder.write(path, data)
            folder.sync([path for path, _ in files])

        _putting(write_all)

    def get(self, key: str) -> bytes:
        """Return a whole object. Raises: ObjectMissing, TemporaryError("storage-failed")."""
        path, folder = _checked(_KEY, key), self._folder
        if folder is not None:
            return _trying(lambda: folder.read(path))
        return _trying(lambda: bytes(obstore.get(self._store, path).bytes()))

    def fetch(self, key: str, path: Path) -> bytes:
        """Return a whole object and write it to a file, which is for reading only.

        Raises: ObjectMissing, TemporaryError("storage-failed"), OSError where the file can't be written.
        """
        data = self.get(key)
        if self._folder is None:
            path.write_bytes(data)
        else:
            self._folder.share(key, path)
        return data

    def stream(self, key: str, *, start: int = 0, length: int | None = None) -> Iterator[bytes]:
        """Return the object's bytes piece by piece, from ``start`` for ``length`` bytes (None: to the end).

        A missing object is told at once and not at the first piece.
        Raises: ObjectMissing, TemporaryError("storage-failed").
        """
        path = _checked(_KEY, key)
        if length == 0:
            return iter(())
        options: dict[str, Any] = {}
        if length is not None:
            options = {"range": (start, start + length)}
        elif start:
            options = {"range": {"offset": start}}
        result = _trying(lambda: obstore.get(self._store, path, options=options))  # type: ignore[arg-type]
        return _pieces(iter(result.stream(min_chunk_size=CHUNK_BYTES)))

    def head(self, key: str) -> ObjectInfo | None:
        """Return what is known of the object, or None when there is none. Raises: TemporaryError("storage-failed")."""
        path = _checked(_KEY, key)
        try:
            found = _trying(lambda: obstore.head(self._store, path))
        except ObjectMissing:
            return None
        return ObjectInfo(key=found["path"], bytes=found["size"], modified_at=found["last_modified"])

    def delete(self, keys: Iterable[str]) -> None:
        """Remove the objects; those that are gone already are no error. Raises: TemporaryError("storage-failed")."""
        for key in keys:
            path = _checked(_KEY, key)
            try:
                _trying(lambda path=path: obstore.delete(self._store, path))  # type: ignore[misc]
            except ObjectMissing:
                continue

    def delete_job(self, job_id: str) -> None:
        """Remove all that is stored of a job, named or not. Raises: TemporaryError("storage-failed")."""
        for folder in JOB_FOLDERS:
            found = self.list_objects(f"{folder}/{_checked(_JOB_ID, job_id)}")
            self.delete([stored.key for stored in found if job_of(stored.key) == job_id])

    def list_objects(self, prefix: str) -> Iterator[ObjectInfo]:
        """Yield the objects below ``prefix`` (whole path parts). Raises: TemporaryError("storage-failed")."""
        pages = iter(_trying(lambda: obstore.list(self._store, _checked(_KEY, prefix))))
        while True:
            page = _trying(lambda: next(pages, None))
            if page is None:
                return
            for found in page:
                yield ObjectInfo(key=found["path"], bytes=found["size"], modified_at=found["last_modified"])

    def list_unfinished(self) -> Iterator[Path]:
        """Yield the files of writes that a local folder has in hand, or had when their process was killed."""
        if self._folder is None:
            return
        yield from self._folder.list_unfinished(JOB_FOLDERS)

    def presign(self, key: str, expires_s: int) -> str | None:
        """Return a URL that serves the object as an attachment for ``expires_s`` seconds (at most 900).

        None for a local folder, and where no endpoint is known that clients can reach: stream the bytes instead.
        """
        if self._signing_store is None:
            return None
        store, path = self._signing_store, _checked(_KEY, key)
        lifetime = timedelta(seconds=max(1, min(900, expires_s)))
        return _trying(lambda: obstore.sign(store, "GET", path, lifetime))

    def ping(self) -> None:
        """Ask the store for an answer. Raises: TemporaryError("storage-failed") when it is away or refuses us."""
        if self._folder is not None:
            if not os.access(self._folder.root, os.R_OK | os.W_OK | os.X_OK):
                raise _failed()
            return
        _trying(lambda: next(iter(obstore.list(self._store, "inputs", chunk_size=1)), None))

    def ensure_bucket(self) -> None:
        """Make the S3 bucket when it is missing; a folder needs nothing. Raises: TemporaryError("storage-failed")."""
        if not isinstance(self._store, S3Store):
            return
        try:
            self.ping()
        except (TemporaryError, ObjectMissing):
            store = self._store
            url = _trying(lambda: obstore.sign(store, "PUT", "", timedelta(seconds=60)))
            request = urllib.request.Request(url, method="PUT")
            try:
                urllib.request.urlopen(request, timeout=10).close()
            except OSError as error:
                refusal: OSError | None = error  # another process may have made it meanwhile
            else:
                refusal = None
            try:
                self.ping()
            except (TemporaryError, ObjectMissing):
                raise _failed() from refusal


def _s3_store(settings: Settings, bucket: str, prefix: str, endpoint: str) -> S3Store:
    config: dict[str, Any] = {"region": settings.s3_region, "virtual_hosted_style_request": False}
    if endpoint:
        config["endpoint"] = endpoint
    if settings.s3_access_key_id:
        config["access_key_id"] = settings.s3_access_key_id
        config["secret_access_key"] = settings.s3_secret_access_key.get_secret_value()
    return S3Store(
        bucket,
        prefix=prefix.strip("/") or None,
        config=config,  # type: ignore[arg-type]
        client_options={
            "allow_http": endpoint.startswith("http://"),
            "connect_timeout": timedelta(seconds=2),
            "timeout": timedelta(seconds=30),
        },
        # A worker gives the job back and the API answers 503: both better than a long silence.
        retry_config={"max_retries": 2, "retry_timeout": timedelta(seconds=10)},
    )


def _checked(pattern: re.Pattern[str], text: str) -> str:
    """Return ``text`` if it is one of ours. A ValueError is a mistake of the caller: clients never name keys."""
    if not pattern.fullmatch(text) or ".." in text:
        raise ValueError("not a key of this store")
    return text


def _trying(action: Callable[[], _Result]) -> _Result:
    """Run one operation of obstore and translate its failures."""
    try:
        return action()
    except FileNotFoundError as error:
        raise ObjectMissing from error
    except (BaseError, OSError) as error:
        raise _failed() from error


def _putting(action: Callable[[], object]) -> None:
    """Run one write: nothing can be missing but the bucket or a directory, and that is an outage."""
    try:
        _trying(action)
    except ObjectMissing as error:
        raise _failed() from error


def _pieces(stream: Iterator[Any]) -> Iterator[bytes]:
    while True:
        piece = _trying(lambda: next(stream, None))
        if piece is None:
            return
        yield bytes(piece)


def _failed() -> TemporaryError:
    return TemporaryError(
        "storage-failed",
        "The object store does not answer or refuses to serve.",
        "Try again in a few seconds; if it stays so, look at the store of ANIMATO_STORAGE_URL and its free space.",
        delay_s=5.0,
    )
