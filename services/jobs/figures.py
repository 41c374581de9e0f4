"""What operators ask of all jobs together: how many wait, for how long, and how many have ended how.

Ends are counted by rows of their own, so that removing a job takes nothing back: a counter that falls looks like a
restart to Prometheus, and everything that it ever counted like news. No HTTP, no metrics library in here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from services.jobs.contract import TERMINAL_STATES, JobState
from services.jobs.database import Database
from services.jobs.tables import job_ends, jobs

# So many rows are read for a scrape without a thought, and folded in one go.
_FOLD_FROM = 200
_FOLD_AT_ONCE = 5000


def _make_count() -> sa.Insert:
    code = sa.func.coalesce(jobs.c.error["code"].as_string(), "")
    ended = (
        sa.select(jobs.c.state, code, jobs.c.model_id, sa.func.count())
        .where(jobs.c.id.in_(sa.bindparam("ended", expanding=True)), jobs.c.state.in_(sorted(TERMINAL_STATES)))
        .group_by(jobs.c.state, code, jobs.c.model_id)
    )
    return sa.insert(job_ends).from_select(["state", "code", "model_id", "jobs"], ended)


_COUNT_ENDS = _make_count()
_COUNT_END = sa.insert(job_ends)


@dataclass(frozen=True)
class QueueFacts:
    """How the queue stands now; ``oldest_s`` is the age of the job that has waited longest since it was accepted."""

    queued: int
    running: int
    oldest_s: float


def count_ends(connection: Connection, job_ids: Collection[str]) -> None:
    """Count those of these jobs that have ended; called once a job, in the very transaction that ended it.

    Adds rows and changes none: a shared counter would make every worker's last transaction wait for all others', and
    sweeps that end several jobs run into each other.
    """
    if job_ids:
        connection.execute(_COUNT_ENDS, {"ended": list(job_ids)})


def count_end(connection: Connection, state: JobState, code: str, model_id: str) -> None:
    """Count one job whose end is known, as ``count_ends`` does."""
    connection.execute(_COUNT_END, {"state": state, "code": code, "model_id": model_id, "jobs": 1})


def fold_ends(connection: Connection) -> None:
    """Make few rows of many; their sums stay as they are."""
    rows = connection.execute(sa.select(sa.func.count()).select_from(job_ends)).scalar_one()
    if rows < _FOLD_FROM:
        return
    oldest = (
        sa.select(job_ends.c.number)
        .order_by(job_ends.c.number)
        .limit(_FOLD_AT_ONCE)
        .with_for_update(skip_locked=True)  # another sweeper folds those
    )
    removed = connection.execute(
        sa.delete(job_ends)
        .where(job_ends.c.number.in_(oldest))
        .returning(job_ends.c.state, job_ends.c.code, job_ends.c.model_id, job_ends.c.jobs)
    ).all()
    sums: Counter[tuple[str, str, str]] = Counter()
    for state, code, model_id, ended in removed:
        sums[state, code, model_id] += ended
    if sums:
        connection.execute(
            sa.insert(job_ends),
            [
                {"state": state, "code": code, "model_id": model_id, "jobs": ended}
                for (state, code, model_id), ended in sums.items()
            ],
        )


class Figures(Database):
    """The questions; all answers come from the database, so every replica gives the same."""

    def counts(self) -> dict[str, int]:
        """Return how many jobs stand in each state, zeros included."""
        with self._read() as connection:
            rows = connection.execute(
                sa.select(jobs.c.state, sa.func.count().label("jobs")).group_by(jobs.c.state)
            ).all()
        return {state.value: 0 for state in JobState} | {row.state: row.jobs for row in rows}

    def queue_facts(self) -> QueueFacts:
        """Return how many jobs wait and run, and how long the oldest has waited; reads no job that has ended."""
        with self._read() as connection:
            now = self._now(connection)
            rows = connection.execute(
                sa.select(jobs.c.state, sa.func.count(), sa.func.min(jobs.c.created_at))
                .where(jobs.c.state.in_([JobState.QUEUED, JobState.RUNNING]))
                .group_by(jobs.c.state)
            ).all()
        found = {state: (number, oldest) for state, number, oldest in rows}
        queued, oldest = found.get(JobState.QUEUED, (0, None))
        running, _ = found.get(JobState.RUNNING, (0, None))
        return QueueFacts(queued, running, 0.0 if oldest is None else max(0.0, (now - oldest).total_seconds()))

    def totals(self) -> list[tuple[str, str, str, int]]:
        """Return (state, error code or "", model id, number) of all jobs that ever ended, those removed included."""
        with self._read() as connection:
            rows = connection.execute(
                sa.select(
                    job_ends.c.state, job_ends.c.code, job_ends.c.model_id, sa.func.sum(job_ends.c.jobs).label("ended")
                )
                .group_by(job_ends.c.state, job_ends.c.code, job_ends.c.model_id)
                .order_by(job_ends.c.state, job_ends.c.code, job_ends.c.model_id)
            ).all()
        return [(row.state, row.code, row.model_id, int(row.ended)) for row in rows]
