"""Finds a job for its owner, and answers with it: the two things that every route of a job does."""

from __future__ import annotations

from starlette.responses import JSONResponse, Response

from services.api.conditional import make_etag, matches
from services.api.schemas import PREFIX, describe_job
from services.errors import RequestError
from services.jobs.contract import JobRecord, JobState, is_job_id
from services.jobs.store import JobStore

RETRY_AFTER_S = 1


def find_job(store: JobStore, job_id: str, owner: str) -> JobRecord:
    """Return the owner's job.

    Raises:
        RequestError: not-found, also for what can't be an id and for another owner's job.
    """
    record = store.get(job_id, owner) if is_job_id(job_id) else None
    if record is None:
        raise RequestError(
            "not-found", "There is no animation with this id.", "Check the id; removed jobs are gone for good."
        )
    return record


def find_position(store: JobStore, record: JobRecord) -> int | None:
    """Return the job's place in the queue, 1 is next; None when it is not queued."""
    return store.queue_position(record.id) if record.state is JobState.QUEUED else None


def answer_job(
    record: JobRecord,
    position: int | None,
    *,
    status: int = 200,
    headers: dict[str, str] | None = None,
    if_none_match: str | None = None,
) -> Response:
    """Return the job as a response with its ETag, or 304 to a client that holds this version."""
    etag = make_etag(record.revision, position)
    headers = {"ETag": etag, "Cache-Control": "private, no-cache", **(headers or {})}
    if not record.terminal:
        headers.setdefault("Retry-After", str(RETRY_AFTER_S))
    if matches(if_none_match, etag):
        return Response(status_code=304, headers=headers)
    if status in (201, 202):
        headers["Location"] = f"{PREFIX}/{record.id}"
    return JSONResponse(describe_job(record, position), status, headers=headers)
