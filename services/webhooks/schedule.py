"""When an event is told again after a try that failed. No clock, no store."""

from __future__ import annotations

import random
from collections.abc import Sequence

GONE = 410
_JITTER = 0.1
_DAY_S = 86_400.0


def choose_delay_s(
    tries: int, status: int | None, age_s: float, delays_s: Sequence[float], wished_s: float | None = None
) -> float | None:
    """Return the seconds until the next try; None: give up.

    Args:
        tries: how many there were, at least one.
        status: the last answer's, or None; 410 is a receiver's word for "never again".
        age_s: since it was asked for. Behind a dead receiver's queue even the few tries can take for ever: what is
            older than a day and than the whole schedule is not tried again.
        delays_s: the pauses between tries, so there is one try more than pauses.
        wished_s: the receiver's ``Retry-After``: it can make a pause longer, never shorter, up to a day.
    """
    if status == GONE or tries > len(delays_s) or age_s > max(_DAY_S, 1.5 * sum(delays_s)):
        return None
    # Jitter, so that what failed together does not come back together.
    pause_s = delays_s[tries - 1] * random.uniform(1 - _JITTER, 1 + _JITTER)
    return max(pause_s, min(wished_s or 0.0, _DAY_S) * random.uniform(1, 1 + _JITTER))
