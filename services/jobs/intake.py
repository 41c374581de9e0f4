"""Accepting jobs: one transaction writes the job and the client's idempotency key, or refuses for want of room."""

from __future__ import annotations

import threading
import time
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert
from sqlalchemy.engine import Connection

from services.errors import RequestError, TemporaryError
from services.jobs.contract import AnimationOptions, InputFacts, JobRecord, JobState, json_safe
from services.jobs.database import Database
from services.jobs.fairness import insert_in_turn
from services.jobs.tables import idempotency, jobs, record_from_row

IDEMPOTENCY_TTL = timedelta(hours=24)
# A queue that is far from full need not be counted for every job.
_COUNT_EVERY_S = 1.0
_NEARLY_FULL = 0.9

# Built once: building a statement takes longer than running it.
_COUNT_QUEUED = sa.select(sa.func.count()).select_from(jobs).where(jobs.c.state == JobState.QUEUED)


class Intake(Database):
    """The job store's door; see ``Database`` for the arguments."""

    def __init__(self, url: str, **options: Any) -> None:
        super().__init__(url, **options)
        self._depth = _Depth()

    def accept(
        self,
        *,
        job_id: str,
        owner: str,
        options: AnimationOptions,
        input: InputFacts,
        seed: int,
        model_id: str,
        model_sha256: str | None = None,
        idempotency: tuple[str, str] | None = None,
        priority: int = 0,
        queue_limit: int | None = None,
        owner_limit: int | None = None,
        traceparent: str | None = None,
        now: datetime | None = None,
    ) -> tuple[JobRecord, bool]:
        """Write the job as ``queued``, durably, and return it with True; or an earlier job of the same key with False.

        Args:
            idempotency: (the client's key, SHA-256 of its body), remembered for 24 h for each owner.
            priority: smaller runs sooner among the owner's jobs.
            queue_limit: refuse when so many jobs are queued already.
            owner_limit: refuse when so many of this owner are.
            traceparent: W3C trace context, so that the worker's spans continue the request's trace.

        Raises: RequestError("idempotency-mismatch"), TemporaryError("queue-full"), TemporaryError("rate-limited") for
        ``owner_limit``, TemporaryError("not-ready").
        """
        row = {
            "id": job_id,
            "owner": owner,
            "priority": priority,
            "state": JobState.QUEUED,
            "cancel_requested": False,
            "revision": 1,
            "options": json_safe(options),
            "input": json_safe(input),
            "seed": seed,
            "model_id": model_id,
            "model_sha256": model_sha256,
            "progress": 0.0,
            "frames_done": 0,
            "frames_total": options.frames_total,
            "attempt": 0,
            "crashes": 0,
            "retries": 0,
            "metrics": {},
            "traceparent": traceparent,
        }
        with self._write() as connection:
            moment = self._now(connection) if now is None else now
            if idempotency is not None:
                earlier = self._remember_key(connection, owner, idempotency, job_id, moment)
                if earlier is not None:
                    return earlier, False
            if queue_limit is not None:
                self._check_room(connection, queue_limit)
            if owner_limit is not None:
                _check_share(connection, owner, owner_limit)
            deadline_at = None if options.deadline_s is None else moment + timedelta(seconds=options.deadline_s)
            times = {"created_at": moment, "not_before": moment, "deadline_at": deadline_at}
            insert_in_turn(connection, row | times)
        # The record as the row would give it back, without reading it.
        return JobRecord(
            id=job_id,
            owner=owner,
            state=JobState.QUEUED,
            revision=1,
            options=options,
            input=input,
            seed=seed,
            model_id=model_id,
            model_sha256=model_sha256,
            frames_total=options.frames_total,
            created_at=moment,
            traceparent=traceparent,
        ), True

    def find_accepted(self, owner: str, key: str, body_sha256: str) -> JobRecord | None:
        """Return the job that this idempotency key made before, so that a repeated body need not be stored again.

        Raises: RequestError("idempotency-mismatch") when the key came with another body.
        """
        with self._read() as connection:
            return self._job_of_key(connection, owner, key, body_sha256, self._now(connection))

    def _remember_key(
        self, connection: Connection, owner: str, key_and_hash: tuple[str, str], job_id: str, now: datetime
    ) -> JobRecord | None:
        """Claim the key for ``job_id``, or return the job that holds it. Two writers of one key wait for each other."""
        key, body_sha256 = key_and_hash
        connection.execute(
            sa.delete(idempotency).where(
                idempotency.c.owner == owner,
                idempotency.c.key == key,
                idempotency.c.created_at <= now - IDEMPOTENCY_TTL,
            )
        )
        insert = sqlite_insert if self.is_sqlite else postgresql_insert
        claimed = connection.execute(
            insert(idempotency)
            .values(owner=owner, key=key, body_sha256=body_sha256, job_id=job_id, created_at=now)
            .on_conflict_do_nothing()
        )
        if claimed.rowcount == 1:
            return None
        return self._job_of_key(connection, owner, key, body_sha256, now)

    @staticmethod
    def _job_of_key(connection: Connection, owner: str, key: str, body_sha256: str, now: datetime) -> JobRecord | None:
        row = (
            connection.execute(
                sa.select(idempotency.c.body_sha256, *jobs.c)
                .join_from(idempotency, jobs, jobs.c.id == idempotency.c.job_id)
                .where(
                    idempotency.c.owner == owner,
                    idempotency.c.key == key,
                    idempotency.c.created_at > now - IDEMPOTENCY_TTL,
                )
            )
            .mappings()
            .one_or_none()
        )
        if row is None:
            return None
        if row["body_sha256"] != body_sha256:
            raise RequestError(
                "idempotency-mismatch",
                "This Idempotency-Key was used within 24 hours with another body.",
                "Send the same body again, or use a new key for a new job.",
            )
        return record_from_row(row)

    def _check_room(self, connection: Connection, queue_limit: int) -> None:
        queued = self._depth.remembered(queue_limit)
        if queued is None:
            queued = connection.execute(_COUNT_QUEUED).scalar_one()
            self._depth.remember(queued)
        if queued >= queue_limit:
            raise TemporaryError(
                "queue-full",
                f"{queued} jobs are waiting, and this service queues no more than {queue_limit}.",
                "Try again later, or add workers.",
                delay_s=30.0,
            )


def _check_share(connection: Connection, owner: str, owner_limit: int) -> None:
    queued = sa.select(sa.literal(1)).where(jobs.c.state == JobState.QUEUED, jobs.c.owner == owner)
    count = sa.select(sa.func.count()).select_from(queued.limit(owner_limit).subquery())
    if connection.execute(count).scalar_one() >= owner_limit:
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
