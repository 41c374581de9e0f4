"""The judge judges rightly: known motions get the marks that they deserve."""

from __future__ import annotations

import json

import numpy as np
import pytest

from training.evaluate import HELD_OUT_PHRASES, Judge, held_out_people, internal_names, true_readings
from training.evaluator import measure
from training.faces.expressions import EXPRESSIONS, GATE_NAMES, apply_expression
from training.faces.human import render
from training.faces.parameters import EXPRESSION_FACTORS


@pytest.fixture(scope="module")
def judge() -> Judge:
    return Judge()


def film(expression: str, amplitudes: list[float]) -> np.ndarray:
    person = held_out_people(1)[0]
    return np.stack([render(apply_expression(person, expression, a), 128) for a in amplitudes])


@pytest.mark.parametrize("gate", GATE_NAMES)
def test_true_renders_get_full_marks(judge: Judge, gate: str) -> None:
    expression = internal_names(gate)[0]
    truth = true_readings(judge, held_out_people(1)[0], [expression])[expression]
    readings, identity = judge.read(film(expression, [0.0, 0.25, 0.5, 0.75, 1.0]))
    path = measure.measure_path(readings, truth, expression)
    assert path[0] == 0.0
    assert path[-1] == pytest.approx(1.0, abs=0.02)
    assert 0.25 < path[2] < 0.8, "half the motion must read as about half the progress"
    outside, asked = measure.measure_change(readings, 4, expression)
    assert outside / asked < 0.25
    assert float(identity[0] @ identity[-1]) > 0.9


def test_a_still_video_makes_no_progress_and_another_expression_is_off_target(judge: Judge) -> None:
    truth = true_readings(judge, held_out_people(1)[0], ["smile"])["smile"]
    still, _ = judge.read(film("smile", [0.0, 0.0, 0.0]))
    assert abs(measure.measure_path(still, truth, "smile")[-1]) < 0.01
    angry, _ = judge.read(film("angry", [0.0, 1.0]))
    assert measure.measure_path(angry, truth, "smile")[-1] < 0.1
    outside, asked = measure.measure_change(angry, 1, "open_mouth")
    assert outside / asked > 0.5


def test_another_person_is_another_identity(judge: Judge) -> None:
    people = held_out_people(8)
    _, identity = judge.read(np.stack([render(person, 128) for person in people]))
    others = (identity @ identity.T)[~np.eye(len(people), dtype=bool)]
    assert others.mean() < 0.6


def test_nearest_expression_names_true_renders(judge: Judge) -> None:
    person = held_out_people(3)[2]
    truths = true_readings(judge, person, EXPRESSIONS)
    prototypes = {name: pair[1] - pair[0] for name, pair in truths.items() if name != "blink"}
    for name in ("smile", "sad", "pout", "wink_l", "look_up"):
        frames = np.stack([render(person, 128), render(apply_expression(person, name, 0.8), 128)])
        readings, _ = judge.read(frames)
        assert measure.nearest_expression(readings[1] - readings[0], prototypes) == name


def ramp(values: list[float], expression: str) -> np.ndarray:
    readings = np.zeros((len(values), len(EXPRESSION_FACTORS)), np.float32)
    readings[:, measure.moved_factors(expression)] = np.asarray(values, np.float32)[:, None]
    return readings


def test_jerk_tells_flicker_from_growth() -> None:
    t = np.linspace(0, 1, 24)
    smooth = measure.measure_jerk(ramp(list(t * t * (3 - 2 * t)), "open_mouth"), "open_mouth")
    flicker = measure.measure_jerk(ramp([float(i % 2) for i in range(24)], "open_mouth"), "open_mouth")
    assert smooth < 0.01 < flicker


def test_monotone_and_return() -> None:
    assert measure.measure_monotone(np.array([0, 0.5, 1.0], np.float32), "smile") == 1.0
    assert measure.measure_monotone(np.array([0, 1.0, 0.2, 1.0], np.float32), "smile") == pytest.approx(2 / 3)
    assert measure.measure_monotone(np.array([0, 1.0, 0.0], np.float32), "wink_l") == 1.0
    assert measure.measure_monotone(np.array([0, 1.0, 1.0], np.float32), "wink_l") == 0.0
    assert measure.judged_frame(np.array([0, 1.0, 0.1], np.float32), "wink_l") == 1
    assert measure.judged_frame(np.array([0, 1.0, 0.1], np.float32), "smile") == 2


def test_a_jump_at_frame_one_shows() -> None:
    assert measure.measure_first_step(np.array([0, 0.97, 1.0], np.float32)) > 0.9
    assert measure.measure_first_step(np.array([0, 0.03, 1.0], np.float32)) < 0.05


def test_the_held_out_list_names_known_expressions() -> None:
    phrases = json.loads(HELD_OUT_PHRASES.read_text())
    assert set(GATE_NAMES) <= set(phrases)
    for name in phrases:
        if name not in ("neutral", "negated", "unrelated", "compounds"):
            assert internal_names(name)
