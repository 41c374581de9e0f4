"""The baselines of `make bench`: two forms in eager PyTorch that draw what the network draws."""

from __future__ import annotations

import torch

from bench.eager import draw_as_published, draw_tightened
from training.networks.synthesis import SynthesisLayer, SynthesisNetwork


def test_both_baselines_draw_the_networks_own_picture() -> None:
    torch.manual_seed(5)
    network = SynthesisNetwork(32, w_dim=12, channels=(10, 9, 8, 6), noise=True).eval().requires_grad_(False)
    for module in network.modules():
        if isinstance(module, SynthesisLayer):
            module.noise_strength.fill_(0.3)
            module.bias.normal_()
    ws = torch.randn(3, network.num_ws, 12)
    wanted = network(ws)
    published = draw_as_published(network, ws)
    torch.testing.assert_close(published, wanted, rtol=1e-4, atol=1e-4)
    tightened = torch.cat([draw_tightened(network, one[None]) for one in ws])
    torch.testing.assert_close(tightened, wanted, rtol=1e-4, atol=1e-4)
    assert wanted.std() > 0.1, "a picture, not a blank"
