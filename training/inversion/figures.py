"""How like a reconstruction is: PSNR, MS-SSIM, LPIPS-like distance, identity cosine, a picture each and on average."""

from collections.abc import Mapping

import torch
from torch import Tensor

from training.inversion.features import Description, compare_maps
from training.inversion.parts import Identity
from training.metrics.video import WINDOW_PX, ms_ssim

Figures = dict[str, Tensor]
"""Name → [N], on the CPU."""


@torch.no_grad()
def measure_reconstruction(
    drawn: Tensor, truth: Tensor, describe: Description, identity: Identity | None = None
) -> Figures:
    """Compare pictures as they would be shown, clipped.

    Shapes: drawn, truth [N,3,R,R] in [-1,1]. Gives psnr_db, ms_ssim (1 for equal pictures; left out under 11 px),
    feature_distance (0 for equal ones; its size depends on the network), identity (cosine; with an identity network).
    """
    drawn = drawn.float().clamp(-1, 1)
    mse = ((drawn - truth) / 2).square().mean((1, 2, 3))
    figures = {
        "psnr_db": -10 * mse.clamp_min(1e-10).log10(),
        "feature_distance": compare_maps(describe(drawn), describe(truth)),
    }
    if drawn.shape[-1] >= WINDOW_PX:
        figures["ms_ssim"] = ms_ssim(drawn, truth)
    if identity is not None:
        figures["identity"] = (identity(drawn) * identity(truth)).sum(1)
    return {name: value.float().cpu() for name, value in figures.items()}


def join_figures(parts: list[Figures]) -> Figures:
    """Join figures of several batches."""
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def average_figures(figures: Mapping[str, Tensor]) -> dict[str, float]:
    """Give each figure's mean over pictures."""
    return {name: float(value.mean()) for name, value in figures.items()}
