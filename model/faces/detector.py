"""From a photograph to its faces: a pyramid of sizes, three networks that agree, and no face told twice."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from model.align import flatten
from model.faces.networks import OUTPUT_PX, REFINE_PX, Networks, Values

DETECTOR_FILE = Path(__file__).with_name("mtcnn.npz")

# A picture is looked at with its longer edge in this range: finer costs time and finds faces too small to animate,
# coarser misses faces in small pictures.
LEAST_EDGE_PX, MOST_EDGE_PX = 512, 1024
# The smallest face that is looked for, in px of the picture at that size.
LEAST_FACE_PX = 20
PYRAMID_STEP = 0.709  # the authors': half the area
# How sure each network must be. The authors' are 0.6, 0.7 and 0.7; the last is higher here because whoever posts a
# cat is better served by "no face" than by an animated paw.
SURE_PROPOSAL, SURE_REFINE, SURE_OUTPUT = 0.6, 0.7, 0.9
_WINDOW_PX = 12
# Busy pictures (grass, gravel) make thousands of proposals; faces are among the surest.
_MOST_PROPOSALS = 600


@dataclass(frozen=True)
class DetectedFace:
    """One face. Units: px of the picture, x to the right and y down.

    Shapes: box (left, top, right, bottom); points five (x, y): the viewer's left eye and right eye, the nose, the left
    and the right corner of the mouth. Range: score 0 to 1.
    """

    box: tuple[float, float, float, float]
    score: float
    points: tuple[tuple[float, float], ...]

    @property
    def edge_px(self) -> float:
        """The shorter edge of the box."""
        left, top, right, bottom = self.box
        return min(right - left, bottom - top)


class FaceDetector:
    """Finds faces. Thread-safe.

    Args:
        data: the detector's file (see ``model.faces.networks``).

    Raises:
        ModelError: detector-invalid.
    """

    def __init__(self, data: bytes) -> None:
        self._networks = Networks(data)

    @classmethod
    def shipped(cls) -> FaceDetector:
        """Return the detector that comes with animato, read once a process."""
        return _read_shipped()

    def detect(self, image: NDArray[Any]) -> list[DetectedFace]:
        """Return the faces of a picture, the largest first.

        Shapes: [H,W] or [H,W,1..4] as in ``model.align.flatten``. Range: uint8 RGB.

        Raises:
            ModelError: image-corrupt.
        """
        picture = flatten(image)
        height, width, _ = picture.shape
        scale = float(np.clip(1.0, LEAST_EDGE_PX / max(height, width), MOST_EDGE_PX / max(height, width)))
        looked_at = _scaled(picture, scale)
        boxes = self._propose(looked_at)
        boxes = self._refine(looked_at, boxes)
        boxes, points, scores = self._finish(looked_at, boxes)
        # Back to px of the picture; exactly, as the size in between was rounded.
        factor = np.array([width / looked_at.shape[1], height / looked_at.shape[0]], np.float32)
        boxes = np.clip(boxes * np.tile(factor, 2), 0, [width, height, width, height])
        points = points * factor
        faces = [
            DetectedFace(
                (float(box[0]), float(box[1]), float(box[2]), float(box[3])),
                float(score),
                tuple((float(x), float(y)) for x, y in five),
            )
            for box, five, score in zip(boxes, points, scores, strict=True)
        ]
        return sorted(faces, key=lambda face: (-face.edge_px, face.box))

    def _propose(self, picture: NDArray[np.uint8]) -> Values:
        """Return square windows that may hold a face: shapes [N,4]."""
        found = [np.zeros((0, 9), np.float32)]
        scale = _WINDOW_PX / LEAST_FACE_PX
        while min(picture.shape[:2]) * scale >= _WINDOW_PX:
            judged = self._networks.propose(_to_range(_scaled(picture, scale)))
            rows, columns = np.nonzero(judged.score >= SURE_PROPOSAL)
            corners = np.stack([columns, rows], 1) * 2
            level = np.concatenate(
                [
                    np.concatenate([corners, corners + _WINDOW_PX], 1) / scale,
                    judged.score[rows, columns][:, None],
                    judged.shift[rows, columns],
                ],
                axis=1,
            ).astype(np.float32)
            found.append(level[_distinct(level[:, :4], level[:, 4], 0.5)])
            scale *= PYRAMID_STEP
        windows = np.concatenate(found)
        windows = windows[_distinct(windows[:, :4], windows[:, 4], 0.7)][:_MOST_PROPOSALS]
        return _squared(_shifted(windows[:, :4], windows[:, 5:]))

    def _refine(self, picture: NDArray[np.uint8], boxes: Values) -> Values:
        """Return the windows that the second network believes in, moved to where it sees the face."""
        if not len(boxes):
            return boxes
        judged = self._networks.refine(_cut(picture, boxes, REFINE_PX))
        sure = np.nonzero(judged.score > SURE_REFINE)[0]
        kept = sure[_distinct(boxes[sure], judged.score[sure], 0.7)]
        return _squared(_shifted(boxes[kept], judged.shift[kept]))

    def _finish(self, picture: NDArray[np.uint8], boxes: Values) -> tuple[Values, Values, Values]:
        """Return boxes [N,4], points [N,5,2] and scores [N] of the faces that the third network confirms."""
        if not len(boxes):
            return boxes, np.zeros((0, 5, 2), np.float32), np.zeros(0, np.float32)
        judged = self._networks.finish(_cut(picture, boxes, OUTPUT_PX))
        assert judged.points is not None
        sure = np.nonzero(judged.score > SURE_OUTPUT)[0]
        moved = _shifted(boxes[sure], judged.shift[sure])
        # A box inside a larger one is the same face, so overlap counts against the smaller of the two.
        picked = _distinct(moved, judged.score[sure], 0.7, of_smaller=True)
        kept = sure[picked]
        edges = boxes[kept, 2:] - boxes[kept, :2]
        points = boxes[kept, None, :2] + judged.points[kept] * edges[:, None]
        return moved[picked], points, judged.score[kept]


@cache
def _read_shipped() -> FaceDetector:
    return FaceDetector(DETECTOR_FILE.read_bytes())


def _scaled(picture: NDArray[np.uint8], scale: float) -> NDArray[np.uint8]:
    height, width, _ = picture.shape
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    if size == (width, height):
        return picture
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(picture, size, interpolation=how), np.uint8)


def _to_range(picture: NDArray[np.uint8]) -> Values:
    return (picture.astype(np.float32) - np.float32(127.5)) * np.float32(1 / 128)


def _shifted(boxes: Values, shift: Values) -> Values:
    edges = boxes[:, 2:] - boxes[:, :2]
    return np.asarray(boxes + shift * np.tile(edges, 2), np.float32)


def _squared(boxes: Values) -> Values:
    """Grow every box to a square about its middle."""
    middle = (boxes[:, :2] + boxes[:, 2:]) / 2
    half = (boxes[:, 2:] - boxes[:, :2]).max(axis=1, keepdims=True) / 2
    return np.concatenate([middle - half, middle + half], axis=1)


def _cut(picture: NDArray[np.uint8], boxes: Values, size_px: int) -> Values:
    """Cut square windows out of a picture, black outside of it: shapes [N,size_px,size_px,3], range [-1, 1]."""
    windows = np.empty((len(boxes), size_px, size_px, 3), np.float32)
    for window, box in zip(windows, boxes, strict=True):
        left, top = (int(value) for value in np.floor(box[:2]))
        edge = max(1, round(float(box[2] - box[0])))
        inside = picture[max(0, top) : max(0, top + edge), max(0, left) : max(0, left + edge)]
        square = np.zeros((edge, edge, 3), np.uint8)
        y, x = max(0, -top), max(0, -left)
        square[y : y + inside.shape[0], x : x + inside.shape[1]] = inside
        how = cv2.INTER_AREA if edge > size_px else cv2.INTER_LINEAR
        window[:] = _to_range(np.asarray(cv2.resize(square, (size_px, size_px), interpolation=how), np.uint8))
    return windows


def _distinct(boxes: Values, scores: Values, most: float, *, of_smaller: bool = False) -> NDArray[np.intp]:
    """Return the indices of the surest boxes, without those that overlap a surer one by more than ``most``.

    Overlap is a share of the union, or of the smaller box.
    """
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    left = np.argsort(-scores, kind="stable")
    kept: list[int] = []
    while len(left):
        first, left = left[0], left[1:]
        kept.append(int(first))
        corners = np.minimum(boxes[left, 2:], boxes[first, 2:]) - np.maximum(boxes[left, :2], boxes[first, :2])
        shared = np.clip(corners, 0, None).prod(axis=1)
        whole = np.minimum(area[left], area[first]) if of_smaller else area[left] + area[first] - shared
        left = left[shared <= most * whole]
    return np.array(kept, np.intp)
