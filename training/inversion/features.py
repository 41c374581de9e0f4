"""Feature maps that an LPIPS-like loss compares, from any network that is at hand: a discriminator, a trunk, VGG.

A description is a function from pictures to maps of several depths whose places are brought to unit length, so that
squared differences can be averaged; its network is frozen, and gradients pass through it to the pictures. No files.
Source: Zhang et al. 2018 (arXiv 1801.03924). With their learnt channel weights only VGG describes: `load_lpips` of
training.checkpoints.lpips gives a description from a user's files.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from training.networks.discriminator import Discriminator
from training.networks.encoder import ConvBlock, Trunk
from training.networks.identity import PICTURE_SIZE, IdentityNetwork
from training.networks.irse import fit_picture
from training.networks.vgg import normalize_places

Description = Callable[[Tensor], list[Tensor]]
"""Pictures [N,3,R,R] in [-1,1] → maps [N,C,H,W] of several depths, ready for `compare_maps`."""


TRUNK_SIZE = 128
"""Pictures are scaled to this for a rendered domain's trunk, px."""


def normalize_maps(maps: Sequence[Tensor]) -> list[Tensor]:
    """Scale every place's channels to unit length: [N,C,H,W] each → the same."""
    return [normalize_places(part) for part in maps]


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


def describe_by_identity(network: IdentityNetwork) -> Description:
    """Describe by a face recognition network's maps at 1/2, 1/4, 1/8 and 1/16 of the picture that it is shown."""
    network.eval().requires_grad_(False)

    def describe(pictures: Tensor) -> list[Tensor]:
        return normalize_maps(network.describe(fit_picture(pictures, PICTURE_SIZE)))

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
