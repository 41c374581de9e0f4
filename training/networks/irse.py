"""Encoders on an IR-SE body, picture → ws: the pyramid of e4e and pSp with one style block a ws row, and pSp's two that
read its last map alone; of any size.

The body is a residual network of the ArcFace family with squeeze-and-excitation; a pyramid's coarse rows read its last
map, middle and fine rows read maps that are larger and that the coarser ones were added to. In e4e row 0 is the face's
w; every other row is w plus a delta, and the deltas are unlocked one after the other in training. In pSp every row
stands alone. Plain PyTorch; no losses, no files.
Source: Tov et al. 2021 (arXiv 2102.02766), Richardson et al. 2021 (arXiv 2008.00951); with WIDTHS, UNITS and 256 px it
is their network, tensor for tensor.
"""

import itertools
import math
from abc import ABC, abstractmethod
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.networks.layers import FullyConnected

SQUEEZE = 16
Four = tuple[int, int, int, int]
WIDTHS: Four = (64, 128, 256, 512)
"""Channels of the four stages of IR-SE 50."""
UNITS: Four = (3, 4, 14, 3)
"""Residual units of the four stages of IR-SE 50."""


class SqueezeExcitation(nn.Module):
    """Weigh channels by what all places of a map say together."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = max(1, channels // SQUEEZE)
        self.fc1 = nn.Conv2d(channels, hidden, 1, bias=False)
        self.fc2 = nn.Conv2d(hidden, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Shapes: [N,C,H,W] → the same."""
        return x * torch.sigmoid(self.fc2(F.relu(self.fc1(x.mean((2, 3), keepdim=True)))))


class IRSEUnit(nn.Module):
    """Norm, convolution, PReLU, strided convolution, norm, squeeze-and-excitation, beside a shortcut."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.stride, self.widens = stride, in_channels != out_channels
        self.norm1 = nn.BatchNorm2d(in_channels)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, 1, 1, bias=False)
        self.activate = nn.PReLU(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, stride, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(out_channels)
        self.se = SqueezeExcitation(out_channels)
        if self.widens:
            self.shortcut_conv = nn.Conv2d(in_channels, out_channels, 1, stride, bias=False)
            self.shortcut_norm = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Shapes: [N,in,H,W] → [N,out,H/stride,W/stride]."""
        # where the width stays, every stride-th place is taken as it is
        shortcut = self.shortcut_norm(self.shortcut_conv(x)) if self.widens else x[:, :, :: self.stride, :: self.stride]
        y = self.norm2(self.conv2(self.activate(self.conv1(self.norm1(x)))))
        return shortcut + self.se(y)


class StyleBlock(nn.Module):
    """Feature map → one w: strided convolutions down to one place, then a linear layer."""

    def __init__(self, in_channels: int, w_dim: int, size: int) -> None:
        """`size`: edge of the map, a power of two."""
        super().__init__()
        widths = [in_channels] + [w_dim] * int(math.log2(size))
        self.convs = nn.ModuleList(nn.Conv2d(a, b, 3, 2, 1) for a, b in itertools.pairwise(widths))
        self.linear = FullyConnected(w_dim, w_dim)

    def forward(self, x: Tensor) -> Tensor:
        """Shapes: [N,C,size,size] → [N,w_dim]."""
        for conv in self.convs:
            x = F.leaky_relu(conv(x), 0.01)
        return self.linear(x.flatten(1))


class IRSEBody(nn.Module):
    """A stem and four stages, each of which halves the map."""

    def __init__(self, widths: Four = WIDTHS, units: Four = UNITS) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, widths[0], 3, 1, 1, bias=False)
        self.stem_norm = nn.BatchNorm2d(widths[0])
        self.stem_activate = nn.PReLU(widths[0])
        before, stages = widths[0], []
        for width, count in zip(widths, units, strict=True):
            stages.append(
                nn.Sequential(IRSEUnit(before, width, 2), *(IRSEUnit(width, width, 1) for _ in range(count - 1)))
            )
            before = width
        self.stages = nn.ModuleList(stages)

    def describe(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Give the maps at 1/2, 1/4, 1/8 and 1/16 of a picture's size."""
        x = self.stem_activate(self.stem_norm(self.stem(image)))
        maps = []
        for stage in self.stages:
            x = cast("nn.Sequential", stage)(x)
            maps.append(x)
        return maps[0], maps[1], maps[2], maps[3]


class PictureEncoder(IRSEBody, ABC):
    """Picture → ws, around an average w that is kept with the weights; subclasses say how the rows are read."""

    w_avg: Tensor

    def __init__(self, num_ws: int, w_dim: int, input_size: int, widths: Four, units: Four) -> None:
        super().__init__(widths, units)
        assert input_size >= 32, input_size
        assert 2 ** int(math.log2(input_size)) == input_size, f"{input_size} is not a power of two"
        self.num_ws, self.w_dim, self.input_size = num_ws, w_dim, input_size
        self.register_buffer("w_avg", torch.zeros(num_ws, w_dim))

    def forward(self, image: Tensor, unlocked: int | None = None) -> Tensor:
        """Invert pictures.

        Shapes: image [N,3,R,R] in [-1,1] → ws [N,num_ws,w_dim]. `unlocked`: see `offsets`.
        """
        return self.w_avg + self.offsets(image, unlocked)

    @abstractmethod
    def offsets(self, image: Tensor, unlocked: int | None = None) -> Tensor:
        """Give ws without the average: [N,3,R,R] → [N,num_ws,w_dim].

        Of a pyramid's rows behind the first, only the first `unlocked` are read off the picture (None: as kept with the
        weights); the others equal row 0. Encoders that were trained at one go have nothing to unlock.
        """

    @abstractmethod
    def count_unlocked(self) -> int:
        """Give how many rows behind the first are read off the picture, as kept with the weights."""


class PyramidEncoder(PictureEncoder):
    """Each row from the map of its fineness, as e4e and pSp read them."""

    unlocked_rows: Tensor

    def __init__(
        self,
        num_ws: int,
        w_dim: int,
        input_size: int = 256,  # what the picture is scaled to; a power of two, 32 at least
        widths: Four = WIDTHS,
        units: Four = UNITS,
        coarse_rows: int = 3,  # rows below read the map at 1/16
        middle_rows: int = 7,  # rows below that read 1/8, the rest 1/4
        deltas: bool = True,  # rows behind the first are told as deltas from it (e4e); False: on their own (pSp)
    ) -> None:
        super().__init__(num_ws, w_dim, input_size, widths, units)
        self.coarse_rows, self.middle_rows, self.deltas = coarse_rows, middle_rows, deltas
        self.lateral_middle = nn.Conv2d(widths[2], widths[3], 1)
        self.lateral_fine = nn.Conv2d(widths[1], widths[3], 1)
        self.styles = nn.ModuleList(
            StyleBlock(widths[3], w_dim, self.map_size(row)) for row in range(num_ws)
        )  # one a row
        # kept with the weights: rows whose delta was never trained must not speak
        self.register_buffer("unlocked_rows", torch.tensor(num_ws - 1))

    def map_size(self, row: int) -> int:
        """Give the edge of the map that a row reads."""
        if row < self.coarse_rows:
            return self.input_size // 16
        return self.input_size // (8 if row < self.middle_rows else 4)

    def count_unlocked(self) -> int:
        """Give how many deltas or rows were trained."""
        return int(self.unlocked_rows)

    def offsets(self, image: Tensor, unlocked: int | None = None) -> Tensor:
        """Read the rows from coarse to fine."""
        _, fine, middle, coarse = self.describe(fit_picture(image, self.input_size))
        last = min(self.count_unlocked() if unlocked is None else unlocked, self.num_ws - 1)
        base = self.styles[0](coarse)
        rows, features = [base], coarse
        for row in range(1, last + 1):
            if row == self.coarse_rows:
                features = middle = add_upsampled(coarse, self.lateral_middle(middle))
            if row == self.middle_rows:
                features = add_upsampled(middle, self.lateral_fine(fine))
            style = self.styles[row](features)
            rows.append(base + style if self.deltas else style)
        rows += [base] * (self.num_ws - 1 - last)
        return torch.stack(rows, 1)


class SingleEncoder(PictureEncoder):
    """One w for all rows, from the average of the last map.

    Source: Richardson et al. 2021, whose code names it BackboneEncoderUsingLastLayerIntoW.
    """

    def __init__(
        self, num_ws: int, w_dim: int, input_size: int = 256, widths: Four = WIDTHS, units: Four = UNITS
    ) -> None:
        super().__init__(num_ws, w_dim, input_size, widths, units)
        self.linear = FullyConnected(widths[3], w_dim)

    def count_unlocked(self) -> int:
        """Give 0: no row has a reading of its own."""
        return 0

    def offsets(self, image: Tensor, unlocked: int | None = None) -> Tensor:
        """Read one w and hand it to every row."""
        *_, last = self.describe(fit_picture(image, self.input_size))
        return self.linear(last.mean((2, 3)))[:, None].expand(-1, self.num_ws, -1)


class FlatEncoder(PictureEncoder):
    """Every row from the same few numbers, which a linear layer says of the whole last map.

    Source: Richardson et al. 2021, whose code names it BackboneEncoderUsingLastLayerIntoWPlus.
    """

    def __init__(
        self,
        num_ws: int,
        w_dim: int,
        input_size: int = 256,
        widths: Four = WIDTHS,
        units: Four = UNITS,
        bins: int = 7,  # the map is averaged to this edge
    ) -> None:
        super().__init__(num_ws, w_dim, input_size, widths, units)
        self.bins = bins
        self.map_norm = nn.BatchNorm2d(widths[3])
        self.map_linear = nn.Linear(widths[3] * bins * bins, w_dim)
        self.linear = FullyConnected(w_dim, num_ws * w_dim)

    def count_unlocked(self) -> int:
        """Give all of them."""
        return self.num_ws - 1

    def offsets(self, image: Tensor, unlocked: int | None = None) -> Tensor:
        """Read all rows at once."""
        *_, last = self.describe(fit_picture(image, self.input_size))
        pool = average_bins(self.input_size // 16, self.bins).to(last)
        w = self.map_linear((pool @ self.map_norm(last) @ pool.t()).flatten(1))
        return self.linear(w).view(-1, self.num_ws, self.w_dim)


def average_bins(size: int, bins: int) -> Tensor:
    """Give what averages an axis over bins that overlap where the sizes don't divide, as AdaptiveAvgPool2d has them.

    A constant matrix, for ONNX has no operator of this kind. Shapes: [bins,size].
    """
    edges = [(i * size // bins, -(-(i + 1) * size // bins)) for i in range(bins)]
    return torch.tensor([[1 / (b - a) if a <= place < b else 0.0 for place in range(size)] for a, b in edges])


def add_upsampled(small: Tensor, large: Tensor) -> Tensor:
    """Scale the small map to the large one's size, corners on corners, and add.

    Shapes: [N,C,h,w], [N,C,H,W] → [N,C,H,W].
    """
    return F.interpolate(small, size=large.shape[-2:], mode="bilinear", align_corners=True) + large


def fit_picture(image: Tensor, size: int) -> Tensor:
    """Scale a picture to an encoder's size: by averages where it divides, else bilinear.

    Shapes: [N,3,R,R] → [N,3,size,size].
    """
    side = image.shape[-1]
    if side == size:
        return image
    if side % size == 0:
        return F.avg_pool2d(image, side // size)
    return F.interpolate(image, size=(size, size), mode="bilinear", antialias=side > size)
