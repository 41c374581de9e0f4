"""The word "ended", over the queue server: from the workers, who end jobs, to the API, where clients wait for ends.

Without it the API asks the database dozens of times a second while somebody waits, which on a small machine slows the
worker beside it. Losing a word does no harm: who waits looks for himself twice a second, and as often as without it
while the queue server is not heard. So nothing here may fail, and nobody waits for it. ``services.api.ear`` listens.
"""

from __future__ import annotations

import queue
import threading
import time

import redis
import structlog
from redis.backoff import NoBackoff
from redis.retry import Retry

CHANNEL = "animato.ended"
SOCKET_TIMEOUT_S = 2
_PENDING = 256

_log = structlog.get_logger(__name__)


class EndSpeaker:
    """Says which jobs have ended, on a thread of its own that starts with the first one."""

    def __init__(self, redis_url: str) -> None:
        self._server = redis.Redis.from_url(
            redis_url,
            socket_timeout=SOCKET_TIMEOUT_S,
            socket_connect_timeout=SOCKET_TIMEOUT_S,
            retry=Retry(NoBackoff(), 0),
        )
        self._pending: queue.Queue[str | None] = queue.Queue(maxsize=_PENDING)
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()
        self._reaches = True

    def tell(self, job_id: str) -> None:
        """Say that a job has ended. Never raises, never waits; safe on any thread."""
        with self._starting:
            if self._thread is None:
                self._thread = threading.Thread(target=self._speak, name="end-speaker", daemon=True)
                self._thread.start()
        try:
            self._pending.put_nowait(job_id)
        except queue.Full:
            return  # the server does not take them: this one would not be heard either

    def close(self, timeout_s: float = 2.0) -> None:
        """Say what is pending, within ``timeout_s``, and stop."""
        if self._thread is None:
            return
        deadline_s = time.monotonic() + timeout_s
        try:
            self._pending.put(None, timeout=timeout_s)
        except queue.Full:
            return  # a daemon thread: it ends with the process
        self._thread.join(max(0.0, deadline_s - time.monotonic()))

    def _speak(self) -> None:
        while (job_id := self._pending.get()) is not None:
            try:
                self._server.publish(CHANNEL, job_id)
                self._reaches = True
            except Exception as error:  # noqa: BLE001 - redis and sockets fail in dozens of ways; none matters
                if self._reaches:
                    _log.warning(
                        "ends_not_told", reason=type(error).__name__, consequence="clients learn a little later"
                    )
                self._reaches = False
        self._server.close()
