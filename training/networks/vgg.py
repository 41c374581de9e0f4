"""VGG-16's convolutions, described as LPIPS compares them. Plain PyTorch; no files.

Source: Simonyan and Zisserman 2014 (arXiv 1409.1556); Zhang et al. 2018 (arXiv 1801.03924), their weights 0.1.
"""

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

WIDTHS = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))


def normalize_places(x: Tensor) -> Tensor:
    """Scale every place's channels to unit length, in float32 at least: [N,C,H,W] → the same."""
    return F.normalize(x.to(torch.promote_types(x.dtype, torch.float32)), dim=1, eps=1e-8)


class VggDescription(nn.Module):
    """Pictures → the maps before every pooling, unit length times the root of LPIPS's channel weights.

    Squared differences, summed over channels and maps and averaged over places, are LPIPS
    (`training.inversion.features.compare_maps`).
    """

    mean: Tensor
    std: Tensor

    def __init__(self) -> None:
        super().__init__()
        before, stages = 3, []
        for widths in WIDTHS:
            stage = nn.ModuleList()
            for width in widths:
                stage.append(nn.Conv2d(before, width, 3, padding=1))
                before = width
            stages.append(stage)
        self.stages = nn.ModuleList(stages)
        self.channel_weights = nn.ParameterList(torch.ones(widths[-1]) for widths in WIDTHS)
        self.register_buffer("mean", torch.tensor([-0.030, -0.088, -0.188]).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor([0.458, 0.448, 0.450]).view(1, 3, 1, 1), persistent=False)
        self.eval().requires_grad_(False)

    def forward(self, pictures: Tensor) -> list[Tensor]:
        """Shapes: [N,3,R,R] in [-1,1] → five maps [N,C,H,W]."""
        x, maps = (pictures - self.mean) / self.std, []
        for i, stage in enumerate(self.stages):
            x = F.max_pool2d(x, 2) if i else x
            for conv in cast("nn.ModuleList", stage):
                x = F.relu(conv(x))
            maps.append(x)
        weighted = zip(maps, self.channel_weights, strict=True)
        return [normalize_places(part) * weights.sqrt()[:, None, None] for part, weights in weighted]
