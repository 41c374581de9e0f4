"""What of a photograph is animated, and what the film shows: the face alone, or the whole photograph with it.

Knows pictures, not jobs and no model.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from model.align import Point, Region, centred_region, crop_square, cut_region, face_region
from model.paste import PasteBack
from services.jobs.contract import whole_frame_size

Pixels = NDArray[np.uint8]


class View:
    """A picture and the square of it that is animated.

    Args:
        picture: uint8 RGB [H,W,3].
        landmarks: five points of the chosen face; None: the centred square.

    Raises:
        ModelError: face-unusable.
    """

    def __init__(self, picture: Pixels, landmarks: Sequence[Point] | None = None) -> None:
        self._picture = picture
        height, width, _ = picture.shape
        self._has_face = landmarks is not None
        self._region = centred_region(width, height) if landmarks is None else face_region(landmarks)

    def cut(self, size_px: int) -> Pixels:
        """Return the square at the edge length that an encoder reads."""
        if self._has_face:
            return cut_region(self._picture, self._region, size_px)
        return crop_square(self._picture, size_px)

    def whole(self, size: int | None) -> Whole:
        """Return the photograph for frames to be laid into.

        Args:
            size: the wanted longer edge in px; None: the photograph's own.
        """
        height, width, _ = self._picture.shape
        wanted = whole_frame_size(width, height, size)
        if abs(wanted[0] - width) < 2 and abs(wanted[1] - height) < 2:
            return Whole(self._picture[: wanted[1], : wanted[0]], self._region, self._has_face)
        how = cv2.INTER_AREA if wanted[0] < width else cv2.INTER_CUBIC
        photo = np.asarray(cv2.resize(self._picture, wanted, interpolation=how), np.uint8)
        return Whole(photo, self._region.scaled(wanted[0] / width, wanted[1] / height), self._has_face)


class Whole:
    """A whole photograph at the size of the film. The frame that is laid first sets the colours of all."""

    def __init__(self, photo: Pixels, region: Region, has_face: bool) -> None:
        self._photo = photo
        self._region = region
        self._has_face = has_face
        self._paste: PasteBack | None = None

    @property
    def size_px(self) -> tuple[int, int]:
        """Width and height."""
        height, width, _ = self._photo.shape
        return width, height

    def lay(self, frame: Pixels) -> Pixels:
        """Return the photograph with this frame in its place: shapes [S,S,3] → [H,W,3]."""
        if self._paste is None:
            self._paste = PasteBack(self._photo, self._region, frame, has_face=self._has_face)
        return self._paste.compose(frame)
