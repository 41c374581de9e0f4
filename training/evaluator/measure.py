"""The measures of a bundle, made of factor readings. Numpy only.

All readings r are in half-ranges of each factor; A is the set of factors that an expression moves in the renderer.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from training.faces.expressions import CYCLIC, EXPRESSIONS
from training.faces.parameters import EXPRESSION_FACTORS, NUM_EXPRESSION

Readings = npt.NDArray[np.float32]

FACTOR_INDEX = {factor.name: i for i, factor in enumerate(EXPRESSION_FACTORS)}
STEP_BACK = 0.03
"""A step back smaller than this share of the whole way still counts as monotone: below it lies the reader's noise."""


def moved_factors(expression: str) -> npt.NDArray[np.bool_]:
    """Say which expression factors an expression moves in the renderer.

    Shapes: → [15] bool.
    """
    moved = np.zeros(NUM_EXPRESSION, bool)
    for name in EXPRESSIONS[expression]:
        moved[FACTOR_INDEX[name]] = True
    return moved


def measure_path(readings: Readings, truth: Readings, expression: str) -> Readings:
    """Follow the asked factors over a video: 0 at the first frame, 1 where the true render of this person stands.

    Shapes: readings [T,15], truth [2,15] (true render neutral, expressed) → [T].
    """
    moved = moved_factors(expression)
    way = truth[1] - truth[0]
    sign = np.sign(way) * moved
    return np.asarray(((readings - readings[0]) @ sign) / max(float(way @ sign), 1e-6), np.float32)


def judged_frame(path: Readings, expression: str) -> int:
    """Return the frame that is judged: the last one, or the peak of an expression that returns."""
    return int(np.argmax(path)) if expression in CYCLIC else len(path) - 1


def measure_change(readings: Readings, frame: int, expression: str) -> tuple[float, float]:
    """Measure how far the factors moved that nobody asked for, and how far the asked ones did.

    Their ratio is off-target; over several videos it is the ratio of their means, since one video without motion has no
    scale of its own.
    Shapes: readings [T,15] → mean absolute change outside A, mean absolute change over A.
    """
    moved = moved_factors(expression)
    change = np.abs(readings[frame] - readings[0])
    return float(change[~moved].mean()), float(change[moved].mean())


def measure_jerk(readings: Readings, expression: str) -> float:
    """Mean absolute third difference of the asked factors over the frames, as a share of their range.

    Shapes: readings [T,15], T ≥ 4 (0 otherwise).
    """
    if len(readings) < 4:
        return 0.0
    asked = readings[:, moved_factors(expression)]
    span = np.maximum(asked.max(0) - asked.min(0), 1e-6)
    return float((np.abs(np.diff(asked, n=3, axis=0)).mean(0) / span).mean())


def measure_monotone(path: Readings, expression: str) -> float:
    """Share of steps that don't go back; for an expression that returns, how much of the way it came back.

    Shapes: path [T] → a number in [0, 1].
    """
    if len(path) < 2:
        return 1.0
    top = max(float(np.abs(path).max()), 1e-6)
    if expression in CYCLIC:
        return float(np.clip(1.0 - abs(float(path[-1])) / top, 0.0, 1.0))
    return float((np.diff(path) >= -STEP_BACK * top).mean())


def measure_first_step(path: Readings) -> float:
    """Share of the whole way that the very first frame step takes; a jump at frame 1 shows here."""
    if len(path) < 2:
        return 0.0
    return float(abs(path[1] - path[0]) / max(float(np.abs(path).max()), 1e-6))


def nearest_expression(change: Readings, prototypes: dict[str, Readings]) -> str:
    """Name the expression whose true change of this person lies nearest to a change of readings.

    Shapes: change [15], prototypes name → [15].
    """
    return min(prototypes, key=lambda name: float(((change - prototypes[name]) ** 2).sum()))
