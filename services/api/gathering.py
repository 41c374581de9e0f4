"""Gathers what requests wait for, so that one thread does it for all of them at once.

Handing work to a thread and back costs more than most of the work itself: two switches, and on both sides a wait for
the interpreter. So requests lay their work down here; while one thread is busy the next ones gather, and go together.
No timer: who comes alone goes at once, after the loop has looked at what else is there. Knows no request and no store.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextvars import Context
from typing import Generic, TypeVar

from anyio import CapacityLimiter, to_thread

# A request takes some rounds of the loop from its first byte to this place. Those that are on that way come along:
# without it one request and all others take turns, and a batch of one costs as much as one of ten. Where there is
# nobody else the loop is idle, and so many rounds take it a tenth of a millisecond.
ROUNDS = 8

Work = TypeVar("Work")
Outcome = TypeVar("Outcome")


class Gathering(Generic[Work, Outcome]):
    """Does work of one kind on threads, in batches. For use on one event loop.

    Args:
        do: does a batch on a thread; returns what became of each, in their order: an outcome, or what to raise.
        together: so many make a batch at most.
        lanes: so many batches are under way at once.
    """

    def __init__(
        self, do: Callable[[Sequence[Work]], Sequence[Outcome | Exception]], *, together: int, lanes: int = 1
    ) -> None:
        self._do = do
        self._together = together
        self._lanes = lanes
        self._threads: CapacityLimiter | None = None
        self._waiting: list[tuple[Work, asyncio.Future[Outcome]]] = []
        self._busy = 0
        self._carriers: set[asyncio.Task[None]] = set()  # the loop itself would forget them

    async def hand_in(self, work: Work) -> Outcome:
        """Return what became of the work, or raise it. Work that was handed in is done even if nobody waits for it."""
        loop = asyncio.get_running_loop()
        outcome: asyncio.Future[Outcome] = loop.create_future()
        self._waiting.append((work, outcome))
        if self._busy < self._lanes:
            self._busy += 1
            # A context of its own: what one request has noted for its log and its trace is not the others'.
            carrier = loop.create_task(self._carry(), context=Context())
            self._carriers.add(carrier)
            carrier.add_done_callback(self._carriers.discard)
        return await outcome

    async def _carry(self) -> None:
        """Carry batches to a thread until nothing is left."""
        try:
            while self._waiting:
                await self._look_around()
                batch, self._waiting = self._waiting[: self._together], self._waiting[self._together :]
                if batch:  # else another lane has carried it meanwhile
                    await self._carry_one(batch)
        finally:
            self._busy -= 1  # at once: whoever comes now must find a free lane

    async def _look_around(self) -> None:
        """Let those come that are on their way, unless they would not go along."""
        for _ in range(ROUNDS if self._together > 1 else 0):
            await asyncio.sleep(0)

    async def _carry_one(self, batch: list[tuple[Work, asyncio.Future[Outcome]]]) -> None:
        if self._threads is None:
            self._threads = CapacityLimiter(self._lanes)
        try:
            done = await to_thread.run_sync(self._do, [work for work, _ in batch], limiter=self._threads)
        except Exception as error:  # noqa: BLE001 - theirs who wait
            done = [error] * len(batch)
        except BaseException:  # the loop ends
            for _, outcome in batch:
                outcome.cancel()
            raise
        for (_, outcome), result in zip(batch, done, strict=True):
            if outcome.done():  # nobody waits any more
                continue
            if isinstance(result, Exception):
                outcome.set_exception(result)
            else:
                outcome.set_result(result)
