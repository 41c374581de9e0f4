"""Synthesis: ws → picture, in the fast form. Activations are modulated, weights stay constant, outputs are demodulated.

Scaling the input by s and the output by rsqrt(s² · ΣW²) equals modulating and demodulating the weights (Karras et al.
2020, arXiv 1912.04958), keeps the batch dynamic and lets a runtime pre-pack the weights. Plain PyTorch; no files.
"""

import itertools
import math
from collections.abc import Callable
from typing import Literal, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.networks.layers import SLOPE, SQRT2, Convolution, FullyConnected, blur_kernel

CROP_RESOLUTION = 16
NoiseMode = Literal["const", "random", "none"]
"""const: the noise kept with the weights; random: drawn anew from torch's generator; none: without noise."""
NoiseSource = Callable[[Tensor], Tensor]
"""Gives the noise [1 or N,1,H,W] for a feature map [N,C,H,W], of its type and device."""
Architecture = Literal["orig", "skip", "resnet"]
"""How resolutions are joined: orig, one RGB at the end; skip, a sum of RGBs; resnet, sums of features."""


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


class SynthesisLayer(nn.Module):
    """Modulated 3×3 convolution, optionally upsampling by a transposed convolution and a depthwise blur.

    With `noise_size` the layer has a strength and a constant noise map of that size; rendered domains have none.
    """

    blur: Tensor
    noise_const: Tensor

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        w_dim: int,
        up: bool = False,
        noise_size: int | None = None,
        clamp: float | None = None,  # bound of what comes out, for half precision
    ) -> None:
        super().__init__()
        self.up, self.noise_size, self.clamp = up, noise_size, clamp
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, 3, 3))
        self.gain = 1 / math.sqrt(in_channels * 9)
        self.affine = FullyConnected(w_dim, in_channels, bias=1.0)
        self.bias = nn.Parameter(torch.zeros(1, out_channels, 1, 1))
        if up:
            self.register_buffer("blur", blur_kernel(4.0).repeat(out_channels, 1, 1, 1), persistent=False)
        if noise_size is not None:
            self.register_buffer("noise_const", torch.randn(1, 1, noise_size, noise_size))
            self.noise_strength = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor, w: Tensor, noise_mode: NoiseMode | NoiseSource = "const", gain: float = 1.0) -> Tensor:
        """Shapes: x [N,in,H,W], w [N,w_dim] → [N,out,H,W], twice as large when upsampling; `gain` multiplies it."""
        styles = self.affine(w)
        weight = self.weight * self.gain
        x = x * styles[:, :, None, None].to(x.dtype)
        if self.up:
            x = F.conv_transpose2d(x, weight.transpose(0, 1), stride=2)
            x = F.conv2d(F.pad(x, (1, 1, 1, 1)), self.blur.to(x.dtype), groups=x.shape[1])
        else:
            x = F.conv2d(x, weight, padding=1)
        styles, weight = (t.to(torch.promote_types(t.dtype, torch.float32)) for t in (styles, weight))
        demodulation = torch.rsqrt(styles.square() @ weight.square().sum((2, 3)).t() + 1e-8)
        # √2 of the activation is folded into bias, noise and demodulation
        folded = SQRT2 * gain
        scale = (demodulation * folded)[:, :, None, None].to(x.dtype)
        x = torch.addcmul((self.bias * folded).to(x.dtype), x, scale)
        if (noise := self.draw_noise(x, noise_mode)) is not None:
            x = x + noise * (self.noise_strength * folded).to(x.dtype)
        x = F.leaky_relu(x, SLOPE, inplace=not torch.jit.is_tracing())  # type: ignore[attr-defined]
        return x if self.clamp is None else x.clamp(-self.clamp * gain, self.clamp * gain)

    def draw_noise(self, x: Tensor, noise_mode: NoiseMode | NoiseSource) -> Tensor | None:
        """Give the noise for a feature map: [1 or N,1,H,W], or None."""
        if self.noise_size is None or noise_mode == "none":
            return None
        if callable(noise_mode):
            return noise_mode(x)
        if noise_mode == "const":
            return self.noise_const.to(x.dtype)
        assert noise_mode == "random", noise_mode
        return torch.randn(x.shape[0], 1, *x.shape[2:], device=x.device, dtype=x.dtype)


class ToRGB(nn.Module):
    """Modulated 1×1 convolution to RGB, without demodulation."""

    def __init__(self, in_channels: int, w_dim: int, clamp: float | None = None) -> None:
        super().__init__()
        self.clamp = clamp
        self.weight = nn.Parameter(torch.randn(3, in_channels, 1, 1))
        self.gain = 1 / math.sqrt(in_channels)
        self.affine = FullyConnected(w_dim, in_channels, bias=1.0)
        self.bias = nn.Parameter(torch.zeros(1, 3, 1, 1))

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """Shapes: x [N,in,H,W], w [N,w_dim] → [N,3,H,W]."""
        styles = self.affine(w)[:, :, None, None].to(x.dtype)
        rgb = F.conv2d(x * styles, self.weight * self.gain) + self.bias
        return rgb if self.clamp is None else rgb.clamp(-self.clamp, self.clamp)


class SynthesisBlock(nn.Module):
    """Two layers at one resolution, with a toRGB and a residual shortcut where the architecture has them."""

    torgb: ToRGB
    skip: Convolution

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        w_dim: int,
        noise_size: int | None = None,
        clamp: float | None = None,
        has_rgb: bool = True,
        has_skip: bool = False,
    ) -> None:
        super().__init__()
        self.has_rgb, self.has_skip = has_rgb, has_skip
        self.conv0 = SynthesisLayer(in_channels, out_channels, w_dim, up=True, noise_size=noise_size, clamp=clamp)
        self.conv1 = SynthesisLayer(out_channels, out_channels, w_dim, noise_size=noise_size, clamp=clamp)
        if has_rgb:
            self.torgb = ToRGB(out_channels, w_dim, clamp)
        if has_skip:
            self.skip = Convolution(in_channels, out_channels, 1, up=True, bias=False, activate=False)

    def forward(self, x: Tensor, ws: Tensor, noise_mode: NoiseMode | NoiseSource = "const") -> Tensor:
        """Double a feature map; the toRGB is the network's to call.

        Shapes: x [N,in,H,W], ws [N,2,w_dim] → [N,out,2H,2W].
        """
        if not self.has_skip:
            x = self.conv0(x, ws[:, 0], noise_mode)
            return self.conv1(x, ws[:, 1], noise_mode)
        shortcut = self.skip(x, gain=math.sqrt(0.5))
        x = self.conv0(x, ws[:, 0], noise_mode)
        return shortcut + self.conv1(x, ws[:, 1], noise_mode, gain=math.sqrt(0.5))


class SynthesisNetwork(nn.Module):
    """ws → picture; `channels` gives the width at 4, 8, … resolution."""

    upsample: Tensor
    torgb: ToRGB

    def __init__(
        self,
        resolution: int,  # a power of two, 4 at least
        w_dim: int,
        channels: tuple[int, ...],  # see config_f_channels
        noise: bool = False,  # rendered domains have none: every hair of a drawn picture is said by ws
        architecture: Architecture = "skip",
        clamp: float | None = None,  # 256 keeps half precision from overflowing
    ) -> None:
        super().__init__()
        self.resolution, self.w_dim, self.channels = resolution, w_dim, channels
        self.noise, self.architecture = noise, architecture
        levels = int(math.log2(resolution)) - 1
        assert 4 * 2 ** (levels - 1) == resolution, f"{resolution} is not a power of two"
        assert len(channels) == levels, f"{levels} channel widths wanted for {resolution} px, got {len(channels)}"
        self.num_ws = 2 * levels
        sizes = [4 * 2**level if noise else None for level in range(levels)]
        rgb = [architecture == "skip" or level == levels - 1 for level in range(levels)]
        self.const = nn.Parameter(torch.randn(1, channels[0], 4, 4))
        self.conv1 = SynthesisLayer(channels[0], channels[0], w_dim, noise_size=sizes[0], clamp=clamp)
        if rgb[0]:
            self.torgb = ToRGB(channels[0], w_dim, clamp)
        self.blocks = nn.ModuleList(
            SynthesisBlock(before, after, w_dim, size, clamp, has_rgb, architecture == "resnet")
            for (before, after), size, has_rgb in zip(itertools.pairwise(channels), sizes[1:], rgb[1:], strict=True)
        )
        self.register_buffer("upsample", blur_kernel(4.0).repeat(3, 1, 1, 1), persistent=False)

    def forward(
        self,
        ws: Tensor,
        resolution: int | None = None,
        crop: Crop | None = None,
        noise_mode: NoiseMode | NoiseSource = "const",
    ) -> Tensor:
        """Draw pictures.

        Shapes: ws [N,num_ws,w_dim] → [N,3,R,R], or the crop's window of it. Range: about [-1,1], not clipped.
        `resolution` stops early: the skip generator's RGB at a lower resolution. `crop` is for generators without
        noise.
        """
        assert ws.shape[1:] == (self.num_ws, self.w_dim), tuple(ws.shape)
        assert resolution in (None, self.resolution) or self.architecture == "skip", "only skip has RGB on the way"
        assert crop is None or not self.noise, "noise maps are not cropped"
        x = self.const.expand(ws.shape[0], -1, -1, -1).contiguous(memory_format=torch.channels_last)
        x = self.conv1(x, ws[:, 0], noise_mode)
        skips = self.architecture == "skip"
        rgb = self.torgb(x, ws[:, 1]) if skips or not self.blocks else None
        row, size = 1, 4
        for module in self.blocks:
            block = cast("SynthesisBlock", module)
            size *= 2
            if size > (resolution or self.resolution):
                break
            x = block(x, ws[:, row : row + 2], noise_mode)
            if rgb is not None:
                rgb = F.conv_transpose2d(rgb, self.upsample.to(rgb.dtype), stride=2, padding=1, groups=3)
            if block.has_rgb:
                drawn = block.torgb(x, ws[:, row + 2])
                rgb = drawn if rgb is None else rgb + drawn
            row += 2
            if crop is not None and size == CROP_RESOLUTION:
                rows, columns = crop.at(size)
                x = x[:, :, rows, columns].contiguous(memory_format=torch.channels_last)
                rgb = rgb[:, :, rows, columns] if rgb is not None else None
        assert rgb is not None
        return rgb
