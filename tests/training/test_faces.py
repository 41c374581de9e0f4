import numpy as np
import pytest
import torch

from training.export.graphs import MappingGraph
from training.faces.expressions import CYCLIC, EXPRESSIONS, GATE_NAMES, apply_expression
from training.faces.human import render
from training.faces.parameters import (
    ALIGNED_POSE,
    CATEGORIES,
    FACTORS_BY_NAME,
    Z_DIM,
    decode,
    encode,
    parameters_from,
    sample_parameters,
)
from training.generator import build_generator
from training.recipes import SMOKE


def faces(count: int, seed: int = 0):
    return [sample_parameters(np.random.default_rng([seed, i])) for i in range(count)]


def test_the_same_parameters_give_the_same_pixels():
    params = faces(1)[0]
    first = render(params, 128)
    render(faces(2)[1], 128)  # another face in between leaves nothing behind
    assert np.array_equal(first, render(params, 128))
    assert first.shape == (128, 128, 3)
    assert first.dtype == np.uint8


def test_factor_vectors_keep_every_parameter():
    for params in faces(50):
        restored = parameters_from(encode(params))
        for name, value in params.items():
            assert restored[name] == (value if isinstance(value, str) else pytest.approx(value, abs=1e-5)), name


def test_sampling_stays_in_range_and_keeps_the_rules():
    seen = {category.name: set() for category in CATEGORIES}
    for params in faces(3000, seed=3):
        for name, factor in FACTORS_BY_NAME.items():
            assert factor.low <= params[name] <= factor.high
        if params["fem"] > 0.15:
            assert params["beard"] == "none"
        for name, options in seen.items():
            options.add(params[name])
    assert all(seen[category.name] == set(category.options) for category in CATEGORIES)


@pytest.mark.parametrize("name", sorted(EXPRESSIONS))
def test_an_expression_moves_only_its_own_factors(name):
    params = faces(1)[0]
    half, full, over = (apply_expression(params, name, strength) for strength in (0.5, 1.0, 2.0))
    for factor, value in params.items():
        if factor not in EXPRESSIONS[name]:
            assert full[factor] == value
            continue
        target = EXPRESSIONS[name][factor]
        assert full[factor] == pytest.approx(target)
        assert half[factor] == pytest.approx((value + target) / 2)
        bounds = FACTORS_BY_NAME[factor]
        assert bounds.low <= over[factor] <= bounds.high
    assert apply_expression(params, name, 0.0) == pytest.approx(params)


def test_gate_names_point_at_expressions():
    for target in GATE_NAMES.values():
        assert set([target] if isinstance(target, str) else target) <= set(EXPRESSIONS)
    assert set(EXPRESSIONS) >= CYCLIC


@pytest.mark.parametrize("name", sorted({*EXPRESSIONS} - {"look_left", "look_right", "look_up", "blush", "skeptic"}))
def test_every_expression_shows_at_128_px(name):
    """The difference to a calm face must be seen: at least 1% of the face's pixels change by a tenth of the range."""
    for params in faces(6, seed=1):
        changed = np.abs(render(apply_expression(params, name), 128).astype(int) - render(params, 128)).max(2)
        assert (changed[40:115, 25:103] > 25).mean() > 0.01


def test_the_sampler_graph_draws_the_renderers_faces():
    z = np.random.default_rng(4).standard_normal((300, Z_DIM)).astype(np.float32)
    wanted = np.stack([encode(decode(row, ALIGNED_POSE)) for row in z])
    sampler = MappingGraph(build_generator(SMOKE.generator))
    assert np.abs(sampler.decode(torch.from_numpy(z)).numpy() - wanted).max() < 1e-5
