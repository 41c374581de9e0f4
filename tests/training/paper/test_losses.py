import math

import pytest
import torch

from training.paper.distance import FeatureDistance
from training.paper.losses import RowAdversary, first_last_loss, latent_loss, path_length_loss
from training.paper.towers import contrastive_loss, plain_loss


def test_the_path_length_loss_is_zero_for_even_steps_and_counts_their_changes():
    even = torch.arange(4.0)[None, :, None, None] * torch.ones(2, 1, 3, 5)
    assert path_length_loss(even) == 0
    jump = even.clone()
    jump[:, 1:] += 2.0  # a first step of 3, then of 1: one of two second differences is −2
    assert path_length_loss(jump) == pytest.approx(2.0)
    assert path_length_loss(even[:, :2]) == 0


def test_first_last_and_latent_losses_are_as_written():
    delta_ws = torch.zeros(1, 3, 2, 2)
    delta_ws[:, 1], delta_ws[:, 2] = 1.0, 3.0
    assert first_last_loss(delta_ws) == pytest.approx(9.0)
    assert latent_loss(delta_ws) == pytest.approx(0 + 1 + 9)  # a sum over the frames of means


def test_the_contrastive_loss_is_the_published_sum():
    torch.manual_seed(0)
    images, texts = (torch.nn.functional.normalize(torch.randn(3, 6), dim=1) for _ in range(2))
    s = (images @ texts.t()).tolist()
    wanted = sum(math.log(1 + sum(math.exp((s[i][j] - s[i][i]) / 0.07) for j in range(3))) for i in range(3)) / 3
    assert float(contrastive_loss(images, texts, 0.07)) == pytest.approx(wanted, rel=1e-5)
    assert float(plain_loss(images, texts)) == pytest.approx(1 - (s[0][0] + s[1][1] + s[2][2]) / 3, rel=1e-5)


def test_the_contrastive_loss_pulls_a_picture_from_others_sentences():
    texts = torch.eye(3)
    images = torch.nn.functional.normalize(torch.ones(3, 3), dim=1).requires_grad_(True)
    contrastive_loss(images, texts, 0.07).backward()
    assert (images.grad.diagonal() < 0).all()
    assert (images.grad[~torch.eye(3, dtype=torch.bool)] > 0).all()


def test_the_feature_distance_is_one_and_knows_no_brightness_of_features():
    torch.manual_seed(1)
    distance = FeatureDistance(torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3, bias=False), torch.nn.ReLU()))
    a, b = torch.rand(2, 3, 16, 16), torch.rand(2, 3, 16, 16)
    assert torch.equal(distance(a, a), torch.zeros(2))
    assert (distance(a, b) > 0.01).all()
    assert torch.allclose(distance(a, b), distance(b, a))
    assert float(distance(a, 3 * a).max()) < 1e-6  # unit length in every place


def test_the_adversary_has_the_published_shape():
    sizes = [tuple(p.shape) for p in RowAdversary(512).parameters() if p.ndim == 2]
    assert sizes == [(512, 512)] * 3 + [(1, 512)]
    assert RowAdversary(6)(torch.zeros(2, 4, 6)).shape == (2, 4, 1)
