"""The figures of one video, and their mean and standard error over many. No drawing, no methods."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from training.compare.judging import Reading
from training.evaluator import measure
from training.metrics.flow import Flow, measure_flow_magnitude, measure_flow_tremble
from training.metrics.identity import measure_acd, measure_identity
from training.metrics.language import measure_language
from training.metrics.points import measure_points
from training.metrics.video import compare_stages, measure_adjacent, ms_ssim, to_pictures
from training.paper.towers import Towers

Frames = npt.NDArray[np.uint8]
Row = dict[str, float]
"""Raw figures of one video."""


@dataclass(frozen=True)
class Figure:
    """A column of the report.

    Args:
        key: name in results.json.
        title: what the table calls it.
        better: "more", "less", or "" where neither is.
        parts: the raw figures it is made of: one (its mean) or two (the ratio of their means).
        about: one sentence of definition.
    """

    key: str
    title: str
    better: str
    parts: tuple[str, ...]
    about: str


FIGURES = (
    Figure(
        "progress",
        "progress",
        "more",
        ("progress",),
        "how far the asked factors moved at the judged frame (the last one, for winks the peak), 1 where the true "
        "render of this person stands",
    ),
    Figure(
        "off_target",
        "off-target",
        "less",
        ("outside", "asked"),
        "mean change of the expression factors that nobody asked for ÷ mean change of the asked ones",
    ),
    Figure(
        "identity",
        "identity",
        "more",
        ("identity",),
        "cosine of the evaluator's identity features between the still face and the judged frame",
    ),
    Figure(
        "direction",
        "language direction",
        "more",
        ("direction",),
        "cosine between the change of the picture's embedding from the still face to the judged frame and the change "
        "of the sentence's embedding from that of “a neutral face”, by the bundle's own towers",
    ),
    Figure(
        "language", "language score", "more", ("language",), "cosine of the judged frame and the sentence, same towers"
    ),
    Figure(
        "reading_direction",
        "evaluator's direction",
        "more",
        ("reading_direction",),
        "cosine between the change of all 15 expression factors and the change between true renders of this person, "
        "neutral and expressed, by the evaluator that no loss saw",
    ),
    Figure("flow", "flow, px", "", ("flow",), "mean length of the optical flow between adjacent frames, px a frame"),
    Figure(
        "flow_asked",
        "flow where asked, px",
        "",
        ("flow_asked",),
        "the same, only where the true render of this person changes with this expression",
    ),
    Figure(
        "flow_elsewhere",
        "flow elsewhere, px",
        "less",
        ("flow_elsewhere",),
        "the same everywhere else: hair, clothes, background and what nobody asked for",
    ),
    Figure(
        "followed",
        "followed points, px",
        "",
        ("followed",),
        "mean way from frame to frame of the points that can be followed, px a frame; unlike the dense flow it does "
        "not take recolouring for motion",
    ),
    Figure(
        "followed_asked",
        "followed where asked, px",
        "",
        ("followed_asked",),
        "the same, only of points where the true render changes",
    ),
    Figure(
        "jitter",
        "flow jitter",
        "less",
        ("tremble", "flow"),
        "mean length of the second difference of the flow over time ÷ mean length of the flow",
    ),
    Figure("acd", "ACD", "less", ("acd",), "mean distance of the evaluator's identity features of adjacent frames"),
    Figure("ms_ssim", "MS-SSIM", "", ("ms_ssim",), "multi-scale structural similarity of adjacent frames, mean"),
    Figure(
        "perceptual",
        "perceptual",
        "",
        ("perceptual",),
        "distance of adjacent frames by channel-normalised features of the evaluator's four stages, mean (LPIPS-like, "
        "not LPIPS: no learned channel weights)",
    ),
    Figure("jerk", "jerk", "less", ("jerk",), "mean third difference of the asked factors ÷ their range"),
    Figure(
        "first_step",
        "first step",
        "less",
        ("first_step",),
        "share of the whole way that the first frame step takes",
    ),
)


class Judged(NamedTuple):
    """What was found in one video: the expression it came nearest to, the judged frame, the path of progress."""

    expression: str
    frame: int
    path: npt.NDArray[np.float32]  # [T]


def judge_path(
    factors: npt.NDArray[np.float32], still: npt.NDArray[np.float32], truths: dict[str, npt.NDArray[np.float32]]
) -> Judged:
    """Follow progress from the still face, for the candidate that got farthest.

    Shapes: factors [T,15], still [15], truths name → [2,15].
    """
    found = []
    for name, truth in truths.items():
        path = measure.measure_path(np.concatenate([still[None], factors]), truth, name)[1:]
        found.append(Judged(name, measure.judged_frame(path, name), path))
    return max(found, key=lambda judged: float(judged.path[judged.frame]))


def measure_video(
    frames: Frames,
    reading: Reading,
    still: Frames,
    still_reading: Reading,
    judged: Judged,
    truth: npt.NDArray[np.float32],
    flow: Flow,
    asked_places: npt.NDArray[np.bool_],
    towers: Towers,
    sentence: str,
) -> Row:
    """Measure one video against the still face it began from.

    Shapes: frames [T,H,W,3], still [1,H,W,3], truth [2,15] of the judged expression, flow [T-1,H,W,2],
    asked_places [H,W].
    """
    shown = np.concatenate([still_reading.factors, reading.factors[judged.frame : judged.frame + 1]])
    outside, asked = measure.measure_change(shown, 1, judged.expression)
    pictures = to_pictures(np.concatenate([still, frames[judged.frame : judged.frame + 1]]))
    score, direction = measure_language(towers, pictures[0], pictures[1:], sentence)
    maps, points = reading.stages, measure_points(frames, asked_places)
    return {
        "progress": float(judged.path[judged.frame]),
        "outside": outside,
        "asked": asked,
        "identity": float(measure_identity(still_reading.identity[0], reading.identity)[judged.frame]),
        "language": float(score[0]),
        "direction": float(direction[0]),
        "reading_direction": cosine(shown[1] - shown[0], truth[1] - truth[0]),
        "flow": measure_flow_magnitude(flow),
        "flow_asked": measure_flow_magnitude(flow[:, asked_places]) if asked_places.any() else 0.0,
        "flow_elsewhere": measure_flow_magnitude(flow[:, ~asked_places]) if not asked_places.all() else 0.0,
        "followed": points.everywhere,
        "followed_asked": points.where_asked,
        "tremble": measure_flow_tremble(flow),
        "acd": measure_acd(reading.identity),
        "ms_ssim": measure_adjacent(to_pictures(frames), ms_ssim),
        "perceptual": float(compare_stages([m[:-1] for m in maps], [m[1:] for m in maps]).mean()),
        "jerk": measure.measure_jerk(reading.factors, judged.expression),
        "first_step": measure.measure_first_step(judged.path),
    }


def cosine(a: npt.NDArray[np.float32], b: npt.NDArray[np.float32]) -> float:
    """Cosine of two vectors, 0 where one of them is nothing."""
    size = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / size if size > 1e-6 else 0.0


class Summary(NamedTuple):
    """A figure over videos."""

    mean: float
    error: float  # standard error by the jackknife over videos; nan for one video
    videos: int


def combine(figure: Figure, rows: Sequence[Row]) -> float:
    """Mean, or ratio of the two means."""
    means = [float(np.mean([row[part] for row in rows])) for part in figure.parts]
    return means[0] if len(means) == 1 else means[0] / max(means[1], 1e-9)


def summarise(figure: Figure, rows: Sequence[Row]) -> Summary:
    """Give a figure over videos with its standard error (jackknife: leave out one video at a time)."""
    count = len(rows)
    if count == 0:
        return Summary(float("nan"), float("nan"), 0)
    if count == 1:
        return Summary(combine(figure, rows), float("nan"), 1)
    left_out = [combine(figure, [*rows[:i], *rows[i + 1 :]]) for i in range(count)]
    error = float(np.sqrt((count - 1) * np.var(left_out)))
    return Summary(combine(figure, rows), error, count)
