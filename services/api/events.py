"""``GET …/events``: a job's life as server-sent events, resumable on any replica because ids are revisions.

Reads the job store only; a client that goes away frees everything with the next write or look.
"""

from __future__ import annotations

import base64
import json
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Annotated, Any

import structlog
from fastapi import APIRouter, Header, Request
from fastapi.sse import format_sse_event
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response, StreamingResponse

from services.api.jobs import find_job, find_position
from services.api.looks import Follower
from services.api.problems import describe_responses
from services.api.resources import Reader, Resources, Rooms
from services.api.schemas import describe_job
from services.errors import RequestError, TemporaryError
from services.jobs.contract import JobRecord
from services.jobs.keys import Scope

LOOK_EVERY_S = 0.2
PROGRESS_GAP_S = 0.5
PING_S = 15.0
RETRY_MS = 2000

router = APIRouter(prefix="/v1/animations", tags=["animations"])
_log = structlog.get_logger(__name__)

_DESCRIPTION = """The first event is a `status` snapshot; then

- `status`: the whole job, whenever its status, stage, attempt or cancel mark changes;
- `progress`: `{id, status, stage, progress, frames_done, frames_total, eta_s}`, at most two a second;
- `preview`: `{image, frames_done}`, a frame as a `data:image/jpeg;base64,…` URL;
- `done`: the whole job at its end; then the stream ends.

`id:` is the job's revision. A client that comes back with `Last-Event-ID` gets what it has missed: the snapshot if
anything changed, nothing otherwise, and 204 when it has seen the end (an EventSource then stops)."""


@router.get(
    "/{job_id}/events",
    summary="Follow an animation",
    description=_DESCRIPTION,
    response_class=StreamingResponse,
    responses={
        200: {
            "description": "The events.",
            "content": {
                "text/event-stream": {
                    "schema": {"type": "string"},
                    "example": 'event: progress\ndata: {"id":"anm_…","progress":0.5}\nid: 12\n\n',
                }
            },
        },
        204: {"description": "The client has seen the end already."},
        **describe_responses("not-found", "rate-limited", "not-ready"),
    },
)
async def follow_animation(
    job_id: str,
    request: Request,
    rooms: Rooms,
    owner: Reader,
    last_event_id: Annotated[str | None, Header(description="The last id that the client has seen.")] = None,
) -> Response:
    """Stream the job's events until it ends."""
    record = await run_in_threadpool(find_job, rooms.store, job_id, owner)
    seen = _read_last_id(last_event_id, record)
    if record.terminal and seen == record.revision:
        return Response(status_code=204)
    rooms.looks.check_place(owner)
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    events = stream_events(rooms, record, seen, request)
    return StreamingResponse(events, headers=headers, media_type="text/event-stream")


def _read_last_id(header: str | None, record: JobRecord) -> int | None:
    """Return the revision that the client has seen, or None when it says none that can be true."""
    text = (header or "").strip()
    if not (text.isascii() and text.isdigit() and len(text) < 12):
        return None
    return int(text) if int(text) <= record.revision else None


@dataclass
class _Told:
    """What the client has been sent so far."""

    signature: tuple[object, ...] | None = None
    revision: int | None = None
    preview: bytes | None = None
    progress_at_s: float = float("-inf")

    def list_events(self, record: JobRecord, position: int | None, now_s: float) -> list[bytes]:
        """Return the events that bring the client to this record; none when it must wait for the next slot."""
        signature = (record.state, record.stage, record.attempt, record.cancel_requested)
        is_status = signature != self.signature
        if not is_status and now_s - self.progress_at_s < PROGRESS_GAP_S:
            return []
        events = self._list_preview(record)
        if record.terminal:
            # Only `done` carries the last id: a client that misses it must not seem to have seen the end.
            events += [_event("status", describe_job(record))] if self.signature is None else []
            events.append(_event("done", describe_job(record), record.revision))
        elif is_status:
            events.append(_event("status", describe_job(record, position), record.revision))
        else:
            events.append(_event("progress", _describe_progress(record), record.revision))
            self.progress_at_s = now_s
        self.signature, self.revision = signature, record.revision
        return events

    def _list_preview(self, record: JobRecord) -> list[bytes]:
        if record.preview_jpeg is None or record.preview_jpeg == self.preview or record.terminal:
            return []
        self.preview = record.preview_jpeg
        image = "data:image/jpeg;base64," + base64.b64encode(record.preview_jpeg).decode("ascii")
        # Without an id: the event that follows carries the revision, and a lost preview is no loss.
        return [_event("preview", {"image": image, "frames_done": record.frames_done})]


async def stream_events(
    rooms: Resources, record: JobRecord, seen: int | None, request: Request
) -> AsyncIterator[bytes]:
    """Yield the job's events from the revision that the client has seen until its end, and pings between them."""
    told = _Told()
    yield f"retry: {RETRY_MS}\n\n".encode()
    if seen == record.revision:
        told.signature = (record.state, record.stage, record.attempt, record.cancel_requested)
        told.revision, told.preview = record.revision, record.preview_jpeg
    with rooms.looks.follow(record) as follower:
        async for piece in _tell_changes(rooms, record, told, follower, request):
            yield piece


async def _tell_changes(
    rooms: Resources, record: JobRecord, told: _Told, follower: Follower, request: Request
) -> AsyncIterator[bytes]:
    store = rooms.store
    current: JobRecord | None = record
    written_at_s = time.monotonic()
    while True:
        if current is not None and current.revision != told.revision:
            position = await run_in_threadpool(find_position, store, current)
            events = told.list_events(current, position, time.monotonic())
            if events:
                yield b"".join(events)
                written_at_s = time.monotonic()
                if current.terminal:
                    return
        await follower.rest(rooms.looks.pace_s(LOOK_EVERY_S))
        if await request.is_disconnected():
            return
        if time.monotonic() - written_at_s >= PING_S:
            yield b": ping\n\n"
            written_at_s = time.monotonic()
        try:
            # A key that was revoked or has run out sees no more of a stream that it opened before.
            await rooms.authenticator.identify(request, [Scope.ANIMATIONS_READ])
            revision = await follower.revision()
            if revision is not None and revision != told.revision:
                current = await run_in_threadpool(store.get, record.id, record.owner)
                revision = None if current is None else revision
        except TemporaryError as error:
            # The stream outlives a pause of the database; the client sees pings meanwhile.
            _log.warning("events_waiting", code=error.code)
            continue
        except RequestError:
            return  # a reconnect is told with a 401
        if revision is None:  # removed while it was followed: a reconnect is told with a 404
            return


def _describe_progress(record: JobRecord) -> dict[str, Any]:
    whole = describe_job(record)
    names = ("id", "status", "stage", "progress", "frames_done", "frames_total", "eta_s")
    return {name: whole[name] for name in names}


def _event(name: str, data: dict[str, Any], revision: int | None = None) -> bytes:
    text = json.dumps(data, separators=(",", ":"), ensure_ascii=False)
    return format_sse_event(data_str=text, event=name, id=None if revision is None else str(revision))
