"""The stages of one job: fetch → align → invert → move → render → encode → store.

The two ends are in this file: they run in the worker and touch the object store. Everything between is
``worker.animation``, which runs in the inference child. No SQL and no queue in here, and no numpy: the worker's own
process stays small.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from services.errors import PermanentError
from services.jobs.contract import MEDIA_TYPES, JobRecord, OutputFacts
from services.storage import ObjectStore, poster_key, video_key
from worker.events import Done


def fetch_picture(storage: ObjectStore, record: JobRecord, scratch: Path) -> Path | None:
    """Have the accepted picture in the scratch folder and return its path; None for a sampled face.

    Raises: TemporaryError ``storage-failed``; PermanentError ``gone`` when it was deleted, ``image-corrupt`` when it
    is not what was accepted.
    """
    if record.options.source == "sampled":
        return None
    if record.input.key is None:
        raise PermanentError("image-corrupt", "The job has no picture.", "Post it again with a picture.")
    path = scratch / "picture"
    data = storage.fetch(record.input.key, path)
    if record.input.sha256 is not None and hashlib.sha256(data).hexdigest() != record.input.sha256:
        raise PermanentError(
            "image-corrupt", "The stored picture is not the one that was accepted.", "Post the animation again."
        )
    return path


def store_result(storage: ObjectStore, record: JobRecord, done: Done) -> OutputFacts:
    """Upload video and poster under keys that hold their hash; nobody sees them before the job's record names them.

    Raises: TemporaryError ``storage-failed``.
    """
    video = done.video
    key = video_key(record.id, done.sha256, video.format.value)
    uploads: list[tuple[str, Path | bytes, str, str]] = [
        (key, video.path, MEDIA_TYPES[video.format], f"{record.id}.{video.format.value}")
    ]
    shown = None
    if done.poster is not None:
        shown = poster_key(record.id, hashlib.sha256(done.poster.read_bytes()).hexdigest())
        uploads.append((shown, done.poster, "image/jpeg", f"{record.id}.jpg"))
    storage.put_all(uploads)
    return OutputFacts(
        key=key,
        format=video.format,
        width=video.width,
        height=video.height,
        fps=video.fps,
        frames=video.frames,
        bytes=video.bytes,
        sha256=done.sha256,
        poster_key=shown,
    )
