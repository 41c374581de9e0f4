"""StyleGAN2's synthesis in eager PyTorch, in two forms: what our graphs are timed against. Weights are the network's.

``as_published``  as rosinality/stylegan2-pytorch runs on a CPU, where its CUDA kernels are not: one grouped convolution
                  a batch with modulated weights, and resampling by zero insertion, padding and a one-channel
                  convolution over N·C pictures, with the reshapes and permutations that this takes. People who run
                  such checkpoints today run this.
``tightened``     what a careful hand makes of it without leaving eager PyTorch: weights modulated for one picture, the
                  blur as a depthwise convolution, the RGB doubled by a depthwise transposed convolution.

Both draw the same picture; skips and noise as in config-f. Source: Karras et al. 2020, and that repository's model.py
and op/upfirdn2d.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor

from training.networks.layers import SLOPE, SQRT2
from training.networks.synthesis import SynthesisBlock, SynthesisLayer, SynthesisNetwork, ToRGB

RunLayer = Callable[[SynthesisLayer, Tensor, Tensor], Tensor]
RunRGB = Callable[[ToRGB, Tensor, Tensor], Tensor]


def draw_as_published(network: SynthesisNetwork, ws: Tensor) -> Tensor:
    """Draw as published: ws [N,num_ws,w_dim] → [N,3,R,R]."""

    def double(rgb: Tensor) -> Tensor:
        return _filter_natively(rgb, network.upsample[0, 0], up=2, padding=(2, 1))

    return _draw(network, ws, _run_layer_as_published, _run_rgb_as_published, double)


def draw_tightened(network: SynthesisNetwork, ws: Tensor) -> Tensor:
    """Draw one picture as fast as eager PyTorch lets us: ws [1,num_ws,w_dim] → [1,3,R,R]."""

    def double(rgb: Tensor) -> Tensor:
        return F.conv_transpose2d(rgb, network.upsample, stride=2, padding=1, groups=3)

    return _draw(network, ws, _run_layer_tightened, _run_rgb_tightened, double)


def _draw(
    network: SynthesisNetwork, ws: Tensor, run_layer: RunLayer, run_rgb: RunRGB, double: Callable[[Tensor], Tensor]
) -> Tensor:
    with torch.inference_mode():
        x = run_layer(network.conv1, network.const.repeat(len(ws), 1, 1, 1), ws[:, 0])
        rgb = run_rgb(network.torgb, x, ws[:, 1])
        for i, module in enumerate(network.blocks):
            block = cast("SynthesisBlock", module)
            x = run_layer(block.conv0, x, ws[:, 2 * i + 1])
            x = run_layer(block.conv1, x, ws[:, 2 * i + 2])
            rgb = double(rgb) + run_rgb(block.torgb, x, ws[:, 2 * i + 3])
        return rgb


# -- as published -----------------------------------------------------------------------------------------------------


def _run_layer_as_published(layer: SynthesisLayer, x: Tensor, w: Tensor) -> Tensor:
    """Shapes: x [N,in,H,W] → [N,out,H,W], or twice as large."""
    batch, channels, height, width = x.shape
    weight = layer.gain * layer.weight[None] * layer.affine(w).view(batch, 1, channels, 1, 1)
    weight = weight * torch.rsqrt(weight.pow(2).sum([2, 3, 4]) + 1e-8).view(batch, -1, 1, 1, 1)
    x = x.reshape(1, batch * channels, height, width)
    if layer.up:
        weight = weight.transpose(1, 2).reshape(batch * channels, -1, 3, 3)
        x = F.conv_transpose2d(x, weight, stride=2, groups=batch)
        x = _filter_natively(x.view(batch, -1, *x.shape[2:]), layer.blur[0, 0], padding=(1, 1))
    else:
        x = F.conv2d(x, weight.view(-1, channels, 3, 3), padding=1, groups=batch)
        x = x.view(batch, -1, *x.shape[2:])
    if layer.noise_size is not None:
        x = x + layer.noise_strength * layer.noise_const
    return F.leaky_relu(x + layer.bias.view(1, -1, 1, 1), SLOPE) * SQRT2


def _run_rgb_as_published(layer: ToRGB, x: Tensor, w: Tensor) -> Tensor:
    """Shapes: x [N,in,H,W] → [N,3,H,W]."""
    batch, channels, height, width = x.shape
    weight = layer.gain * layer.weight[None] * layer.affine(w).view(batch, 1, channels, 1, 1)
    x = F.conv2d(x.reshape(1, -1, height, width), weight.view(-1, channels, 1, 1), groups=batch)
    return x.view(batch, 3, height, width) + layer.bias


def _filter_natively(x: Tensor, kernel: Tensor, up: int = 1, padding: tuple[int, int] = (0, 0)) -> Tensor:
    """Insert zeros, pad, convolve every channel as a picture of its own: [N,C,H,W] → [N,C,…]."""
    batch, channels, height, width = x.shape
    spread = x.reshape(-1, height, 1, width, 1, 1)
    spread = F.pad(spread, [0, 0, 0, up - 1, 0, 0, 0, up - 1]).view(-1, height * up, width * up, 1)
    spread = F.pad(spread, [0, 0, *padding, *padding]).permute(0, 3, 1, 2)
    spread = spread.reshape(-1, 1, *spread.shape[2:])
    found = F.conv2d(spread, kernel.flip((0, 1))[None, None])
    found = found.reshape(-1, 1, *found.shape[2:]).permute(0, 2, 3, 1)
    return found.reshape(batch, channels, *found.shape[1:3])


# -- tightened --------------------------------------------------------------------------------------------------------


def _run_layer_tightened(layer: SynthesisLayer, x: Tensor, w: Tensor) -> Tensor:
    """Shapes: x [1,in,H,W] → [1,out,H,W], or twice as large."""
    weight = layer.weight[None] * layer.gain * layer.affine(w)[:, None, :, None, None]
    weight = weight * torch.rsqrt(weight.square().sum((2, 3, 4), keepdim=True) + 1e-8)
    if layer.up:
        x = F.conv_transpose2d(x, weight[0].transpose(0, 1), stride=2)
        x = F.conv2d(F.pad(x, (1, 1, 1, 1)), layer.blur, groups=x.shape[1])
    else:
        x = F.conv2d(x, weight[0], padding=1)
    if layer.noise_size is not None:
        x = x + layer.noise_strength * layer.noise_const
    return F.leaky_relu(x + layer.bias, SLOPE) * SQRT2


def _run_rgb_tightened(layer: ToRGB, x: Tensor, w: Tensor) -> Tensor:
    """Shapes: x [1,in,H,W] → [1,3,H,W]."""
    return F.conv2d(x, layer.weight * layer.gain * layer.affine(w)[:, :, None, None]) + layer.bias
