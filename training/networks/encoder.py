"""From a picture to its factors, its ws and its image embedding: one convolutional trunk with three heads.

Plain PyTorch; no file formats, no training here.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.networks.stylegan2 import FactorMapping

COLOR_GRID = 8
"""Colours of a picture are averaged over this many cells a side."""


class ConvBlock(nn.Module):
    """3×3 convolution, batch norm, leaky ReLU; stride 2 halves the picture."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, kernel: int = 3) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel, stride, kernel // 2, bias=False)
        self.norm = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Shapes: [N,in,H,W] → [N,out,H/stride,W/stride]."""
        return F.leaky_relu(self.norm(self.conv(x)), 0.1)


class ResidualBlock(nn.Module):
    """Two 3×3 convolutions beside the identity."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = ConvBlock(channels, channels, 1)
        self.second = ConvBlock(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Shapes: [N,C,H,W] → the same."""
        return x + self.second(self.first(x))


class Trunk(nn.Module):
    """Picture → features. The 4×4 map is flattened, not averaged: where a brow stands matters."""

    def __init__(self, widths: tuple[int, ...] = (24, 48, 80, 112, 128), feature_dim: int = 256) -> None:
        super().__init__()
        self.feature_dim = feature_dim
        stem, *rest = widths
        layers: list[nn.Module] = [ConvBlock(3, stem, 2, kernel=5)]
        before = stem
        for i, width in enumerate(rest):
            layers.append(ConvBlock(before, width, 2))
            if i > 0:
                layers.append(ResidualBlock(width))
            before = width
        self.layers = nn.Sequential(*layers)
        self.squeeze = ConvBlock(before, 48, 1, kernel=1)
        self.fc = nn.Linear(48 * 16, feature_dim)

    def forward(self, image: Tensor) -> Tensor:
        """Shapes: image [N,3,128,128] in [-1,1] → [N,feature_dim]."""
        x = self.squeeze(self.layers(image))
        return F.leaky_relu(self.fc(x.flatten(1)), 0.1)


@torch.no_grad()
def spread_norms(trunk: Trunk, pictures: Tensor) -> None:
    """Give every batch norm the mean and spread that its maps have for these pictures; what the trunk computes stays.

    A norm that was folded into its convolution comes back as a plain shift. Training brings maps to unit spread first
    and would undo what the trunk knows; after this it goes on from there.
    Shapes: pictures [N,3,S,S] in [-1,1], typical ones.
    """

    def spread(norm: nn.BatchNorm2d, maps: Tensor) -> None:
        assert norm.running_mean is not None
        assert norm.running_var is not None
        gain = norm.weight / (norm.running_var + norm.eps).sqrt()
        shift = norm.bias - norm.running_mean * gain
        norm.running_mean.copy_(maps.mean((0, 2, 3)))
        norm.running_var.copy_(maps.var((0, 2, 3), correction=0))
        norm.weight.copy_(gain * (norm.running_var + norm.eps).sqrt())
        norm.bias.copy_(shift + norm.running_mean * gain)

    training, blocks = trunk.training, [module for module in trunk.modules() if isinstance(module, ConvBlock)]
    # Before a norm is run it is set, so one pass does for all of them.
    hooks = [block.norm.register_forward_pre_hook(lambda norm, inputs: spread(norm, inputs[0])) for block in blocks]
    trunk.eval()(pictures)
    for hook in hooks:
        hook.remove()
    trunk.train(training)


class Factors(NamedTuple):
    """What the factor head reads: half-ranges from the mean, and option logits."""

    continuous: Tensor  # [N,continuous]
    logits: Tensor  # [N,options]


class FactorHead(nn.Module):
    """Features → factors."""

    def __init__(self, feature_dim: int, num_continuous: int, option_slices: tuple[slice, ...]) -> None:
        """`option_slices`: where each category's options stand in a factor vector."""
        super().__init__()
        self.num_continuous = num_continuous
        self.option_slices = [slice(s.start - num_continuous, s.stop - num_continuous) for s in option_slices]
        num_options = self.option_slices[-1].stop
        self.hidden = nn.Linear(feature_dim, feature_dim)
        self.out = nn.Linear(feature_dim, num_continuous + num_options)

    def forward(self, features: Tensor) -> Factors:
        """Shapes: [N,feature_dim] → continuous, logits."""
        out = self.out(F.leaky_relu(self.hidden(features), 0.1))
        return Factors(out[:, : self.num_continuous], out[:, self.num_continuous :])

    def soften(self, factors: Factors, lows: Tensor, highs: Tensor) -> Tensor:
        """Give a factor vector: continuous values clipped to their ranges, options as probabilities.

        Shapes: lows, highs [continuous] → [N,Z_DIM].
        """
        parts = [torch.maximum(torch.minimum(factors.continuous, highs), lows)]
        parts += [factors.logits[:, options].softmax(1) for options in self.option_slices]
        return torch.cat(parts, 1)


class ImageTower(nn.Module):
    """Picture → image embedding v, unit norm, in the space of the text embedding τ."""

    def __init__(self, trunk: Trunk, embed_dim: int) -> None:
        super().__init__()
        self.trunk = trunk
        self.hidden = nn.Linear(trunk.feature_dim, 256)
        self.out = nn.Linear(256, embed_dim)

    def project(self, features: Tensor) -> Tensor:
        """Shapes: [N,feature_dim] → [N,embed_dim], unit norm."""
        return F.normalize(self.out(F.leaky_relu(self.hidden(features), 0.1)), dim=1, eps=1e-6)

    def forward(self, image: Tensor) -> Tensor:
        """Shapes: image [N,3,S,S] in [-1,1] → [N,embed_dim], unit norm."""
        return self.project(self.trunk(image))


class WPlusEncoder(nn.Module):
    """Picture → ws: factors through the generator's mapping, the same in every row, plus a small residual a row.

    The residual starts at zero, so that the first inversion is the one that the factors say.
    """

    lows: Tensor
    highs: Tensor

    def __init__(
        self,
        trunk: Trunk,
        head: FactorHead,
        mapping: FactorMapping,
        num_ws: int,
        lows: Tensor,  # [continuous] ranges of the factor vector's continuous part
        highs: Tensor,  # [continuous]
        hues: tuple[int, ...],  # which factors go around a circle: read from coarse colours by a head of their own
    ) -> None:
        super().__init__()
        self.hues = hues
        self.trunk, self.head, self.mapping = trunk, head, mapping
        self.num_ws, self.w_dim = num_ws, mapping.fc1.weight.shape[0]
        self.register_buffer("lows", lows)
        self.register_buffer("highs", highs)
        colors = 3 * COLOR_GRID**2
        self.hue_hidden = nn.Linear(colors, 96)
        self.hue_middle = nn.Linear(96, 96)
        self.hue_out = nn.Linear(96, len(hues))
        self.residual_hidden = nn.Linear(trunk.feature_dim + colors, 192)
        self.residual_out = nn.Linear(192, num_ws * self.w_dim)
        nn.init.zeros_(self.residual_out.weight)
        nn.init.zeros_(self.residual_out.bias)

    def forward(self, image: Tensor) -> Tensor:
        """Shapes: image [N,3,S,S] in [-1,1] → ws [N,num_ws,w_dim]."""
        return self.invert(self.trunk(image), image)[0]

    def invert(self, features: Tensor, image: Tensor) -> tuple[Tensor, Factors]:
        """Read the factors, take their w, add the residual.

        Shapes: features [N,feature_dim], image [N,3,S,S] → ws [N,num_ws,w_dim], the factors that were read.
        """
        colors = F.avg_pool2d(image, image.shape[-1] // COLOR_GRID).flatten(1)
        read = self.head(features)
        hues = F.leaky_relu(self.hue_middle(F.leaky_relu(self.hue_hidden(colors), 0.1)), 0.1)
        found = self.hue_out(hues)
        columns = list(read.continuous.unbind(1))
        for i, place in enumerate(self.hues):
            columns[place] = found[:, i]
        read = Factors(torch.stack(columns, 1), read.logits)
        w = self.mapping(self.head.soften(read, self.lows, self.highs))
        hidden = F.leaky_relu(self.residual_hidden(torch.cat([features, colors], 1)), 0.1)
        residual = self.residual_out(hidden).view(-1, self.num_ws, self.w_dim)
        return w[:, None] + residual, read
