import math

import numpy as np
import pytest
import torch

from training.losses import (
    directional_loss,
    explained_difference,
    face_weights,
    pair_loss,
    picture_loss,
    psnr_db,
    relative_motion_loss,
)
from training.optimizers import Muon, build_optimizers, is_matrix, orthogonalize, schedule


def test_picture_loss_of_a_constant_error():
    error = torch.full((2, 3, 8, 8), 0.5)
    weights = torch.ones(1, 1, 8, 8)
    # no gradient in a constant: L1 and half of L1 at half size remain
    assert picture_loss(error, weights) == pytest.approx(0.5 + 0.25)
    assert picture_loss(error, 2 * weights) == pytest.approx(1.5)


def test_pair_loss_punishes_a_lost_difference():
    truth = torch.zeros(2, 3, 16, 16)
    truth[1, :, 4:8, 4:8] = 1.0
    frozen = truth.mean(0, keepdim=True).expand_as(truth)  # both drawn alike
    shifted = truth + 0.5 * (truth[1] - truth[0]).abs().mean()  # same difference, another level
    weights = torch.ones(1, 1, 16, 16)
    assert pair_loss(truth, truth, weights) == 0
    assert pair_loss(frozen, truth, weights) > pair_loss(shifted, truth, weights)


def test_explained_difference_is_one_for_truth_and_zero_for_no_change():
    truth = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    weights = face_weights(16)
    assert explained_difference(truth, truth, weights) == pytest.approx(1.0)
    alike = truth.repeat_interleave(2, 0)[::2].clone()
    alike[1::2] = alike[0::2]
    assert explained_difference(alike, truth, weights) == pytest.approx(0.0, abs=1e-6)


def test_face_weights_look_at_eyes_and_mouth():
    weights = face_weights(64)[0, 0]
    assert weights[40, 32] > 5 * weights[2, 2]
    assert 0.5 < weights.mean() < 1.5


def test_psnr():
    truth = torch.zeros(1, 3, 8, 8)
    assert psnr_db(truth + 0.2, truth) == pytest.approx(20.0, abs=1e-4)


def test_relative_motion_loss_is_the_share_of_the_teacher():
    teacher = torch.ones(2, 5, 3, 4)
    assert relative_motion_loss(teacher, teacher, 0.1) == 0
    assert relative_motion_loss(torch.zeros_like(teacher), teacher, 0.0) == pytest.approx(1.0, abs=0.04)
    half, all_of_it = (float(relative_motion_loss((1 - share) * teacher, teacher, 0.0)) for share in (0.5, 1.0))
    assert all_of_it == pytest.approx(2 * half, rel=0.05)  # a distance and not its square
    still = torch.zeros_like(teacher)
    assert torch.isfinite(relative_motion_loss(teacher, still, 0.5))


def test_of_two_readings_the_likelier_one_is_followed_in_full():
    teachers = torch.tensor([1.0, 1.0, -1.0]).reshape(3, 1, 1, 1)  # two of three such sentences mean it
    asked = torch.linspace(-1, 1, 41)
    losses = [float(relative_motion_loss(torch.full_like(teachers, float(a)), teachers, 0.0)) for a in asked]
    assert asked[int(np.argmin(losses))] == pytest.approx(1.0)  # the mean of squares would ask for a third


def test_directional_loss_looks_at_direction_alone():
    text = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    assert directional_loss(7 * text, text) == pytest.approx(0.0, abs=1e-6)
    assert directional_loss(text.flip(0), text) == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize("shape", [(24, 24), (16, 90), (90, 16)])
def test_orthogonalize_brings_singular_values_near_one(shape):
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(2))
    values = torch.linalg.svdvals(orthogonalize(matrix))
    assert values.max() < 1.35
    assert values.median() > 0.65
    # directions are kept: U Vᵀ of the input is what it approaches
    u, _, vh = torch.linalg.svd(matrix, full_matrices=False)
    cosine = (orthogonalize(matrix) * (u @ vh)).sum() / (orthogonalize(matrix).norm() * (u @ vh).norm())
    assert cosine > 0.95


def test_muon_moves_every_matrix_by_about_the_learning_rate():
    weight = torch.nn.Parameter(torch.zeros(32, 8, 3, 3))
    optimizer = Muon([weight], lr=0.1)
    weight.grad = 1e-6 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(3))
    optimizer.step()
    assert weight.detach().square().mean().sqrt() == pytest.approx(0.1, rel=0.25)


def test_muon_takes_matrices_and_adam_the_rest():
    module = torch.nn.Sequential(torch.nn.Conv2d(8, 8, 3), torch.nn.Conv2d(8, 3, 1), torch.nn.Linear(8, 8))
    muon, adam = build_optimizers([module], 1e-2)
    assert {tuple(p.shape) for p in muon.param_groups[0]["params"]} == {(8, 8, 3, 3), (8, 8)}
    assert all(not is_matrix(p) for p in adam.param_groups[0]["params"])


def test_schedule_rises_stays_and_falls():
    rates = [schedule(step, 1000, 0.5) for step in range(1000)]
    assert rates[0] == pytest.approx(1 / 40)
    assert rates[100] == rates[499] == 1.0
    assert rates[-1] == pytest.approx(0.02)
    assert all(not math.isnan(rate) and 0 < rate <= 1 for rate in rates)
