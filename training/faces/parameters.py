"""Factors of a rendered face: names, ranges, and the ways between Gaussians, parameters and factor vectors.

Every domain keeps these names, so that one evaluator and one caption sampler serve all. Numpy only: no torch, no skia.
"""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Parameters = dict[str, Any]
"""What a renderer draws: a number for each continuous factor, an option name for each categorical one."""

Vector = npt.NDArray[np.float32]


class Factor(NamedTuple):
    """One continuous factor: a Gaussian around `mean`, clipped to [low, high]."""

    name: str
    mean: float
    std: float
    low: float
    high: float


class Category(NamedTuple):
    """One categorical factor with the prior probability of each option."""

    name: str
    options: tuple[str, ...]
    priors: tuple[float, ...]


EXPRESSION_FACTORS: tuple[Factor, ...] = (
    Factor("mouth_curve", 0.22, 0.16, -1.0, 1.0),
    Factor("mouth_open", 0.03, 0.04, 0.0, 1.0),
    Factor("mouth_width", 1.0, 0.08, 0.55, 1.35),
    Factor("pout", 0.0, 0.04, 0.0, 1.0),
    Factor("eye_l", 1.0, 0.07, 0.0, 1.35),
    Factor("eye_r", 1.0, 0.07, 0.0, 1.35),
    Factor("brow_h", 0.0, 0.15, -1.0, 1.0),
    Factor("brow_a", 0.0, 0.15, -1.0, 1.0),  # + = inner ends down (angry), - = inner ends up (sad)
    Factor("brow_asym", 0.0, 0.08, -1.0, 1.0),
    Factor("gaze_x", 0.0, 0.15, -1.0, 1.0),
    Factor("gaze_y", 0.0, 0.10, -1.0, 1.0),
    Factor("blush", 0.25, 0.15, 0.0, 1.0),
    Factor("yaw", 0.0, 0.35, -1.0, 1.0),
    Factor("pitch", 0.0, 0.25, -1.0, 1.0),
    Factor("roll", 0.0, 0.25, -1.0, 1.0),
)
IDENTITY_FACTORS: tuple[Factor, ...] = (
    Factor("face_w", 0.0, 0.45, -1, 1),
    Factor("jaw", 0.0, 0.5, -1, 1),
    Factor("chin", 0.0, 0.5, -1, 1),
    Factor("eye_size", 0.0, 0.45, -1, 1),
    Factor("eye_gap", 0.0, 0.45, -1, 1),
    Factor("eye_y", 0.0, 0.4, -1, 1),
    Factor("eye_tilt", 0.0, 0.45, -1, 1),
    Factor("nose_len", 0.0, 0.5, -1, 1),
    Factor("nose_w", 0.0, 0.5, -1, 1),
    Factor("mouth_y", 0.0, 0.4, -1, 1),
    Factor("lip_full", 0.0, 0.5, -1, 1),
    Factor("brow_t", 0.0, 0.5, -1, 1),
    Factor("hair_vol", 0.0, 0.45, -1, 1),
    Factor("fem", 0.0, 0.6, -1, 1),
    Factor("light", 0.0, 0.6, -1, 1),
    Factor("skin_t", 0.0, 0.58, -1, 1),
    Factor("hair_dark", 0.0, 0.5, -1, 1),
    Factor("bg_hue", 0.0, 0.58, -1, 1),
    Factor("bg_val", 0.0, 0.5, -1, 1),
    Factor("cloth_hue", 0.0, 0.58, -1, 1),
)
CATEGORIES: tuple[Category, ...] = (
    Category(
        "hair",
        ("short", "sidepart", "fringe", "long", "bob", "curly", "bald", "bun"),
        (0.16, 0.17, 0.14, 0.17, 0.12, 0.12, 0.05, 0.07),
    ),
    Category(
        "hair_col",
        ("black", "brown", "chestnut", "blond", "ginger", "grey", "pink", "blue"),
        (0.24, 0.22, 0.15, 0.15, 0.1, 0.06, 0.05, 0.03),
    ),
    Category("glasses", ("none", "round", "square"), (0.76, 0.13, 0.11)),
    Category("beard", ("none", "stubble", "full", "moustache"), (0.72, 0.1, 0.11, 0.07)),
    Category("iris", ("brown", "blue", "green", "grey"), (0.5, 0.22, 0.18, 0.1)),
)

CONTINUOUS_FACTORS = EXPRESSION_FACTORS + IDENTITY_FACTORS
FACTOR_NAMES = tuple(factor.name for factor in CONTINUOUS_FACTORS)
FACTORS_BY_NAME = {factor.name: factor for factor in CONTINUOUS_FACTORS}
POSE_FACTORS = ("yaw", "pitch", "roll")

NUM_EXPRESSION = len(EXPRESSION_FACTORS)
NUM_IDENTITY = len(IDENTITY_FACTORS)
NUM_CONTINUOUS = NUM_EXPRESSION + NUM_IDENTITY
NUM_OPTIONS = sum(len(category.options) for category in CATEGORIES)
Z_DIM = NUM_CONTINUOUS + NUM_OPTIONS
"""Length of a Gaussian z and of a factor vector: 15 expression and pose + 20 identity + 27 options."""

ALIGNED_POSE = 0.2
"""Share of the pose that is left after FFHQ-style alignment: features stay in place."""
OPTION_SHARPNESS = 1.35
"""Weight of the log-priors beside the Gaussians when an option is chosen."""

FACTOR_MEANS: Vector = np.array([factor.mean for factor in CONTINUOUS_FACTORS], np.float32)
FACTOR_STDS: Vector = np.array([factor.std for factor in CONTINUOUS_FACTORS], np.float32)
FACTOR_LOWS: Vector = np.array([factor.low for factor in CONTINUOUS_FACTORS], np.float32)
FACTOR_HIGHS: Vector = np.array([factor.high for factor in CONTINUOUS_FACTORS], np.float32)
HALF_RANGES: Vector = (FACTOR_HIGHS - FACTOR_LOWS) / np.float32(2)


def category_slices() -> dict[str, slice]:
    """Say where each category's options stand in a factor vector."""
    slices = {}
    start = NUM_CONTINUOUS
    for category in CATEGORIES:
        slices[category.name] = slice(start, start + len(category.options))
        start += len(category.options)
    return slices


CATEGORY_SLICES = category_slices()


def decode(z: Vector, pose: float = 1.0) -> Parameters:
    """Turn Gaussians into parameters of a plausible, nearly neutral face.

    Shapes: z [Z_DIM]. `pose` scales yaw, pitch and roll (ALIGNED_POSE for training faces).
    The rules at the end keep beards off feminine faces and bald heads and buns where they are common.
    """
    params: Parameters = {}
    for i, factor in enumerate(CONTINUOUS_FACTORS):
        params[factor.name] = float(np.clip(factor.mean + factor.std * z[i], factor.low, factor.high))
    for category in CATEGORIES:
        priors = np.asarray(category.priors) * len(category.options)
        scores = z[CATEGORY_SLICES[category.name]] + OPTION_SHARPNESS * np.log(priors)
        params[category.name] = category.options[int(np.argmax(scores))]
    if params["fem"] > 0.15:
        params["beard"] = "none"
    if params["fem"] > 0.3 and params["hair"] == "bald":
        params["hair"] = "bun"
    if params["fem"] < -0.3 and params["hair"] == "bun":
        params["hair"] = "short"
    for name in POSE_FACTORS:
        params[name] *= pose
    return params


def sample_parameters(rng: np.random.Generator, pose: float = ALIGNED_POSE) -> Parameters:
    """Draw one nearly neutral face."""
    return decode(rng.standard_normal(Z_DIM).astype(np.float32), pose)


def encode(params: Parameters) -> Vector:
    """Turn parameters into a factor vector: (value − mean) in half-ranges, then one-hot options.

    Shapes: returns [Z_DIM].
    """
    vector = np.zeros(Z_DIM, np.float32)
    values = np.array([params[name] for name in FACTOR_NAMES], np.float32)
    vector[:NUM_CONTINUOUS] = (values - FACTOR_MEANS) / HALF_RANGES
    for category in CATEGORIES:
        vector[CATEGORY_SLICES[category.name].start + category.options.index(params[category.name])] = 1.0
    return vector


def parameters_from(vector: Vector) -> Parameters:
    """Undo `encode`: clip to the factors' ranges, take the likeliest option.

    Shapes: vector [Z_DIM].
    """
    values = np.clip(vector[:NUM_CONTINUOUS] * HALF_RANGES + FACTOR_MEANS, FACTOR_LOWS, FACTOR_HIGHS)
    params: Parameters = {name: float(value) for name, value in zip(FACTOR_NAMES, values, strict=True)}
    for category in CATEGORIES:
        params[category.name] = category.options[int(np.argmax(vector[CATEGORY_SLICES[category.name]]))]
    return params
