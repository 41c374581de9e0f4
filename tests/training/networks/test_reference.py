"""Every fast operation beside its slow reference, in float64: values, gradients, and gradients of gradients."""

from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor, nn

from training.networks import reference
from training.networks.layers import (
    Convolution,
    FullyConnected,
    append_minibatch_std,
    blur_depthwise,
    blur_kernel,
    downsample_depthwise,
    upsample_depthwise,
)
from training.networks.stylegan2 import (
    Architecture,
    SynthesisLayer,
    SynthesisNetwork,
    ToRGB,
    build_discriminator,
    build_z_generator,
)

TOLERANCE = {"rtol": 1e-9, "atol": 1e-9}
ARCHITECTURES: tuple[Architecture, ...] = ("orig", "skip", "resnet")


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).requires_grad_()


def stir(module: nn.Module) -> nn.Module:
    """Float64, with every parameter and buffer away from zero: biases and noise strengths count."""
    module.double()
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, dtype=torch.float64, generator=generator))
    return module


def assert_same(
    fast: Callable[..., Tensor],
    slow: Callable[..., Tensor],
    inputs: Sequence[Tensor],
    parameters: Sequence[Tensor] = (),
) -> None:
    """Compare values, first gradients of everything, and gradients of the inputs' squared gradients."""
    results = []
    for function in (fast, slow):
        value = function(*inputs)
        pull = normal(*value.shape, seed=9).detach()
        # squares, so that also a linear operation has a second gradient
        loss = (value * pull).sum() + value.square().sum()
        first = torch.autograd.grad(loss, [*inputs, *parameters], create_graph=True, allow_unused=True)
        energy = sum(g.square().sum() for g in first[: len(inputs)] if g is not None)
        second = torch.autograd.grad(energy, [*inputs, *parameters], allow_unused=True)
        results.append((value, first, second))
    (value, first, second), (slow_value, slow_first, slow_second) = results
    torch.testing.assert_close(value, slow_value, **TOLERANCE)
    for ours, theirs in zip([*first, *second], [*slow_first, *slow_second], strict=True):
        pair = [torch.zeros((), dtype=torch.float64) if g is None or not g.any() else g for g in (ours, theirs)]
        torch.testing.assert_close(*pair, **TOLERANCE)
    assert any(g is not None and g.any() for g in first)


def test_upfirdn_by_hand():
    x = torch.tensor([[[[1.0, 2.0]]]])
    kernel = torch.tensor([[1.0, 10.0, 100.0]])
    # 1 0 2 0, padded by two before: the kernel turned around slides over it
    out = reference.upfirdn2d(x, kernel.expand(1, 3), up=2, padding=(2, 0, 0, 1))
    assert out[0, 0, 0].tolist() == [1.0, 10.0, 102.0, 20.0]
    assert out.shape == (1, 1, 3, 4)
    assert reference.upfirdn2d(x, kernel, up=2, down=2, padding=(2, 0, 0, 0))[0, 0].tolist() == [[1.0, 102.0]]


@pytest.mark.parametrize(("padding", "stride"), [(1, 1), (2, 1), (1, 2)])
def test_blur(padding, stride):
    x = normal(2, 3, 6, 6)
    kernel = blur_kernel(1.0)[None, None].double()
    assert_same(
        lambda x: blur_depthwise(x, kernel, padding, stride),
        lambda x: reference.upfirdn2d(x, reference.blur_taps(x), down=stride, padding=(padding,) * 4),
        [x],
    )


def test_resampling():
    x = normal(2, 3, 6, 6)
    up, down = (blur_kernel(gain)[None, None].double() for gain in (4.0, 1.0))
    assert_same(lambda x: upsample_depthwise(x, up), reference.upsample2d, [x])
    assert_same(lambda x: downsample_depthwise(x, down), reference.downsample2d, [x])
    # a flat picture stays as bright as it was, away from the border
    flat = torch.ones(1, 1, 8, 8, dtype=torch.float64)
    assert torch.allclose(upsample_depthwise(flat, up)[..., 2:-2, 2:-2], torch.ones(()).double())
    assert torch.allclose(downsample_depthwise(flat, down)[..., 1:-1, 1:-1], torch.ones(()).double())


@pytest.mark.parametrize("clamp", [None, 0.7])
@pytest.mark.parametrize(
    ("kernel", "options"),
    [
        (3, {}),
        (1, {}),
        (3, {"down": True}),
        (1, {"down": True}),
        (1, {"up": True}),
        (1, {"up": True, "bias": False, "activate": False}),
        (1, {"down": True, "bias": False, "activate": False}),
        (3, {"activate": False}),
    ],
)
def test_convolution(kernel, options, clamp):
    layer = stir(Convolution(3, 5, kernel, clamp=clamp, **options))
    assert_same(
        lambda x: layer(x, gain=0.8), lambda x: reference.convolve(layer, x, 0.8), [normal(2, 3, 8, 8)],
        list(layer.parameters()),
    )  # fmt: skip


@pytest.mark.parametrize("up", [False, True])
@pytest.mark.parametrize("noise_size", [None, 8])
@pytest.mark.parametrize("clamp", [None, 0.7])
def test_modulated_convolution(up, noise_size, clamp):
    layer = stir(SynthesisLayer(4, 5, 6, up=up, noise_size=noise_size, clamp=clamp))
    x, w = normal(3, 4, 4 if up else 8, 4 if up else 8), normal(3, 6, seed=1)
    noise = None if noise_size is None else layer.noise_const
    assert_same(
        lambda x, w: layer(x, w, gain=0.8),
        lambda x, w: reference.run_layer(layer, x, w, noise, 0.8),
        [x, w],
        list(layer.parameters()),
    )


def test_rgb_is_not_demodulated():
    layer = stir(ToRGB(4, 6))
    inputs = [normal(3, 4, 8, 8), normal(3, 6, seed=1)]
    assert_same(layer, lambda x, w: reference.run_rgb(layer, x, w), inputs, list(layer.parameters()))


@pytest.mark.parametrize(
    ("batch", "group_size", "channels"), [(8, 4, 1), (6, 4, 2), (3, 4, 1), (4, None, 2), (5, 4, 1)]
)
def test_minibatch_std(batch, group_size, channels):
    x = normal(batch, 4, 3, 3)
    assert_same(
        lambda x: append_minibatch_std(x, group_size, channels),
        lambda x: reference.minibatch_std(x, group_size, channels),
        [x],
    )


def test_minibatch_std_by_hand():
    x = torch.zeros(4, 2, 1, 1)
    x[2] = 2.0  # rows 0 and 2 are one group of two: standard deviation 1
    maps = append_minibatch_std(x, 2)[:, 2, 0, 0]
    torch.testing.assert_close(maps, torch.tensor([1.0, 1e-4, 1.0, 1e-4]))


def test_bias_and_leaky_relu():
    layer = stir(FullyConnected(4, 6, bias=0.5, activate=True, lr_multiplier=0.01))
    x = normal(3, 4)
    assert_same(
        layer,
        lambda x: reference.bias_lrelu(x @ (layer.weight * 0.01 / 2).t(), layer.bias * 0.01),
        [x],
        list(layer.parameters()),
    )


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("noise", [False, True])
def test_synthesis(architecture, noise):
    torch.manual_seed(0)
    network = stir(SynthesisNetwork(16, 6, (5, 4, 3), noise=noise, architecture=architecture))
    # path-length regularisation needs the gradient of the gradient with respect to ws
    assert_same(
        network,
        lambda ws: reference.synthesize(network, ws),
        [normal(2, network.num_ws, 6)],
        list(network.parameters()),
    )


def test_random_noise_is_drawn_from_torch():
    torch.manual_seed(0)
    generator = stir(build_z_generator(8, (4, 4), z_dim=5, w_dim=6, mapping_layers=2))
    z = normal(2, 5)
    torch.manual_seed(1)
    first = generator(z)
    ws = generator.mapping(z)
    torch.manual_seed(1)
    torch.testing.assert_close(first, reference.synthesize(generator.synthesis, ws, "random"), **TOLERANCE)
    assert not torch.allclose(first, generator(z))
    assert not torch.allclose(generator.synthesis(ws), generator.synthesis(ws, noise_mode="none"))
    torch.testing.assert_close(generator.synthesis(ws), generator.synthesis(ws), rtol=0, atol=0)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("c_dim", [0, 3])
def test_discriminator(architecture, c_dim):
    torch.manual_seed(0)
    network = stir(build_discriminator(16, (6, 5, 4), c_dim=c_dim, architecture=architecture))
    c = torch.eye(3, dtype=torch.float64)[[0, 1, 2, 0]] if c_dim else None
    # R1 needs the gradient of the gradient with respect to the picture
    assert_same(
        lambda x: network(x, c),
        lambda x: reference.judge(network, x, c),
        [normal(4, 3, 16, 16)],
        list(network.parameters()),
    )


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_discriminators_maps(architecture):
    torch.manual_seed(0)
    network = stir(build_discriminator(16, (6, 5, 4), architecture=architecture))
    image = normal(4, 3, 16, 16)
    for fast, slow in zip(network.describe(image), reference.describe(network, image), strict=True):
        torch.testing.assert_close(fast, slow, **TOLERANCE)
