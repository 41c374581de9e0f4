"""Whose job is next: clients take turns, so that who queues a thousand jobs does not keep the others waiting.

Every job gets a ``turn`` when it is accepted: the round in which it may run. The k-th waiting job of a client is k
rounds ahead, and a client that comes anew begins in the round that is being served. Claims go by turn, then priority,
then age: one walk along an index. Within one client a higher priority goes first: it takes the turn of the first job
that it overtakes, and those move back by one. A job that comes back to the queue keeps its turn.

Source: start-time fair queueing (Goyal, Vin, Cheng 1996), with one unit of work a job.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from services.jobs.contract import JobState
from services.jobs.tables import jobs

CLAIM_ORDER = (jobs.c.turn, jobs.c.priority, jobs.c.created_at, jobs.c.id)
_STARTED = (JobState.RUNNING, JobState.SUCCEEDED, JobState.FAILED)


def choose_turn(connection: Connection, owner: str, priority: int) -> int | sa.ColumnElement[int]:
    """Return the turn of a job that this owner adds, making room for it before jobs of lower priority.

    Returns: a number, or an expression for the INSERT, so that it costs no question of its own.
    """
    waiting = (jobs.c.state == JobState.QUEUED, jobs.c.owner == owner)
    overtaken = connection.execute(
        sa.select(jobs.c.turn)
        .where(*waiting, jobs.c.priority > priority)
        .order_by(jobs.c.priority, jobs.c.turn)
        .limit(1)
    ).scalar_one_or_none()
    if overtaken is not None:
        connection.execute(sa.update(jobs).where(*waiting, jobs.c.priority > priority).values(turn=jobs.c.turn + 1))
        return int(overtaken)
    last_waiting = _one(
        sa.select(jobs.c.turn + 1)
        .where(*waiting, jobs.c.priority <= priority)
        .order_by(jobs.c.priority.desc(), jobs.c.turn.desc())
    )
    # Who waits for each job before posting the next one takes turns as well.
    last_started = _one(
        sa.select(jobs.c.turn + 1)
        .where(jobs.c.owner == owner, jobs.c.state.in_(_STARTED))
        .order_by(jobs.c.created_at.desc(), jobs.c.id.desc())
    )
    own = sa.func.coalesce(last_waiting, last_started, 0)
    served = [_one(_turns(state).order_by(jobs.c.turn.desc())) for state in _STARTED]
    served.append(_one(_turns(JobState.QUEUED).order_by(jobs.c.turn)))
    # SQLite calls it max; of NULLs both databases would make NULL or leave them out.
    largest = sa.func.max if connection.dialect.name == "sqlite" else sa.func.greatest
    return largest(own, *(sa.func.coalesce(turn, 0) for turn in served))


def place_of(job_id: str) -> sa.Select[tuple[int]]:
    """Return the query of a queued job's place, 1 = next; no row when it is not queued."""
    mine, ahead = jobs.alias("mine"), jobs.alias("ahead")

    def key(table: Any) -> sa.Tuple:
        return sa.tuple_(*(table.c[column.name] for column in CLAIM_ORDER))

    place = (
        sa.select(sa.func.count())
        .select_from(ahead)
        .where(ahead.c.state == JobState.QUEUED, key(ahead) <= key(mine))
        .scalar_subquery()
    )
    return sa.select(place).where(mine.c.id == job_id, mine.c.state == JobState.QUEUED)


def _turns(state: JobState) -> sa.Select[tuple[int]]:
    return sa.select(jobs.c.turn).where(jobs.c.state == state)


def _one(query: sa.Select[Any]) -> sa.ScalarSelect[Any]:
    return query.limit(1).scalar_subquery()
