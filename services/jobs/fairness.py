"""Whose job is next: clients take turns, so that who queues a thousand jobs does not keep the others waiting.

Every job gets a ``turn`` when it is accepted: the round in which it may run. The k-th waiting job of a client is k
rounds ahead, and a client that comes anew begins in the round that is being served. Claims go by turn, then priority,
then age: one walk along an index. Within one client a higher priority goes first: it takes the turn of the first job
that it overtakes, and those move back by one. A job that comes back to the queue keeps its turn.

Source: start-time fair queueing (Goyal, Vin, Cheng 1996), with one unit of work a job.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from itertools import pairwise
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from services.jobs.contract import JobState
from services.jobs.tables import jobs

CLAIM_ORDER = (jobs.c.turn, jobs.c.priority, jobs.c.created_at, jobs.c.id)
_STARTED = (JobState.RUNNING, JobState.SUCCEEDED, JobState.FAILED)

# Statements are built once: building one takes several times as long as SQLite takes to run it.
_OWNER = sa.bindparam("of_owner", type_=jobs.c.owner.type)
_PRIORITY = sa.bindparam("of_priority", type_=jobs.c.priority.type)
_WAITING = (jobs.c.state == JobState.QUEUED, jobs.c.owner == _OWNER)
_OVERTAKEN = (
    sa.select(jobs.c.turn).where(*_WAITING, jobs.c.priority > _PRIORITY).order_by(jobs.c.priority, jobs.c.turn).limit(1)
)
_MOVE_BACK = sa.update(jobs).where(*_WAITING, jobs.c.priority > _PRIORITY).values(turn=jobs.c.turn + 1)


def insert_in_turn(connection: Connection, rows: Sequence[dict[str, Any]]) -> None:
    """Write the rows of new jobs, each with the turn that its owner has, making room for it before lower priorities.

    Args:
        rows: in the order in which they came, each with every column but ``turn``.
    """
    whose = {(row["owner"], row["priority"]): _whose(row) for row in rows}
    owners = {owner for owner, _ in whose}
    # One statement for all, run row by row: each sees those before it. Who overtakes is seldom, and goes alone.
    if len(owners) == len(whose) and not any(_find_overtaken(connection, each) is not None for each in whose.values()):
        connection.execute(_insert_next(connection.dialect.name), [row | _whose(row) for row in rows])
        return
    for row in rows:
        _insert_one(connection, row)


def _insert_one(connection: Connection, row: dict[str, Any]) -> None:
    whose = _whose(row)
    overtaken = _find_overtaken(connection, whose)
    if overtaken is None:
        connection.execute(_insert_next(connection.dialect.name), row | whose)
    else:
        connection.execute(_MOVE_BACK, whose)
        connection.execute(sa.insert(jobs), row | {"turn": overtaken})


def _whose(row: dict[str, Any]) -> dict[str, Any]:
    return {"of_owner": row["owner"], "of_priority": row["priority"]}


def _find_overtaken(connection: Connection, whose: dict[str, Any]) -> int | None:
    """Return the turn of the first job that this owner's next one of this priority overtakes."""
    return connection.execute(_OVERTAKEN, whose).scalar_one_or_none()


@cache
def _insert_next(dialect: str) -> sa.Insert:
    """Return the INSERT of a job behind all that its owner has waiting."""
    last_waiting = _one(
        sa.select(jobs.c.turn + 1)
        .where(*_WAITING, jobs.c.priority <= _PRIORITY)
        .order_by(jobs.c.priority.desc(), jobs.c.turn.desc())
    )
    # Who waits for each job before posting the next one takes turns as well.
    last_started = _one(
        sa.select(jobs.c.turn + 1)
        # Not "in": such a list is written out at each execution, which a statement for many rows does not allow.
        .where(jobs.c.owner == _OWNER, sa.or_(*(jobs.c.state == state for state in _STARTED)))
        .order_by(jobs.c.created_at.desc(), jobs.c.id.desc())
    )
    own = sa.func.coalesce(last_waiting, last_started, 0)
    served = [_one(_turns(state).order_by(jobs.c.turn.desc())) for state in _STARTED]
    served.append(_one(_turns(JobState.QUEUED).order_by(jobs.c.turn)))
    # SQLite calls it max; of NULLs the two would make different things.
    largest = sa.func.max if dialect == "sqlite" else sa.func.greatest
    return sa.insert(jobs).values(turn=largest(own, *(sa.func.coalesce(turn, 0) for turn in served)))


def _turns(state: JobState) -> sa.Select[int]:
    return sa.select(jobs.c.turn).where(jobs.c.state == state)


def _one(query: sa.Select[Any]) -> sa.ScalarSelect[Any]:
    return query.limit(1).scalar_subquery()


def find_places(connection: Connection, job_ids: Sequence[str]) -> dict[str, int]:
    """Return the places of those jobs that are queued, 1 = next; counts what is queued once, however many they are."""
    keys = [dict(row) for row in connection.execute(_KEYS, {"ids": list(job_ids)}).mappings()]
    if not keys:
        return {}
    first: int = connection.execute(_COUNT_UPTO, _bind("upto", keys[0])).scalar_one()
    places = {keys[0]["id"]: first}
    if _count_between(connection, keys[0], keys[-1]) == len(keys) - 1:  # nobody else's job among them
        return {key["id"]: first + number for number, key in enumerate(keys)}
    for behind, key in pairwise(keys):
        places[key["id"]] = places[behind["id"]] + _count_between(connection, behind, key)
    return places


def _count_between(connection: Connection, behind: dict[str, Any], upto: dict[str, Any]) -> int:
    found: int = connection.execute(_COUNT_BETWEEN, _bind("behind", behind) | _bind("upto", upto)).scalar_one()
    return found


def _bind(prefix: str, key: dict[str, Any]) -> dict[str, Any]:
    return {f"{prefix}_{name}": value for name, value in key.items()}


def _key_of(prefix: str) -> sa.Tuple:
    return sa.tuple_(*(sa.bindparam(f"{prefix}_{column.name}", type_=column.type) for column in CLAIM_ORDER))


_KEYS = (
    sa.select(*CLAIM_ORDER)
    .where(jobs.c.id.in_(sa.bindparam("ids", expanding=True)), jobs.c.state == JobState.QUEUED)
    .order_by(*CLAIM_ORDER)
)
_COUNT_UPTO = (
    sa.select(sa.func.count())
    .select_from(jobs)
    .where(jobs.c.state == JobState.QUEUED, sa.tuple_(*CLAIM_ORDER) <= _key_of("upto"))
)
_COUNT_BETWEEN = _COUNT_UPTO.where(sa.tuple_(*CLAIM_ORDER) > _key_of("behind"))


def _make_place() -> sa.Select[int]:
    mine, ahead = jobs.alias("mine"), jobs.alias("ahead")

    def key(table: sa.FromClause) -> sa.Tuple:
        return sa.tuple_(*(table.c[column.name] for column in CLAIM_ORDER))

    place = (
        sa.select(sa.func.count())
        .select_from(ahead)
        .where(ahead.c.state == JobState.QUEUED, key(ahead) <= key(mine))
        .scalar_subquery()
    )
    return sa.select(place).where(mine.c.id == sa.bindparam("job_id"), mine.c.state == JobState.QUEUED)


# A queued job's place among all, 1 = next, for the parameter ``job_id``; no row when it is not queued.
PLACE = _make_place()
