"""The factor reader: from a picture to the renderer's factors and an identity embedding. Torch only.

Its architecture, its seed and its augmentations differ from the bundle's own encoder on purpose: a motion that fools
the encoder should not fool its judge.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from training.faces.parameters import NUM_EXPRESSION, NUM_IDENTITY, NUM_OPTIONS

READER_RESOLUTION = 128
IDENTITY_DIM = 64


class ResidualStage(nn.Module):
    """Halve the picture: a strided 3×3 convolution, then one residual pair with group norm."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.down = nn.Conv2d(channels_in, channels_out, 3, stride=2, padding=1)
        self.norm = nn.GroupNorm(8, channels_out)
        self.inner = nn.Conv2d(channels_out, channels_out, 3, padding=1)
        self.outer = nn.Conv2d(channels_out, channels_out, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Shapes: x [N,C,H,W] → [N,C',H/2,W/2]."""
        x = self.norm(self.down(x))
        return x + self.outer(F.silu(self.inner(F.silu(x))))


class FactorReader(nn.Module):
    """Read expression factors, identity factors and categories off a picture."""

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        widths = (width, 2 * width, 3 * width, 4 * width)
        self.stages = nn.Sequential(*(ResidualStage(a, b) for a, b in zip((3, *widths[:-1]), widths, strict=True)))
        features = widths[-1] * 8 * 8
        # Where things are matters (a brow's height is a position), so the grid is flattened, never averaged away.
        self.expression = nn.Sequential(nn.Linear(features, 128), nn.SiLU(), nn.Linear(128, NUM_EXPRESSION))
        self.identity = nn.Sequential(nn.Linear(features, 128), nn.SiLU(), nn.Linear(128, IDENTITY_DIM))
        self.identity_factors = nn.Linear(IDENTITY_DIM, NUM_IDENTITY + NUM_OPTIONS)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Read a batch of pictures.

        Shapes: image [N,3,128,128] → expression [N,15] in half-ranges around the factor means, identity [N,64] of unit
        norm, identity factors and category logits [N,20+27].
        Range: image [-1,1].
        """
        x = self.stages(image).flatten(1)
        identity = F.normalize(self.identity(x), dim=1)
        return self.expression(x), identity, self.identity_factors(identity * IDENTITY_DIM**0.5)


def to_reader_input(frames: Tensor) -> Tensor:
    """Turn uint8 frames of any size into what the reader takes.

    Shapes: frames [N,H,W,3] uint8 → [N,3,128,128]. Range: → [-1,1].
    """
    x = frames.permute(0, 3, 1, 2).float() / 127.5 - 1.0
    if x.shape[-2:] != (READER_RESOLUTION, READER_RESOLUTION):
        antialias = x.shape[-1] > READER_RESOLUTION
        x = F.interpolate(x, (READER_RESOLUTION, READER_RESOLUTION), mode="bilinear", antialias=antialias)
    return x
