"""CLIP's residual image tower (RN50 and its larger kin): a ResNet whose strides are averages and whose last pooling is
attention. The published motion was trained with RN50.

Plain PyTorch; knows no file format. Source: Radford et al. 2021 (arXiv 2103.00020), section 2.4.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

EXPANSION = 4
"""How much wider a unit's output is than its inside."""
HEAD_DIM = 64
DOWNSCALE = 32
"""How many pixels of an edge end in one place of the last map."""


class Stem(nn.Module):
    """Three convolutions and an average: the picture at a quarter of its size."""

    def __init__(self, width: int) -> None:
        super().__init__()
        half = width // 2
        self.conv1, self.norm1 = nn.Conv2d(3, half, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(half)
        self.conv2, self.norm2 = nn.Conv2d(half, half, 3, padding=1, bias=False), nn.BatchNorm2d(half)
        self.conv3, self.norm3 = nn.Conv2d(half, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        """Shapes: [N,3,R,R] → [N,width,R/4,R/4]."""
        x = F.relu(self.norm1(self.conv1(x)))
        x = F.relu(self.norm2(self.conv2(x)))
        return F.avg_pool2d(F.relu(self.norm3(self.conv3(x))), 2)


class Unit(nn.Module):
    """A bottleneck; where it halves the map, an average does it, before the last convolution and in the shortcut."""

    def __init__(self, in_channels: int, inner: int, stride: int) -> None:
        super().__init__()
        self.stride, out_channels = stride, EXPANSION * inner
        self.conv1, self.norm1 = nn.Conv2d(in_channels, inner, 1, bias=False), nn.BatchNorm2d(inner)
        self.conv2, self.norm2 = nn.Conv2d(inner, inner, 3, padding=1, bias=False), nn.BatchNorm2d(inner)
        self.conv3, self.norm3 = nn.Conv2d(inner, out_channels, 1, bias=False), nn.BatchNorm2d(out_channels)
        self.shortcut: nn.Sequential | None = None
        if stride > 1 or in_channels != out_channels:
            conv = nn.Conv2d(in_channels, out_channels, 1, bias=False)
            self.shortcut = nn.Sequential(conv, nn.BatchNorm2d(out_channels))

    def forward(self, x: Tensor) -> Tensor:
        """Shapes: [N,in_channels,H,W] → [N,EXPANSION·inner,H/stride,W/stride]."""
        y = F.relu(self.norm1(self.conv1(x)))
        y = F.relu(self.norm2(self.conv2(y)))
        y = self.norm3(self.conv3(self.shrink(y)))
        return F.relu(y + (x if self.shortcut is None else self.shortcut(self.shrink(x))))

    def shrink(self, x: Tensor) -> Tensor:
        """Average squares of stride × stride."""
        return x if self.stride == 1 else F.avg_pool2d(x, self.stride)


class AttentionPool(nn.Module):
    """The mean of all places asks all places, itself among them; its answer stands for the picture."""

    def __init__(self, edge: int, channels: int, embed_dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.positions = nn.Parameter(torch.zeros(edge * edge + 1, channels))
        self.q, self.k, self.v = (nn.Linear(channels, channels) for _ in range(3))
        self.out = nn.Linear(channels, embed_dim)

    def forward(self, x: Tensor) -> Tensor:
        """Shapes: [N,channels,edge,edge] → [N,embed_dim]."""
        places = x.flatten(2).transpose(1, 2)
        places = torch.cat([places.mean(1, keepdim=True), places], 1) + self.positions
        q, k, v = (
            layer(part).unflatten(2, (self.heads, -1)).transpose(1, 2)
            for layer, part in ((self.q, places[:, :1]), (self.k, places), (self.v, places))
        )
        weights = torch.softmax(q @ k.transpose(2, 3) * q.shape[-1] ** -0.5, dim=-1)
        embed: Tensor = self.out((weights @ v).transpose(1, 2).flatten(1))
        return embed


class ClipResNet(nn.Module):
    """The tower: stem, four stages of units, attention."""

    def __init__(self, width: int, units: tuple[int, int, int, int], edge: int, embed_dim: int) -> None:
        """Take the stem's width, the number of units in each stage, and the last map's edge length."""
        super().__init__()
        self.size_px = DOWNSCALE * edge
        self.stem, stages, channels = Stem(width), [], width
        for stage, count in enumerate(units):
            inner = width << stage
            strides = [1 if stage == 0 else 2, *[1] * (count - 1)]
            inputs = [channels, *[EXPANSION * inner] * (count - 1)]
            stages.append(nn.Sequential(*(Unit(i, inner, stride) for i, stride in zip(inputs, strides, strict=True))))
            channels = EXPANSION * inner
        self.stages = nn.Sequential(*stages)
        self.pool = AttentionPool(edge, channels, embed_dim, channels // HEAD_DIM)

    def forward(self, pixels: Tensor) -> Tensor:
        """Shapes: pixels [N,3,size_px,size_px] as CLIP was trained on → [N,embed_dim]."""
        embed: Tensor = self.pool(self.stages(self.stem(pixels)))
        return embed
