"""How far points move that can be followed: motion told apart from recolouring.

A dense flow explains every change of brightness by a motion. Where a surface is nearly flat, a slight change of its
colour then counts as a wide shift. Corners of a locally normalised picture move only when something moves
(`python -m training.metrics.flow_trial` measures how well).

Source: corners of Shi and Tomasi (CVPR 1994), followed as Lucas and Kanade do in pyramids (Bouguet 2001), kept where
the way back leads to the start (Kalal et al., ICPR 2010). All three are OpenCV's.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from training.metrics.flow import Frames, check_frames

MOST_POINTS = 600
CORNER_QUALITY = 0.01  # of the best corner's
APART_PX = 3
CORNER_PX = 5
NORMALISED_PX = 4.0  # sigma of the Gaussian over which mean and spread of the brightness are taken
LEAST_SPREAD = 4.0  # grey levels: what is flatter is left flat
WINDOW_PX = 15
LEVELS = 2  # of the pyramid, above the picture itself
STOP = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 30, 0.001)
BACK_PX = 0.03
"""Farther from its start than this, after there and back, a point is not believed. Of windows of 9, 15 and 21 px and of
0.03, 0.1 and 0.3 px this pair came nearest to the truth in `flow_trial`, all domains together."""


class Followed(NamedTuple):
    """Points and how they moved to the next frame."""

    places: npt.NDArray[np.float32]  # [P,2] px, (right, down)
    moves: npt.NDArray[np.float32]  # [P,2] px


class PointFlow(NamedTuple):
    """Mean length of the way of followed points, px a frame; 0 where none can be followed."""

    everywhere: float
    where_asked: float


def normalise_locally(picture: Frames) -> npt.NDArray[np.uint8]:
    """Take away local brightness and contrast. Shapes: [H,W,3] uint8 RGB → [H,W]."""
    gray = cv2.cvtColor(np.ascontiguousarray(picture), cv2.COLOR_RGB2GRAY).astype(np.float32)
    apart = gray - cv2.GaussianBlur(gray, (0, 0), NORMALISED_PX)
    spread = np.sqrt(np.maximum(cv2.GaussianBlur(apart**2, (0, 0), NORMALISED_PX), 0))
    return np.clip(apart / (spread + LEAST_SPREAD) * 50 + 128, 0, 255).astype(np.uint8)


def follow_points(before: Frames, after: Frames) -> Followed:
    """Follow the corners of one picture into the next. Shapes: [H,W,3] uint8 RGB each."""
    gray = cv2.cvtColor(np.ascontiguousarray(before), cv2.COLOR_RGB2GRAY)
    # None where there is no corner, which OpenCV's typing does not say
    seen: Any = cv2.goodFeaturesToTrack(gray, MOST_POINTS, CORNER_QUALITY, APART_PX, blockSize=CORNER_PX)
    if seen is None:
        nothing = np.zeros((0, 2), np.float32)
        return Followed(nothing, nothing)
    corners = np.asarray(seen, np.float32)
    first, second = normalise_locally(before), normalise_locally(after)
    there, found = _follow(first, second, corners)
    back, found_back = _follow(second, first, there)
    kept = found & found_back & (np.linalg.norm(back - corners, axis=-1).ravel() < BACK_PX)
    return Followed(corners[kept, 0], (there - corners)[kept, 0])


def measure_points(frames: Frames, asked_places: npt.NDArray[np.bool_]) -> PointFlow:
    """Measure a video, and the part of it where the true render changes.

    Shapes: frames [T,H,W,3] uint8 RGB, asked_places [H,W].
    """
    check_frames(frames)
    lengths, asked = [], []
    for before, after in pairwise(frames):
        places, moves = follow_points(before, after)
        lengths.append(np.linalg.norm(moves, axis=-1))
        right, down = places.astype(int).T
        asked.append(asked_places[down, right])
    every, inside = np.concatenate(lengths), np.concatenate(asked)
    return PointFlow(_mean(every), _mean(every[inside]))


def _follow(
    first: npt.NDArray[np.uint8], second: npt.NDArray[np.uint8], points: npt.NDArray[np.float32]
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
    start = np.zeros_like(points)  # OpenCV's typing wants one; it is not looked at without a flag
    moved, found, _ = cv2.calcOpticalFlowPyrLK(
        first, second, points, start, winSize=(WINDOW_PX, WINDOW_PX), maxLevel=LEVELS, criteria=STOP
    )
    return np.asarray(moved, np.float32), np.asarray(found).ravel() == 1


def _mean(lengths: npt.NDArray[np.float32]) -> float:
    return float(lengths.mean()) if len(lengths) else 0.0
