"""Who is in a video: distances between identity features of frames.

The features are the caller's: any function from pictures to unit-norm vectors. Judgements use the evaluator's factor
reader (`training.evaluator`), which no loss may use.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Features = npt.NDArray[np.float32]


def measure_acd(features: Features) -> float:
    """Average content distance: mean Euclidean distance of the identity features of adjacent frames.

    Shapes: features [T,k] of unit norm, T ≥ 2. Range: 0 (one person, unmoved) to 2.
    Source: MoCoGAN (Tulyakov et al., CVPR 2018) averages over all pairs of frames; adjacent frames show flicker and are
    not fooled by a slow, wanted change.
    """
    _check(features)
    if len(features) < 2:
        raise ValueError("ACD needs at least two frames")
    return float(np.linalg.norm(np.diff(features, axis=0), axis=1).mean())


def measure_identity(source: Features, features: Features) -> Features:
    """Cosine of each frame's identity features to the source's.

    Shapes: source [k], features [T,k], both of unit norm → [T]. Range: [-1, 1].
    """
    _check(features)
    _check(source[None])
    return np.clip(features @ source, -1.0, 1.0).astype(np.float32)


def _check(features: Features) -> None:
    if features.ndim != 2:
        raise ValueError(f"features must be [T,k], not {list(features.shape)}")
    norms = np.linalg.norm(features, axis=1)
    if not np.allclose(norms, 1.0, atol=1e-3):
        raise ValueError(
            f"identity features must be of unit norm; these are between {norms.min():.3g} and {norms.max():.3g}"
        )
