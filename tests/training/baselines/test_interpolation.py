"""StyleCLIP's two ways to w*, on untrained parts."""

import dataclasses

import numpy as np
import pytest
import torch

from tests.training.paper.small_parts import build_small_parts, draw_pictures
from training.baselines import interpolation
from training.baselines.interpolation import Interpolation, LatentMapper, MapperStage, optimise_latent, rate
from training.loop import train
from training.paper.towers import plain_loss
from training.recipes.baselines import LATENT, LATENT_RENDERED, MAPPER_SMOKE

PICTURE = np.random.default_rng(1).integers(0, 255, (40, 40, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def parts():
    return build_small_parts()


def test_the_published_numbers():
    assert (LATENT.steps, LATENT.lr, LATENT.l2) == (300, 0.1, 0.008)
    assert (LATENT.rise, LATENT.fall) == (0.05, 0.25)


def test_the_rate_rises_stays_and_falls():
    rates = [rate(LATENT, step) for step in range(LATENT.steps)]
    assert rates[0] < 0.1 * LATENT.lr
    assert rates[150] == pytest.approx(LATENT.lr)
    assert rates[-1] < 0.01 * LATENT.lr
    assert max(rates) == pytest.approx(LATENT.lr)


def test_optimisation_comes_nearer_to_the_sentence_and_repeats_itself(parts):
    torch.manual_seed(0)
    ws, text = parts.sample_ws(torch.randn(1, parts.z_dim)), parts.towers.embed_texts(["smiling"])
    recipe = dataclasses.replace(LATENT_RENDERED, steps=6, identity=0.0, l2=0.0)
    edited = optimise_latent(parts, ws, text, recipe)
    with torch.no_grad():
        before, after = (plain_loss(parts.towers.embed_images(parts.draw(x)), text) for x in (ws, edited))
    assert after < before - 1e-3
    assert torch.equal(edited, optimise_latent(parts, ws, text, recipe))
    held = optimise_latent(parts, ws, text, dataclasses.replace(recipe, l2=100.0))
    assert (held - ws).norm() < 0.5 * (edited - ws).norm()


def test_each_level_sees_its_own_rows(parts):
    mapper = LatentMapper(dataclasses.replace(MAPPER_SMOKE, levels=(2, 5)), 8, 10, 16)
    assert mapper.spans == [slice(0, 2), slice(2, 5), slice(5, 8)]
    ws, text = torch.randn(1, 8, 10), torch.nn.functional.normalize(torch.randn(1, 16), dim=1)
    moved = mapper(ws, text) - ws
    with torch.no_grad():
        for weight in mapper.levels[1].parameters():
            weight.zero_()
    silent = mapper(ws, text) - ws
    assert torch.equal(silent[:, 2:5], torch.zeros(1, 3, 10))
    assert torch.equal(silent[:, :2], moved[:, :2])
    assert torch.equal(silent[:, 5:], moved[:, 5:])
    assert len(LatentMapper(MAPPER_SMOKE, 8, 10, 16).levels) == 2  # no fine rows in a small generator


def test_frames_lie_on_a_straight_line_from_the_inversion(parts, tmp_path):
    stage = MapperStage(MAPPER_SMOKE, parts, draw_pictures, draw_pictures(np.random.default_rng(0), 4))
    train(stage, tmp_path, dataclasses.asdict(MAPPER_SMOKE), report=lambda _: None, log_every=2, evaluate_every=2)
    model = interpolation.load(tmp_path, parts)
    line = interpolation.move(model, parts, PICTURE, "angry", 5, seed=0)
    assert line.shape == (5, 8, 10)
    assert np.abs(line[0]).max() == 0
    assert np.allclose(line, np.linspace(0, 1, 5)[:, None, None] * line[-1], atol=1e-6)
    assert np.abs(line[-1]).max() > 0
    assert not np.allclose(line[-1], interpolation.move(model, parts, PICTURE, "smiling", 5, seed=0)[-1])
    assert np.allclose(interpolation.move(model, parts, PICTURE, "angry", 5, 0, intensity=2.0), 2 * line, atol=1e-6)
    frames = interpolation.animate(model, parts, PICTURE, "angry", 5, seed=0)
    assert frames.shape == (5, 32, 32, 3)
    assert frames.dtype == np.uint8


def test_the_mapper_learns(parts):
    stage = MapperStage(MAPPER_SMOKE, parts, draw_pictures, draw_pictures(np.random.default_rng(0), 4))
    losses = []
    for _ in range(40):
        loss, _ = stage.loss(0)
        stage.optimizers[0].zero_grad()
        loss.backward()
        stage.optimizers[0].step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0] - 0.003


def test_an_optimised_edit_needs_no_training(parts):
    model = Interpolation(latent=dataclasses.replace(LATENT_RENDERED, steps=2))
    line = interpolation.move(model, parts, PICTURE, "angry", 3, seed=0)
    assert np.abs(line[-1]).max() > 0
    assert np.array_equal(line, interpolation.move(model, parts, PICTURE, "angry", 3, seed=9))


def test_another_judge_of_language_may_have_another_width(parts, tmp_path):
    """The paper's judge is ViT-B/32 beside the RN50 that conditions the motion: 512 wide beside 1024."""
    judged = dataclasses.replace(parts, judge=build_small_parts(embed_dim=24).towers)
    stage = MapperStage(MAPPER_SMOKE, judged, draw_pictures, draw_pictures(np.random.default_rng(0), 4))
    train(stage, tmp_path, dataclasses.asdict(MAPPER_SMOKE), report=lambda _: None, log_every=2, evaluate_every=2)
    line = interpolation.move(interpolation.load(tmp_path, judged), judged, PICTURE, "angry", 5, seed=0)
    assert np.abs(line[-1]).max() > 0
