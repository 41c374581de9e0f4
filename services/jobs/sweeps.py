"""The sweeper: mends what dead workers left and ends what came too late. Any number of sweepers may run at once."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from services.jobs.attempts import Attempts
from services.jobs.contract import TERMINAL_STATES, JobError, JobState, Stage, json_safe
from services.jobs.figures import count_ends, fold_ends
from services.jobs.outbox import announce
from services.jobs.tables import jobs

SWEEP_BATCH = 500
_TERMINAL = tuple(sorted(TERMINAL_STATES))


@dataclass(frozen=True)
class SweepReport:
    """What one sweep changed (job ids), and how many queued jobs are due."""

    requeued: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    canceled: list[str] = field(default_factory=list)
    expired: list[str] = field(default_factory=list)
    due: int = 0


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
                requeued = self._sweep_to(connection, moment, lapsed, {"state": JobState.QUEUED}, self._excused())
                failed = self._sweep_to(
                    connection,
                    moment,
                    lapsed,
                    {"state": JobState.FAILED, "crashes": jobs.c.crashes + 1, "error": json_safe(_worker_lost())},
                    jobs.c.crashes + 1 >= self._max_crashes,
                )
                requeued += self._sweep_to(
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
            )

    def _excused(self) -> sa.ColumnElement[bool]:
        """Whose worker did not die of it: the film was drawn, and by then the worker drew another job's.

        Not without end, lest a job that does kill its workers when it is stored be drawn for ever.
        """
        return sa.and_(jobs.c.stage == Stage.STORE, jobs.c.attempt < 2 * self._max_crashes)

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


def _worker_lost() -> JobError:
    return JobError(
        code="worker-lost",
        message="Every worker that ran this job died or stopped answering.",
        hint="Try a smaller job; if it happens again, look at the worker's logs and memory.",
        retryable=True,
    )
