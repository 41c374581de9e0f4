"""The export's modules against the networks that they stand for, in PyTorch; the export itself checks ONNX Runtime."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from training.adversarial.stage import build_networks
from training.photos.graphs import Scaled, ZMappingGraph
from training.recipes.adversarial import GAN_SMOKE


@pytest.fixture
def generator():
    generator, _ = build_networks(dataclasses.replace(GAN_SMOKE, clamp=0.8))
    with torch.no_grad():
        for name, parameter in generator.named_parameters():
            if name.endswith("noise_strength"):
                parameter.fill_(0.7)
        generator.mapping.w_avg.normal_()
    return generator.eval().requires_grad_(False)


def test_mapping_truncates_as_the_generator(generator):
    z = torch.randn(3, 16)
    graph = ZMappingGraph(generator.mapping)
    for psi in (0.0, 0.6, 1.0):
        torch.testing.assert_close(graph(z, torch.tensor([psi])), generator.mapping(z, None, psi), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("sizes", [(64, 32), (48, 20), (32, 80), (32, 32)])
def test_scaling_by_matrices_is_bilinear_scaling(sizes):
    before, after = sizes
    image = torch.rand(2, 3, before, before)
    wanted = F.interpolate(image, (after, after), mode="bilinear", align_corners=False, antialias=before > after)
    torch.testing.assert_close(Scaled(nn.Identity(), before, after)(image), wanted, atol=1e-5, rtol=1e-5)
