"""Accepts a job: input stored and synced, one transaction, then a hint. What was answered with 202 is never lost.

Knows the rooms below; no HTTP. The transaction, which requests share, is the ``desk``'s.
"""

from __future__ import annotations

import structlog
from starlette.concurrency import run_in_threadpool

from services.api.desk import Candidate
from services.api.jobs import find_position
from services.api.resources import Resources
from services.api.uploads import Submission
from services.errors import AnimatoError
from services.jobs.contract import FaceFacts, InputFacts, make_job_id
from services.jobs.intake import Taken
from services.storage import input_key
from services.tracing import current_traceparent, open_span

_log = structlog.get_logger(__name__)


async def accept_job(
    rooms: Resources, owner: str, submission: Submission, faces: list[FaceFacts], key: str | None
) -> Taken:
    """Make a job of a submission, or find the earlier job of the same idempotency key.

    Args:
        faces: what was found in the submission's picture.

    Raises:
        RequestError: model-unknown, idempotency-mismatch, idempotency-conflict.
        TemporaryError: queue-full, rate-limited, storage-failed, not-ready; nothing is queued then.
    """
    traceparent = current_traceparent()  # of the request, and not of one of its parts
    job_id, facts = make_job_id(), InputFacts()
    if submission.picture is not None:
        stored = await run_in_threadpool(_store_input, rooms, job_id, owner, submission, faces, key)
        if isinstance(stored, Taken):
            return stored
        facts = stored
    candidate = Candidate(job_id, owner, submission, facts, key, traceparent)
    try:
        with open_span("write job", attributes={"animato.job.id": job_id}):
            taken = await rooms.desk.hand_in(candidate)
    except AnimatoError:
        settled = await run_in_threadpool(_settle, rooms, job_id, facts)
        if settled is None:
            raise
        taken = settled
    if not taken.created and facts.key is not None:
        await run_in_threadpool(_remove_orphan, rooms, facts)
    return taken


def find_earlier(rooms: Resources, owner: str, submission: Submission, key: str | None) -> Taken | None:
    """Return the job that the same request with the same idempotency key has made before.

    Raises:
        RequestError: idempotency-mismatch, idempotency-conflict.
        TemporaryError: not-ready.
    """
    record = None if key is None else rooms.store.find_accepted(owner, key, submission.body_sha256)
    return None if record is None else Taken(record, False, find_position(rooms.store, record))


def _store_input(
    rooms: Resources, job_id: str, owner: str, submission: Submission, faces: list[FaceFacts], key: str | None
) -> InputFacts | Taken:
    """Store a picture and return its facts; or the job that the same request has made before: it is stored already."""
    rooms.catalogue.choose(submission.options.model)
    earlier = find_earlier(rooms, owner, submission, key)
    if earlier is not None:
        return earlier
    picture = submission.picture
    assert picture is not None
    stored_at = input_key(job_id, picture.sha256)
    with open_span("store picture", attributes={"animato.job.id": job_id}):
        rooms.storage.put(stored_at, picture.png, "image/png")
    return InputFacts(key=stored_at, sha256=picture.sha256, width=picture.width, height=picture.height, faces=faces)


def _settle(rooms: Resources, job_id: str, facts: InputFacts) -> Taken | None:
    """Find out what became of a transaction that failed: it may have been committed and only its answer lost.

    Returns the job when it is there. The input is removed only when it is certain that no job names it; where the
    database stays silent the input stays, and is collected with the other orphans.
    """
    try:
        record = rooms.store.get(job_id)
        if record is not None:
            rooms.dispatcher.hint(record.id)
            return Taken(record, True, find_position(rooms.store, record))
    except AnimatoError:
        return None
    _remove_orphan(rooms, facts)
    return None


def _remove_orphan(rooms: Resources, facts: InputFacts) -> None:
    if facts.key is None:
        return
    try:
        rooms.storage.delete([facts.key])
    except AnimatoError as error:
        _log.warning("orphan_left", code=error.code)
