"""The routes of ``/v1/animations``: accept, list, look, cancel, delete. Thin: every rule lives in another room."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Annotated, Any, NoReturn

import structlog
from anyio import to_thread
from fastapi import APIRouter, Header, Query, Request
from pydantic import AfterValidator, AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field
from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse, Response

from services.api.acceptance import accept_job, find_earlier
from services.api.bodies import read_whole
from services.api.faces import look_for_faces
from services.api.forms import REQUEST_BODY
from services.api.idempotency import HEADER as IDEMPOTENCY_HEADER
from services.api.idempotency import read_key
from services.api.jobs import answer_job, find_job, find_position
from services.api.paging import LINK_HEADER, link_next
from services.api.problems import describe_responses
from services.api.resources import Poster, Reader, Resources, Rooms, Writer
from services.api.schemas import PREFIX, Animation, AnimationList, describe_job
from services.api.uploads import Submission, add_picture, read_submission
from services.api.waiting import wait_as_asked
from services.api.webhooks import prepare_webhook
from services.errors import AnimatoError
from services.jobs.contract import FaceFacts, JobState
from services.jobs.intake import Taken

# What is parsed in less time than it takes to hand it to a thread.
MAX_SMALL_BYTES = 4096

router = APIRouter(prefix=PREFIX, tags=["animations"])
_log = structlog.get_logger(__name__)

_ACCEPT_PROBLEMS = (
    "bad-request",
    "idempotency-conflict",
    "payload-too-large",
    "unsupported-media-type",
    "validation-failed",
    "model-unknown",
    "image-corrupt",
    "image-too-small",
    "image-too-large",
    "no-face",
    "multiple-faces",
    "face-too-small",
    "face-unusable",
    "source-forbidden-address",
    "source-unreachable",
    "idempotency-mismatch",
    "rate-limited",
    "queue-full",
    "not-ready",
    "storage-failed",
)
_ETAG_HEADER = {"ETag": {"description": "Weak; changes with the job.", "schema": {"type": "string"}}}
_JOB_HEADERS = {
    **_ETAG_HEADER,
    "Location": {"description": "The job's URL.", "schema": {"type": "string"}},
    "Retry-After": {"description": "Seconds until the next look.", "schema": {"type": "integer"}},
    "Preference-Applied": {"description": "The wait that was applied.", "schema": {"type": "string"}},
}

Prefer = Annotated[
    list[str] | None,
    Header(description="`wait=N`: answer when the job has ended, at the latest after N seconds (at most 60)."),
]


def _to_utc(moment: datetime) -> datetime:
    try:
        return moment.astimezone(UTC)
    except OverflowError as error:
        raise ValueError("Input is out of range") from error


def _expect_date(given: Any) -> Any:
    """Refuse bare numbers, which the parser would take for seconds since 1970."""
    if isinstance(given, str) and not re.match(r"[0-9]{4}-", given):
        raise ValueError("Input should be a date and a time as RFC 3339 writes them")
    return given


class ListQuery(BaseModel):
    """What to list."""

    model_config = ConfigDict(extra="forbid")

    limit: int = Field(20, ge=1, le=100)
    cursor: str | None = Field(None, max_length=512, description="`next_cursor` of the page before.")
    status: JobState | None = None
    created_after: Annotated[AwareDatetime, BeforeValidator(_expect_date), AfterValidator(_to_utc)] | None = Field(
        None, description="RFC 3339 with a time zone."
    )


@router.post(
    "",
    status_code=202,
    response_model=Animation,
    summary="Animate a face",
    openapi_extra={"requestBody": REQUEST_BODY},
    responses={
        201: {
            "model": Animation,
            "description": "Accepted, and ended within the time that `Prefer: wait` gave.",
            "headers": _JOB_HEADERS,
        },
        202: {"description": "Accepted: the job is stored and will run.", "headers": _JOB_HEADERS},
        **describe_responses(*_ACCEPT_PROBLEMS),
    },
)
async def create_animation(
    request: Request,
    rooms: Rooms,
    client: Poster,
    idempotency_key: Annotated[
        str | None,
        Header(
            alias=IDEMPOTENCY_HEADER,
            description="Repeats within 24 h with the same body return the first job.",
            json_schema_extra={"pattern": "^[!-~]([ -~]{0,253}[!-~])?$"},
        ),
    ] = None,
    prefer: Prefer = None,
) -> Response:
    """Accept one face (or none, with `source: sampled`) and one sentence; everything is checked before it is queued."""
    key = read_key(idempotency_key)
    accepted = await _accept(request, rooms, client.owner, key)
    record, position = accepted.record, accepted.place
    request.state.job_id = record.id  # for the request's line in the log
    headers = {} if accepted.created else {"Idempotent-Replayed": "true"}
    record = await wait_as_asked(rooms, record, prefer, request, headers)
    status = 202
    if "Preference-Applied" in headers:
        position = await run_in_threadpool(find_position, rooms.store, record)
        status = 201 if record.terminal else 202
    if status == 202:
        headers["Retry-After"] = "1"
    return answer_job(record, position, status=status, headers=headers)


async def _accept(request: Request, rooms: Resources, owner: str, key: str | None) -> Taken:
    """Read, check and store a request; keeps nothing of its body while the client waits for the job."""
    rooms.room.check()  # a full disk is told before anything is sent to it
    with rooms.bodies.hold(owner) as share:
        body = await read_whole(request, share)
        return await _accept_body(request, rooms, owner, key, body)


async def _accept_body(request: Request, rooms: Resources, owner: str, key: str | None, body: bytes) -> Taken:
    content_type = request.headers.get("Content-Type", "")
    # A hop to a thread costs more than most checks: one where a picture is decoded, one to wait for each disk.
    small = _check_small(body, content_type)
    if small is None:
        submission, faces = await to_thread.run_sync(_check, rooms, body, content_type, limiter=rooms.decoders)
    else:
        submission, faces = small, []
    if submission.options.webhook is not None:
        await run_in_threadpool(prepare_webhook, rooms, owner, submission.options.webhook)
    if submission.image_url is not None:
        earlier = await run_in_threadpool(find_earlier, rooms, owner, submission, key)
        if earlier is not None:
            return earlier
        # Nobody is called for a request that can't become a job.
        await run_in_threadpool(rooms.catalogue.choose, submission.options.model)
        image = await rooms.sources.fetch(owner, submission.image_url)
        submission, faces = await to_thread.run_sync(_check_fetched, rooms, submission, image, limiter=rooms.decoders)
    return await accept_job(rooms, owner, submission, faces, key)


def _check_small(body: bytes, content_type: str) -> Submission | None:
    """Read a small request without a picture at once, on the event loop; None: it needs a thread."""
    if len(body) > MAX_SMALL_BYTES:
        return None
    try:
        return read_submission(body, content_type, _leave_to_thread)
    except _PictureFoundError:
        return None


def _leave_to_thread(_image: bytes) -> NoReturn:
    raise _PictureFoundError


class _PictureFoundError(Exception):
    """The request has a picture, and decoding takes too long for the event loop."""


def _check(rooms: Resources, body: bytes, content_type: str) -> tuple[Submission, list[FaceFacts]]:
    submission = read_submission(body, content_type, rooms.pictures.clean)
    return submission, look_for_faces(rooms, submission)


def _check_fetched(rooms: Resources, submission: Submission, image: bytes) -> tuple[Submission, list[FaceFacts]]:
    submission = add_picture(submission, image, rooms.pictures.clean)
    return submission, look_for_faces(rooms, submission)


@router.get(
    "",
    response_model=AnimationList,
    summary="List animations",
    responses={
        200: {"headers": LINK_HEADER},
        **describe_responses("validation-failed", "not-ready"),
    },
)
def list_animations(rooms: Rooms, owner: Reader, query: Annotated[ListQuery, Query()]) -> Response:
    """List your jobs, newest first."""
    records, next_cursor = rooms.store.list_page(owner, query.limit, query.cursor, query.status, query.created_after)
    data = [describe_job(record, find_position(rooms.store, record)) for record in records]
    headers = {"Cache-Control": "private, no-cache"} | link_next(PREFIX, query, next_cursor)
    return JSONResponse({"object": "list", "data": data, "next_cursor": next_cursor}, headers=headers)


@router.head("/{job_id}", include_in_schema=False)
@router.get(
    "/{job_id}",
    response_model=Animation,
    summary="Look at an animation",
    responses={
        200: {"headers": _ETAG_HEADER},
        304: {"description": "Nothing has changed since the ETag of `If-None-Match`."},
        **describe_responses("not-found", "not-ready"),
    },
)
async def get_animation(
    job_id: str,
    request: Request,
    rooms: Rooms,
    owner: Reader,
    prefer: Prefer = None,
    if_none_match: Annotated[str | None, Header(description="An ETag of an earlier answer.")] = None,
) -> Response:
    """Return the job as it stands, or once it has ended with `Prefer: wait=N`."""
    record = await run_in_threadpool(find_job, rooms.store, job_id, owner)
    headers: dict[str, str] = {}
    record = await wait_as_asked(rooms, record, prefer, request, headers)
    position = await run_in_threadpool(find_position, rooms.store, record)
    return answer_job(record, position, headers=headers, if_none_match=if_none_match)


@router.post(
    "/{job_id}/cancel",
    response_model=Animation,
    summary="Cancel an animation",
    responses={200: {"headers": _ETAG_HEADER}, **describe_responses("not-found", "not-cancelable", "not-ready")},
)
def cancel_animation(job_id: str, rooms: Rooms, owner: Writer) -> Response:
    """Cancel a queued job at once; a running one stops between two frames and shows `cancel_requested` until then."""
    record = find_job(rooms.store, job_id, owner)
    record = rooms.store.request_cancel(record.id, owner)
    return answer_job(record, find_position(rooms.store, record))


@router.delete(
    "/{job_id}",
    status_code=204,
    response_class=Response,
    summary="Delete an animation",
    responses={204: {"description": "Removed."}, **describe_responses("not-found", "job-active", "not-ready")},
)
def delete_animation(job_id: str, rooms: Rooms, owner: Writer) -> Response:
    """Remove an ended job with its picture and its result, for good."""
    record = find_job(rooms.store, job_id, owner)
    rooms.store.delete(record.id, owner)
    try:
        rooms.storage.delete_job(record.id)
        rooms.store.unbury([record.id])
    except AnimatoError as error:
        # The job is gone, and its tombstone tells the sweepers what is left to remove.
        _log.warning("objects_left", job_id=record.id, code=error.code)
    return Response(status_code=204)
