"""The evaluator's measures by hand: readings made up so that every figure can be worked out on paper."""

from __future__ import annotations

import numpy as np
import pytest

from training.evaluator import measure
from training.faces.expressions import CYCLIC, EXPRESSIONS
from training.faces.parameters import NUM_EXPRESSION

BROW_H, BROW_A = measure.FACTOR_INDEX["brow_h"], measure.FACTOR_INDEX["brow_a"]
TRUTH = np.zeros((2, NUM_EXPRESSION), np.float32)
TRUTH[1, BROW_H], TRUTH[1, BROW_A] = -0.8, 0.4
"""frown_brows moves brow_h down and brow_a up: a way of 1.2 in all."""


def frames(*rows: dict[int, float]) -> np.ndarray:
    readings = np.zeros((len(rows), NUM_EXPRESSION), np.float32)
    for k, row in enumerate(rows):
        for where, value in row.items():
            readings[k, where] = value
    return readings


def test_an_expression_moves_exactly_what_the_renderer_says() -> None:
    for name, targets in EXPRESSIONS.items():
        moved = measure.moved_factors(name)
        assert {n for n, i in measure.FACTOR_INDEX.items() if moved[i]} == set(targets), name
    assert sorted(measure.FACTOR_INDEX.values()) == list(range(NUM_EXPRESSION))


def test_progress_adds_up_each_asked_factor_in_its_own_direction() -> None:
    readings = frames({}, {BROW_H: -0.8}, {BROW_H: -0.8, BROW_A: 0.4}, {BROW_H: 0.8}, {BROW_H: -1.6, BROW_A: 0.8})
    path = measure.measure_path(readings, TRUTH, "frown_brows")
    assert path.tolist() == pytest.approx([0, 0.8 / 1.2, 1, -0.8 / 1.2, 2], abs=1e-6)


def test_progress_counts_from_the_first_frame_and_ignores_what_nobody_asked_for() -> None:
    smile = measure.FACTOR_INDEX["mouth_curve"]
    readings = frames({BROW_H: 0.3, smile: 0.5}, {BROW_H: -0.3, smile: -0.5})
    assert measure.measure_path(readings, TRUTH, "frown_brows").tolist() == pytest.approx([0, 0.5], abs=1e-6)


def test_a_person_who_is_there_already_does_not_divide_by_nothing() -> None:
    still = np.zeros((2, NUM_EXPRESSION), np.float32)
    assert measure.measure_path(frames({}, {}), still, "frown_brows").tolist() == [0, 0]


@pytest.mark.parametrize("name", sorted(EXPRESSIONS))
def test_the_judged_frame(name: str) -> None:
    path = np.array([0, 0.4, 0.9, 0.2], np.float32)
    assert measure.judged_frame(path, name) == (2 if name in CYCLIC else 3)


def test_change_outside_and_over_the_asked_factors() -> None:
    gaze = measure.FACTOR_INDEX["gaze_x"]
    readings = frames({gaze: 0.1}, {gaze: -0.55, BROW_H: -0.6, BROW_A: 0.2})
    outside, asked = measure.measure_change(readings, 1, "frown_brows")
    assert asked == pytest.approx((0.6 + 0.2) / 2)
    assert outside == pytest.approx(0.65 / (NUM_EXPRESSION - 2)), "either way counts, spread over all 13 others"
    assert measure.measure_change(readings, 0, "frown_brows") == (0.0, 0.0)


def test_jerk_by_hand() -> None:
    def jerk(values: list[float]) -> float:
        return measure.measure_jerk(frames(*({BROW_H: v, BROW_A: -2 * v} for v in values)), "frown_brows")

    assert jerk([0, 1, 2, 3, 4]) == 0.0, "one speed"
    assert jerk([0, 1, 4, 9, 16]) == pytest.approx(0.0, abs=1e-6), "one acceleration"
    assert jerk([0, 1, 0, 1, 0]) == pytest.approx(4.0), "third differences ±4 over a range of 1, whatever the range"
    assert jerk([0, 0, 1, 1]) == pytest.approx(2.0)
    assert jerk([0, 5, 0]) == 0.0, "three frames have no third difference"
    assert jerk([0.2] * 5) == 0.0


def test_small_steps_back_are_the_reader_s_noise() -> None:
    noise = measure.STEP_BACK
    path = np.array([0, 0.5, 0.5 - 0.9 * noise, 1.0], np.float32)
    assert measure.measure_monotone(path, "smile") == 1.0
    path[2] = 0.5 - 1.2 * noise
    assert measure.measure_monotone(path, "smile") == pytest.approx(2 / 3)
    assert measure.measure_monotone(path[:1], "smile") == 1.0


def test_return_is_the_share_of_the_way_that_came_back() -> None:
    for end, share in ((0.0, 1.0), (0.25, 0.75), (1.0, 0.0), (-0.5, 0.5)):
        path = np.array([0, 1, end], np.float32)
        assert measure.measure_monotone(path, "wink_r") == pytest.approx(share)


def test_first_step_is_a_share_of_the_whole_way() -> None:
    assert measure.measure_first_step(np.array([0, 0.5, 2.0], np.float32)) == pytest.approx(0.25)
    assert measure.measure_first_step(np.array([0, -0.5, 2.0], np.float32)) == pytest.approx(0.25)
    assert measure.measure_first_step(np.array([0.0], np.float32)) == 0.0
    assert measure.measure_first_step(np.zeros(3, np.float32)) == 0.0


def test_the_nearest_expression_is_nearest_in_size_too() -> None:
    prototypes = {name: frames({BROW_H: size})[0] for name, size in (("little", 0.2), ("much", 1.0))}
    assert measure.nearest_expression(frames({BROW_H: 0.55})[0], prototypes) == "little"
    assert measure.nearest_expression(frames({BROW_H: 0.65})[0], prototypes) == "much"
    assert measure.nearest_expression(frames({BROW_H: -1.0})[0], prototypes) == "little"
