"""ir_se50, the ArcFace network that identity losses on real faces look through. Plain PyTorch; no losses, no files.

Source: Deng et al. 2019 (arXiv 1801.07698); the crop is that of Richardson et al. 2021 (arXiv 2008.00951).
"""

import torch.nn.functional as F
from torch import Tensor, nn

from training.networks.irse import UNITS, WIDTHS, Four, IRSEBody, fit_picture

PICTURE_SIZE = 256
CROP = (slice(35, 223), slice(32, 220))
"""Rows and columns of a 256 px picture, aligned as FFHQ is, that the network was shown when it learnt."""


class IdentityNetwork(IRSEBody):
    """Aligned picture of a face → who it is."""

    def __init__(
        self,
        features: int = 512,
        input_size: int = 112,  # what the crop is scaled to; 16 divides it
        widths: Four = WIDTHS,
        units: Four = UNITS,
    ) -> None:
        super().__init__(widths, units)
        self.input_size = input_size
        edge = input_size // 16
        self.head_norm = nn.BatchNorm2d(widths[-1])
        self.head_linear = nn.Linear(widths[-1] * edge * edge, features)
        self.features_norm = nn.BatchNorm1d(features)

    def forward(self, image: Tensor) -> Tensor:
        """Shapes: image [N,3,R,R] in [-1,1], aligned as FFHQ is, any R → identity [N,features], unit norm."""
        face = fit_picture(image, PICTURE_SIZE)[:, :, *CROP]
        return self.embed(F.adaptive_avg_pool2d(face, self.input_size))

    def embed(self, face: Tensor) -> Tensor:
        """Shapes: face [N,3,input_size,input_size] in [-1,1], cropped → [N,features], unit norm."""
        *_, last = self.describe(face)
        x = self.head_linear(self.head_norm(last).flatten(1))
        return F.normalize(self.features_norm(x), dim=1)
