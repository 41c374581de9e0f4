import dataclasses
import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch

from training.adversarial.draws import Draws, Kind, NoiseSource, pick_crossovers
from training.adversarial.losses import path_lengths, path_penalty, r1_penalty
from training.adversarial.pictures import PoolPictures
from training.adversarial.stage import AdversarialStage, build_lazy_adam, check_recipe
from training.errors import DataError, InterruptedRunError
from training.loop import CHECKPOINT, train
from training.recipes.adversarial import ADVERSARIAL_RECIPES, GAN_SMOKE

CPU = torch.device("cpu")
TINY = dataclasses.replace(GAN_SMOKE, resolution=16, channels=(8, 8, 6), precision="float32", augment_p=0.4, measured=0)


def quiet(_):
    pass


@pytest.fixture(scope="module")
def pictures():
    return PoolPictures(np.random.default_rng(0).integers(0, 255, (20, 16, 16, 3), dtype=np.uint8))


def start(pictures, **changes):
    return AdversarialStage(dataclasses.replace(TINY, **changes), pictures, CPU, threads=0)


def weights(stage):
    return {name: value.clone() for name, value in stage.modules.state_dict().items()}


def test_micro_batches_give_what_the_whole_batch_gives(pictures):
    whole, cut = (start(pictures, precision="float64", micro_batch=size) for size in (8, 4))
    assert len(whole.rows) == 1
    assert len(cut.rows) == 2
    for step in range(3):  # path length comes at 0 and 2, R1 at 0
        figures, again = whole.advance(step), cut.advance(step)
        for name, value in figures.items():
            assert again[name] == pytest.approx(value, rel=1e-9, abs=1e-12), (step, name)
    for name, value in weights(whole).items():
        exact = not name.endswith("w_avg")  # which is tracked in float32
        assert torch.allclose(weights(cut)[name], value, rtol=1e-7 if exact else 1e-5, atol=1e-10), name
    assert float(cut.path_mean) == pytest.approx(float(whole.path_mean), rel=1e-10)
    assert float(whole.path_mean) > 0


def test_the_whole_batch_matters_and_the_seed_too(pictures):
    base = start(pictures, precision="float64").advance(0)["loss"]
    assert start(pictures, precision="float64", seed=1).advance(0)["loss"] != pytest.approx(base, rel=1e-6)
    ungrouped = start(pictures, precision="float64", group_size=2).advance(0)["loss"]
    assert ungrouped != pytest.approx(base, rel=1e-9)


def test_every_phase_moves_the_weights_that_it_should(pictures):
    stage = start(pictures)
    real = [stage.reader.read(0, micro) for micro in range(2)]

    def moved(phase):
        before = weights(stage)
        phase()
        changed = {name for name, value in weights(stage).items() if not torch.equal(value, before[name])}
        assert all(p.grad is None for p in stage.modules.parameters())
        assert all(p.requires_grad for p in stage.modules.parameters())
        return {name.split(".")[0] for name in changed}, changed

    sides, changed = moved(lambda: stage._train_generator(0))
    assert sides == {"generator"}
    assert {"generator.mapping.w_avg", "generator.synthesis.const"} <= changed
    sides, changed = moved(lambda: stage._regularise_generator(0))
    assert sides == {"generator"}
    assert "generator.mapping.w_avg" not in changed
    assert moved(lambda: stage._train_discriminator(0, real))[0] == {"discriminator"}
    assert moved(lambda: stage._regularise_discriminator(0, real))[0] == {"discriminator"}


def test_lazy_penalties_come_at_their_intervals(pictures, monkeypatch):
    stage = start(pictures, r1_interval=3, path_interval=2)
    seen = []
    monkeypatch.setattr(stage, "_regularise_generator", lambda step: seen.append(("path", step)))
    monkeypatch.setattr(stage, "_regularise_discriminator", lambda step, _: seen.append(("r1", step)))
    for step in range(5):
        stage.advance(step)
    assert seen == [("path", 0), ("r1", 0), ("path", 2), ("r1", 3), ("path", 4)]


def test_lazy_adam_has_the_papers_rates():
    adam = build_lazy_adam(torch.nn.Linear(2, 2), 0.002, 16)
    assert adam.param_groups[0]["lr"] == pytest.approx(0.002 * 16 / 17)
    assert adam.param_groups[0]["betas"] == (0.0, pytest.approx(0.99 ** (16 / 17)))
    assert build_lazy_adam(torch.nn.Linear(2, 2), 0.002, 0).param_groups[0]["lr"] == 0.002


def test_r1_of_a_known_function_is_its_squared_slope():
    pictures = torch.rand(3, 3, 4, 4, dtype=torch.float64, requires_grad=True)
    weight = torch.rand(48, dtype=torch.float64, requires_grad=True)
    penalties = r1_penalty((pictures.flatten(1) * weight).sum(1) * torch.tensor([1.0, 2.0, 3.0]), pictures)
    assert torch.allclose(penalties, weight.square().sum() * torch.tensor([1.0, 4.0, 9.0]).double())
    penalties.sum().backward()
    assert torch.allclose(weight.grad, 2 * 14 * weight.detach())


def test_path_lengths_of_a_linear_generator_are_known():
    torch.manual_seed(0)
    matrix = torch.rand(2 * 5, 3 * 4 * 4, dtype=torch.float64, requires_grad=True)
    ws = torch.rand(3, 2, 5, dtype=torch.float64, requires_grad=True)
    noise = torch.randn(3, 3, 4, 4, dtype=torch.float64)
    pictures = (ws.flatten(1) @ matrix).view(3, 3, 4, 4)
    lengths = path_lengths(pictures, ws, noise)
    gradient = (noise.flatten(1) / 4) @ matrix.T
    assert torch.allclose(lengths, (gradient.square().sum(1) / 2).sqrt())
    path_penalty(lengths, torch.tensor(0.5)).sum().backward()
    assert matrix.grad.abs().sum() > 0


def test_numbers_belong_to_a_row_a_step_and_a_purpose():
    def draw(kind=Kind.G_MAIN, step=3, rows=(0, 1, 2, 3), seed=0):
        return Draws(seed, kind, step, np.array(rows)).normal(2, 5)

    base = draw()
    assert torch.equal(draw(rows=(2, 1)), base[[2, 1]])
    for other in (draw(Kind.D_FAKE), draw(step=4), draw(seed=1)):
        assert not torch.equal(other, base)
    noise = [NoiseSource([5, 6], CPU), NoiseSource([6], CPU)]
    both, alone = (source(torch.zeros(2 - i, 3, 4, 4)) for i, source in enumerate(noise))
    assert both.shape == (2, 1, 4, 4)
    assert torch.equal(both[1:], alone)
    assert not torch.equal(noise[1](torch.zeros(1, 3, 4, 4)), alone)  # the next layer has other noise


def test_styles_are_mixed_as_often_as_asked():
    uniforms = np.random.default_rng(0).random((5000, 3))
    places = pick_crossovers(uniforms, 8, 0.9)
    assert (places < 8).float().mean() == pytest.approx(0.9, abs=0.02)
    assert set(places.tolist()) == set(range(1, 9))


def test_a_cut_run_goes_on_bit_for_bit(pictures, tmp_path):
    whole = start(pictures)
    ema = train(whole, tmp_path / "whole", {}, report=quiet, log_every=1)
    cut = start(pictures)
    step = cut.advance

    def advance(number):
        if number == 4:
            os.kill(os.getpid(), signal.SIGINT)
        return step(number)

    cut.advance = advance
    with pytest.raises(InterruptedRunError, match="after step 5"):
        train(cut, tmp_path / "cut", {}, report=quiet, log_every=1)
    torch.manual_seed(77)
    resumed = start(pictures)
    again = train(resumed, tmp_path / "cut", {}, report=quiet, log_every=1)
    for name, value in weights(whole).items():
        assert torch.equal(value, weights(resumed)[name]), name
    for name, value in ema.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name
    assert whole.adaptation.p == resumed.adaptation.p != TINY.augment_p
    assert torch.equal(whole.path_mean, resumed.path_mean)
    for first, second in zip(whole.optimizers, resumed.optimizers, strict=True):
        for one, other in zip(first.state.values(), second.state.values(), strict=True):
            assert all(torch.equal(one[key], other[key]) for key in one)
    logged = [(tmp_path / part / "stats.jsonl").read_text().splitlines() for part in ("whole", "cut")]
    for one, other in zip(*(map(json.loads, lines) for lines in logged), strict=True):
        assert {**one, "s_per_step": 0} == {**other, "s_per_step": 0}


def test_a_picture_that_breaks_in_the_middle_costs_no_step(pictures, tmp_path):
    class Breaking(PoolPictures):
        broken = True

        def read(self, index):
            if self.broken and index == bad:
                raise DataError("faces/7.png can't be read as a picture")
            return super().read(index)

    bad = AdversarialStage(TINY, pictures, CPU, threads=0).reader.order.at(8 * 2 + 2)[0]  # first seen in step 2
    stage = AdversarialStage(TINY, Breaking(pictures.pictures), CPU, threads=0)
    with pytest.raises(DataError, match=r"7\.png can't be read"):
        train(stage, tmp_path, {}, report=quiet)
    assert torch.load(tmp_path / CHECKPOINT, weights_only=True)["step"] == 2
    resumed, whole = start(pictures), start(pictures)
    train(resumed, tmp_path, {}, report=quiet)
    train(whole, tmp_path / "whole", {}, report=quiet)
    for name, value in weights(whole).items():
        assert torch.equal(value, weights(resumed)[name]), name


GOLDEN = Path(__file__).with_name("golden_losses.json")


def run_golden():
    """200 steps of a very small run in float64: generator's and discriminator's loss, R1, path length, p."""
    recipe = dataclasses.replace(
        TINY,
        resolution=8,
        channels=(6, 6),
        batch=4,
        micro_batch=4,
        kimg=0.8,
        precision="float64",
        r1_interval=16,
        path_interval=8,
        path_shrink=4,
        augment_kimg=4.0,
    )
    pictures = PoolPictures(np.random.default_rng(5).integers(0, 255, (16, 8, 8, 3), dtype=np.uint8))
    stage = AdversarialStage(recipe, pictures, CPU, threads=0)
    assert recipe.steps == 200
    names = ("generator", "discriminator", "r1", "path_length", "augment_p")
    curves = {name: [] for name in names}
    for step in range(200):
        figures = stage.advance(step)
        if (step + 1) % 10 == 0:
            for name in names:
                curves[name].append(round(figures[name], 6))
    return curves


def test_200_steps_reproduce_the_golden_curves():
    golden = json.loads(GOLDEN.read_text())
    for name, curve in run_golden().items():
        np.testing.assert_allclose(curve, golden[name], rtol=1e-4, atol=1e-4, err_msg=name)
    assert golden["augment_p"][0] - golden["augment_p"][-1] > 0.05  # the curves do go somewhere


def test_the_average_follows_the_generator_by_its_half_life(pictures):
    stage = start(pictures, ema_kimg=0.08, ema_rampup=None)
    assert stage.ema_decay_at(0) == stage.ema_decay == pytest.approx(0.5 ** (8 / 80))
    early = start(pictures, ema_kimg=0.08, ema_rampup=0.5)
    assert early.ema_decay_at(0) == pytest.approx(0)  # the first weights are forgotten at once
    assert early.ema_decay_at(10) == pytest.approx(0.5 ** (8 / 40))
    assert early.ema_decay_at(1000) == pytest.approx(stage.ema_decay)
    assert set(stage.averaged) == {"generator"}


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_half_precision_stays_near_full_precision(pictures, precision):
    full, half = start(pictures), start(pictures, precision=precision)
    for step in range(2):
        wanted, got = full.advance(step), half.advance(step)
        assert got["loss"] == pytest.approx(wanted["loss"], rel=0.03)
        assert got["loss"] != wanted["loss"]
    assert all(p.dtype == torch.float32 and torch.isfinite(p).all() for p in half.modules.parameters())


def test_activations_and_weights_lie_channels_last(pictures):
    stage = start(pictures)
    stage.advance(0)
    weight = stage.discriminator.blocks[0].conv0.weight
    assert weight.is_contiguous(memory_format=torch.channels_last)
    assert not weight.is_contiguous()


def test_labels_reach_both_networks(pictures):
    class Labelled(PoolPictures):
        label_dim = 3

        def label(self, index):
            return np.eye(3, dtype=np.float32)[index % 3]

    stage = AdversarialStage(dataclasses.replace(TINY, labels=True), Labelled(pictures.pictures), CPU, threads=0)
    before = weights(stage)
    stage.advance(0)
    after = weights(stage)
    for name in ("generator.mapping.embed.weight", "discriminator.mapping.embed.weight"):
        assert not torch.equal(before[name], after[name]), name


def test_recipes_fit_together():
    for recipe in ADVERSARIAL_RECIPES.values():
        check_recipe(recipe, 1)
    check_recipe(ADVERSARIAL_RECIPES["stylegan2-256"], 8)
    with pytest.raises(ValueError, match="precision 'float8'"):
        check_recipe(dataclasses.replace(TINY, precision="float8"), 1)
    with pytest.raises(ValueError, match="can't be cut"):
        check_recipe(TINY, 3)
