"""A video as one picture.

Some of its frames side by side, for the demo, the README and the eye. Knows videos, not jobs.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image

from worker.playback import probe, read_frames
from worker.video import Frames

GAP_PX = 4


def join_frames(frames: Iterable[Frames], gap_px: int = GAP_PX) -> Frames:
    """Lay frames of one size side by side on white.

    Shapes: frames uint8 [H, W, 3]; returns uint8 [H, n·W + (n-1)·gap_px, 3].
    """
    pictures = list(frames)
    assert pictures, "a strip needs at least one frame"
    height = pictures[0].shape[0]
    gap = np.full((height, gap_px, 3), 255, np.uint8)
    row: list[Frames] = []
    for picture in pictures:
        row += [gap, picture] if row else [picture]
    return np.concatenate(row, axis=1)


def pick_indices(frames: int, count: int) -> list[int]:
    """Return ``count`` frame numbers spread evenly from the first to the last one (fewer when there are fewer
    frames).
    """
    if frames <= count:
        return list(range(frames))
    return [round(index * (frames - 1) / (count - 1)) for index in range(count)] if count > 1 else [0]


def write_strip(video: Path, picture: Path, count: int = 8) -> Path:
    """Write ``count`` frames of a video file as one PNG and return its path."""
    wanted = set(pick_indices(probe(video).frames, count))
    chosen = [frame for index, frame in enumerate(read_frames(video)) if index in wanted]
    picture.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(join_frames(chosen)).save(picture, format="PNG")
    return picture
