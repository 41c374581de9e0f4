"""Refuses new jobs while the disk is nearly full, before their bodies are read.

A database that can't grow can't write down how jobs end either, so some room is kept for the work that was accepted.
"""

from __future__ import annotations

import time

from services.api.free_space import measure_free_bytes
from services.errors import TemporaryError
from services.settings import Settings

LOOK_EVERY_S = 1.0
RETRY_AFTER_S = 30.0


class DiskRoom:
    """The free space of the disks that keep jobs and pictures. For use on the event loop.

    Args:
        settings: ``min_free_bytes``, and where things are kept.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._looked_at_s = float("-inf")
        self._free_bytes: int | None = None

    def check(self) -> None:
        """Return while there is room.

        Raises:
            TemporaryError: queue-full.
        """
        wanted = self._settings.min_free_bytes
        if wanted == 0:
            return
        now_s = time.monotonic()
        if now_s - self._looked_at_s > LOOK_EVERY_S:
            self._looked_at_s = now_s
            self._free_bytes = self._look()
        if self._free_bytes is not None and self._free_bytes < wanted:
            raise TemporaryError(
                "queue-full",
                "The disk of this service is nearly full, so no new job is accepted.",
                "Try again later; its operator can free some space, or lower ANIMATO_MIN_FREE_BYTES.",
                delay_s=RETRY_AFTER_S,
            )

    def _look(self) -> int | None:
        try:
            return measure_free_bytes(self._settings)
        except OSError:  # whoever writes there will say what is wrong
            return None
