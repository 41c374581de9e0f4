"""``…/video`` and ``…/poster``: stable URLs that redirect to a fresh presigned one, or carry the bytes themselves."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.responses import RedirectResponse, Response, StreamingResponse

from services.api.conditional import matches
from services.api.jobs import find_job
from services.api.problems import describe_responses
from services.api.resources import Reader, Resources, Rooms
from services.errors import RequestError
from services.jobs.contract import MEDIA_TYPES, JobRecord, JobState

router = APIRouter(prefix="/v1/animations", tags=["results"])

_RANGE = re.compile(r"bytes=(?:([0-9]{1,18})-([0-9]{0,18})|-([0-9]{1,18}))")
Redirect = Annotated[
    bool, Query(description="false: always the bytes themselves, for pages that may not read the store's answers.")
]
_SHA256 = re.compile(r"[0-9a-f]{64}")
_PROBLEMS = describe_responses(
    "validation-failed", "not-found", "result-not-ready", "gone", "range-not-satisfiable", "storage-failed"
)


@dataclass(frozen=True)
class _StoredFile:
    """A result in the object store, and how a client is to see it."""

    key: str
    media_type: str
    filename: str

    @property
    def etag(self) -> str:
        """Strong: the key holds the SHA-256 of the bytes."""
        found = _SHA256.search(self.key.rsplit("/", 1)[-1])
        return f'"{found[0] if found else self.key}"'


def _describe_bytes(media_types: list[str]) -> dict[int | str, dict[str, object]]:
    content = {name: {"schema": {"type": "string", "format": "binary"}} for name in media_types}
    return {
        200: {"description": "The bytes, from a store that clients can't reach by themselves.", "content": content},
        206: {"description": "The range that was asked for.", "content": content},
        304: {"description": "The client has it already."},
        307: {
            "description": "A fresh presigned URL.",
            "headers": {"Location": {"schema": {"type": "string", "format": "uri"}}},
        },
        **_PROBLEMS,
    }


@router.head("/{job_id}/video", include_in_schema=False)
@router.get(
    "/{job_id}/video",
    summary="Fetch the video",
    response_class=Response,
    responses=_describe_bytes(sorted(MEDIA_TYPES.values())),
)
def get_video(job_id: str, request: Request, rooms: Rooms, owner: Reader, redirect: Redirect = True) -> Response:
    """Redirect to the video, or send it; ranges are served so that players can seek."""
    record = find_job(rooms.store, job_id, owner)
    output = _check_result(record).output
    assert output is not None
    name = f"{record.id}.{output.format.value}"
    return _answer(rooms, request, _StoredFile(output.key, MEDIA_TYPES[output.format], name), redirect)


@router.head("/{job_id}/poster", include_in_schema=False)
@router.get(
    "/{job_id}/poster",
    summary="Fetch the poster",
    response_class=Response,
    responses=_describe_bytes(["image/jpeg"]),
)
def get_poster(job_id: str, request: Request, rooms: Rooms, owner: Reader, redirect: Redirect = True) -> Response:
    """Redirect to the frame that stands for the video, or send it, as JPEG."""
    record = find_job(rooms.store, job_id, owner)
    output = _check_result(record).output
    assert output is not None
    if output.poster_key is None:
        raise RequestError(
            "not-found", "This job was posted without a poster.", "Post it with `output.poster: true` to get one."
        )
    return _answer(rooms, request, _StoredFile(output.poster_key, "image/jpeg", f"{record.id}.jpg"), redirect)


def _check_result(record: JobRecord) -> JobRecord:
    """Raises: RequestError result-not-ready (409), gone (410)."""
    if record.state is JobState.SUCCEEDED:
        if record.expires_at is not None and record.expires_at <= datetime.now(UTC):
            raise RequestError("gone", "The result has expired and was removed.", "Post the animation again.")
        return record
    if record.terminal:
        hint = record.error.hint if record.error is not None and record.error.hint else "Post the animation again."
        raise RequestError("result-not-ready", f"The job ended as {record.state.value}; it has no result.", hint)
    raise RequestError(
        "result-not-ready",
        f"The job is {record.state.value}; its result is not there yet.",
        "Poll the job, read its events, or ask for it with `Prefer: wait=30`.",
    )


def _answer(rooms: Resources, request: Request, file: _StoredFile, redirect: bool) -> Response:
    url = rooms.storage.presign(file.key, rooms.settings.presign_s) if redirect else None
    if url is not None:
        return RedirectResponse(url, 307, headers={"Cache-Control": "no-store"})
    headers = {"ETag": file.etag, "Cache-Control": "private, no-cache", "Accept-Ranges": "bytes"}
    if matches(request.headers.get("If-None-Match"), file.etag):
        return Response(status_code=304, headers=headers)
    info = rooms.storage.head(file.key)
    if info is None:
        raise RequestError("gone", "The stored result is no longer there.", "Post the animation again.")
    headers |= {"Content-Disposition": f'attachment; filename="{file.filename}"', "Content-Type": file.media_type}
    start, length, status = _read_range(request, info.bytes, file.etag)
    headers["Content-Length"] = str(length)
    if status == 206:
        headers["Content-Range"] = f"bytes {start}-{start + length - 1}/{info.bytes}"
    pieces: Iterator[bytes] = iter(())
    if request.method != "HEAD":
        pieces = rooms.storage.stream(file.key, start=start, length=length)
    return StreamingResponse(pieces, status, headers=headers)


def _read_range(request: Request, size: int, etag: str) -> tuple[int, int, int]:
    """Return (start, length, status) of what to send; anything but one well-formed byte range means the whole file.

    Raises:
        RequestError: range-not-satisfiable (416).
    """
    whole = (0, size, 200)
    found = _RANGE.fullmatch(request.headers.get("Range", "").strip().replace(" ", ""))
    if found is None or request.headers.get("If-Range", etag) != etag:
        return whole
    first, last, suffix = found.groups()
    if suffix is not None:
        length = min(int(suffix), size)
        start = size - length
    else:
        start = int(first)
        if last and int(last) < start:
            return whole
        length = min(int(last) + 1 if last else size, size) - start
    if length <= 0:
        raise RequestError(
            "range-not-satisfiable",
            f"The file has {size} bytes; the range begins behind them.",
            "Ask for less.",
            size=size,
        )
    return start, length, 206
