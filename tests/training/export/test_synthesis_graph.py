"""The synthesis graph against the network that it stands for: every architecture, with and without noise and bounds, in
PyTorch and in ONNX Runtime, in float32 and in float16."""

import numpy as np
import onnx
import pytest
import torch

from training.export.bundle import run_graph
from training.export.graphs import export_module
from training.export.synthesis_graph import SynthesisGraph
from training.networks.stylegan2 import ZGenerator, build_z_generator
from training.photos.export import measure_psnr

ARCHITECTURES = ("orig", "skip", "resnet")


def build(architecture="skip", noise=True, clamp=None, resolution=32, scale=1.0) -> ZGenerator:
    torch.manual_seed(1)
    channels = (12, 10, 8, 6, 5)[: int(np.log2(resolution)) - 1]
    generator = build_z_generator(
        resolution, channels, 16, 16, architecture=architecture, noise=noise, clamp=clamp
    ).requires_grad_(False)
    for name, parameter in generator.named_parameters():
        if name.endswith(("noise_strength", "bias")):
            parameter.add_(0.3 * torch.randn_like(parameter))
        if name.endswith("affine.weight") and "torgb" not in name:
            parameter.mul_(scale)
    return generator.eval()


def draw_ws(generator: ZGenerator, count: int = 2) -> torch.Tensor:
    return generator.mapping(torch.randn(count, 16)) + 0.3 * torch.randn(count, generator.synthesis.num_ws, 16)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("noise", [True, False])
@pytest.mark.parametrize("clamp", [None, 0.5])
@pytest.mark.parametrize("resolution", [4, 32])
def test_it_draws_what_the_network_draws(architecture, noise, clamp, resolution):
    generator = build(architecture, noise, clamp, resolution)
    ws = draw_ws(generator)
    wanted = generator.synthesis(ws)
    given = SynthesisGraph(generator.synthesis, frames=False)(ws)
    torch.testing.assert_close(given, wanted, atol=1e-5, rtol=1e-5)
    if clamp:  # the bound is really at work
        free = SynthesisGraph(build(architecture, noise, None, resolution).synthesis, frames=False)(ws)
        assert (free - given).abs().max() > 0.05
    if noise:
        assert (generator.synthesis(ws, noise_mode="none") - given).abs().max() > 0.05


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_onnxruntime_draws_it_for_any_batch(architecture):
    generator = build(architecture, resolution=16)
    ws = draw_ws(generator, 3)
    graph = export_module(SynthesisGraph(generator.synthesis), (ws[:2],), ["ws"], ["frames"])
    wanted = ((generator.synthesis(ws).clamp(-1, 1) + 1) * 127.5).permute(0, 2, 3, 1).numpy()
    for count in (1, 3):
        frames = run_graph(graph, ws=ws[:count].numpy())["frames"]
        assert frames.dtype == np.uint8
        assert frames.shape == (count, 16, 16, 3)
        assert np.abs(frames - wanted[:count]).max() <= 0.51


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("scale", [1.0, 3000.0])
def test_float16_is_near_and_does_not_overflow(architecture, scale):
    generator = build(architecture, scale=scale)
    ws = draw_ws(generator)
    wanted = ((generator.synthesis(ws).clamp(-1, 1) + 1) * 127.5).round().permute(0, 2, 3, 1)
    drawn = SynthesisGraph(generator.synthesis, "fp16")(ws)
    assert measure_psnr(drawn.numpy(), wanted) > 40
    if scale > 1:  # such styles overflow where they are squared as they are
        styles = generator.synthesis.blocks[2].conv0.affine(ws[:, 5])
        assert not torch.isfinite(styles.half().square().sum(1)).all()


def test_onnxruntime_draws_float16_too():
    generator = build(resolution=16)
    ws = draw_ws(generator)
    graph = export_module(SynthesisGraph(generator.synthesis, "fp16"), (ws,), ["ws"], ["frames"])
    halves = [tensor for tensor in graph.graph.initializer if tensor.data_type == onnx.TensorProto.FLOAT16]
    assert len(halves) > 10  # weights, biases, blurs and noise of the blocks
    wanted = ((generator.synthesis(ws).clamp(-1, 1) + 1) * 127.5).round().permute(0, 2, 3, 1)
    assert measure_psnr(run_graph(graph, ws=ws.numpy())["frames"], wanted) > 40


def test_noise_of_no_strength_costs_nothing():
    generator = build()
    for name, parameter in generator.named_parameters():
        if name.endswith("noise_strength"):
            parameter.zero_()
    assert not any(name.endswith("noise") for name in SynthesisGraph(generator.synthesis).state_dict())
