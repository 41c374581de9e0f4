"""Pictures of a video beside each other: MS-SSIM, a perceptual distance, and features of a whole video for FVD.

Torch and numpy; the feature networks are the caller's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

FeatureStages = Callable[[Tensor], Sequence[Tensor]]
"""Pictures [N,3,R,R] in [-1,1] → feature maps [N,C,H,W] of several depths."""

SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""Weights of the five scales, finest first, as Wang et al. fitted them to human judgement."""
WINDOW_PX = 11
WINDOW_SIGMA_PX = 1.5
K1, K2 = 0.01, 0.03


def count_scales(side_px: int) -> int:
    """Say how many scales fit: the coarsest must hold one whole window. 256 px: 5; 128 px: 4.

    Raises: ValueError under 11 px.
    """
    if side_px < WINDOW_PX:
        raise ValueError(f"MS-SSIM needs pictures of at least {WINDOW_PX} px, not {side_px}")
    return min(len(SCALE_WEIGHTS), int(np.log2(side_px // WINDOW_PX)) + 1)


def gaussian_band(side_px: int) -> Tensor:
    """Give the window along one axis, sum 1, at every place where it lies whole inside: a matrix with one band.

    Shapes: → [side_px-10,side_px].
    """
    place = torch.arange(side_px) - torch.arange(side_px - WINDOW_PX + 1)[:, None] - (WINDOW_PX - 1) / 2
    window = torch.exp(-place.square() / (2 * WINDOW_SIGMA_PX**2)) * (place.abs() <= (WINDOW_PX - 1) / 2)
    return window / window.sum(1, keepdim=True)


def blur(x: Tensor) -> Tensor:
    """Average with the window, only where it lies whole inside the picture.

    As two matrix products: eight times as fast on a CPU as the two convolutions.
    Shapes: x [N,C,H,W] → [N,C,H-10,W-10].
    """
    down, across = (gaussian_band(side).to(x) for side in x.shape[-2:])
    return down @ x @ across.t()


def compare_structure(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Give the luminance term and the contrast-structure term of SSIM, each averaged over places.

    Shapes: a, b [N,C,H,W] → SSIM [N,C] (luminance × contrast × structure), contrast × structure [N,C]. Range: [0,1].
    """
    c1, c2 = K1**2, K2**2
    # Centred first: variances are differences of squares, which lose digits where the squares are large.
    middle_a, middle_b = a.mean((2, 3), keepdim=True), b.mean((2, 3), keepdim=True)
    a, b = a - middle_a, b - middle_b
    mean_a, mean_b = blur(a), blur(b)
    var_a, var_b = blur(a * a) - mean_a**2, blur(b * b) - mean_b**2
    covariance = blur(a * b) - mean_a * mean_b
    structure = (2 * covariance + c2) / (var_a + var_b + c2)
    mean_a, mean_b = mean_a + middle_a, mean_b + middle_b
    luminance = (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1)
    return (luminance * structure).mean((2, 3)), structure.mean((2, 3))


def ms_ssim(a: Tensor, b: Tensor) -> Tensor:
    """Compare pictures at several scales (multi-scale structural similarity).

    Where fewer than five scales fit (128 px: four), the first weights are scaled to sum 1, so that a figure is always
    the weighted geometric mean of its terms; figures of different picture sizes are therefore not comparable.

    Shapes: a, b [N,C,H,W] → [N], the mean over channels. Range: pictures [-1,1]; 1 for equal pictures. A negative
    contrast-structure term counts as 0.
    Source: Wang, Simoncelli, Bovik, "Multiscale structural similarity for image quality assessment", 2003, equation 7;
    halving by the mean of 2 × 2 pixels.
    """
    if a.shape != b.shape:
        raise ValueError(f"pictures of different shapes: {list(a.shape)} and {list(b.shape)}")
    scales = count_scales(min(a.shape[-2:]))
    weights = torch.tensor(SCALE_WEIGHTS[:scales], dtype=a.dtype, device=a.device)
    weights = weights / weights.sum()
    a, b = (a + 1) / 2, (b + 1) / 2  # SSIM is made for light, which is never negative
    found = torch.ones(a.shape[:2], dtype=a.dtype, device=a.device)
    for scale in range(scales):
        whole, structure = compare_structure(a, b)
        last = scale == scales - 1
        found = found * (whole if last else structure).clamp_min(0) ** weights[scale]
        if not last:
            a, b = F.avg_pool2d(a, 2), F.avg_pool2d(b, 2)
    return found.mean(1)


def perceptual_distance(a: Tensor, b: Tensor, stages: FeatureStages) -> Tensor:
    """Compare pictures by the features of a network, each place's channels scaled to unit norm.

    LPIPS without its learned channel weights. Figures depend on the network, which a report must name; they are not
    figures of LPIPS.

    Shapes: a, b [N,3,R,R] in [-1,1] → [N]: squared distances, mean over places, sum over stages. Range: 0 for equal
    pictures, at most 4 a stage.
    Source: Zhang et al., "The unreasonable effectiveness of deep features as a perceptual metric", 2018.
    """
    return compare_stages(stages(a), stages(b))


def compare_stages(stages_a: Sequence[Tensor], stages_b: Sequence[Tensor]) -> Tensor:
    """Do the same with feature maps at hand.

    Shapes: a map [N,C,H,W] for each stage → [N].
    """
    total = torch.zeros(len(stages_a[0]), device=stages_a[0].device)
    for left, right in zip(stages_a, stages_b, strict=True):
        gap = F.normalize(left, dim=1, eps=1e-8) - F.normalize(right, dim=1, eps=1e-8)
        total = total + gap.square().sum(1).mean((1, 2))
    return total


@torch.no_grad()
def measure_adjacent(frames: Tensor, compare: Callable[[Tensor, Tensor], Tensor]) -> float:
    """Average a comparison over the pairs of adjacent frames.

    Shapes: frames [T,3,R,R], T ≥ 2; compare [N,…],[N,…] → [N].
    """
    if len(frames) < 2:
        raise ValueError("a comparison of adjacent frames needs at least two")
    return float(compare(frames[:-1], frames[1:]).mean())


def describe_video(features: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Turn features of frames into one vector of the video: what is seen on average, how much it varies, how fast.

    FVD is the Fréchet distance between such vectors of two sets of videos. The first part sees the pictures, the
    other two the motion; shuffled frames change the third alone.

    Shapes: features [T,k], T ≥ 2 → [3k]: mean, standard deviation and mean |adjacent difference| over time.
    """
    if features.ndim != 2 or len(features) < 2:
        raise ValueError(f"features of a video must be [T,k] with T of at least 2, not {list(features.shape)}")
    parts = (features.mean(0), features.std(0), np.abs(np.diff(features, axis=0)).mean(0))
    return np.concatenate(parts).astype(np.float32)


def to_pictures(frames: npt.NDArray[np.uint8]) -> Tensor:
    """Turn frames into what the comparisons take.

    Shapes: frames [T,H,W,3] uint8 → [T,3,H,W]. Range: → [-1,1].
    """
    return torch.from_numpy(np.ascontiguousarray(frames)).permute(0, 3, 1, 2).float() / 127.5 - 1.0
