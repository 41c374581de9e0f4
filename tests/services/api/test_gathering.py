"""Work of many requests done by one thread at a time: what gathers goes together, and nobody answers for another."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from contextvars import ContextVar

import pytest

from services.api.gathering import Gathering

PATIENCE_S = 60.0
_request: ContextVar[str] = ContextVar("request", default="nobody's")


class Desk:
    """Doubles numbers in batches, none before it is let go; 13 is refused, and 99 breaks its whole batch."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.contexts: list[str] = []
        self.open = threading.Event()
        self.at_once = self.most_at_once = 0
        self._lock = threading.Lock()

    def work(self, numbers: Sequence[int]) -> list[int | Exception]:
        with self._lock:
            self.batches.append(list(numbers))
            self.contexts.append(_request.get())
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
        assert self.open.wait(PATIENCE_S)
        with self._lock:
            self.at_once -= 1
        if 99 in numbers:
            raise ZeroDivisionError
        return [ValueError(str(number)) if number == 13 else 2 * number for number in numbers]


@pytest.fixture
def desk() -> Desk:
    return Desk()


async def wait_for_batches(desk: Desk, count: int) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while len(desk.batches) < count:
            await asyncio.sleep(0.001)


def test_what_comes_while_the_thread_is_busy_goes_together(desk: Desk) -> None:
    async def run() -> list[int]:
        gathering = Gathering(desk.work, together=4)
        first = asyncio.create_task(gathering.hand_in(0))
        await wait_for_batches(desk, 1)
        others = [asyncio.create_task(gathering.hand_in(number)) for number in range(1, 8)]
        await asyncio.sleep(0)
        desk.open.set()
        return await asyncio.gather(first, *others)

    assert asyncio.run(run()) == [0, 2, 4, 6, 8, 10, 12, 14]
    assert desk.batches == [[0], [1, 2, 3, 4], [5, 6, 7]]
    assert desk.most_at_once == 1


def test_who_is_on_the_way_comes_along(desk: Desk) -> None:
    async def run() -> list[int]:
        gathering = Gathering(desk.work, together=4)
        desk.open.set()

        async def arrive(number: int) -> int:
            for _ in range(number):  # as a request that is read and checked
                await asyncio.sleep(0)
            return await gathering.hand_in(number)

        return await asyncio.gather(*(arrive(number) for number in (0, 2, 4, 6)))

    assert asyncio.run(run()) == [0, 4, 8, 12]
    assert desk.batches == [[0, 2, 4, 6]]


def test_one_refusal_is_one_requests(desk: Desk) -> None:
    async def run() -> list[object]:
        gathering = Gathering(desk.work, together=4)
        desk.open.set()
        return await asyncio.gather(*(gathering.hand_in(number) for number in (1, 13, 2)), return_exceptions=True)

    one, refused, two = asyncio.run(run())
    assert (one, two) == (2, 4)
    assert isinstance(refused, ValueError)


def test_a_batch_that_breaks_is_told_to_all_of_it_and_the_next_one_goes(desk: Desk) -> None:
    async def run() -> list[object]:
        gathering = Gathering(desk.work, together=2)
        desk.open.set()
        return await asyncio.gather(*(gathering.hand_in(number) for number in (1, 99, 2)), return_exceptions=True)

    broken, also, whole = asyncio.run(run())
    assert isinstance(broken, ZeroDivisionError)
    assert isinstance(also, ZeroDivisionError)
    assert whole == 4


def test_who_goes_away_takes_nothing_along(desk: Desk) -> None:
    async def run() -> int:
        gathering = Gathering(desk.work, together=4)
        away = asyncio.create_task(gathering.hand_in(1))
        stays = asyncio.create_task(gathering.hand_in(2))
        await wait_for_batches(desk, 1)
        away.cancel()
        desk.open.set()
        answer = await stays
        assert away.cancelled()
        return answer + await gathering.hand_in(3)

    assert asyncio.run(run()) == 4 + 6
    assert desk.batches == [[1, 2], [3]], "what was handed in is done all the same"


def test_nobody_is_forgotten_between_two_batches(desk: Desk) -> None:
    """Each hands in again the moment that it is answered, which is when the carrier goes."""

    async def run() -> int:
        gathering = Gathering(desk.work, together=4)
        desk.open.set()

        async def client(first: int) -> int:
            return sum([await gathering.hand_in(first + number) for number in range(0, 300, 100)])

        async with asyncio.timeout(PATIENCE_S):
            return sum(await asyncio.gather(*(client(number) for number in range(1, 11))))

    assert asyncio.run(run()) == 2 * sum(first + number for first in range(1, 11) for number in range(0, 300, 100))


def test_lanes_bound_how_many_are_under_way(desk: Desk) -> None:
    async def run() -> list[int]:
        gathering = Gathering(desk.work, together=1, lanes=3)
        waiting = [asyncio.create_task(gathering.hand_in(number)) for number in range(7)]
        await wait_for_batches(desk, 3)
        desk.open.set()
        return await asyncio.gather(*waiting)

    assert asyncio.run(run()) == [0, 2, 4, 6, 8, 10, 12]
    assert desk.most_at_once == 3


def test_a_batch_carries_no_requests_notes(desk: Desk) -> None:
    """A line in the log that is about many must not bear the id of one."""

    async def run() -> None:
        gathering = Gathering(desk.work, together=4)
        desk.open.set()
        _request.set("the first one's")
        await gathering.hand_in(1)

    asyncio.run(run())
    assert desk.contexts == ["nobody's"]
