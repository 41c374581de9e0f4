"""Equal progress is really equal, and what can't be reached is said so."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from training.compare.matching import match_level


def curve(f: Callable[[float], float]) -> Callable[[Sequence[float]], np.ndarray]:
    return lambda scales: np.array([f(scale) for scale in scales], np.float32)


@pytest.mark.parametrize(
    ("f", "at"),
    [
        (lambda s: s, 0.6),
        (lambda s: 5 * s, 0.12),  # below the first point of the grid
        (lambda s: s**2, 0.6**0.5),
        (lambda s: float(np.tanh(2 * s)), float(np.arctanh(0.6)) / 2),
        (lambda s: s * (4 - s) / 4, 4 * (1 - 0.4**0.5) / 2),  # comes back later: the first crossing counts
    ],
)
def test_a_level_is_found_on_its_way_up(f: Callable[[float], float], at: float) -> None:
    match = match_level(curve(f), 0.6, 4.0)
    assert match.reached
    assert match.value == pytest.approx(0.6, abs=0.018)
    assert match.scale == pytest.approx(at, rel=0.06)


def test_a_level_out_of_reach_gives_the_nearest_and_says_so() -> None:
    match = match_level(curve(lambda s: 0.3 * s * (2 - s)), 0.6, 2.0)
    assert not match.reached
    assert match.scale == pytest.approx(1.0)
    assert match.value == pytest.approx(0.3)
    backwards = match_level(curve(lambda s: -s), 0.6, 2.0)
    assert not backwards.reached
    assert backwards.scale == pytest.approx(0.25), "the smallest motion does the least harm"


def test_a_steep_jump_is_not_called_reached() -> None:
    match = match_level(curve(lambda s: 0.0 if s < 1.05 else 2.0), 0.6, 2.0)
    assert not match.reached
