"""From any decoded picture to the square crop that the graphs expect. numpy and opencv; knows no model.

Bundles of rendered faces take a centred square. A bundle that names a detector is aligned by it before this.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from model.errors import ModelError

_GREY, _GREY_ALPHA, _RGB, _RGBA = 1, 2, 3, 4


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


def _unfit(reason: str) -> ModelError:
    return ModelError("image-corrupt", f"The picture can't be used: {reason}.", "Send a JPEG, PNG or WebP picture.")
