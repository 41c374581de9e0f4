"""Feature maps that an LPIPS-like loss compares, from any network that is at hand: a discriminator, a trunk, VGG.

A description is a function from pictures to maps of several depths whose places are brought to unit length, so that
squared differences can be averaged; its network is frozen, and gradients pass through it to the pictures. No files.
Source: Zhang et al. 2018 (arXiv 1801.03924); only VGG has their learnt channel weights.
"""

from collections.abc import Callable, Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.networks.discriminator import Discriminator
from training.networks.encoder import ConvBlock, Trunk
from training.networks.irse import fit_picture

Description = Callable[[Tensor], list[Tensor]]
"""Pictures [N,3,R,R] in [-1,1] → maps [N,C,H,W] of several depths, ready for `compare_maps`."""


TRUNK_SIZE = 128
"""Pictures are scaled to this for a rendered domain's trunk, px."""


def normalize_maps(maps: Sequence[Tensor]) -> list[Tensor]:
    """Scale every place's channels to unit length, in float32 at least: [N,C,H,W] each → the same."""
    return [F.normalize(part.to(torch.promote_types(part.dtype, torch.float32)), dim=1, eps=1e-8) for part in maps]


def compare_maps(a: Sequence[Tensor], b: Sequence[Tensor]) -> Tensor:
    """Give the squared distance of described pictures: sum over channels and depths, mean over places.

    Shapes: [N,C,H,W] lists → [N]. Range: 0 for equal pictures; at most 4 a depth where channels are not weighted.
    """
    gaps = [(left - right).square().sum(1).mean((1, 2)) for left, right in zip(a, b, strict=True)]
    return torch.stack(gaps).sum(0)


def describe_by_discriminator(discriminator: Discriminator) -> Description:
    """Describe by a trained discriminator's maps at 1/2, 1/4, … of its resolution."""
    discriminator.eval().requires_grad_(False)

    def describe(pictures: Tensor) -> list[Tensor]:
        return normalize_maps(discriminator.describe(fit_picture(pictures, discriminator.resolution)))

    return describe


def describe_by_trunk(trunk: Trunk, size: int = TRUNK_SIZE) -> Description:
    """Describe by a rendered domain's trunk, one map a size; pictures are scaled to what the trunk looks at."""
    trunk.eval().requires_grad_(False)

    def describe(pictures: Tensor) -> list[Tensor]:
        x = fit_picture(pictures, size)
        maps: list[Tensor] = []
        for layer in trunk.layers:
            smaller = isinstance(layer, ConvBlock) and layer.conv.stride != (1, 1)
            x = layer(x)
            # the last map of a size stands for it
            maps = [*maps, x] if smaller else [*maps[:-1], x]
        return normalize_maps(maps)

    return describe


VGG_WIDTHS = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))


class VggDescription(nn.Module):
    """VGG-16's maps before every pooling with LPIPS's channel weights: comparing them gives LPIPS 0.1, for users who
    have its weights (`training.checkpoints.lpips`).
    """

    mean: Tensor
    std: Tensor

    def __init__(self) -> None:
        super().__init__()
        before, stages = 3, []
        for widths in VGG_WIDTHS:
            stage = nn.ModuleList()
            for width in widths:
                stage.append(nn.Conv2d(before, width, 3, padding=1))
                before = width
            stages.append(stage)
        self.stages = nn.ModuleList(stages)
        self.channel_weights = nn.ParameterList(torch.ones(widths[-1]) for widths in VGG_WIDTHS)
        self.register_buffer("mean", torch.tensor([-0.030, -0.088, -0.188]).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor([0.458, 0.448, 0.450]).view(1, 3, 1, 1), persistent=False)
        self.eval().requires_grad_(False)

    def forward(self, pictures: Tensor) -> list[Tensor]:
        """Shapes: [N,3,R,R] in [-1,1] → five maps [N,C,H,W], unit length times the root of the channel weights."""
        x, maps = (pictures - self.mean) / self.std, []
        for i, stage in enumerate(self.stages):
            x = F.max_pool2d(x, 2) if i else x
            for conv in cast("nn.ModuleList", stage):
                x = F.relu(conv(x))
            maps.append(x)
        weighted = zip(normalize_maps(maps), self.channel_weights, strict=True)
        return [part * weights.sqrt()[:, None, None] for part, weights in weighted]
