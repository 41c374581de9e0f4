"""Fetches the picture that a request names by ``image_url``: through the guarded way out, in bounded numbers.

Called before anything is stored. What can't be fetched is an error; no other picture ever takes its place. No routes.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import anyio
from anyio import to_thread

from services.api.auth import ANONYMOUS
from services.api.problems import make_pointer
from services.errors import RequestError, TemporaryError
from services.outbound.client import Outbound

FIELD = "image_url"
# Each may hold a picture of the largest size.
MAX_FETCHES = 8
# So that the slow servers which one client names leave room for the pictures of all others.
MAX_FETCHES_OF_ONE = 4
_ACCEPT = ("image/webp", "image/png", "image/jpeg")


class SourceFetcher:
    """Fetches pictures on threads, a bounded number at once in all and for one owner. For use on the event loop.

    Args:
        outbound: the way out.
        max_bytes: largest picture, the same as of one that is sent.
        timeout_s: longest time of one fetch, and longest time of waiting for a free place.
        places: how many may be fetched at once.
        places_of_one: how many of them for one owner; without keys everybody is the same owner, and it has all.
    """

    def __init__(
        self,
        outbound: Outbound,
        *,
        max_bytes: int,
        timeout_s: float,
        places: int = MAX_FETCHES,
        places_of_one: int = MAX_FETCHES_OF_ONE,
    ) -> None:
        self._outbound = outbound
        self._max_bytes = max_bytes
        self._timeout_s = timeout_s
        self._places = anyio.Semaphore(places)
        self._number, self._number_of_one = places, places_of_one
        self._owners: dict[str, _OwnerPlaces] = {}
        self._threads = anyio.CapacityLimiter(math.inf)  # the places bound them

    async def fetch(self, owner: str, url: str) -> bytes:
        """Return the bytes that a URL holds.

        Raises:
            RequestError: validation-failed, source-forbidden-address, source-unreachable, payload-too-large.
            TemporaryError: not-ready when no place becomes free in time.
        """
        async with self._place(owner):
            return await to_thread.run_sync(self._fetch, url, limiter=self._threads)

    def _fetch(self, url: str) -> bytes:
        try:
            fetched = self._outbound.fetch(url, max_bytes=self._max_bytes, timeout_s=self._timeout_s, accept=_ACCEPT)
        except RequestError as error:
            error.details["errors"] = [{"pointer": make_pointer((FIELD,)), "detail": error.message}]
            raise
        return fetched.body

    @asynccontextmanager
    async def _place(self, owner: str) -> AsyncIterator[None]:
        async with AsyncExitStack() as places:
            try:
                with anyio.fail_after(self._timeout_s):
                    await places.enter_async_context(self._own_place(owner))
                    await places.enter_async_context(self._places)
            except TimeoutError:
                raise TemporaryError(
                    "not-ready",
                    "Too many pictures are being fetched from slow servers.",
                    "Send the picture itself, or try again later.",
                    delay_s=self._timeout_s,
                ) from None
            yield

    @asynccontextmanager
    async def _own_place(self, owner: str) -> AsyncIterator[None]:
        number = self._number if owner == ANONYMOUS else self._number_of_one
        own = self._owners.setdefault(owner, _OwnerPlaces(number))
        own.users += 1
        try:
            async with own.places:
                yield
        finally:
            own.users -= 1
            if own.users == 0:
                del self._owners[owner]


class _OwnerPlaces:
    """The places of one owner, kept as long as somebody sits in them or waits."""

    def __init__(self, number: int) -> None:
        self.places = anyio.Semaphore(number)
        self.users = 0
