"""The trunk's norms, found again from pictures."""

import torch

from training.networks.encoder import ConvBlock, Trunk, spread_norms


def build_trunk() -> Trunk:
    """A trunk whose norms only shift, as a bundle gives them back."""
    torch.manual_seed(0)
    trunk = Trunk((6, 8, 8, 10, 10), 12)
    for module in trunk.modules():
        if isinstance(module, ConvBlock):
            module.conv.weight.data *= 3.0
            module.norm.bias.data.normal_()
            module.norm.running_mean.zero_()
            module.norm.running_var.fill_(1 - module.norm.eps)
    return trunk


@torch.no_grad()
def test_norms_take_the_spread_of_pictures_and_the_trunk_computes_the_same():
    trunk, pictures = build_trunk(), torch.randn(6, 3, 128, 128)
    before, others = trunk.eval()(pictures), torch.randn(2, 3, 128, 128)
    before_others = trunk(others)
    trained_before = trunk.train()(pictures)
    trunk = build_trunk().train()
    spread_norms(trunk, pictures)
    assert trunk.training
    assert torch.allclose(trunk.eval()(pictures), before, rtol=1e-3, atol=1e-4)
    assert torch.allclose(trunk(others), before_others, rtol=1e-3, atol=1e-4)
    # in training the same pictures give the same: without the spread they would not
    assert torch.allclose(trunk.train()(pictures), before, rtol=1e-3, atol=1e-4)
    assert (trained_before - before).abs().max() > 0.1 * before.abs().max()


@torch.no_grad()
def test_norms_that_were_trained_keep_what_they_do():
    trunk, pictures = Trunk((6, 8, 8, 10, 10), 12), torch.randn(4, 3, 128, 128)
    trunk.train()(pictures)  # moves the running figures
    before = trunk.eval()(pictures)
    spread_norms(trunk, pictures * 2)
    assert torch.allclose(trunk(pictures), before, rtol=1e-3, atol=1e-4)
