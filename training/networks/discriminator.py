"""Discriminators: picture → how real it looks, in the three architectures, with minibatch std and class projection;
and w → whether the mapping could have made it.

Plain PyTorch; no losses, no files. Source: Karras et al. 2020 (arXiv 1912.04958); projection by Miyato and Koyama 2018.
"""

import itertools
import math
from typing import cast

import torch
from torch import Tensor, nn

from training.networks.layers import (
    Convolution,
    FullyConnected,
    append_minibatch_std,
    blur_kernel,
    downsample_depthwise,
)
from training.networks.mapping import MappingLayers
from training.networks.synthesis import Architecture


class DiscriminatorBlock(nn.Module):
    """Two convolutions at one resolution, the second halving; fromRGB and shortcut as the architecture has them."""

    fromrgb: Convolution
    skip: Convolution

    def __init__(
        self, in_channels: int, out_channels: int, has_rgb: bool, has_skip: bool, clamp: float | None = None
    ) -> None:
        super().__init__()
        self.has_rgb, self.has_skip = has_rgb, has_skip
        if has_rgb:
            self.fromrgb = Convolution(3, in_channels, 1, clamp=clamp)
        self.conv0 = Convolution(in_channels, in_channels, 3, clamp=clamp)
        self.conv1 = Convolution(in_channels, out_channels, 3, down=True, clamp=clamp)
        if has_skip:
            self.skip = Convolution(in_channels, out_channels, 1, down=True, bias=False, activate=False)

    def forward(self, x: Tensor) -> Tensor:
        """Shapes: [N,in,H,W] → [N,out,H/2,W/2]; the fromRGB is the network's to call."""
        if not self.has_skip:
            return self.conv1(self.conv0(x))
        shortcut = self.skip(x, gain=math.sqrt(0.5))
        return shortcut + self.conv1(self.conv0(x), gain=math.sqrt(0.5))


class Discriminator(nn.Module):
    """Picture → logit; `channels` gives the width at 4, 8, … resolution, as for the synthesis."""

    blur: Tensor

    def __init__(
        self,
        resolution: int,  # a power of two, 8 at least
        channels: tuple[int, ...],  # see config_f_channels
        c_dim: int = 0,  # 0: unconditional
        architecture: Architecture = "resnet",
        group_size: int | None = 4,  # pictures that minibatch std compares; None: the whole batch
        std_channels: int = 1,  # 0: without minibatch std
        cmap_dim: int | None = None,  # width of the class projection; None: channels[0]
        clamp: float | None = None,  # 256 keeps half precision from overflowing
    ) -> None:
        super().__init__()
        self.resolution, self.channels, self.architecture = resolution, channels, architecture
        self.c_dim, self.group_size, self.std_channels = c_dim, group_size, std_channels
        levels = int(math.log2(resolution)) - 1
        assert 4 * 2 ** (levels - 1) == resolution, f"{resolution} is not a power of two"
        assert len(channels) == levels > 1, f"{levels} channel widths wanted for {resolution} px, got {len(channels)}"
        self.blocks = nn.ModuleList(
            DiscriminatorBlock(before, after, i == 0 or architecture == "skip", architecture == "resnet", clamp)
            for i, (before, after) in enumerate(itertools.pairwise(reversed(channels)))
        )
        width = channels[0]
        self.cmap_dim = (cmap_dim or width) if c_dim else 1
        if architecture == "skip":
            self.fromrgb = Convolution(3, width, 1, clamp=clamp)
            self.register_buffer("blur", blur_kernel(1.0)[None, None], persistent=False)
        self.conv = Convolution(width + std_channels, width, 3, clamp=clamp)
        self.fc = FullyConnected(width * 16, width, activate=True)
        self.out = FullyConnected(width, self.cmap_dim)
        if c_dim:
            self.mapping = MappingLayers(0, self.cmap_dim, c_dim)

    def forward(self, image: Tensor, c: Tensor | None = None) -> Tensor:
        """Judge pictures.

        Shapes: image [N,3,R,R] in [-1,1], c [N,c_dim] → logits [N], float32 at least.
        """
        x = self.describe(image)[-1]
        # the last layers are small and their result is a loss: no half precision here
        with torch.autocast(x.device.type, enabled=False):
            x = x.to(torch.promote_types(x.dtype, torch.float32))
            if self.std_channels:
                x = append_minibatch_std(x, self.group_size, self.std_channels)
            x = self.conv(x)
            x = self.out(self.fc(x.flatten(1)))
            if not self.c_dim:
                return x[:, 0]
            return (x * self.mapping.map(None, c)).sum(1) / math.sqrt(self.cmap_dim)

    def describe(self, image: Tensor) -> list[Tensor]:
        """Give the feature map behind every block, large ones first; also what a feature loss compares.

        Shapes: image [N,3,R,R] → [N,channels at R/2,R/2,R/2] … [N,channels[0],4,4].
        """
        assert image.shape[1:] == (3, self.resolution, self.resolution), tuple(image.shape)
        maps: list[Tensor] = []
        x: Tensor | None = None
        for i, module in enumerate(self.blocks):
            block = cast("DiscriminatorBlock", module)
            if block.has_rgb:
                seen = block.fromrgb(image)
                x = seen if x is None else x + seen
            if self.architecture == "skip":
                image = downsample_depthwise(image, self.blur)
            assert x is not None
            x = block(x)
            if self.architecture == "skip" and i == len(self.blocks) - 1:
                x = x + self.fromrgb(image)
            maps.append(x)
        return maps


class WDiscriminator(nn.Module):
    """A row of ws → whether it comes from the mapping: equalised layers with leaky ReLU, and one number.

    Source: Nitzan et al. 2020 (arXiv 2005.07728) and e4e (arXiv 2102.02766): four layers.
    """

    def __init__(self, w_dim: int, layers: int = 4, lr_multiplier: float = 0.01) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            FullyConnected(w_dim, w_dim, activate=True, lr_multiplier=lr_multiplier) for _ in range(layers - 1)
        )
        self.out = FullyConnected(w_dim, 1)

    def forward(self, w: Tensor) -> Tensor:
        """Shapes: w [N,w_dim] → logits [N]."""
        for layer in self.layers:
            w = layer(w)
        return self.out(w)[:, 0]
