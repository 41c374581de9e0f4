"""``Prefer: wait=N``: holds an answer back until the job has ended, at most N seconds. Blocks no thread meanwhile."""

from __future__ import annotations

import re
import time

import anyio
from fastapi import Request
from starlette.concurrency import run_in_threadpool

from services.jobs.contract import JobRecord
from services.jobs.store import JobStore

MAX_WAIT_S = 60
LOOK_EVERY_S = 0.1
_WAIT = re.compile(r"(?:^|[,;])\s*wait\s*=\s*\"?([0-9]{1,6})\"?\s*(?=$|[,;])", re.IGNORECASE)


def read_wait_s(prefer: list[str]) -> int | None:
    """Return the seconds that the client would wait, capped at 60, or None; others are ignored (RFC 7240)."""
    found = _WAIT.search(",".join(prefer))
    return None if found is None else min(MAX_WAIT_S, int(found[1]))


async def wait_for_end(store: JobStore, record: JobRecord, wait_s: float, request: Request) -> JobRecord:
    """Return the job once it has ended, or as it stands after ``wait_s`` seconds or when the client has gone."""
    began_s = time.monotonic()
    deadline_s = began_s + wait_s
    while not record.terminal and time.monotonic() < deadline_s:
        # Slept in steps so that the end is seen soon; the look itself reads one number.
        await anyio.sleep(min(LOOK_EVERY_S, max(0.0, deadline_s - time.monotonic())))
        if await request.is_disconnected():
            break
        revision = await run_in_threadpool(store.revision, record.id, record.owner)
        if revision is None:
            break
        if revision != record.revision:
            found = await run_in_threadpool(store.get, record.id, record.owner)
            record = record if found is None else found
    request.state.waited_s = time.monotonic() - began_s  # the client's wish, and no slowness of ours
    return record
