"""A worker looks a little longer after a job: clients often send the next one when they have the last one.

Celery takes up to half a second until it listens to the queue again after a look. Knows the job store and no more.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from services.errors import TemporaryError

if TYPE_CHECKING:
    from services.jobs.store import JobStore

LINGER_S = 0.6
LOOK_EVERY_S = 0.02


def is_next_due(store: JobStore, ended_s: float, stopping: Callable[[], bool]) -> bool:
    """Wait until a job is due, for ``LINGER_S`` after the last one ended; return whether there may be one.

    Args:
        ended_s: when that was, by the monotonic clock.
        stopping: becomes true when there is nothing to wait for any more.
    """
    while not stopping() and time.monotonic() - ended_s < LINGER_S:
        time.sleep(LOOK_EVERY_S)
        try:
            if store.is_any_due():
                return True
        except TemporaryError:
            return False
    return False
