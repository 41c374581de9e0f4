"""MoCoGAN-HD's walk, its losses and its training, on untrained parts."""

import dataclasses
import math

import numpy as np
import pytest
import torch

from tests.training.paper.small_parts import build_small_parts
from training.baselines import mocogan_hd
from training.baselines.mocogan_hd import MocoganHdStage, find_components, warp
from training.baselines.video_networks import (
    Memory,
    MotionWalker,
    VideoJudge,
    follow,
    penalise_gradients,
    relativistic_loss,
)
from training.baselines.videos import VideoClips, draw_teacher_videos
from training.loop import train
from training.recipes.baselines import MOCOGAN_HD, MOCOGAN_HD_SMOKE

PICTURE = np.random.default_rng(1).integers(0, 255, (40, 40, 3), dtype=np.uint8)
TOLD = dataclasses.replace(MOCOGAN_HD_SMOKE, conditioned=True)


@pytest.fixture(scope="module")
def parts():
    return build_small_parts()


@pytest.fixture(scope="module")
def clips(parts):
    recipe = MOCOGAN_HD_SMOKE
    return draw_teacher_videos(parts, recipe.videos, recipe.video_frames, recipe.size_px, recipe.seed)


def test_the_published_numbers():
    recipe = MOCOGAN_HD
    assert (recipe.h_dim, recipe.n_pca, recipe.residual, recipe.frames) == (384, 384, 0.2, 16)
    assert (recipe.queue, recipe.momentum, recipe.temperature, recipe.motion_steps) == (4096, 0.999, 0.07, 5)
    assert (recipe.lr, recipe.lr_motion, recipe.gradient_penalty, recipe.contrast) == (1e-4, 1e-4, 10.0, 2.0)
    assert not recipe.conditioned


def test_components_are_those_of_w(parts):
    components, stdevs, w_avg = find_components(parts, 4, seed=1)
    assert torch.allclose(components @ components.t(), torch.eye(4), atol=1e-4)
    assert (stdevs[:-1] >= stdevs[1:]).all()
    z = torch.randn(4000, parts.z_dim, generator=torch.Generator().manual_seed(5))
    w = parts.sample_ws(z).mean(1)
    assert torch.allclose((w - w_avg) @ components[0], (w @ components[0]) - (w_avg @ components[0]), atol=1e-3)
    assert float(((w - w_avg) @ components.t()).std(0)[0]) == pytest.approx(float(stdevs[0]), rel=0.1)


def test_a_walk_starts_still_and_keeps_to_its_components():
    torch.manual_seed(0)
    components = torch.linalg.qr(torch.randn(10, 3))[0].t()
    walker = MotionWalker(MOCOGAN_HD_SMOKE, components, torch.tensor([3.0, 2.0, 1.0]), torch.zeros(10), 16)
    with torch.no_grad():
        walker.out.weight.mul_(500)  # steps as large as they can be
        walk = walker(torch.randn(5, 10), torch.randn(5, 7, 10))
    assert torch.equal(walk.offsets[:, 0], torch.zeros(5, 10))
    outside = walk.offsets - walk.offsets @ components.t() @ components
    assert outside.abs().max() < 1e-4
    steps = (walk.offsets.diff(dim=1) @ components.t()).abs().amax((0, 1))
    assert (steps <= 0.2 * torch.tensor([3.0, 2.0, 1.0]) + 1e-4).all()
    assert (steps > 0.15 * torch.tensor([3.0, 2.0, 1.0])).all()


def test_relativistic_loss_compares_with_the_others_mean():
    judged, against = [torch.tensor([2.0, 0.0])], [torch.tensor([1.0, -1.0])]
    assert relativistic_loss(judged, against, 1.0) == pytest.approx((1.0 + 1.0) / 2)
    assert relativistic_loss(judged * 2, against * 2, 0.0) == pytest.approx(2 * (4.0 + 0.0) / 2)


def test_the_gradient_penalty_is_that_of_a_linear_judge():
    class Linear(VideoJudge):
        def __init__(self):
            torch.nn.Module.__init__(self)

        def forward(self, video, text_embed=None):
            return [video.sum((1, 2, 3, 4)) * 2, video.sum((1, 2, 3, 4)) * 0]

    video = torch.rand(2, 3, 2, 4, 4)
    penalty = penalise_gradients(Linear(), video, video + 1, None, torch.tensor([0.2, 0.7]))
    assert float(penalty) == pytest.approx(((2 * math.sqrt(3) - 1) ** 2 + 1) / 2, rel=1e-4)


def test_the_memory_is_a_ring_and_contrast_wants_partners_alike():
    memory = Memory(5, 3)
    memory.push(torch.eye(3), -torch.eye(3))
    memory.push(2 * torch.eye(3), -torch.eye(3))
    assert int(memory.place) == 1
    assert torch.equal(memory.queues[0], torch.eye(3)[[2, 1, 2, 0, 1]])
    one = torch.nn.functional.normalize(torch.randn(3, 3, generator=torch.Generator().manual_seed(1)), dim=1)
    assert memory.contrast(0, one, one, 0.07) < memory.contrast(0, one, one.roll(1, 0), 0.07)


def test_the_slow_copy_follows():
    slow, fast = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
    before = slow.weight.detach().clone()
    follow(slow, fast, 0.9)
    assert torch.allclose(slow.weight, 0.9 * before + 0.1 * fast.weight)


def test_warping_cuts_a_hole_and_keeps_gradients():
    picture = torch.ones(6, 3, 32, 32, requires_grad=True)
    warped = warp(picture, np.random.default_rng(3))
    assert warped.shape == picture.shape
    assert ((warped == 0).any(1).flatten(1).sum(1) > 0).sum() >= 3  # a tint or a turn can change the hole's colour
    warped.sum().backward()
    assert (picture.grad == 0).any()
    assert (picture.grad != 0).any()


def test_teacher_videos_start_calm_move_and_repeat(parts, clips):
    recipe = MOCOGAN_HD_SMOKE
    again = draw_teacher_videos(parts, recipe.videos, recipe.video_frames, recipe.size_px, recipe.seed)
    assert torch.equal(clips.pixels, again.pixels)
    assert clips.pixels.shape == (4, 6, 3, 32, 32)
    assert len(clips.text_embeds) == 4
    assert (clips.pixels[:, 0] != clips.pixels[:, -1]).any()
    found, texts = clips.pick(np.random.default_rng(0), 3, 4)
    assert found.shape == (3, 4, 3, 32, 32)
    assert texts.shape == (3, 16)
    assert found.abs().max() <= 1
    with pytest.raises(ValueError, match="can't be cut out of videos of 6"):
        clips.pick(np.random.default_rng(0), 3, 7)


def test_clips_keep_their_order_and_sentence():
    pixels = 5 + torch.arange(4)[:, None] * 50 + torch.arange(5)[None] * 2
    clips = VideoClips(pixels[..., None, None, None].to(torch.uint8), torch.arange(4.0)[:, None])
    found, texts = clips.pick(np.random.default_rng(2), 6, 3)
    values = (found[..., 0, 0, 0] + 1) * 127.5
    assert torch.allclose(values.diff(dim=1), torch.full((6, 2), 2.0), atol=1e-3)
    assert torch.equal((values[:, 0] / 50).floor(), texts[:, 0])


@pytest.mark.parametrize("recipe", [MOCOGAN_HD_SMOKE, TOLD], ids=["published", "conditioned"])
def test_walker_and_judges_take_turns(parts, clips, recipe):
    stage = MocoganHdStage(recipe, parts, clips)
    before = {name: p.detach().clone() for name, p in stage.modules.named_parameters()}
    figures = stage.advance(0)
    assert {"loss", "video", "image", "match", "mutual", "telling", "penalty", "hinge", "contrast"} == set(figures)
    assert all(math.isfinite(value) for value in figures.values())
    assert stage.modules["memory"].place == recipe.motion_steps * recipe.batch
    for part in ("walker.cell", "walker.out", "walker.guess", "video", "image.layers", "image.project", "slow"):
        named = [n for n in before if n.startswith(part + ".")]
        moved = any(not torch.equal(before[n], p) for n, p in stage.modules.named_parameters() if n in named)
        assert named, part
        assert moved, part


def test_a_run_leaves_a_walker_that_draws_frames(parts, clips, tmp_path):
    stage = MocoganHdStage(MOCOGAN_HD_SMOKE, parts, clips)
    options = dataclasses.asdict(stage.recipe)
    train(stage, tmp_path, options, report=lambda _: None, log_every=1, evaluate_every=2)
    model = mocogan_hd.load(tmp_path, parts)
    assert torch.equal(model.walker.out.weight, stage.walker.out.weight)
    moved = mocogan_hd.move(model, parts, PICTURE, "smiling", 9, seed=3)
    assert moved.shape == (9, 8, 10)
    assert np.abs(moved[0]).max() == 0
    assert np.array_equal(moved, mocogan_hd.move(model, parts, PICTURE, "angry", 9, seed=3))
    assert not np.array_equal(moved, mocogan_hd.move(model, parts, PICTURE, "smiling", 9, seed=4))
    assert np.allclose(mocogan_hd.move(model, parts, PICTURE, "smiling", 9, 3, intensity=0.5), moved / 2, atol=1e-6)
    assert mocogan_hd.animate(model, parts, PICTURE, "smiling", 3, seed=3).shape == (3, 32, 32, 3)


def test_a_conditioned_walker_hears_the_sentence(parts, clips, tmp_path):
    stage = MocoganHdStage(TOLD, parts, clips)
    train(stage, tmp_path, dataclasses.asdict(TOLD), report=lambda _: None, log_every=3, evaluate_every=9)
    model = mocogan_hd.load(tmp_path, parts)
    first = mocogan_hd.move(model, parts, PICTURE, "smiling", 4, seed=3)
    assert not np.array_equal(first, mocogan_hd.move(model, parts, PICTURE, "angry", 4, seed=3))


def test_an_interrupted_run_goes_on_as_if_nothing_had_happened(parts, clips, tmp_path):
    def run(folder, steps):
        recipe = dataclasses.replace(MOCOGAN_HD_SMOKE, steps=steps)
        stage = MocoganHdStage(recipe, parts, clips)
        train(stage, folder, dataclasses.asdict(recipe), report=lambda _: None, log_every=9, evaluate_every=9)
        return stage.modules.state_dict()

    run(tmp_path / "halves", 1)
    resumed, whole = run(tmp_path / "halves", 2), run(tmp_path / "whole", 2)
    assert [name for name in whole if not torch.equal(whole[name], resumed[name])] == []
