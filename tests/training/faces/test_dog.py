"""The dog domain: every factor shows, nothing pops, expressions do what they are called."""

from itertools import pairwise

import numpy as np
import pytest

from training.faces.dog import CORE, DOMAIN, render
from training.faces.dog.geometry import COATS, place
from training.faces.domains import find_domain
from training.faces.expressions import EXPRESSIONS, GATE_NAMES, apply_expression
from training.faces.parameters import (
    CATEGORIES,
    CONTINUOUS_FACTORS,
    EXPRESSION_FACTORS,
    FACTORS_BY_NAME,
    Parameters,
    sample_parameters,
)

STEPS = 25


def calm(seed: int, **options: str | float) -> Parameters:
    """Give a dog with a calm face."""
    params = sample_parameters(np.random.default_rng(seed))
    params |= {factor.name: factor.mean for factor in EXPRESSION_FACTORS} | {"mouth_curve": 0.12, "mouth_open": 0.0}
    return params | options


def draw(params: Parameters, size_px: int = 128) -> np.ndarray:
    return render(params, size_px).astype(np.float32)


def share_changed(first: Parameters, second: Parameters, by: float = 20) -> float:
    return float((np.abs(draw(first) - draw(second)).max(2) > by).mean())


def test_pictures_are_deterministic_and_of_the_asked_size():
    params = calm(3)
    for size_px in (64, 128, 256):
        picture = render(params, size_px)
        assert picture.shape == (size_px, size_px, 3)
        assert picture.dtype == np.uint8
        assert np.array_equal(picture, render(dict(params), size_px))


def test_the_domain_is_registered_with_known_gates():
    domain = find_domain("dog")
    assert domain.name == DOMAIN
    assert np.array_equal(domain.render(calm(4), 64), render(calm(4), 64))
    assert set(domain.core) <= set(CORE) <= set(GATE_NAMES)


@pytest.mark.parametrize("factor", CONTINUOUS_FACTORS, ids=lambda factor: factor.name)
def test_every_continuous_factor_shows(factor):
    """Its upper half must show: 0.2% of the picture by 20 levels of 255 (hues come full circle)."""
    for seed in range(4):
        middle, high = calm(seed), calm(seed)
        middle[factor.name], high[factor.name] = (factor.low + factor.high) / 2, factor.high
        assert share_changed(middle, high) > 0.002


@pytest.mark.parametrize("category", CATEGORIES, ids=lambda category: category.name)
def test_every_option_differs_from_every_other(category):
    for seed in range(2):
        pictures = [draw(calm(seed, **{category.name: option})) for option in category.options]
        for i, first in enumerate(pictures):
            for second in pictures[:i]:
                assert (np.abs(first - second).max(2) > 20).mean() > 0.004


@pytest.mark.parametrize("factor", CONTINUOUS_FACTORS, ids=lambda factor: factor.name)
@pytest.mark.parametrize("mood", ["angry", "laugh", "pout"])
def test_nothing_pops_along_a_factor(factor, mood):
    """The picture moves about evenly: no single step makes up a large share of the whole way."""
    hair = CATEGORIES[0].options
    base = calm(7, hair=hair[sum(map(ord, factor.name + mood)) % len(hair)], beard="full")
    base = apply_expression(base, mood)
    pictures = [draw(base | {factor.name: float(v)}, 64) for v in np.linspace(factor.low, factor.high, STEPS)]
    steps = np.array([np.abs(b - a).mean() for a, b in pairwise(pictures)])
    assert steps.max() < 5 / (STEPS - 1) * steps.sum() + 0.1


@pytest.mark.parametrize("factor", EXPRESSION_FACTORS, ids=lambda factor: factor.name)
def test_expression_factors_act_monotonically(factor):
    """Further from a calm face's value, up or down, the picture is further from the calm picture."""
    for seed in (1, 2):
        base = calm(seed)
        for end in (factor.low, factor.high):
            values = np.linspace(base[factor.name], end, 5) if end != base[factor.name] else ()
            ways = [draw(base | {factor.name: float(v)}, 64) for v in values]
            distances = [float(np.square(way - ways[0]).mean()) for way in ways]
            assert all(after > before * 1.02 for before, after in pairwise(distances))


@pytest.mark.parametrize("name", sorted({*EXPRESSIONS} - {"look_left", "look_right", "look_up", "skeptic"}))
def test_every_expression_shows_at_128_px(name):
    """At least 1% of the face's pixels change by a tenth of the range."""
    for seed in range(6):
        params = calm(seed)
        changed = np.abs(draw(apply_expression(params, name)) - draw(params)).max(2)
        assert (changed[40:115, 25:103] > 25).mean() > 0.01


@pytest.mark.parametrize("seed", range(4))
def test_smiling_opens_the_mouth_and_lifts_corners_cheeks_and_lower_lids(seed):
    calm_dog, smiling = place(calm(seed)), place(apply_expression(calm(seed), "smile"))
    without = place(apply_expression(calm(seed), "smile") | {"mouth_open": 0.0})
    assert smiling.mouth.lower_y - smiling.mouth.upper_y > calm_dog.mouth.lower_y - calm_dog.mouth.upper_y + 8
    assert without.mouth.lower_y - without.mouth.upper_y > calm_dog.mouth.lower_y - calm_dog.mouth.upper_y + 4
    assert smiling.mouth.corner_y < calm_dog.mouth.corner_y - 8
    assert smiling.mouth.half_width > calm_dog.mouth.half_width
    # the corner of the mouth lies higher in the picture too: dark lip pixels beside the middle move up
    params = calm(seed, hair="short", hair_col="blond", beard="none", glasses="none", skin_t=0.5)
    heights = []
    for moved in (params, apply_expression(params, "smile")):
        dog, picture = place(moved), render(moved, 256).astype(int).sum(2)
        x = round(dog.mouth.x + dog.mouth.half_width * 0.97)
        column = picture[150:200, x - 2 : x + 3].mean(1)
        heights.append(150 + int(column.argmin()))
    assert heights[1] < heights[0] - 6


@pytest.mark.parametrize("seed", range(4))
def test_anger_bares_teeth_that_sadness_hides(seed):
    params = calm(seed, hair_col="brown", skin_t=-1.0, beard="none")
    white = {}
    for name in ("neutral", "angry", "sad"):
        moved = apply_expression(params, name)
        mouth, picture = place(moved).mouth, render(moved, 256)
        x, y = round(mouth.x), round(mouth.upper_y)
        white[name] = int((picture[y : y + 22, x - 24 : x + 24].min(2) > 215).sum())
    assert white["angry"] > 100
    assert white["neutral"] < 20
    assert white["sad"] < 20


@pytest.mark.parametrize("name", ["angry", "sad", "surprised"])
@pytest.mark.parametrize("hair", CATEGORIES[0].options)
def test_ears_join_in(name, hair):
    """Above and beside the eyes, where only ears are, the picture changes."""
    params = calm(5, hair=hair)
    changed = np.abs(draw(apply_expression(params, name)) - draw(params)).max(2) > 25
    changed[20:, 36:92] = False
    assert changed.mean() > 0.01


@pytest.mark.parametrize(("name", "side"), [("wink_l", slice(0, 64)), ("wink_r", slice(64, 128))])
def test_a_wink_closes_one_eye(name, side):
    params = calm(6)
    changed = np.abs(draw(apply_expression(params, name)) - draw(params)).max(2) > 25
    eyes = changed[48:68]
    assert eyes[:, side].sum() > 4 * eyes[:, slice(64, 128) if side.start == 0 else slice(0, 64)].sum()


def test_coats_cover_the_options_and_brows_stand_out():
    assert list(COATS) == list(next(category.options for category in CATEGORIES if category.name == "hair_col"))
    for coat in COATS.values():
        assert np.abs(coat.brow - coat.base).max() > 0.25


def test_extreme_values_draw():
    for end in ("low", "high"):
        values = {name: getattr(factor, end) for name, factor in FACTORS_BY_NAME.items()}
        assert render(calm(1) | values, 64).std() > 10
