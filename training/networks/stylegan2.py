"""StyleGAN2 in its fast form: activations are modulated, convolution weights stay constant, outputs are demodulated.

The mathematics is the plain skip generator's (Karras et al. 2020); scaling the input by s and the output by rsqrt(s²
· ΣW²) equals modulating and demodulating the weights, keeps the batch dynamic and lets a runtime pre-pack the weights.
The mapping here is for rendered domains: its input is a factor vector. No file formats here.
"""

import itertools
import math
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SQRT2 = math.sqrt(2.0)
CROP_RESOLUTION = 16
FACTOR_GAIN = 1.6
"""Raw features of a factor are its half-ranges times this, close to unit size."""
OPTION_GAIN = 1.5


class Crop(NamedTuple):
    """A window in cells of the 16-px feature map; training draws the layers above 16 px on it alone, for speed."""

    top: int
    left: int
    height: int
    width: int

    def at(self, resolution: int) -> tuple[slice, slice]:
        """Give the window's rows and columns at a resolution."""
        cell = resolution // CROP_RESOLUTION
        return (
            slice(self.top * cell, (self.top + self.height) * cell),
            slice(self.left * cell, (self.left + self.width) * cell),
        )


def blur_kernel(gain: float) -> Tensor:
    """Give the [1,3,3,1] blur of StyleGAN2 as a 4×4 kernel that sums to `gain`."""
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0])
    kernel = taps[:, None] * taps[None]
    return kernel / kernel.sum() * gain


class FullyConnected(nn.Module):
    """Linear layer with equalised learning rate and an optional leaky ReLU times √2."""

    def __init__(self, in_dim: int, out_dim: int, bias: float = 0.0, activate: bool = False) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(out_dim, in_dim))
        self.bias = nn.Parameter(torch.full((out_dim,), bias))
        self.gain = 1 / math.sqrt(in_dim)
        self.activate = activate

    def forward(self, x: Tensor) -> Tensor:
        """Shapes: [N,in_dim] → [N,out_dim]."""
        y = F.linear(x, self.weight * self.gain, self.bias)
        return F.leaky_relu(y, 0.2) * SQRT2 if self.activate else y


class SynthesisLayer(nn.Module):
    """Modulated 3×3 convolution, optionally upsampling by a transposed convolution and a depthwise blur."""

    blur: Tensor

    def __init__(self, in_channels: int, out_channels: int, w_dim: int, up: bool = False) -> None:
        super().__init__()
        self.up = up
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, 3, 3))
        self.gain = 1 / math.sqrt(in_channels * 9)
        self.affine = FullyConnected(w_dim, in_channels, bias=1.0)
        self.bias = nn.Parameter(torch.zeros(1, out_channels, 1, 1))
        if up:
            self.register_buffer("blur", blur_kernel(4.0).repeat(out_channels, 1, 1, 1), persistent=False)

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """Shapes: x [N,in,H,W], w [N,w_dim] → [N,out,H,W], twice as large when upsampling."""
        styles = self.affine(w)
        weight = self.weight * self.gain
        x = x * styles[:, :, None, None].to(x.dtype)
        if self.up:
            x = F.conv_transpose2d(x, weight.transpose(0, 1), stride=2)
            x = F.conv2d(F.pad(x, (1, 1, 1, 1)), self.blur.to(x.dtype), groups=x.shape[1])
        else:
            x = F.conv2d(x, weight, padding=1)
        demodulation = torch.rsqrt(styles.float().square() @ weight.float().square().sum((2, 3)).t() + 1e-8)
        # √2 of the activation is folded into bias and demodulation
        scale = (demodulation * SQRT2)[:, :, None, None].to(x.dtype)
        x = torch.addcmul((self.bias * SQRT2).to(x.dtype), x, scale)
        return F.leaky_relu(x, 0.2, inplace=not torch.jit.is_tracing())  # type: ignore[attr-defined]


class ToRGB(nn.Module):
    """Modulated 1×1 convolution to RGB, without demodulation."""

    def __init__(self, in_channels: int, w_dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3, in_channels, 1, 1))
        self.gain = 1 / math.sqrt(in_channels)
        self.affine = FullyConnected(w_dim, in_channels, bias=1.0)
        self.bias = nn.Parameter(torch.zeros(1, 3, 1, 1))

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """Shapes: x [N,in,H,W], w [N,w_dim] → [N,3,H,W]."""
        styles = self.affine(w)[:, :, None, None].to(x.dtype)
        return F.conv2d(x * styles, self.weight * self.gain) + self.bias


class SynthesisBlock(nn.Module):
    """Two layers and a toRGB at one resolution."""

    def __init__(self, in_channels: int, out_channels: int, w_dim: int) -> None:
        super().__init__()
        self.conv0 = SynthesisLayer(in_channels, out_channels, w_dim, up=True)
        self.conv1 = SynthesisLayer(out_channels, out_channels, w_dim)
        self.torgb = ToRGB(out_channels, w_dim)


class SynthesisNetwork(nn.Module):
    """ws → picture; `channels` gives the width at 4, 8, … resolution."""

    upsample: Tensor

    def __init__(self, resolution: int, w_dim: int, channels: tuple[int, ...]) -> None:
        super().__init__()
        self.resolution, self.w_dim, self.channels = resolution, w_dim, channels
        levels = int(math.log2(resolution)) - 1
        assert len(channels) == levels, f"{levels} channel widths wanted for {resolution} px, got {len(channels)}"
        self.num_ws = 2 * levels
        self.const = nn.Parameter(torch.randn(1, channels[0], 4, 4))
        self.conv1 = SynthesisLayer(channels[0], channels[0], w_dim)
        self.torgb = ToRGB(channels[0], w_dim)
        self.blocks = nn.ModuleList(
            SynthesisBlock(before, after, w_dim) for before, after in itertools.pairwise(channels)
        )
        self.register_buffer("upsample", blur_kernel(4.0).repeat(3, 1, 1, 1), persistent=False)

    def forward(self, ws: Tensor, resolution: int | None = None, crop: Crop | None = None) -> Tensor:
        """Draw pictures.

        Shapes: ws [N,num_ws,w_dim] → [N,3,R,R], or the crop's window of it. Range: about [-1,1], not clipped.
        `resolution` stops early: the skip generator's RGB at a lower resolution.
        """
        assert ws.shape[1:] == (self.num_ws, self.w_dim), tuple(ws.shape)
        x = self.const.expand(ws.shape[0], -1, -1, -1).contiguous(memory_format=torch.channels_last)
        x = self.conv1(x, ws[:, 0])
        rgb = self.torgb(x, ws[:, 1])
        row, size = 1, 4
        for module in self.blocks:
            block = cast("SynthesisBlock", module)
            size *= 2
            if size > (resolution or self.resolution):
                break
            x = block.conv0(x, ws[:, row])
            x = block.conv1(x, ws[:, row + 1])
            rgb = F.conv_transpose2d(rgb, self.upsample.to(rgb.dtype), stride=2, padding=1, groups=3)
            rgb = rgb + block.torgb(x, ws[:, row + 2])
            row += 2
            if crop is not None and size == CROP_RESOLUTION:
                rows, columns = crop.at(size)
                x = x[:, :, rows, columns].contiguous(memory_format=torch.channels_last)
                rgb = rgb[:, :, rows, columns]
        return rgb


class FactorFeatures(nn.Module):
    """Fixed features of a factor vector: raw values, Gaussian bumps for expression factors, sines for identity
    factors."""

    centers: Tensor
    inverse_widths: Tensor

    def __init__(self, lows: Tensor, highs: Tensor, num_expression: int, num_options: int, bumps: int = 8) -> None:
        """`lows`, `highs` [continuous]: ranges of the factor vector's continuous part, expression factors first."""
        super().__init__()
        self.num_expression, self.num_continuous = num_expression, len(lows)
        low, high = lows[:num_expression] * FACTOR_GAIN, highs[:num_expression] * FACTOR_GAIN
        centers = low[:, None] + (high - low)[:, None] * torch.linspace(0, 1, bumps)
        self.register_buffer("centers", centers)
        self.register_buffer("inverse_widths", (bumps - 1) / (high - low)[:, None])
        identity = self.num_continuous - num_expression
        self.dim = self.num_continuous + num_options + num_expression * bumps + identity * 4

    def forward(self, factors: Tensor) -> Tensor:
        """Shapes: [N,Z_DIM] → [N,dim]."""
        continuous = factors[:, : self.num_continuous] * FACTOR_GAIN
        expression, identity = continuous[:, : self.num_expression], continuous[:, self.num_expression :]
        options = factors[:, self.num_continuous :] * OPTION_GAIN
        bumps = 2 * torch.exp(-0.5 * ((expression[:, :, None] - self.centers) * self.inverse_widths).square())
        angle = identity * (math.pi / FACTOR_GAIN)
        waves = [angle.sin(), angle.cos(), (2 * angle).sin(), (2 * angle).cos()]
        return torch.cat([expression, identity, options, bumps.flatten(1), *waves], 1)


class FactorMapping(nn.Module):
    """Mapping of a rendered domain: factor vector → w, two linear layers beside a linear skip, no pixel norm.

    The face's truth is known, so z is the factor vector; w of sampled faces is w of sampled factors.
    """

    w_avg: Tensor

    def __init__(self, features: FactorFeatures, w_dim: int, hidden: int = 256) -> None:
        super().__init__()
        self.features = features
        self.fc0 = FullyConnected(features.dim, hidden, activate=True)
        self.fc1 = FullyConnected(hidden, w_dim)
        self.skip = FullyConnected(features.dim, w_dim)
        self.register_buffer("w_avg", torch.zeros(w_dim))

    def forward(self, factors: Tensor) -> Tensor:
        """Shapes: [N,Z_DIM] → w [N,w_dim]."""
        features = self.features(factors)
        return (self.fc1(self.fc0(features)) + self.skip(features)) * 0.7


class Generator(nn.Module):
    """Mapping and synthesis of a rendered domain."""

    def __init__(self, mapping: FactorMapping, synthesis: SynthesisNetwork) -> None:
        super().__init__()
        self.mapping, self.synthesis = mapping, synthesis

    def broadcast(self, w: Tensor) -> Tensor:
        """Shapes: w [N,w_dim] → ws [N,num_ws,w_dim]."""
        return w[:, None].expand(-1, self.synthesis.num_ws, -1)

    def forward(self, factors: Tensor, resolution: int | None = None, crop: Crop | None = None) -> Tensor:
        """Shapes: factors [N,Z_DIM] → [N,3,R,R]."""
        return self.synthesis(self.broadcast(self.mapping(factors)), resolution, crop)
