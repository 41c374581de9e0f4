from itertools import pairwise

import numpy as np
import pytest

from training.faces import human
from training.faces.anime import DOMAIN, render
from training.faces.expressions import EXPRESSIONS, apply_expression
from training.faces.parameters import CATEGORIES, CONTINUOUS_FACTORS, FACTORS_BY_NAME, sample_parameters


def faces(count: int, seed: int = 0):
    return [sample_parameters(np.random.default_rng([seed, i])) for i in range(count)]


def difference(first, second):
    return np.abs(first.astype(int) - second.astype(int)).max(2)


def bearded(option: str):
    return faces(1)[0] | {"beard": option, "fem": -0.6, "hair": "short"}


def test_the_same_parameters_give_the_same_pixels():
    params = faces(1)[0]
    first = render(params, 128)
    render(faces(2)[1], 128)  # another face in between leaves nothing behind
    assert np.array_equal(first, render(params, 128))
    assert first.shape == (128, 128, 3)
    assert first.dtype == np.uint8
    assert render(params, 64).shape == (64, 64, 3)
    assert DOMAIN == "anime"


def test_it_is_another_look_than_the_human_domain():
    for params in faces(3):
        assert (difference(render(params), human.render(params)) > 25).mean() > 0.4


@pytest.mark.parametrize("factor", CONTINUOUS_FACTORS, ids=lambda factor: factor.name)
def test_every_factor_shows(factor):
    """Within its range a factor changes at least 15 pixels of 128 × 128 by a tenth of the range; hues are circles,
    whose ends meet."""
    for params in faces(4, seed=1):
        low, middle, high = (
            render(params | {factor.name: value}) for value in (factor.low, (factor.low + factor.high) / 2, factor.high)
        )
        assert max((difference(low, picture) > 25).sum() for picture in (middle, high)) >= 15


@pytest.mark.parametrize("category", CATEGORIES, ids=lambda category: category.name)
def test_every_option_looks_different(category):
    base = bearded("none") | {"glasses": "none"}
    pictures = [render(base | {category.name: option}) for option in category.options]
    for i, first in enumerate(pictures):
        for second in pictures[:i]:
            assert (difference(first, second) > 25).sum() >= 40


@pytest.mark.parametrize("name", sorted(EXPRESSIONS))
def test_every_expression_shows_in_the_face(name):
    """An expression changes the middle of the picture, where eyes, brows, cheeks and mouth are, and hardly anything
    else."""
    for params in faces(4, seed=2):
        calm = params | {"mouth_curve": 0.12, "eye_l": 1.0, "eye_r": 1.0, "blush": 0.2}
        changed = difference(render(apply_expression(calm, name)), render(calm)) > 25
        face = changed[38:118, 24:104]
        assert face.sum() >= 60
        assert face.sum() >= 0.95 * changed.sum()


@pytest.mark.parametrize("name", sorted(FACTORS_BY_NAME))
def test_small_changes_of_a_factor_change_little(name):
    """No popping: at no place of its range may a 200th of it change the picture by much more than elsewhere."""
    factor, rng = FACTORS_BY_NAME[name], np.random.default_rng(5)
    step = (factor.high - factor.low) / 200
    for params in faces(2, seed=3):
        params |= {"beard": "full", "glasses": "round", "hair": CATEGORIES[0].options[int(rng.integers(8))]}
        for value in (float(rng.uniform(factor.low, factor.high - step)), *boundaries(name, step)):
            change = difference(render(params | {name: value}), render(params | {name: value + step}))
            assert change.mean() < 2.0, value
            assert (change > 90).sum() <= 12, value


def boundaries(name: str, step: float):
    """Give the places where a renderer likes to switch: just beside zero, and at a wholly open eye."""
    low, high = FACTORS_BY_NAME[name].low, FACTORS_BY_NAME[name].high
    return [value for value in (-step / 2, 0.0, 0.02 - step / 2, 1 - step / 2) if low <= value <= high - step]


@pytest.mark.parametrize("side", ["eye_l", "eye_r"])
def test_eyes_close_step_by_step(side):
    """The lids hide more of the eye's white and lights the further they close."""
    window = (slice(50, 92), slice(24, 64) if side == "eye_l" else slice(64, 104))
    for params in faces(4, seed=4):
        params |= {"hair": "bald", "glasses": "none", "yaw": 0.0, "roll": 0.0, "skin_t": -0.4, "blush": 0.0}
        bright = [
            (render(params | {side: float(opening)}, 128)[window].min(2) > 215).sum()
            for opening in np.linspace(1.35, 0.0, 8)
        ]
        assert all(first + 2 >= second for first, second in pairwise(bright))
        assert bright[0] > 40
        assert bright[-1] == 0


def test_the_mouth_opens_step_by_step():
    for params in faces(4, seed=5):
        params |= {"beard": "none", "mouth_curve": 0.0, "pout": 0.0, "roll": 0.0, "skin_t": 0.8}
        closed = render(params | {"mouth_open": 0.0}).astype(int)
        areas = [
            (difference(closed, render(params | {"mouth_open": float(opening)}))[88:118, 48:80] > 40).sum()
            for opening in np.linspace(0.1, 1.0, 6)
        ]
        assert all(second > first for first, second in pairwise(areas))
