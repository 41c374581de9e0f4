"""An LPIPS-like distance of two pictures, on the features of any convolutional network that is at hand.

Source: Zhang et al. 2018: at several depths the features are brought to unit length in every place, and their squared
differences averaged. Their learnt weights a channel are all the same here, since nobody judged rendered faces; depths
are averaged, which puts another person near 0.6 and another expression near 0.04 on our trunk.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.networks.encoder import Trunk
from training.paper.towers import TOWER_RESOLUTION, resize

Distance = Callable[[Tensor, Tensor], Tensor]
"""Pictures, pictures, both [N,3,R,R] in [-1,1] → [N], 0 for equal ones, differentiable."""


class FeatureDistance(nn.Module):
    """Distance by the features after each of a stack's layers."""

    def __init__(self, layers: nn.Sequential, size_px: int | None = None) -> None:
        """`size_px`: what the pictures are brought to first; None leaves their size."""
        super().__init__()
        self.layers, self.size_px = layers.eval().requires_grad_(False), size_px

    def features(self, pictures: Tensor) -> list[Tensor]:
        """Shapes: [N,3,R,R] → [N,C,H,W] after each layer, unit length along C."""
        x = pictures if self.size_px is None else resize(pictures, self.size_px)
        found = []
        for layer in self.layers:
            x = layer(x)
            found.append(F.normalize(x, dim=1, eps=1e-8))
        return found

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """Shapes: [N,3,R,R] twice → [N]."""
        pairs = zip(self.features(first), self.features(second), strict=True)
        return torch.stack([(a - b).square().sum(1).mean((1, 2)) for a, b in pairs]).mean(0)


def trunk_distance(trunk: Trunk) -> FeatureDistance:
    """Give the distance by a rendered domain's trunk."""
    return FeatureDistance(trunk.layers, TOWER_RESOLUTION)
