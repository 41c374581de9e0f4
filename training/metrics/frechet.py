"""How far two sets of pictures (or videos) are apart by their features: Fréchet distance and kernel distance.

FID and KID are these of picture features (training.metrics.features); FVD is the first of video features
(training.metrics.video.describe_video). Numpy only; features come as arrays.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Features = npt.NDArray[np.floating]
Moment = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Moments:
    """Mean and covariance of a set's features."""

    count: int
    mean: Moment  # [d]
    covariance: Moment  # [d,d], unbiased


def measure_moments(features: Features) -> Moments:
    """Measure mean and covariance in float64.

    Shapes: features [N,d]. Raises: ValueError for fewer than two rows or numbers that are not finite.
    """
    if features.ndim != 2 or len(features) < 2:
        raise ValueError(f"features must be [N,d] with N of at least 2, not {list(features.shape)}")
    if not np.isfinite(features).all():
        raise ValueError("features hold numbers that are not finite")
    exact = features.astype(np.float64)
    mean = exact.mean(0)
    centred = exact - mean
    return Moments(len(exact), mean, centred.T @ centred / (len(exact) - 1))


def root_trace(first: Moment, second: Moment) -> float:
    """Give tr((S1·S2)^½) of two covariances.

    S1·S2 has the eigenvalues of √S1·S2·√S1, which is symmetric: two symmetric eigenvalue problems, no complex roots,
    and singular covariances (fewer pictures than features) do no harm.
    """
    values, vectors = np.linalg.eigh(first)
    root = (vectors * np.sqrt(values.clip(0))) @ vectors.T
    inner = root @ second @ root
    return float(np.sqrt(np.linalg.eigvalsh((inner + inner.T) / 2).clip(0)).sum())


def frechet_distance(first: Moments, second: Moments) -> float:
    """Give the squared Fréchet (2-Wasserstein) distance of two normal distributions.

    Source: Heusel et al. 2017 (arXiv 1706.08500). Raises: ValueError when the features are not of one kind.
    """
    if first.mean.shape != second.mean.shape:
        raise ValueError(f"features of {len(first.mean)} and {len(second.mean)} numbers can't be compared")
    apart = float(np.square(first.mean - second.mean).sum())
    spread = float(np.trace(first.covariance) + np.trace(second.covariance))
    return max(0.0, apart + spread - 2 * root_trace(first.covariance, second.covariance))


def frechet_of(first: Features, second: Features) -> float:
    """Give the Fréchet distance of two sets of features: [N,d], [M,d]."""
    return frechet_distance(measure_moments(first), measure_moments(second))


def kernel_distance(
    first: Features, second: Features, subsets: int = 100, subset_size: int = 1000, seed: int = 0
) -> tuple[float, float]:
    """Give the mean over subsets of the unbiased squared MMD with the kernel (x·y/d + 1)³, and its standard deviation.

    Unbiased, so it may be a little below 0 for equal distributions, and few pictures suffice.
    Shapes: first [N,d], second [M,d]; a subset is at most as large as the smaller set.
    Source: Bińkowski et al. 2018 (arXiv 1801.01401).
    """
    if first.shape[1] != second.shape[1]:
        raise ValueError(f"features of {first.shape[1]} and {second.shape[1]} numbers can't be compared")
    size = min(subset_size, len(first), len(second))
    if size < 2:
        raise ValueError("the kernel distance needs at least two pictures of each kind")
    rng = np.random.default_rng(seed)
    whole = size == len(first) == len(second)
    found = []
    for _ in range(1 if whole else subsets):
        x = first[rng.choice(len(first), size, replace=False)].astype(np.float64)
        y = second[rng.choice(len(second), size, replace=False)].astype(np.float64)
        within = sum(float(k.sum() - np.trace(k)) for k in (_kernel(x, x), _kernel(y, y)))
        found.append(within / (size * (size - 1)) - 2 * float(_kernel(x, y).mean()))
    return float(np.mean(found)), float(np.std(found))


def _kernel(x: Moment, y: Moment) -> Moment:
    return (x @ y.T / x.shape[1] + 1) ** 3
