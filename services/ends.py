"""The word "ended", over the queue server: from the workers, who end jobs, to the API, where clients wait for ends.

Without it the API asks the database dozens of times a second while somebody waits, which on a small machine slows the
worker beside it. Losing a word does no harm: who waits looks for himself twice a second, and as often as without it
while the queue server is not heard. So nothing here may fail, and nobody waits for it. ``services.api.ear`` listens.
"""

from __future__ import annotations

import redis
import structlog
from redis.backoff import NoBackoff
from redis.retry import Retry

from services.background import BackgroundQueue

CHANNEL = "animato.ended"
SOCKET_TIMEOUT_S = 2
_PENDING = 256

_log = structlog.get_logger(__name__)


class EndSpeaker:
    """Says which jobs have ended, on a thread of its own."""

    def __init__(self, redis_url: str) -> None:
        self._server = redis.Redis.from_url(
            redis_url,
            socket_timeout=SOCKET_TIMEOUT_S,
            socket_connect_timeout=SOCKET_TIMEOUT_S,
            retry=Retry(NoBackoff(), 0),
        )
        # A full queue means that the server does not take them: one word more would not be heard either.
        self._pending = BackgroundQueue("end-speaker", _PENDING, self._publish, self._server.close)
        self._reaches = True

    def tell(self, job_id: str) -> None:
        """Say that a job has ended. Never raises, never waits; safe on any thread."""
        self._pending.put(job_id)

    def close(self, timeout_s: float = 2.0) -> None:
        """Say what is pending, within ``timeout_s``, and stop."""
        self._pending.close(timeout_s)

    def _publish(self, job_id: str) -> None:
        try:
            self._server.publish(CHANNEL, job_id)
            self._reaches = True
        except Exception as error:  # noqa: BLE001 - redis and sockets fail in dozens of ways; none matters
            if self._reaches:
                _log.warning("ends_not_told", reason=type(error).__name__, consequence="clients learn a little later")
            self._reaches = False
