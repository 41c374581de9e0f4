"""ws → frames as a graph: every StyleGAN2 that we draw, with or without noise, bounds, skips and shortcuts.

The form is the fast one: activations are modulated and outputs demodulated, so weights stay constant and the batch
free; what is constant is worked out here and not in the graph. In half precision the layers of the largest four
resolutions compute in float16, with weights and styles scaled so that nothing overflows.
Source: Karras et al. 2020 (arXiv 1912.04958); for float16, Karras et al. 2020a (arXiv 2006.06676), where the largest
value is divided out of weights and styles and activations are bounded by 256.
Must not import: services, worker.
"""

import math
from typing import Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.networks.layers import SLOPE, SQRT2, Convolution, FullyConnected
from training.networks.synthesis import SynthesisBlock, SynthesisLayer, SynthesisNetwork, ToRGB

Precision = Literal["fp32", "fp16"]
HALF_LEVELS = 4
"""So many of the largest resolutions compute in float16; the small ones cost little and lose more."""
HALF_CLAMP = 256.0
"""Bound of activations in float16 where the network has none of its own."""


def bake(layer: FullyConnected) -> nn.Linear:
    """Turn an equalised layer without activation into a plain one."""
    assert not layer.activate
    plain = nn.Linear(layer.weight.shape[1], layer.weight.shape[0])
    plain.weight.data = layer.weight.detach() * layer.gain
    plain.bias.data = layer.bias.detach() * layer.bias_gain
    return plain


class LayerGraph(nn.Module):
    """A synthesis layer: weights, demodulation matrix, noise, and √2 and gain in bias and scale, all worked out."""

    weight: Tensor
    energy: Tensor
    bias: Tensor
    blur: Tensor
    noise: Tensor
    unscale: Tensor

    def __init__(self, layer: SynthesisLayer, gain: float = 1.0, half: bool = False) -> None:
        """`gain` multiplies what comes out."""
        super().__init__()
        self.up, self.half_precision, self.folded = layer.up, half, SQRT2 * gain
        clamp = layer.clamp if layer.clamp is not None else HALF_CLAMP if half else None
        self.clamp = None if clamp is None else clamp * gain
        dtype = torch.float16 if half else torch.float32
        weight = layer.weight.detach() * layer.gain
        self.affine = bake(layer.affine)
        self.register_buffer("energy", weight.square().sum((2, 3)).t().contiguous())
        if half:
            largest = weight.abs().amax((1, 2, 3), keepdim=True).clamp_min(1e-12)
            size = largest * math.sqrt(weight[0].numel())  # whatever the styles are, a sum stays below √numel · |x|
            weight = weight / size
            self.register_buffer("unscale", size.flatten())
        weight = weight.transpose(0, 1).contiguous() if layer.up else weight
        self.register_buffer("weight", weight.to(dtype))
        self.register_buffer("bias", (layer.bias.detach() * self.folded).to(dtype))
        if layer.up:
            self.register_buffer("blur", layer.blur.detach().to(dtype))
        # a strength of 0 is common in small layers, and an addition less
        self.noisy = layer.noise_size is not None and bool(layer.noise_strength.detach() != 0)
        if self.noisy:
            noise = layer.noise_const.detach() * layer.noise_strength.detach() * self.folded
            self.register_buffer("noise", noise.to(dtype))

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """Shapes: x [N,in,H,W], w [N,w_dim] → [N,out,H,W], twice as large where the layer upsamples."""
        styles = self.affine(w)
        scale = torch.rsqrt(styles.square() @ self.energy + 1e-8) * self.folded
        if self.half_precision:
            largest = styles.abs().amax(1, keepdim=True).clamp_min(1e-12)
            styles, scale = (styles / largest).half(), (scale * self.unscale * largest).half()
            x = x.half()
        x = x * styles[:, :, None, None]
        if self.up:
            x = F.conv_transpose2d(x, self.weight, stride=2)
            x = F.conv2d(x, self.blur, padding=1, groups=self.blur.shape[0])
        else:
            x = F.conv2d(x, self.weight, padding=1)
        x = x * scale[:, :, None, None] + self.bias
        x = F.leaky_relu(x + self.noise if self.noisy else x, SLOPE)
        return x if self.clamp is None else x.clamp(-self.clamp, self.clamp)


class ToRGBGraph(nn.Module):
    """toRGB as a batched matrix product, which needs no convolution with changing weights."""

    weight: Tensor
    bias: Tensor

    def __init__(self, layer: ToRGB, half: bool = False) -> None:
        super().__init__()
        self.affine, self.clamp, self.half_precision = bake(layer.affine), layer.clamp, half
        self.register_buffer("weight", (layer.weight.detach() * layer.gain)[:, :, 0, 0])
        self.register_buffer("bias", layer.bias.detach().clone())

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """Shapes: x [N,in,H,W] → [N,3,H,W] float32."""
        weight = self.weight * self.affine(w)[:, None]
        if self.half_precision:
            largest = weight.abs().amax((1, 2), keepdim=True).clamp_min(1e-12)
            rgb = torch.matmul((weight / largest).half(), x.flatten(2)).float() * largest
        else:
            rgb = torch.matmul(weight, x.flatten(2))
        rgb = rgb.view(-1, 3, x.shape[2], x.shape[3]) + self.bias
        return rgb if self.clamp is None else rgb.clamp(-self.clamp, self.clamp)


class ShortcutGraph(nn.Module):
    """The residual generator's way around a block: a 1×1 convolution, then spread and blur, times √½."""

    weight: Tensor
    blur: Tensor

    def __init__(self, layer: Convolution, half: bool) -> None:
        super().__init__()
        assert layer.up, "shortcuts of a generator double the size"
        dtype = torch.float16 if half else torch.float32
        self.register_buffer("weight", (layer.weight.detach() * (layer.gain * math.sqrt(0.5))).to(dtype))
        self.register_buffer("blur", layer.blur.detach().repeat(layer.weight.shape[0], 1, 1, 1).to(dtype))

    def forward(self, x: Tensor) -> Tensor:
        """Shapes: [N,in,H,W] → [N,out,2H,2W]."""
        x = F.conv2d(x.to(self.weight.dtype), self.weight)
        return F.conv_transpose2d(x, self.blur, stride=2, padding=1, groups=x.shape[1])


class BlockGraph(nn.Module):
    """Two layers at one resolution, with the shortcut and the toRGB that the architecture has there."""

    shortcut: ShortcutGraph
    torgb: ToRGBGraph

    def __init__(self, block: SynthesisBlock, half: bool) -> None:
        super().__init__()
        self.has_rgb, self.has_skip = block.has_rgb, block.has_skip
        self.conv0 = LayerGraph(block.conv0, half=half)
        self.conv1 = LayerGraph(block.conv1, math.sqrt(0.5) if block.has_skip else 1.0, half)
        if block.has_rgb:
            self.torgb = ToRGBGraph(block.torgb, half)
        if block.has_skip:
            self.shortcut = ShortcutGraph(block.skip, half)

    def forward(self, x: Tensor, first: Tensor, second: Tensor) -> Tensor:
        """Shapes: x [N,in,H,W], two rows of ws [N,w_dim] → [N,out,2H,2W]."""
        y = self.conv1(self.conv0(x, first), second)
        return self.shortcut(x) + y if self.has_skip else y


class SynthesisGraph(nn.Module):
    """ws → frames uint8 NHWC; or, with `frames=False`, the picture before rounding."""

    const: Tensor
    upsample: Tensor
    torgb: ToRGBGraph

    def __init__(self, network: SynthesisNetwork, precision: Precision = "fp32", *, frames: bool = True) -> None:
        super().__init__()
        self.frames, self.architecture = frames, network.architecture
        halves = HALF_LEVELS if precision == "fp16" else 0
        blocks = [cast("SynthesisBlock", block) for block in network.blocks]
        self.register_buffer("const", network.const.detach().clone())
        self.register_buffer("upsample", network.upsample.detach().clone())
        self.conv1 = LayerGraph(network.conv1)
        if hasattr(network, "torgb"):
            self.torgb = ToRGBGraph(network.torgb)
        self.blocks = nn.ModuleList(BlockGraph(block, len(blocks) - i <= halves) for i, block in enumerate(blocks))

    def forward(self, ws: Tensor) -> Tensor:
        """Shapes: ws [N,num_ws,w_dim] → frames [N,R,R,3] uint8 RGB; without `frames` [N,3,R,R], about [-1,1]."""
        rgb = self.draw(ws)
        if not self.frames:
            return rgb
        pixels = torch.round((rgb.clamp(-1, 1) + 1) * 127.5)
        return pixels.permute(0, 2, 3, 1).to(torch.uint8)

    def draw(self, ws: Tensor) -> Tensor:
        """Shapes: ws [N,num_ws,w_dim] → [N,3,R,R], not clipped."""
        x = self.conv1(self.const.expand(ws.shape[0], -1, -1, -1), ws[:, 0])
        rgb = self.torgb(x, ws[:, 1]) if self.architecture == "skip" or not self.blocks else None
        for i, module in enumerate(self.blocks):
            block, row = cast("BlockGraph", module), 2 * i + 1
            x = block(x, ws[:, row], ws[:, row + 1])
            if rgb is not None:  # faster in ONNX Runtime than a 3→12 convolution with a pixel shuffle: 8 ms for 12
                rgb = F.conv_transpose2d(rgb, self.upsample, stride=2, padding=1, groups=3)
            if block.has_rgb:
                drawn = block.torgb(x, ws[:, row + 2])
                rgb = drawn if rgb is None else rgb + drawn
        assert rgb is not None
        return rgb
