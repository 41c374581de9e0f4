"""Equal progress: how large a method's motion must be for a reading to reach a level. Numpy only."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Measure = Callable[[Sequence[float]], npt.NDArray[np.float32]]
"""Scales → the reading at each of them; the reading at scale 0 is 0."""

GRID = 8
REFINEMENTS = 6
TOLERANCE = 0.03
"""Of the level: nearer than this counts as reached."""


class Match(NamedTuple):
    """A scale and the reading there."""

    scale: float
    value: float
    reached: bool


def match_level(measure: Measure, level: float, max_scale: float) -> Match:
    """Find the smallest scale at which a reading reaches a level; where none does, the one that comes nearest.

    A grid of scales first, since a large motion can lead away again; then regula falsi between the two neighbours of
    the first crossing, and halving by turns, since a reading can jump (a lid is shut or it is not).
    """
    scales = [max_scale * (i + 1) / GRID for i in range(GRID)]
    values = [float(value) for value in measure(scales)]
    tried = [Match(scale, value, False) for scale, value in zip(scales, values, strict=True)]
    above = next((i for i, value in enumerate(values) if value >= level), None)
    if above is not None:
        low = tried[above - 1] if above else Match(0.0, 0.0, False)
        high = tried[above]
        for turn in range(REFINEMENTS):
            share = (level - low.value) / max(high.value - low.value, 1e-9) if turn % 2 == 0 else 0.5
            scale = low.scale + min(max(share, 0.02), 0.98) * (high.scale - low.scale)
            found = Match(scale, float(measure([scale])[0]), False)
            tried.append(found)
            if abs(found.value - level) <= TOLERANCE * level / 2:
                break
            low, high = (low, found) if found.value >= level else (found, high)
    best = min(tried, key=lambda match: abs(match.value - level))
    return best._replace(reached=abs(best.value - level) <= TOLERANCE * level)
