"""Places for fetching: bounded in all and for one owner, free again whatever happens."""

from __future__ import annotations

import threading

import anyio
import pytest

from services.api.sources import SourceFetcher
from services.errors import RequestError, TemporaryError
from services.outbound.client import Fetched, Outbound


class Slow(Outbound):
    """Fetches that last until they are let go."""

    def __init__(self) -> None:
        super().__init__()
        self.begun: list[str] = []
        self.go = threading.Event()

    def fetch(self, url: str, **_: object) -> Fetched:  # type: ignore[override]
        self.begun.append(url)
        assert self.go.wait(60)
        if url == "bad":
            raise RequestError("source-unreachable", "It can't be fetched.")
        return Fetched(b"x", "", url)


async def until(condition: object) -> None:
    with anyio.fail_after(60):
        while not condition():  # type: ignore[operator]
            await anyio.sleep(0.005)


def test_one_owner_leaves_places_to_others() -> None:
    outbound = Slow()
    results: list[bytes] = []

    async def main() -> None:
        fetcher = SourceFetcher(outbound, max_bytes=10, timeout_s=60, places=3, places_of_one=2)

        async def fetch(owner: str, number: int) -> None:
            results.append(await fetcher.fetch(owner, f"{owner}{number}"))

        async with anyio.create_task_group() as tasks:
            for number in range(5):
                tasks.start_soon(fetch, "a", number)
            await until(lambda: len(outbound.begun) == 2)
            tasks.start_soon(fetch, "b", 0)
            await until(lambda: len(outbound.begun) == 3)
            tasks.start_soon(fetch, "c", 0)
            await anyio.sleep(0.05)
            # Two that begin at once do so on two threads, in either order.
            assert (sorted(outbound.begun[:2]), outbound.begun[2:]) == (["a0", "a1"], ["b0"])
            outbound.go.set()
        assert not fetcher._owners  # nothing is kept of owners who are done

    anyio.run(main)
    assert len(results) == 7
    assert sorted(outbound.begun) == ["a0", "a1", "a2", "a3", "a4", "b0", "c0"]


def test_who_waits_too_long_is_told_to_come_back() -> None:
    outbound = Slow()

    async def main() -> None:
        fetcher = SourceFetcher(outbound, max_bytes=10, timeout_s=0.1, places=1, places_of_one=1)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(fetcher.fetch, "a", "first")
            await until(lambda: outbound.begun == ["first"])
            for owner in ("a", "b"):
                with pytest.raises(TemporaryError) as refusal:
                    await fetcher.fetch(owner, "second")
                assert refusal.value.code == "not-ready"
            outbound.go.set()
        assert await fetcher.fetch("b", "third") == b"x"

    anyio.run(main)
    assert outbound.begun == ["first", "third"]


def test_a_failed_fetch_gives_its_place_back() -> None:
    outbound = Slow()
    outbound.go.set()

    async def main() -> None:
        fetcher = SourceFetcher(outbound, max_bytes=10, timeout_s=60, places=1, places_of_one=1)
        for _ in range(3):
            with pytest.raises(RequestError) as refusal:
                await fetcher.fetch("a", "bad")
            assert refusal.value.details["errors"][0]["pointer"] == "#/image_url"
        assert await fetcher.fetch("a", "good") == b"x"

    anyio.run(main)
