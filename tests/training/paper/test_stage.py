"""The published motion's training on untrained parts, and what it leaves behind."""

import dataclasses
import json

import numpy as np
import pytest
import torch

from tests.training.paper.small_parts import build_small_parts, draw_pictures
from training.loop import train
from training.paper import animation
from training.paper.stage import PaperStage
from training.recipes.paper import PAPER, PAPER_RECIPES, PAPER_SMOKE, PaperWeights, ablate, read_paper_recipe

ALL = PaperWeights(l1=0.3, l2=0.3, identity=0.3, adversarial=0.1)


@pytest.fixture(scope="module")
def parts():
    return build_small_parts()


def build(parts, **changes):
    recipe = dataclasses.replace(PAPER_SMOKE, **changes)
    return PaperStage(recipe, parts, draw_pictures, draw_pictures(np.random.default_rng(0), 4))


def test_the_default_recipe_is_the_published_one():
    assert (PAPER.frames, PAPER.inference_frames, PAPER.steps, PAPER.batch) == (4, 16, 5000, 16)
    assert (PAPER.decay, PAPER.inference_decay, PAPER.temperature) == ("const", "linear", 0.07)
    assert (PAPER.lr, PAPER.lr_towers, PAPER.betas) == (1e-3, 1e-5, (0.0, 0.999))
    assert PAPER.weights == PaperWeights(1.0, 0, 0, 0, 0.5, 1.0, 1.0, 1.0, 0)
    assert len(set(PAPER.sentences())) == 28
    assert PAPER.sentences()[0] == "The person is smiling."


def test_each_ablation_leaves_out_its_own_loss_alone():
    found = ablate(PAPER)
    assert list(found) == [f"paper-no-{what}" for what in ("contrastive", "path-length", "first-last", "identity")]
    assert found["paper-no-contrastive"] == dataclasses.replace(PAPER, name="paper-no-contrastive", contrastive=False)
    for what, field in (("path-length", "path_length"), ("first-last", "first_last"), ("identity", "perceptual")):
        weights = dataclasses.replace(PAPER.weights, **{field: 0.0})
        assert found[f"paper-no-{what}"].weights == weights
    assert set(found) < set(PAPER_RECIPES)


def test_a_recipe_comes_back_from_its_options():
    for recipe in PAPER_RECIPES.values():
        assert read_paper_recipe(json.loads(json.dumps(dataclasses.asdict(recipe)))) == recipe


def test_towers_and_motion_learn_at_their_own_rates(parts):
    stage = build(parts)
    before = {name: p.detach().clone() for name, p in stage.modules.named_parameters()}
    stage.advance(0)
    moved = {name: float((p.detach() - before[name]).abs().max()) for name, p in stage.modules.named_parameters()}
    # Adam's first step is the learning rate itself, with betas (0, 0.999)
    largest = {part: max(v for n, v in moved.items() if n.startswith(part)) for part in ("motion", "towers")}
    assert largest["motion"] == pytest.approx(1e-3, rel=0.01)
    assert largest["towers"] == pytest.approx(1e-5, rel=0.05)
    assert moved["towers.text.table.weight"] > 0
    assert moved["towers.image.out.weight"] > 0
    assert torch.equal(parts.towers.image.out.weight, before["towers.image.out.weight"])


def test_every_loss_counts_and_only_those_that_are_asked_for(parts):
    figures = build(parts, weights=ALL).advance(0)
    named = {field.name for field in dataclasses.fields(PaperWeights)}
    assert set(figures) == named | {"loss", "telling"}
    assert figures["loss"] == pytest.approx(sum(getattr(ALL, name) * figures[name] for name in named), rel=1e-4)
    bare = build(parts, weights=dataclasses.replace(ALL, perceptual=0, language=0, adversarial=0)).advance(0)
    assert set(bare) == named - {"perceptual", "language", "adversarial"} | {"loss"}


def test_frames_are_compared_at_the_pictures_size(parts):
    """A generator may draw larger than the pictures are: 1024 px against 224 in the paper."""
    stage = build(parts, weights=ALL)
    stage.pictures = lambda rng, count: torch.nn.functional.avg_pool2d(draw_pictures(rng, count), 2)
    figures = stage.advance(0)
    assert 0 < figures["l1"] < 20
    assert 0 < figures["perceptual"] < 40


def test_training_lowers_the_loss_on_one_batch(parts):
    stage = build(parts, steps=30, lr_towers=0.0)
    losses = []
    for _ in range(12):
        losses.append(stage.advance(0)["loss"])  # the same step: the same faces, sentences and noise
    assert losses[-1] < losses[0] - 0.15


def test_sampled_faces_have_no_visual_residual(parts):
    stage = build(parts, sampled=True)
    before = stage.network.visual_mapper.layers[0].weight.detach().clone()
    figures = stage.advance(0)
    assert "perceptual" not in figures
    assert "language" in figures
    assert torch.equal(stage.network.visual_mapper.layers[0].weight, before)
    assert set(stage.evaluate(stage.modules)) == {"language", "top1", "distance", "size"}


def test_a_run_leaves_a_motion_that_draws_frames(parts, tmp_path):
    stage = build(parts, weights=ALL)
    train(stage, tmp_path, dataclasses.asdict(stage.recipe), report=lambda _: None, log_every=2, evaluate_every=2)
    model = animation.load(tmp_path, parts)
    assert torch.equal(model.network.cell.a.weight, stage.network.cell.a.weight)
    assert torch.equal(model.towers.image.out.weight, stage.modules["towers"].image.out.weight)
    picture = np.random.default_rng(1).integers(0, 255, (40, 40, 3), dtype=np.uint8)
    ask = (model, parts, picture, "The person is smiling.", 5)
    moved = animation.move(*ask, seed=1)
    frames = animation.animate(*ask, seed=1)
    assert moved.shape == (5, 8, 10)
    assert frames.shape == (5, 32, 32, 3)
    assert frames.dtype == np.uint8
    assert np.array_equal(frames, animation.animate(*ask, seed=1))
    assert not np.array_equal(moved, animation.move(*ask, seed=2))
    assert np.allclose(animation.move(*ask, seed=1, intensity=0.5), moved / 2, atol=1e-6)
    records = [json.loads(line) for line in (tmp_path / "stats.jsonl").read_text().splitlines()]
    assert records[-1]["step"] == 4
    assert "held_language" in records[-1]


def test_an_interrupted_run_goes_on_as_if_nothing_had_happened(parts, tmp_path):
    def run(folder, steps):
        stage = build(parts, weights=ALL, steps=steps)
        train(stage, folder, dataclasses.asdict(stage.recipe), report=lambda _: None, log_every=9, evaluate_every=9)
        return stage.modules.state_dict()

    run(tmp_path / "halves", 1)
    resumed, whole = run(tmp_path / "halves", 3), run(tmp_path / "whole", 3)
    assert [name for name in whole if not torch.equal(whole[name], resumed[name])] == []
