"""From any decoded picture to the square crop that the graphs expect. numpy and opencv; knows no model.

Bundles of rendered faces take the centred square. For a photograph five points of its face say which oriented square
to take, as the FFHQ data set was cut, so that a generator sees faces as it has learnt them.

Source: Karras et al. 2019, appendix A, and the alignment published with FFHQ. Where we differ: five points instead of
68, and one warp of the pixels at hand instead of a detour over a 4096 px picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from model.errors import ModelError

Point = tuple[float, float]

_GREY, _GREY_ALPHA, _RGB, _RGBA = 1, 2, 3, 4
# The published numbers of FFHQ's alignment; lengths are shares of the square's edge.
_EYES_TO_EDGE, _MOUTH_TO_EDGE, _DOWN_TO_MOUTH = 2.0, 1.8, 0.1
_BORDER, _LEAST_BORDER_PX = 0.1, 3
_PADDING, _BLUR = 0.3, 0.02


@dataclass(frozen=True)
class Region:
    """An oriented square of a picture.

    Units: px of the picture; a pixel's middle lies at half a px. ``right`` leads from the middle of the square to the
    middle of its right side.
    """

    centre: Point
    right: Point

    @property
    def edge_px(self) -> float:
        """Length of a side."""
        return 2 * float(np.hypot(*self.right))

    @property
    def corners(self) -> tuple[Point, Point, Point, Point]:
        """Top left, top right, bottom right, bottom left, as the square sees it."""
        (cx, cy), (rx, ry) = self.centre, self.right
        # "down" is "right" turned by a quarter
        return (
            (cx - rx + ry, cy - ry - rx),
            (cx + rx + ry, cy + ry - rx),
            (cx + rx - ry, cy + ry + rx),
            (cx - rx - ry, cy - ry + rx),
        )

    def scaled(self, factor_x: float, factor_y: float) -> Region:
        """Return the square in a picture that was scaled; the two factors differ by a rounding only."""
        (cx, cy), (rx, ry) = self.centre, self.right
        factor = (factor_x + factor_y) / 2
        return Region((cx * factor_x, cy * factor_y), (rx * factor, ry * factor))

    def moved(self, x: float, y: float) -> Region:
        """Return the square as seen from another origin."""
        return Region((self.centre[0] + x, self.centre[1] + y), self.right)

    def matrix(self, size_px: int) -> NDArray[np.float64]:
        """Return what leads from a pixel of the crop to the picture's, both by index.

        Shapes: [2,3].
        """
        step = np.array(self.right) * 2 / size_px
        turn = np.array([[step[0], -step[1]], [step[1], step[0]]])
        origin = np.array(self.corners[0]) + turn @ [0.5, 0.5] - 0.5
        return np.concatenate([turn, origin[:, None]], axis=1)


def centred_region(width: int, height: int) -> Region:
    """Return the square that ``crop_square`` cuts."""
    edge = min(width, height)
    left, top = (width - edge) // 2, (height - edge) // 2
    return Region((left + edge / 2, top + edge / 2), (edge / 2, 0.0))


def face_region(points: Sequence[Point]) -> Region:
    """Return the square that FFHQ's alignment cuts about a face.

    Its sides are parallel to the line of the eyes, leant against the line from the eyes to the mouth; its edge is twice
    the larger of 2 × the distance of the eyes and 1.8 × the distance from the eyes to the mouth.

    Args:
        points: the viewer's left eye and right eye, the nose, the left and the right corner of the mouth.

    Raises:
        ModelError: face-unusable where the points lie on one spot.
    """
    left_eye, right_eye, _, left_mouth, right_mouth = (np.array(point, np.float64) for point in points)
    eyes = (left_eye + right_eye) / 2
    eye_to_eye = right_eye - left_eye
    eye_to_mouth = (left_mouth + right_mouth) / 2 - eyes
    direction = eye_to_eye + np.array([eye_to_mouth[1], -eye_to_mouth[0]])
    length = float(np.hypot(*direction))
    if not np.isfinite(length) or length < 1e-3:
        raise ModelError(
            "face-unusable",
            "The face's points lie on one spot, so it can't be aligned.",
            "Send a picture in which both eyes and the mouth can be seen, or ask for `align: none`.",
        )
    half = max(np.hypot(*eye_to_eye) * _EYES_TO_EDGE, np.hypot(*eye_to_mouth) * _MOUTH_TO_EDGE)
    right = direction / length * half
    centre = eyes + eye_to_mouth * _DOWN_TO_MOUTH
    return Region((float(centre[0]), float(centre[1])), (float(right[0]), float(right[1])))


def cut_region(image: NDArray[Any], region: Region, size_px: int) -> NDArray[np.uint8]:
    """Return an oriented square of a picture at the wanted edge length.

    What lies outside of the picture is its mirror image, softened towards its mean colour, as FFHQ has it.

    Shapes: image as in ``crop_square`` → [size_px,size_px,3]. Range: uint8 RGB out.

    Raises:
        ModelError: image-corrupt.
    """
    picture, local = _surroundings(flatten(image), region)
    # A square far larger than its crop is made smaller first, so that every pixel has its share and padding is cheap.
    shrink = 2 * size_px / region.edge_px
    if shrink < 1:
        height, width, _ = picture.shape
        smaller = (max(1, round(width * shrink)), max(1, round(height * shrink)))
        picture = np.asarray(cv2.resize(picture, smaller, interpolation=cv2.INTER_AREA), np.uint8)
        local = local.scaled(smaller[0] / width, smaller[1] / height)
    picture, local = _padded(picture, local)
    # Where pixels are joined, the warp draws twice as fine and the joining averages.
    finer = 2 if local.edge_px > size_px else 1
    crop = cv2.warpAffine(
        picture,
        local.matrix(size_px * finer),
        (size_px * finer, size_px * finer),
        flags=cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REFLECT_101,
    )
    if finer > 1:
        crop = cv2.resize(crop, (size_px, size_px), interpolation=cv2.INTER_AREA)
    return np.asarray(crop, np.uint8)


def crop_square(image: NDArray[Any], size_px: int) -> NDArray[np.uint8]:
    """Return the centred square of a picture at the wanted edge length.

    Shapes: image [H,W], [H,W,1], [H,W,2] (grey, alpha), [H,W,3] (RGB) or [H,W,4] (RGBA) → [size_px,size_px,3].
    Range: uint8 or uint16 in, uint8 RGB out; what is transparent becomes white.

    Raises:
        ModelError: image-corrupt for an array that is no picture.
    """
    rgb = flatten(image)
    height, width, _ = rgb.shape
    edge = min(height, width)
    top, left = (height - edge) // 2, (width - edge) // 2
    square = rgb[top : top + edge, left : left + edge]
    if edge == size_px:
        return np.ascontiguousarray(square)
    # Area averages every source pixel when shrinking (no moiré); cubic keeps edges when enlarging.
    how = cv2.INTER_AREA if edge > size_px else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(np.ascontiguousarray(square), (size_px, size_px), interpolation=how), dtype=np.uint8)


def flatten(image: NDArray[Any]) -> NDArray[np.uint8]:
    """Return the picture as RGB without alpha: grey repeated, transparency laid over white, 16 bits cut to 8.

    Shapes: as in ``crop_square`` → [H,W,3].

    Raises:
        ModelError: image-corrupt.
    """
    pixels = image[..., None] if image.ndim == 2 else image
    if pixels.ndim != 3 or pixels.shape[2] not in {_GREY, _GREY_ALPHA, _RGB, _RGBA} or 0 in pixels.shape:
        raise _unfit(f"an array of the shape {tuple(image.shape)} is no picture")
    if pixels.dtype == np.uint16:
        pixels = (pixels // 257).astype(np.uint8)
    if pixels.dtype != np.uint8:
        raise _unfit(f"pixels of the type {pixels.dtype} are not supported")
    channels = pixels.shape[2]
    colour = pixels[..., : 1 if channels <= _GREY_ALPHA else 3]
    if channels in {_GREY_ALPHA, _RGBA}:
        alpha = pixels[..., -1:].astype(np.uint16)
        colour = ((colour * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)
    return np.ascontiguousarray(np.broadcast_to(colour, (*colour.shape[:2], 3)))


def _bounds(region: Region) -> tuple[int, int, int, int]:
    """Return left, top, right and bottom of the square with some border, in whole px."""
    xs, ys = zip(*region.corners, strict=True)
    border = max(round(region.edge_px * _BORDER), _LEAST_BORDER_PX)
    return (
        int(np.floor(min(xs))) - border,
        int(np.floor(min(ys))) - border,
        int(np.ceil(max(xs))) + border,
        int(np.ceil(max(ys))) + border,
    )


def _surroundings(picture: NDArray[np.uint8], region: Region) -> tuple[NDArray[np.uint8], Region]:
    """Cut away what is far from the square, and tell the square in what is left."""
    height, width, _ = picture.shape
    left, top, right, bottom = _bounds(region)
    # A mirror image is as wide as what it mirrors, so a square beyond the edge needs that much of the inside.
    spare = max(0, -left, -top, right - width, bottom - height)
    left, top = max(0, min(left - spare, width - 1)), max(0, min(top - spare, height - 1))
    right, bottom = max(left + 1, min(right + spare, width)), max(top + 1, min(bottom + spare, height))
    return picture[top:bottom, left:right], region.moved(-left, -top)


def _padded(picture: NDArray[np.uint8], region: Region) -> tuple[NDArray[np.uint8], Region]:
    """Continue a picture beyond its edges as far as the square needs; unchanged where it needs nothing."""
    height, width, _ = picture.shape
    left, top, right, bottom = _bounds(region)
    border = max(round(region.edge_px * _BORDER), _LEAST_BORDER_PX)
    need = [max(0, side) for side in (-left, -top, right - width, bottom - height)]
    if max(need) <= border - 4:  # the border alone lies outside: nothing that is seen
        return picture, region
    least = round(region.edge_px * _PADDING)
    pad_left, pad_top, pad_right, pad_bottom = (max(side, least) for side in need)
    grown = np.pad(picture, ((pad_top, pad_bottom), (pad_left, pad_right), (0, 0)), mode="reflect").astype(np.float32)
    height, width, _ = grown.shape
    y, x = np.arange(height, dtype=np.float32)[:, None], np.arange(width, dtype=np.float32)[None]
    # 1 at the outermost pixel, 0 where the picture begins, negative inside of it
    outside = np.maximum(
        1 - np.minimum(x / pad_left, (width - 1 - x) / pad_right),
        1 - np.minimum(y / pad_top, (height - 1 - y) / pad_bottom),
    )[..., None]
    soft = cv2.GaussianBlur(grown, (0, 0), region.edge_px * _BLUR)
    grown += (soft - grown) * np.clip(3 * outside + 1, 0, 1)
    grown += (np.median(picture, axis=(0, 1)).astype(np.float32) - grown) * np.clip(outside, 0, 1)
    return np.clip(np.rint(grown), 0, 255).astype(np.uint8), region.moved(pad_left, pad_top)


def _unfit(reason: str) -> ModelError:
    return ModelError("image-corrupt", f"The picture can't be used: {reason}.", "Send a JPEG, PNG or WebP picture.")
