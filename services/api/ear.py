"""The API's ear for the word "ended" (``services.ends``): one subscription a process, on its event loop."""

from __future__ import annotations

from collections.abc import Callable

import anyio
import redis.asyncio
import redis.asyncio.retry
import structlog
from redis.backoff import NoBackoff

from services.ends import CHANNEL, SOCKET_TIMEOUT_S

# After such a silence the server is asked whether it lives; after another one it is left.
SILENCE_S = 5.0
RETRY_S = 1.0

_log = structlog.get_logger(__name__)


class EndListener:
    """Hears which jobs have ended; run ``listen`` on the event loop until it is canceled.

    Args:
        redis_url: the queue server.
        on_end: called with the id of a job that has ended. Anybody who can write to the queue server can say so.
        on_hearing: called with True when the server is heard from now on, and with False when it is not any more.
    """

    def __init__(self, redis_url: str, on_end: Callable[[str], None], on_hearing: Callable[[bool], None]) -> None:
        self._redis_url = redis_url
        self._on_end = on_end
        self._on_hearing = on_hearing
        self._told = False

    async def listen(self) -> None:
        """Subscribe, and again whenever the server was lost."""
        while True:
            try:
                await self._hear()
            except Exception as error:  # noqa: BLE001 - redis and sockets fail in dozens of ways; none matters
                if not self._told:
                    reason = type(error).__name__
                    _log.warning("ends_not_heard", reason=reason, consequence="waiting asks the database more often")
                self._told = True
            finally:
                self._on_hearing(False)
            await anyio.sleep(RETRY_S)

    async def _hear(self) -> None:
        server = redis.asyncio.Redis.from_url(
            self._redis_url,
            socket_timeout=SOCKET_TIMEOUT_S,
            socket_connect_timeout=SOCKET_TIMEOUT_S,
            retry=redis.asyncio.retry.Retry(NoBackoff(), 0),
        )
        async with server, server.pubsub() as ear:
            await ear.subscribe(CHANNEL)
            asked = False
            while True:
                message = await ear.get_message(timeout=SILENCE_S)
                if message is None:
                    if asked:
                        raise TimeoutError
                    await ear.ping()
                asked = message is None
                if message is not None:
                    self._take(message["type"], message["data"])

    def _take(self, kind: str, data: object) -> None:
        if kind == "subscribe":
            self._told = False
            self._on_hearing(True)
        elif kind == "message" and isinstance(data, bytes):
            self._on_end(data.decode("ascii", "replace"))
