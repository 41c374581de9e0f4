"""Caps the bytes of a request's body before anybody keeps them: by the declared length, and by what really arrives.

The cap is pure ASGI, so that chunked bodies and lying lengths meet the same one. Knows nothing of routes.
"""

from __future__ import annotations

import anyio
from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from services.api.problems import answer_error
from services.errors import RequestError

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


async def read_whole(request: Request) -> bytes:
    """Return the whole body, which ``BodyCap`` bounds.

    Raises:
        RequestError: bad-request when it stops coming.
    """
    try:
        with anyio.fail_after(BODY_TIMEOUT_S):
            return await request.body()
    except (TimeoutError, ClientDisconnect) as error:
        raise RequestError(
            "bad-request", "The request's body did not arrive in time.", "Send a smaller picture, or try again."
        ) from error


def _declared_length(scope: Scope) -> int:
    """Return the largest declared Content-Length; 0 where none is declared or it is not a number."""
    lengths = [value for name, value in scope["headers"] if name == b"content-length"]
    return max((int(value) for value in lengths if value.isdigit() and len(value) < 20), default=0)
