"""The sweeper: mends what dead workers left, ends what came too late, names what is outdated.

Any number of sweepers may run at once. No storage in here: the caller removes the objects that a sweep names.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from services.jobs.attempts import Attempts
from services.jobs.contract import TERMINAL_STATES, JobError, JobState, json_safe
from services.jobs.figures import count_ends, fold_ends
from services.jobs.outbox import announce
from services.jobs.tables import jobs

SWEEP_BATCH = 500
_TERMINAL = tuple(sorted(TERMINAL_STATES))


@dataclass(frozen=True)
class SweepReport:
    """What one sweep changed (job ids), how many queued jobs are due, and which stored objects are outdated."""

    requeued: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    canceled: list[str] = field(default_factory=list)
    expired: list[str] = field(default_factory=list)
    due: int = 0
    outdated: dict[str, list[str]] = field(default_factory=dict)  # job id -> keys; confirm with mark_swept


class Sweeps(Attempts):
    """What any process may do to mend the table; see ``Attempts`` for the arguments."""

    def sweep(self, now: datetime | None = None) -> SweepReport:
        """Mend what dead workers and late clients left behind; any number of sweepers may run at once."""
        with self._write() as connection:
            moment = self._now(connection) if now is None else now
            lapsed = (
                connection.execute(
                    sa.select(jobs.c.id)
                    .where(jobs.c.state == JobState.RUNNING, jobs.c.lease_expires_at <= moment)
                    .order_by(jobs.c.id)
                    .limit(SWEEP_BATCH)
                    .with_for_update(skip_locked=True)
                )
                .scalars()
                .all()
            )
            canceled: list[str] = []
            failed: list[str] = []
            requeued: list[str] = []
            if lapsed:
                canceled = self._sweep_to(
                    connection, moment, lapsed, {"state": JobState.CANCELED}, jobs.c.cancel_requested
                )
                failed = self._sweep_to(
                    connection,
                    moment,
                    lapsed,
                    {"state": JobState.FAILED, "crashes": jobs.c.crashes + 1, "error": json_safe(_worker_lost())},
                    jobs.c.crashes + 1 >= self._max_crashes,
                )
                requeued = self._sweep_to(
                    connection, moment, lapsed, {"state": JobState.QUEUED, "crashes": jobs.c.crashes + 1}, sa.true()
                )
            expired = self._expire(connection, moment)
            fold_ends(connection)
            return SweepReport(
                requeued=requeued,
                failed=failed,
                canceled=canceled,
                expired=expired,
                due=connection.execute(
                    sa.select(sa.func.count()).where(jobs.c.state == JobState.QUEUED, jobs.c.not_before <= moment)
                ).scalar_one(),
                outdated=self._outdated(connection, moment),
            )

    def mark_swept(self, job_ids: Collection[str]) -> None:
        """Remember that the stored objects of these outdated jobs are gone, so that no sweep lists them again."""
        if not job_ids:
            return
        with self._write() as connection:
            connection.execute(
                sa.update(jobs)
                .where(jobs.c.id.in_(list(job_ids)), jobs.c.state.in_(_TERMINAL), jobs.c.swept_at.is_(None))
                .values(swept_at=self._now(connection), revision=jobs.c.revision + 1)
            )

    def _sweep_to(
        self,
        connection: Connection,
        now: datetime,
        ids: Collection[str],
        values: dict[str, Any],
        where: sa.ColumnElement[bool],
    ) -> list[str]:
        statement = (
            sa.update(jobs)
            .where(jobs.c.id.in_(ids), jobs.c.state == JobState.RUNNING, jobs.c.lease_expires_at <= now, where)
            .values(self._completed(values | {"revision": jobs.c.revision + 1}, now))
        )
        swept = list(connection.execute(statement.returning(jobs.c.id)).scalars())
        if values["state"] in TERMINAL_STATES:
            announce(connection, swept, now)
            count_ends(connection, swept)
        return swept

    def _expire(self, connection: Connection, now: datetime) -> list[str]:
        late = (
            connection.execute(
                sa.select(jobs.c.id)
                .where(jobs.c.state == JobState.QUEUED, jobs.c.deadline_at <= now, jobs.c.started_at.is_(None))
                .order_by(jobs.c.id)
                .limit(SWEEP_BATCH)
                .with_for_update(skip_locked=True)
            )
            .scalars()
            .all()
        )
        if not late:
            return []
        error = JobError(
            code="deadline-exceeded",
            message="The job was not started before its deadline.",
            hint="Post it again with a longer deadline_s, or without one.",
            retryable=True,
        )
        values = {"state": JobState.EXPIRED, "error": json_safe(error), "revision": jobs.c.revision + 1}
        statement = (
            sa.update(jobs)
            .where(jobs.c.id.in_(late), jobs.c.state == JobState.QUEUED)
            .values(self._completed(values, now))
        )
        expired = list(connection.execute(statement.returning(jobs.c.id)).scalars())
        announce(connection, expired, now)
        count_ends(connection, expired)
        return expired

    @staticmethod
    def _outdated(connection: Connection, now: datetime) -> dict[str, list[str]]:
        rows = connection.execute(
            sa.select(jobs.c.id, jobs.c.input, jobs.c.output)
            .where(jobs.c.swept_at.is_(None), jobs.c.expires_at <= now, jobs.c.state.in_(_TERMINAL))
            .order_by(jobs.c.expires_at)
            .limit(SWEEP_BATCH)
        )
        return {row.id: stored_keys(row.input, row.output) for row in rows}


def stored_keys(job_input: Mapping[str, Any], output: Mapping[str, Any] | None) -> list[str]:
    """Return the object keys that a job's row names."""
    named = [job_input.get("key"), (output or {}).get("key"), (output or {}).get("poster_key")]
    return [key for key in named if key]


def _worker_lost() -> JobError:
    return JobError(
        code="worker-lost",
        message="Every worker that ran this job died or stopped answering.",
        hint="Try a smaller job; if it happens again, look at the worker's logs and memory.",
        retryable=True,
    )
