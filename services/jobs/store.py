"""The job store: the sole truth of every job, in SQLite or PostgreSQL.

This file is the client's half: look, list, cancel, delete. ``intake`` accepts, ``fairness`` says whose job is next,
``attempts`` is the worker's half, ``sweeps`` the mending, ``roster`` the list of living workers, ``deliveries`` the
webhooks on their way, ``retention`` the forgetting, ``database`` the connection.
No HTTP, no Celery, no storage in here.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Self

import sqlalchemy as sa

from services.errors import RequestError
from services.jobs.attempts import LeaseLost
from services.jobs.contract import JobRecord, JobState
from services.jobs.cursors import make_cursor, read_cursor
from services.jobs.deliveries import Deliveries
from services.jobs.fairness import PLACE
from services.jobs.figures import Figures, count_ends
from services.jobs.intake import Intake
from services.jobs.keys import Keys
from services.jobs.outbox import announce, forget
from services.jobs.retention import Retention, bury
from services.jobs.roster import Roster, WorkerRecord
from services.jobs.sweeps import SweepReport, Sweeps
from services.jobs.tables import PAGE_COLUMNS, idempotency, jobs, record_from_row
from services.jobs.webhook_secrets import WebhookSecrets
from services.settings import Settings

__all__ = ["JobStore", "LeaseLost", "SweepReport", "WorkerRecord"]

MAX_PAGE = 100
_REVISIONS = sa.select(jobs.c.id, jobs.c.revision).where(jobs.c.id.in_(sa.bindparam("ids", expanding=True)))


class JobStore(Sweeps, Intake, Figures, Retention, Roster, Keys, Deliveries, WebhookSecrets):
    """All that anybody may do to a job. Thread-safe; one per process."""

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        """Return the store that the settings name; call ``migrate`` before anything else."""
        return cls(
            settings.resolved_database_url,
            max_crashes=settings.max_crashes,
            max_retries=settings.max_retries,
            result_ttl_s=settings.result_ttl_s,
            commit_batch=settings.commit_batch,
        )

    # -- looking ------------------------------------------------------------------------------------------------------

    def get(self, job_id: str, owner: str | None = None) -> JobRecord | None:
        """Return the job, or None when there is none or it is another owner's."""
        with self._read() as connection:
            row = connection.execute(_owned(sa.select(*jobs.c), job_id, owner)).mappings().one_or_none()
        return None if row is None else record_from_row(row)

    def revisions(self, job_ids: Sequence[str]) -> dict[str, int]:
        """Return the revisions of those jobs that are there: what all who wait for a job ask many times a second."""
        with self._read() as connection:
            rows = connection.execute(_REVISIONS, {"ids": list(job_ids)}).all()
        return {row.id: row.revision for row in rows}

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
        with self._read() as connection:
            return connection.execute(PLACE, {"job_id": job_id}).scalar_one_or_none()

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
                count_ends(connection, [job_id])
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

    def delete(self, job_id: str, owner: str | None = None) -> None:
        """Remove an ended job, and remember that its objects are to go (``unbury`` when they are gone).

        Raises: RequestError("not-found"), RequestError("job-active") for a job that has not ended.
        """
        with self._write() as connection:
            row = connection.execute(
                sa.delete(jobs)
                .where(*_ownership(job_id, owner), jobs.c.state.not_in([JobState.QUEUED, JobState.RUNNING]))
                .returning(jobs.c.id)
            ).one_or_none()
            if row is not None:
                connection.execute(sa.delete(idempotency).where(idempotency.c.job_id == job_id))
                forget(connection, [job_id])
                bury(connection, job_id, self._now(connection))
                return
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
