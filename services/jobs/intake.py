"""Accepting jobs: one transaction writes jobs and their clients' idempotency keys, or refuses for want of room."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from typing import Any, NamedTuple

import sqlalchemy as sa
import structlog
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert
from sqlalchemy.engine import Connection

from services.errors import AnimatoError, RequestError, TemporaryError
from services.jobs.contract import AnimationOptions, InputFacts, JobRecord, JobState, json_safe
from services.jobs.database import Database
from services.jobs.fairness import find_places, insert_in_turn
from services.jobs.tables import idempotency, jobs, record_from_row

IDEMPOTENCY_TTL = timedelta(hours=24)
# A queue that is far from full need not be counted for every job.
_COUNT_EVERY_S = 1.0
_NEARLY_FULL = 0.9

_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class NewJob:
    """A job that asks to be accepted.

    Args:
        idempotency: (the client's key, SHA-256 of its body), remembered for 24 h for each owner.
        priority: smaller runs sooner among the owner's jobs.
        queue_limit: refuse when so many jobs are queued already.
        owner_limit: refuse when so many of this owner are.
        traceparent: W3C trace context, so that the worker's spans continue the request's trace.
    """

    id: str
    owner: str
    options: AnimationOptions
    input: InputFacts
    seed: int
    model_id: str
    model_sha256: str | None = None
    idempotency: tuple[str, str] | None = None
    priority: int = 0
    queue_limit: int | None = None
    owner_limit: int | None = None
    traceparent: str | None = None


class Taken(NamedTuple):
    """The job of a newcomer, whether it is new (or the earlier one of the same key), and its place if it is queued."""

    record: JobRecord
    created: bool
    place: int | None


class Intake(Database):
    """The job store's door; see ``Database`` for the arguments."""

    def __init__(self, url: str, **options: Any) -> None:
        super().__init__(url, **options)
        self._depth = _Depth()

    def accept(self, *, job_id: str, now: datetime | None = None, **asked: Any) -> tuple[JobRecord, bool]:
        """Write one job as ``queued``, durably, and return it with True; or an earlier job of the same key with False.

        Args:
            job_id: its id.
            now: when it came; default: now.
            asked: the other fields of ``NewJob``.

        Raises: RequestError("idempotency-mismatch"), TemporaryError("queue-full"), TemporaryError("rate-limited") for
        ``owner_limit``, TemporaryError("not-ready").
        """
        (taken,) = self._take_in([NewJob(id=job_id, **asked)], now)
        if isinstance(taken, AnimatoError):
            raise taken
        return taken.record, taken.created

    def accept_all(self, newcomers: Sequence[NewJob]) -> list[Taken | Exception]:
        """Write jobs in one transaction, each as ``accept`` does; returns what that finds or raises for each.

        Nobody is refused for another's job: where the database objects to what is written, they are taken one by one.
        An outage is everybody's.
        """
        try:
            return list(self._take_in(newcomers))
        except AnimatoError as error:
            return [error] * len(newcomers)
        except Exception as error:  # noqa: BLE001 - handed to the one whose it is
            if len(newcomers) == 1:
                return [error]
            _log.warning("taken_one_by_one", jobs=len(newcomers), exc_info=error)
        return [taken for newcomer in newcomers for taken in self.accept_all([newcomer])]

    def find_accepted(self, owner: str, key: str, body_sha256: str) -> JobRecord | None:
        """Return the job that this idempotency key made before, so that a repeated body need not be stored again.

        Raises: RequestError("idempotency-mismatch") when the key came with another body.
        """
        with self._read() as connection:
            return _job_of_key(connection, owner, key, body_sha256, self._now(connection))

    def _take_in(self, newcomers: Sequence[NewJob], now: datetime | None = None) -> Sequence[Taken | AnimatoError]:
        with self._write() as connection:
            desk = _Desk(connection, self._now(connection) if now is None else now, self._depth)
            judged = [desk.judge(newcomer) for newcomer in newcomers]
            desk.write()
            # Counted here: the connection that writes has the queue in its cache, every other must read it anew.
            places = find_places(connection, [found[0].id for found in judged if isinstance(found, tuple)])
        return [Taken(*found, places.get(found[0].id)) if isinstance(found, tuple) else found for found in judged]


class _Desk:
    """One transaction that takes jobs in. Who is refused has written nothing that others would have to undo."""

    def __init__(self, connection: Connection, now: datetime, depth: _Depth) -> None:
        self._connection = connection
        self._now = now
        self._depth = depth
        self._rows: list[dict[str, Any]] = []
        self._of_owner: Counter[str] = Counter()
        self._of_key: dict[tuple[str, str], tuple[str, JobRecord]] = {}

    def judge(self, newcomer: NewJob) -> tuple[JobRecord, bool] | AnimatoError:
        """Return what becomes of one job, and whether it is new; it is in the database after ``write``."""
        try:
            earlier = self._find_earlier(newcomer)
            if earlier is None:
                self._check_room(newcomer)
                earlier = self._claim_key(newcomer)
        except AnimatoError as refusal:
            return refusal
        if earlier is not None:
            return earlier, False
        # A microsecond apart, so that lists and turns show them in the order in which they came.
        moment = self._now + timedelta(microseconds=len(self._rows))
        record = _make_record(newcomer, moment)
        self._rows.append(_make_row(newcomer, moment))
        self._of_owner[newcomer.owner] += 1
        if newcomer.idempotency is not None:
            key, body_sha256 = newcomer.idempotency
            self._of_key[newcomer.owner, key] = body_sha256, record
        return record, True

    def write(self) -> None:
        """Write the jobs that were not refused."""
        if self._rows:
            insert_in_turn(self._connection, self._rows)

    def _find_earlier(self, newcomer: NewJob) -> JobRecord | None:
        if newcomer.idempotency is None:
            return None
        key, body_sha256 = newcomer.idempotency
        twin = self._of_key.get((newcomer.owner, key))
        if twin is None:
            return _job_of_key(self._connection, newcomer.owner, key, body_sha256, self._now)
        if twin[0] != body_sha256:
            raise _mismatch()
        return twin[1]

    def _claim_key(self, newcomer: NewJob) -> JobRecord | None:
        """Claim the key for a job, or return the one that holds it. Two transactions of one key wait for each other."""
        if newcomer.idempotency is None:
            return None
        key, body_sha256 = newcomer.idempotency
        named = {"of_owner": newcomer.owner, "of_key": key}
        self._connection.execute(_FORGET_KEY, named | {"until": self._now - IDEMPOTENCY_TTL})
        row = {"owner": newcomer.owner, "key": key, "body_sha256": body_sha256}
        claimed = self._connection.execute(
            _claim_statement(self._connection.dialect.name), row | {"job_id": newcomer.id, "created_at": self._now}
        )
        if claimed.rowcount == 1:
            return None
        return _job_of_key(self._connection, newcomer.owner, key, body_sha256, self._now)

    def _check_room(self, newcomer: NewJob) -> None:
        if newcomer.owner_limit is not None:
            self._check_share(newcomer.owner, newcomer.owner_limit)
        if newcomer.queue_limit is None:
            return
        queued = self._depth.remembered(newcomer.queue_limit)
        if queued is None:
            queued = self._connection.execute(_COUNT_QUEUED).scalar_one() + len(self._rows)
            self._depth.remember(queued)
        if queued >= newcomer.queue_limit:
            raise TemporaryError(
                "queue-full",
                f"{queued} jobs are waiting, and this service queues no more than {newcomer.queue_limit}.",
                "Try again later, or add workers.",
                delay_s=30.0,
            )

    def _check_share(self, owner: str, owner_limit: int) -> None:
        queued = self._connection.execute(_COUNT_OWNERS, {"of_owner": owner, "most": owner_limit}).scalar_one()
        if queued + self._of_owner[owner] >= owner_limit:
            raise TemporaryError(
                "rate-limited",
                f"{owner_limit} of your jobs are waiting already.",
                "Wait until some have run, or cancel what is not wanted any more.",
                delay_s=10.0,
            )


class _Depth:
    """How many jobs were queued a moment ago, and how many this process has added since. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._queued = 0
        self._counted_at_s = float("-inf")

    def remembered(self, limit: int) -> int | None:
        """Return the count, and add a job to it; None where it is old or so near the limit that it matters."""
        with self._lock:
            if time.monotonic() - self._counted_at_s > _COUNT_EVERY_S or self._queued >= _NEARLY_FULL * limit:
                return None
            self._queued += 1
            return self._queued - 1

    def remember(self, queued: int) -> None:
        """Keep what was counted; one more is added now."""
        with self._lock:
            self._queued = queued + 1
            self._counted_at_s = time.monotonic()


# Statements are built once: building one takes longer than running it.
_COUNT_QUEUED = sa.select(sa.func.count()).select_from(jobs).where(jobs.c.state == JobState.QUEUED)
_COUNT_OWNERS = sa.select(sa.func.count()).select_from(
    sa.select(sa.literal(1).label("one"))
    .where(jobs.c.state == JobState.QUEUED, jobs.c.owner == sa.bindparam("of_owner"))
    .limit(sa.bindparam("most", type_=sa.Integer))
    .subquery()
)
_OF_KEY = (idempotency.c.owner == sa.bindparam("of_owner"), idempotency.c.key == sa.bindparam("of_key"))
_UNTIL = sa.bindparam("until", type_=idempotency.c.created_at.type)
_FORGET_KEY = sa.delete(idempotency).where(*_OF_KEY, idempotency.c.created_at <= _UNTIL)
_JOB_OF_KEY = (
    sa.select(idempotency.c.body_sha256, *jobs.c)
    .join_from(idempotency, jobs, jobs.c.id == idempotency.c.job_id)
    .where(*_OF_KEY, idempotency.c.created_at > _UNTIL)
)


@cache
def _claim_statement(dialect: str) -> sa.Insert:
    insert = sqlite_insert if dialect == "sqlite" else postgresql_insert
    return insert(idempotency).on_conflict_do_nothing()


def _job_of_key(connection: Connection, owner: str, key: str, body_sha256: str, now: datetime) -> JobRecord | None:
    sought = {"of_owner": owner, "of_key": key, "until": now - IDEMPOTENCY_TTL}
    row = connection.execute(_JOB_OF_KEY, sought).mappings().one_or_none()
    if row is None:
        return None
    if row["body_sha256"] != body_sha256:
        raise _mismatch()
    return record_from_row(row)


def _mismatch() -> RequestError:
    return RequestError(
        "idempotency-mismatch",
        "This Idempotency-Key was used within 24 hours with another body.",
        "Send the same body again, or use a new key for a new job.",
    )


def _make_record(newcomer: NewJob, now: datetime) -> JobRecord:
    """Return the record as the row would give it back, without reading it."""
    return JobRecord(
        id=newcomer.id,
        owner=newcomer.owner,
        state=JobState.QUEUED,
        revision=1,
        options=newcomer.options,
        input=newcomer.input,
        seed=newcomer.seed,
        model_id=newcomer.model_id,
        model_sha256=newcomer.model_sha256,
        frames_total=newcomer.options.frames_total,
        created_at=now,
        traceparent=newcomer.traceparent,
    )


def _make_row(newcomer: NewJob, now: datetime) -> dict[str, Any]:
    deadline_s = newcomer.options.deadline_s
    return {
        "id": newcomer.id,
        "owner": newcomer.owner,
        "priority": newcomer.priority,
        "state": JobState.QUEUED,
        "cancel_requested": False,
        "revision": 1,
        "options": json_safe(newcomer.options),
        "input": json_safe(newcomer.input),
        "seed": newcomer.seed,
        "model_id": newcomer.model_id,
        "model_sha256": newcomer.model_sha256,
        "progress": 0.0,
        "frames_done": 0,
        "frames_total": newcomer.options.frames_total,
        "attempt": 0,
        "crashes": 0,
        "retries": 0,
        "metrics": {},
        "traceparent": newcomer.traceparent,
        "created_at": now,
        "not_before": now,
        "deadline_at": None if deadline_s is None else now + timedelta(seconds=deadline_s),
    }
