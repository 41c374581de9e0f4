"""``Prefer: wait=N``: holds an answer back until the job has ended, at most N seconds. Blocks no thread meanwhile."""

from __future__ import annotations

import re
import time

import structlog
from fastapi import Request
from starlette.concurrency import run_in_threadpool

from services.api.looks import Follower
from services.api.resources import Resources
from services.errors import TemporaryError
from services.jobs.contract import JobRecord

_log = structlog.get_logger(__name__)

MAX_WAIT_S = 60
# Where ends are told, a look is for a word that was lost.
TOLD_LOOK_S = 0.5
# Where they are not: the longer it has lasted, the less a look more or less matters, and an end is seen late by a
# fiftieth of the wait.
LOOK_SHARE = 0.02
SHORTEST_LOOK_S = 0.01
LONGEST_LOOK_S = 0.1
_WAIT = re.compile(r"(?:^|[,;])\s*wait\s*=\s*\"?([0-9]{1,6})\"?\s*(?=$|[,;])", re.IGNORECASE)


def read_wait_s(prefer: list[str]) -> int | None:
    """Return the seconds that the client would wait, capped at 60, or None; others are ignored (RFC 7240)."""
    found = _WAIT.search(",".join(prefer))
    return None if found is None else min(MAX_WAIT_S, int(found[1]))


def choose_pause_s(waited_s: float, *, is_told: bool) -> float:
    """Return how long to sleep before the next look, by who is told of ends and by who is not."""
    return TOLD_LOOK_S if is_told else min(LONGEST_LOOK_S, max(SHORTEST_LOOK_S, LOOK_SHARE * waited_s))


async def wait_as_asked(
    rooms: Resources, record: JobRecord, prefer: list[str] | None, request: Request, headers: dict[str, str]
) -> JobRecord:
    """Return the job as it stands, or after the wait that the client prefers; ``headers`` then say that it was applied.

    A preference is no right: where too many wait already, the client gets its answer at once.
    """
    wait_s = read_wait_s(prefer or [])
    if wait_s is None:
        return record
    try:
        rooms.looks.check_place(record.owner)
    except TemporaryError as error:
        _log.info("wait_not_applied", code=error.code)
        return record
    headers["Preference-Applied"] = f"wait={wait_s}"
    with rooms.looks.follow(record) as follower:
        return await _wait_for_end(rooms, record, follower, wait_s, request)


async def _wait_for_end(
    rooms: Resources, record: JobRecord, follower: Follower, wait_s: float, request: Request
) -> JobRecord:
    """Return the job once it has ended, or as it stands after ``wait_s`` seconds or when the client has gone."""
    began_s = time.monotonic()
    deadline_s = began_s + wait_s
    woken = False
    while not record.terminal and time.monotonic() < deadline_s:
        # Slept in steps so that the end is seen soon; the look itself reads one number.
        now_s = time.monotonic()
        # Who was woken and finds nothing has read what was looked up before, and looks again soon.
        pause_s = rooms.looks.pace_s(choose_pause_s(now_s - began_s, is_told=rooms.looks.is_told and not woken))
        woken = await follower.rest(min(pause_s, max(0.0, deadline_s - now_s))) or woken
        if await request.is_disconnected():
            break
        try:
            revision = await follower.revision()
            if revision is None:
                break
            if revision != record.revision:
                found = await run_in_threadpool(rooms.store.get, record.id, record.owner)
                record = record if found is None else found
        except TemporaryError as error:
            # A job that was accepted is not answered with an error because the database pauses.
            _log.warning("wait_goes_on", code=error.code)
    request.state.waited_s = time.monotonic() - began_s  # the client's wish, and no slowness of ours
    return record
