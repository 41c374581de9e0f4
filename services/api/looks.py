"""One look at the database for all who wait for jobs to change: streams of events and ``Prefer: wait``.

Hundreds of clients may wait at once. Each would ask the database ten times a second for one number; together they ask
for all numbers in one statement, less often the more they are, and there is an end to how many may wait. Who is told
that a job has ended wakes those who wait for it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import anyio
from starlette.concurrency import run_in_threadpool

from services.api.auth import ANONYMOUS
from services.errors import TemporaryError
from services.jobs.contract import JobRecord

# From this many on, everybody looks less often: what all looks together cost stays the same.
CALM_FOLLOWERS = 100

Ask = Callable[[Sequence[str]], Mapping[str, int]]


class Looks:
    """Those who wait, and what the last look has shown. For use on one event loop.

    Args:
        ask: returns the revisions of jobs; those that are gone are missing.
        places: how many may wait at once.
        places_of_one: how many of them may be one owner's; without keys everybody is the same owner, and it has all.
    """

    def __init__(self, ask: Ask, places: int, places_of_one: int) -> None:
        self._ask = ask
        self._places = places
        self._places_of_one = places_of_one
        self._owners: Counter[str] = Counter()
        self._followed: Counter[str] = Counter()
        self._revisions: dict[str, int | None] = {}
        self._number = 0
        self._is_looking = False
        self._bells: dict[str, anyio.Event] = {}
        self._is_told = False

    @property
    def is_told(self) -> bool:
        """Whether ``wake`` is called when a job ends, so that there is little to look for before."""
        return self._is_told

    def set_told(self, is_told: bool) -> None:
        """Say whether ``wake`` is called from now on."""
        self._is_told = is_told

    def wake(self, job_id: str) -> None:
        """Wake everybody who waits for this job."""
        bell = self._bells.get(job_id)
        if bell is not None:
            self._bells[job_id] = anyio.Event()
            bell.set()

    def bell(self, job_id: str) -> anyio.Event:
        """Return what the next ``wake`` for a followed job sets."""
        return self._bells[job_id]

    def check_place(self, owner: str) -> None:
        """Make sure that one more may wait.

        Raises:
            TemporaryError: rate-limited when the owner has no place left, not-ready when nobody has.
        """
        if self._owners.total() >= self._places:
            raise TemporaryError("not-ready", "Too many clients wait for jobs.", "Look at the job itself every second.")
        if owner != ANONYMOUS and self._owners[owner] >= self._places_of_one:
            raise TemporaryError(
                "rate-limited",
                "Too many of your requests wait for jobs.",
                "Look at the jobs themselves every second, or use a webhook.",
            )

    @contextmanager
    def follow(self, record: JobRecord) -> Iterator[Follower]:
        """Take a place to wait for a job in; ask ``check_place`` first."""
        owner, job_id = record.owner, record.id
        self._owners[owner] += 1
        self._followed[job_id] += 1
        self._revisions.setdefault(job_id, record.revision)
        self._bells.setdefault(job_id, anyio.Event())
        try:
            yield Follower(self, job_id)
        finally:
            self._owners -= Counter([owner])  # a count of nought is dropped
            self._followed -= Counter([job_id])
            if job_id not in self._followed:
                del self._revisions[job_id], self._bells[job_id]

    def pace_s(self, pace_s: float) -> float:
        """Return how long to sleep between two looks, given how long one who is alone would."""
        return pace_s * max(1.0, self._followed.total() / CALM_FOLLOWERS)

    async def revision(self, job_id: str, seen_number: int) -> tuple[int | None, int]:
        """Return a job's revision (None: it is gone) and the number of the look that showed it.

        Looks only when the caller has seen the last look already: of all who wait, the one that comes first looks.

        Raises:
            TemporaryError: not-ready.
        """
        if seen_number == self._number and not self._is_looking:
            self._is_looking = True
            try:
                asked = tuple(self._followed)
                found = await run_in_threadpool(self._ask, asked)
                self._revisions |= {each: found.get(each) for each in asked if each in self._followed}
            finally:
                self._is_looking = False
                self._number += 1
        return self._revisions[job_id], self._number


class Follower:
    """One who waits for one job."""

    def __init__(self, looks: Looks, job_id: str) -> None:
        self._looks = looks
        self._job_id = job_id
        self._seen_number = 0
        self._bell = looks.bell(job_id)

    async def rest(self, pause_s: float) -> bool:
        """Sleep until somebody wakes those who wait for this job, or for so long; return whether somebody did."""
        bell = self._bell
        with anyio.move_on_after(pause_s):
            await bell.wait()
        if bell.is_set():
            self._bell = self._looks.bell(self._job_id)  # each ring ends one rest, whatever comes of it
        return bell.is_set()

    async def revision(self) -> int | None:
        """Return the job's revision, or None when it is gone. Raises: TemporaryError("not-ready")."""
        self._bell = self._looks.bell(self._job_id)  # before the look: what happens during it is rung for the next rest
        revision, self._seen_number = await self._looks.revision(self._job_id, self._seen_number)
        return revision
