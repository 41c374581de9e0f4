import pytest
import torch
from torch import nn

from training.inversion.features import (
    compare_maps,
    describe_by_discriminator,
    describe_by_trunk,
    normalize_maps,
)
from training.inversion.losses import (
    delta_norm,
    identity_loss,
    latent_discriminator_loss,
    latent_realism_loss,
    r1_penalty,
    squared_error,
    w_norm,
)
from training.metrics.video import perceptual_distance
from training.networks.encoder import Trunk
from training.networks.stylegan2 import WDiscriminator, build_discriminator


def test_plain_losses_by_hand():
    assert squared_error(torch.zeros(2, 3, 4, 4), torch.full((2, 3, 4, 4), 0.5)).tolist() == [0.25, 0.25]
    who = torch.eye(2)
    assert identity_loss(who, who.flip(0)).tolist() == [1.0, 1.0]
    assert identity_loss(who, who).tolist() == [0.0, 0.0]
    ws = torch.zeros(1, 4, 2)
    ws[0, 1] = torch.tensor([3.0, 4.0])
    ws[0, 3] = torch.tensor([1.0, 0.0])
    assert delta_norm(ws, 1).item() == 5.0
    assert delta_norm(ws, 3).item() == 6.0
    assert w_norm(ws, torch.zeros(2)).item() == pytest.approx(26 / 8)


def test_delta_norm_has_a_gradient_where_deltas_are_zero():
    ws = torch.zeros(1, 3, 2, requires_grad=True)
    delta_norm(ws, 2).sum().backward()
    assert torch.isfinite(ws.grad).all()


class Sum(nn.Module):
    """A judge whose gradient is known: 2 in every number."""

    def forward(self, w):
        return 2 * w.sum(1)


def test_latent_losses():
    judge = Sum()
    assert r1_penalty(judge, torch.randn(4, 3)).item() == pytest.approx(12.0)
    far = torch.full((2, 3), 10.0)
    assert latent_discriminator_loss(judge, far, -far).item() == pytest.approx(0.0, abs=1e-6)
    assert latent_discriminator_loss(judge, -far, far).item() > 100
    ws = torch.stack([torch.full((2, 3), 10.0), torch.full((2, 3), -10.0)], 1)  # row 0 passes, row 1 does not
    assert latent_realism_loss(judge, ws, 0).tolist() == pytest.approx([0.0, 0.0], abs=1e-6)
    assert latent_realism_loss(judge, ws, 1).tolist() == pytest.approx([30.0, 30.0])


def test_judge_learns_to_tell_rows_apart():
    torch.manual_seed(0)
    judge = WDiscriminator(4)
    optimizer = torch.optim.Adam(judge.parameters(), 0.1, (0.0, 0.99))
    for _ in range(100):
        real, fake = torch.randn(32, 4) + 1, torch.randn(32, 4) - 1
        loss = latent_discriminator_loss(judge, real, fake) + r1_penalty(judge, real)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert judge(torch.ones(1, 4)) > judge(-torch.ones(1, 4)) + 0.1


def test_descriptions_compare_like_the_perceptual_distance():
    torch.manual_seed(0)
    a, b = torch.randn(2, 2, 3, 32, 32).unbind(0)
    discriminator = build_discriminator(32, (6, 5, 4, 3))
    describe = describe_by_discriminator(discriminator)
    ours = compare_maps(describe(a), describe(b))
    torch.testing.assert_close(ours, perceptual_distance(a, b, discriminator.describe))
    assert (compare_maps(describe(a), describe(a)) == 0).all()
    assert not any(p.requires_grad for p in discriminator.parameters())
    moving = a.clone().requires_grad_()
    compare_maps(describe(moving), describe(b)).sum().backward()
    assert moving.grad is not None
    assert moving.grad.any()


def test_trunk_gives_a_map_a_size():
    torch.manual_seed(0)
    describe = describe_by_trunk(Trunk((4, 5, 6, 7, 8), 16), size=64)
    maps = describe(torch.randn(2, 3, 128, 128))
    assert [tuple(part.shape[1:]) for part in maps] == [(4, 32, 32), (5, 16, 16), (6, 8, 8), (7, 4, 4), (8, 2, 2)]
    torch.testing.assert_close(maps[2].norm(dim=1), torch.ones(2, 8, 8))


def test_dark_places_have_finite_gradients():
    maps = [torch.zeros(1, 4, 2, 2, requires_grad=True)]
    compare_maps(normalize_maps(maps), [torch.zeros(1, 4, 2, 2)]).sum().backward()
    assert torch.isfinite(maps[0].grad).all()
