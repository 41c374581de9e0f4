"""Expressions as targets of expression factors: the truth that captions, teacher motions and the evaluator share.

Numpy only: no torch, no skia.
"""

import numpy as np

from training.faces.parameters import EXPRESSION_FACTORS, FACTORS_BY_NAME, POSE_FACTORS, Parameters

EXPRESSIONS: dict[str, dict[str, float]] = {
    "smile": {
        "mouth_curve": 0.95,
        "mouth_open": 0.12,
        "mouth_width": 1.2,
        "eye_l": 0.82,
        "eye_r": 0.82,
        "brow_h": 0.15,
        "blush": 0.65,
    },
    "laugh": {
        "mouth_curve": 1.0,
        "mouth_open": 0.62,
        "mouth_width": 1.22,
        "eye_l": 0.42,
        "eye_r": 0.42,
        "brow_h": 0.3,
        "blush": 0.75,
    },
    "sad": {
        "mouth_curve": -0.85,
        "mouth_width": 0.88,
        "brow_a": -0.95,
        "brow_h": 0.1,
        "eye_l": 0.72,
        "eye_r": 0.72,
        "gaze_y": 0.45,
        "blush": 0.1,
    },
    "angry": {
        "mouth_curve": -0.6,
        "mouth_width": 0.95,
        "brow_a": 1.0,
        "brow_h": -0.75,
        "eye_l": 0.72,
        "eye_r": 0.72,
        "blush": 0.5,
    },
    "shocked": {
        "mouth_open": 0.85,
        "mouth_width": 0.72,
        "mouth_curve": 0.0,
        "brow_h": 1.0,
        "eye_l": 1.35,
        "eye_r": 1.35,
        "blush": 0.1,
    },
    "surprised": {
        "mouth_open": 0.5,
        "mouth_width": 0.7,
        "mouth_curve": 0.05,
        "brow_h": 0.85,
        "eye_l": 1.25,
        "eye_r": 1.25,
    },
    "close_eyes": {"eye_l": 0.0, "eye_r": 0.0},
    "blink": {"eye_l": 0.0, "eye_r": 0.0},
    "wink_l": {"eye_l": 0.0, "mouth_curve": 0.5, "mouth_width": 1.08},
    "wink_r": {"eye_r": 0.0, "mouth_curve": 0.5, "mouth_width": 1.08},
    "open_mouth": {"mouth_open": 0.8, "mouth_width": 0.92},
    "pout": {"pout": 1.0, "mouth_width": 0.86, "mouth_curve": -0.12, "brow_h": -0.25, "brow_a": 0.35},
    "raise_brows": {"brow_h": 1.0},
    "frown_brows": {"brow_h": -0.8, "brow_a": 0.8},
    "skeptic": {"brow_asym": 0.95, "mouth_curve": -0.15, "eye_l": 0.78},
    "sleepy": {"eye_l": 0.35, "eye_r": 0.35, "brow_h": -0.15, "mouth_curve": -0.05},
    "disgust": {"mouth_curve": -0.75, "mouth_open": 0.1, "eye_l": 0.5, "eye_r": 0.5, "brow_a": 0.5, "brow_h": -0.5},
    "look_left": {"gaze_x": -1.0},
    "look_right": {"gaze_x": 1.0},
    "look_up": {"gaze_y": -0.9},
    "look_down": {"gaze_y": 0.9, "eye_l": 0.75, "eye_r": 0.75},
    "blush": {"blush": 1.0, "mouth_curve": 0.35},
}
"""Full-strength targets in the factors' own units; factors that are not named stay as they are."""

CYCLIC = frozenset({"wink_l", "wink_r", "blink"})
"""Expressions that go 0 → 1 → 0 within a video; the others rise and hold."""

GATE_NAMES: dict[str, str | tuple[str, ...]] = {
    "smiling": "smile",
    "angry": "angry",
    "sad": "sad",
    "surprised": "surprised",
    "closing eyes": "close_eyes",
    "winking": ("wink_l", "wink_r"),
    "opening mouth": "open_mouth",
    "pouting": "pout",
}
"""The eight core expressions as the quality gates call them."""

JITTER = 0.12
"""Relative spread of a target when expressions are drawn at random."""


def apply_expression(
    params: Parameters, name: str, strength: float = 1.0, rng: np.random.Generator | None = None
) -> Parameters:
    """Move a face towards an expression; strength 0 leaves it, 1 reaches the target, values are clipped to their
    ranges.

    With `rng` each target is jittered. "neutral" changes nothing.
    """
    moved = dict(params)
    if name == "neutral":
        return moved
    for factor_name, target in EXPRESSIONS[name].items():
        jitter = 1.0 if rng is None else 1.0 + JITTER * float(rng.standard_normal())
        factor = FACTORS_BY_NAME[factor_name]
        value = params[factor_name] + (target * jitter - params[factor_name]) * strength
        moved[factor_name] = float(np.clip(value, factor.low, factor.high))
    return moved


def vary_expression(params: Parameters, rng: np.random.Generator) -> Parameters:
    """Give a face a random expression: independent factors (40%), a named expression (52%) or what it has (8%).

    Independent factors keep the latent space disentangled; named ones teach the combinations that are asked for.
    """
    draw = rng.random()
    if draw < 0.4:
        moved = dict(params)
        for factor in EXPRESSION_FACTORS:
            if factor.name not in POSE_FACTORS and rng.random() < 0.4:
                moved[factor.name] = float(rng.uniform(factor.low, factor.high))
        if rng.random() < 0.5:
            moved["eye_r"] = moved["eye_l"]
        if rng.random() < 0.5:
            moved["pout"] = max(0.0, 0.05 * float(rng.standard_normal()))
        return moved
    if draw < 0.92:
        names = list(EXPRESSIONS)
        return apply_expression(params, names[int(rng.integers(len(names)))], float(rng.uniform(0.5, 1.0)), rng)
    return dict(params)
