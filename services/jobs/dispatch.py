"""Hints to the workers: "look now". Losing or repeating one does no harm, so nothing here may fail or wait.

Publishing runs on one background thread behind a bounded queue. This room knows the task's name and no Celery.
"""

from __future__ import annotations

import math
import threading
import time
from typing import Protocol

import structlog

from services.background import BackgroundQueue

TASK_LOOK = "animato.look"
# A worker that has time takes a hint at once, so what lies unread is for those that will have it: whoever reads it sees
# every job that was accepted before. Some, because several may be about to read when the queue is looked at.
ENOUGH_UNREAD = 8
# A look goes on until nothing is due, so a handful of hints wakes every worker and more only cost: publishing one takes
# twice the processor time of accepting a job.
_BURST = 32
_EVERY_S = 0.05
_PENDING = 64
_LOG_EVERY_S = 10.0

_log = structlog.get_logger(__name__)


class Hints(Protocol):
    """What is needed of the queue: ``services.queue.HintQueue``."""

    def publish(self, job_id: str) -> None:
        """Put a hint into the queue."""

    def count_unread(self) -> int:
        """Return how many hints no worker has taken yet."""

    def close(self) -> None:
        """Close the connections."""


class Dispatcher:
    """Publishes hints in the background, at a bounded rate; drops them when the queue server is away.

    Args:
        hints: used on the background thread alone; closed when that ends.
    """

    def __init__(self, hints: Hints) -> None:
        self._hints = hints
        # A full queue loses nothing: as many looks as are ahead will find the job too.
        self._pending = BackgroundQueue("dispatcher", _PENDING, self._publish, hints.close)
        self._paced_s = -math.inf
        self.dropped = 0  # in all
        self._untold = 0  # of these, since the log last told of them
        self._counting = threading.Lock()
        self._last_log_s = -_LOG_EVERY_S

    def hint(self, job_id: str) -> None:
        """Tell the workers that this job is due. Never raises, never waits."""
        self._pending.put(job_id)

    def close(self, timeout_s: float = 2.0) -> None:
        """Publish what is pending, within ``timeout_s``, and stop."""
        self._pending.close(timeout_s)

    def _publish(self, job_id: str) -> None:
        now_s = time.monotonic()
        self._paced_s = max(self._paced_s + _EVERY_S, now_s - _BURST * _EVERY_S)
        self._pace(self._paced_s - now_s)
        try:
            if self._hints.count_unread() < ENOUGH_UNREAD:
                self._hints.publish(job_id)
        except Exception as error:  # noqa: BLE001 - kombu, redis and sockets fail in dozens of ways; none matters
            self._count_drop(type(error).__name__)

    def _pace(self, pause_s: float) -> None:
        if pause_s > 0 and not self._pending.closed:  # what is left at the end goes at once
            time.sleep(pause_s)

    def _count_drop(self, reason: str) -> None:
        with self._counting:
            self.dropped += 1
            self._untold += 1
            now_s = time.monotonic()
            if now_s - self._last_log_s < _LOG_EVERY_S:
                return
            self._last_log_s = now_s
            untold, self._untold = self._untold, 0
        _log.warning("hints_dropped", count=untold, reason=reason, consequence="jobs start at the workers' next sweep")
