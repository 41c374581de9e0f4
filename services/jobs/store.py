"""The job store: the sole truth of every job, in SQLite or PostgreSQL.

This file is the client's half: accept, look, list, cancel, delete. ``attempts`` is the worker's half, ``sweeps`` the
mending, ``roster`` the list of living workers, ``deliveries`` the webhooks on their way, ``database`` the connection.
No HTTP, no Celery, no storage in here.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, Self

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert
from sqlalchemy.engine import Connection

from services.errors import RequestError, TemporaryError
from services.jobs.attempts import LeaseLost
from services.jobs.contract import AnimationOptions, InputFacts, JobRecord, JobState, json_safe
from services.jobs.cursors import make_cursor, read_cursor
from services.jobs.deliveries import Deliveries
from services.jobs.keys import Keys
from services.jobs.outbox import announce, forget
from services.jobs.roster import Roster, WorkerRecord
from services.jobs.sweeps import SweepReport, Sweeps, stored_keys
from services.jobs.tables import PAGE_COLUMNS, idempotency, jobs, record_from_row
from services.jobs.webhook_secrets import WebhookSecrets
from services.settings import Settings

__all__ = ["JobStore", "LeaseLost", "SweepReport", "WorkerRecord"]

IDEMPOTENCY_TTL = timedelta(hours=24)
MAX_PAGE = 100


class JobStore(Sweeps, Roster, Keys, Deliveries, WebhookSecrets):
    """All that anybody may do to a job. Thread-safe; one per process."""

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        """Return the store that the settings name; call ``migrate`` before anything else."""
        return cls(
            settings.resolved_database_url,
            max_crashes=settings.max_crashes,
            max_retries=settings.max_retries,
            result_ttl_s=settings.result_ttl_s,
        )

    # -- accepting ----------------------------------------------------------------------------------------------------

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
            priority: smaller runs sooner.
            queue_limit: refuse when so many jobs are queued already.
            owner_limit: refuse when so many of this owner are.
            traceparent: W3C trace context, so that the worker's spans continue the request's trace.

        Raises: RequestError("idempotency-mismatch"), TemporaryError("queue-full"), TemporaryError("rate-limited") for
        ``owner_limit``, TemporaryError("not-ready").
        """
        with self._write() as connection:
            moment = self._now(connection) if now is None else now
            if idempotency is not None:
                earlier = self._remember_key(connection, owner, idempotency, job_id, moment)
                if earlier is not None:
                    return earlier, False
            if queue_limit is not None:
                self._check_room(connection, queue_limit)
            if owner_limit is not None:
                self._check_share(connection, owner, owner_limit)
            deadline_s = options.deadline_s
            row = (
                connection.execute(
                    sa.insert(jobs)
                    .values(
                        id=job_id,
                        owner=owner,
                        priority=priority,
                        state=JobState.QUEUED,
                        cancel_requested=False,
                        revision=1,
                        options=json_safe(options),
                        input=json_safe(input),
                        seed=seed,
                        model_id=model_id,
                        model_sha256=model_sha256,
                        progress=0.0,
                        frames_done=0,
                        frames_total=options.frames_total,
                        attempt=0,
                        crashes=0,
                        retries=0,
                        created_at=moment,
                        not_before=moment,
                        deadline_at=None if deadline_s is None else moment + timedelta(seconds=deadline_s),
                        metrics={},
                        traceparent=traceparent,
                    )
                    .returning(*jobs.c)
                )
                .mappings()
                .one()
            )
            return record_from_row(row), True

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

    @staticmethod
    def _check_room(connection: Connection, queue_limit: int) -> None:
        queued = connection.execute(
            sa.select(sa.func.count()).select_from(jobs).where(jobs.c.state == JobState.QUEUED)
        ).scalar_one()
        if queued >= queue_limit:
            raise TemporaryError(
                "queue-full",
                f"{queued} jobs are waiting, and this service queues no more than {queue_limit}.",
                "Try again later, or add workers.",
                delay_s=30.0,
            )

    @staticmethod
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

    # -- looking ------------------------------------------------------------------------------------------------------

    def get(self, job_id: str, owner: str | None = None) -> JobRecord | None:
        """Return the job, or None when there is none or it is another owner's."""
        with self._read() as connection:
            row = connection.execute(_owned(sa.select(*jobs.c), job_id, owner)).mappings().one_or_none()
        return None if row is None else record_from_row(row)

    def revision(self, job_id: str, owner: str | None = None) -> int | None:
        """Return the job's revision alone: what a stream of events asks many times a second."""
        with self._read() as connection:
            return connection.execute(_owned(sa.select(jobs.c.revision), job_id, owner)).scalar_one_or_none()

    def list_page(
        self,
        owner: str | None,
        limit: int = 20,
        cursor: str | None = None,
        status: JobState | None = None,
        created_after: datetime | None = None,
    ) -> tuple[list[JobRecord], str | None]:
        """Return one page, newest first and without previews, and the cursor of the next page or None.

        Pages are cut by (created_at, id), so jobs that arrive meanwhile neither repeat nor hide any.
        Raises: RequestError("validation-failed") for a cursor that this method did not make.
        """
        limit = max(1, min(MAX_PAGE, limit))
        query = sa.select(*PAGE_COLUMNS).order_by(jobs.c.created_at.desc(), jobs.c.id.desc()).limit(limit + 1)
        if owner is not None:
            query = query.where(jobs.c.owner == owner)
        if status is not None:
            query = query.where(jobs.c.state == status)
        if created_after is not None:
            query = query.where(jobs.c.created_at > created_after)
        if cursor is not None:
            created_at, job_id = read_cursor(cursor)
            query = query.where(
                sa.or_(jobs.c.created_at < created_at, sa.and_(jobs.c.created_at == created_at, jobs.c.id < job_id))
            )
        with self._read() as connection:
            records = [record_from_row(row) for row in connection.execute(query).mappings()]
        if len(records) <= limit:
            return records, None
        records = records[:limit]
        return records, make_cursor(records[-1].created_at, records[-1].id)

    def queue_position(self, job_id: str) -> int | None:
        """Return the job's place among the queued ones, 1 = next; None when it is not queued."""
        ahead = jobs.alias("ahead")
        place = (
            sa.select(sa.func.count())
            .select_from(ahead)
            .where(
                ahead.c.state == JobState.QUEUED,
                sa.or_(
                    ahead.c.priority < jobs.c.priority,
                    sa.and_(ahead.c.priority == jobs.c.priority, ahead.c.created_at < jobs.c.created_at),
                    sa.and_(
                        ahead.c.priority == jobs.c.priority,
                        ahead.c.created_at == jobs.c.created_at,
                        ahead.c.id <= jobs.c.id,
                    ),
                ),
            )
            .scalar_subquery()
        )
        with self._read() as connection:
            return connection.execute(
                sa.select(place).where(jobs.c.id == job_id, jobs.c.state == JobState.QUEUED)
            ).scalar_one_or_none()

    def counts(self) -> dict[str, int]:
        """Return how many jobs stand in each state, zeros included."""
        with self._read() as connection:
            rows = connection.execute(
                sa.select(jobs.c.state, sa.func.count().label("jobs")).group_by(jobs.c.state)
            ).all()
        return {state.value: 0 for state in JobState} | {row.state: row.jobs for row in rows}

    def totals(self) -> list[tuple[str, str, str, int]]:
        """Return (state, error code or "", model id, number) of all ended jobs."""
        code = jobs.c.error["code"].as_string()
        with self._read() as connection:
            rows = connection.execute(
                sa.select(jobs.c.state, code.label("code"), jobs.c.model_id, sa.func.count().label("jobs"))
                .where(jobs.c.state.not_in([JobState.QUEUED, JobState.RUNNING]))
                .group_by(jobs.c.state, code, jobs.c.model_id)
            ).all()
        return [(row.state, row.code or "", row.model_id, row.jobs) for row in rows]

    # -- ending -------------------------------------------------------------------------------------------------------

    def request_cancel(self, job_id: str, owner: str | None = None) -> JobRecord:
        """Cancel a queued job at once, or mark a running one for its worker; asking again changes nothing.

        Raises: RequestError("not-found"), RequestError("not-cancelable") for a job that has ended.
        """
        with self._write() as connection:
            now = self._now(connection)
            # The guards decide, not what was read before: a claim may come between.
            ended = connection.execute(
                sa.update(jobs)
                .where(*_ownership(job_id, owner), jobs.c.state == JobState.QUEUED)
                .values(self._completed({"state": JobState.CANCELED, "revision": jobs.c.revision + 1}, now))
            )
            if ended.rowcount:
                announce(connection, [job_id], now)
            else:
                connection.execute(
                    sa.update(jobs)
                    .where(
                        *_ownership(job_id, owner),
                        jobs.c.state == JobState.RUNNING,
                        sa.not_(jobs.c.cancel_requested),
                    )
                    .values(cancel_requested=True, revision=jobs.c.revision + 1)
                )
            row = connection.execute(_owned(sa.select(*jobs.c), job_id, owner)).mappings().one_or_none()
            if row is None:
                raise _not_found()
            record = record_from_row(row)
            if record.terminal and ended.rowcount == 0:
                raise RequestError(
                    "not-cancelable",
                    f"The job has ended already: {record.state.value}.",
                    "Nothing to do; DELETE removes it and its result.",
                    status=record.state.value,
                )
            return record

    def delete(self, job_id: str, owner: str | None = None) -> list[str]:
        """Remove an ended job and return the object keys that it named, for the caller to delete.

        Raises: RequestError("not-found"), RequestError("job-active") for a job that has not ended.
        """
        with self._write() as connection:
            row = connection.execute(
                sa.delete(jobs)
                .where(*_ownership(job_id, owner), jobs.c.state.not_in([JobState.QUEUED, JobState.RUNNING]))
                .returning(jobs.c.input, jobs.c.output)
            ).one_or_none()
            if row is not None:
                connection.execute(sa.delete(idempotency).where(idempotency.c.job_id == job_id))
                forget(connection, [job_id])
                return stored_keys(row.input, row.output)
            if connection.execute(_owned(sa.select(jobs.c.id), job_id, owner)).one_or_none() is None:
                raise _not_found()
            raise RequestError(
                "job-active", "The job has not ended yet, so it can't be removed.", "Cancel it first, then delete it."
            )


def _ownership(job_id: str, owner: str | None) -> list[sa.ColumnElement[bool]]:
    # Ids come from URLs, and PostgreSQL takes no NUL in a text.
    clauses: list[sa.ColumnElement[bool]] = [sa.false() if "\0" in job_id else jobs.c.id == job_id]
    if owner is not None:
        clauses.append(jobs.c.owner == owner)
    return clauses


def _owned(query: sa.Select[Any], job_id: str, owner: str | None) -> sa.Select[Any]:
    return query.where(*_ownership(job_id, owner))


def _not_found() -> RequestError:
    return RequestError("not-found", "There is no such animation.", "Check the id; removed jobs are gone for good.")
