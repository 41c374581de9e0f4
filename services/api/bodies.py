"""Caps the bytes of a request's body before anybody keeps them, and of all bodies that are kept at once.

The cap of one body is pure ASGI, so that chunked bodies and lying lengths meet the same one; it goes by the declared
length and by what really arrives. Knows nothing of routes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import anyio
from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from services.api.auth import ANONYMOUS
from services.api.problems import answer_error
from services.errors import RequestError, TemporaryError

BODY_TIMEOUT_S = 120.0


class BodyCap:
    """ASGI middleware that answers 413 to a body of more than ``max_bytes``."""

    def __init__(self, app: ASGIApp, max_bytes: int) -> None:
        self.app = app
        self.max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        if _declared_length(scope) > self.max_bytes:
            await answer_error(self._too_large())(scope, receive, send)
            return
        received = 0

        async def receive_counted() -> Message:
            nonlocal received
            message = await receive()
            if message["type"] == "http.request":
                received += len(message.get("body", b""))
                if received > self.max_bytes:
                    raise self._too_large()
            return message

        await self.app(scope, receive_counted, send)

    def _too_large(self) -> RequestError:
        limit_mib = self.max_bytes / 2**20
        return RequestError(
            "payload-too-large",
            f"The request body is larger than {limit_mib:.3g} MiB.",
            "Send a smaller or more strongly compressed picture, as multipart rather than as base64.",
            max_bytes=self.max_bytes,
        )


class BodyRoom:
    """Counts the bytes of all bodies that are in memory, arriving or being worked on. For use on one event loop.

    Many clients that send large bodies slowly would otherwise fill the memory, each within its own cap.

    Args:
        total_bytes: of all bodies together.
        owner_bytes: of one owner's; without keys everybody is the same owner, and it has all.
    """

    def __init__(self, total_bytes: int, owner_bytes: int) -> None:
        self._total_bytes = total_bytes
        self._owner_bytes = owner_bytes
        self._held: Counter[str] = Counter()

    @contextmanager
    def hold(self, owner: str) -> Iterator[BodyShare]:
        """Give room to one body, until the end of the block."""
        share = BodyShare(self, owner)
        try:
            yield share
        finally:
            self._held -= Counter({owner: share.held_bytes})  # a count of nought is dropped

    def take(self, owner: str, count: int) -> None:
        """Count some more bytes. Raises: TemporaryError("not-ready") when there is no room for them."""
        limit = self._total_bytes if owner == ANONYMOUS else self._owner_bytes
        if self._held.total() + count > self._total_bytes or self._held[owner] + count > limit:
            raise TemporaryError(
                "not-ready", "Too many pictures are arriving at once.", "Try again in some seconds.", delay_s=5.0
            )
        self._held[owner] += count


class BodyShare:
    """The room of one body."""

    def __init__(self, room: BodyRoom, owner: str) -> None:
        self._room = room
        self._owner = owner
        self.held_bytes = 0

    def take(self, count: int) -> None:
        """Count some more bytes. Raises: TemporaryError("not-ready") when there is no room for them."""
        self._room.take(self._owner, count)
        self.held_bytes += count


async def read_whole(request: Request, share: BodyShare) -> bytes:
    """Return the whole body, which ``BodyCap`` bounds.

    Raises:
        RequestError: bad-request when it stops coming.
        TemporaryError: not-ready when too many others are there already.
    """
    pieces = []
    try:
        with anyio.fail_after(BODY_TIMEOUT_S):
            # Not request.body(): the request would keep it for as long as the client waits for its job.
            async for piece in request.stream():
                share.take(len(piece))
                pieces.append(piece)
        return b"".join(pieces)
    except (TimeoutError, ClientDisconnect) as error:
        raise RequestError(
            "bad-request", "The request's body did not arrive in time.", "Send a smaller picture, or try again."
        ) from error


def _declared_length(scope: Scope) -> int:
    """Return the largest declared Content-Length; 0 where none is declared or it is not a number."""
    lengths = [value for name, value in scope["headers"] if name == b"content-length"]
    return max((int(value) for value in lengths if value.isdigit() and len(value) < 20), default=0)
