"""A real photograph for the tests, and pictures made of it.

``assets/astronaut.jpg`` is NASA's official portrait of Eileen Collins (public domain), as scikit-image carries it.
"""

from __future__ import annotations

import io
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

PATH = Path(__file__).parent / "assets" / "astronaut.jpg"
Pixels = NDArray[np.uint8]

# Measured by eye, in px: the box from the brows to the chin and from cheek to cheek, and the five points.
BOX = (183, 62, 270, 180)
POINTS = ((205, 101), (248, 104), (226, 129), (202, 140), (245, 142))


@cache
def read_photograph() -> Pixels:
    """Return the photograph: uint8 RGB [512,512,3]."""
    with Image.open(PATH) as opened:
        pixels = np.asarray(opened.convert("RGB"))
    pixels.setflags(write=False)
    return pixels


def scale(pixels: Pixels, factor: float) -> Pixels:
    height, width, _ = pixels.shape
    size = (round(width * factor), round(height * factor))
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS))


def two_faces(factor: float = 1.0) -> Pixels:
    """The photograph beside itself, the right one scaled and on a grey ground."""
    left = read_photograph()
    right = np.full_like(left, 128)
    small = scale(left, factor)
    right[: small.shape[0], : small.shape[1]] = small
    return np.concatenate([left, right], axis=1)


def landscape() -> Pixels:
    """Sky, hills and noise: nobody there."""
    random = np.random.default_rng(3)
    y, x = np.mgrid[0:300, 0:400]
    sky = np.stack([120 + y // 4, 160 + y // 5, 230 - y // 6], axis=-1)
    hills = y > 180 + 30 * np.sin(x / 40)
    sky[hills] = (60, 110, 50)
    return np.clip(sky + random.normal(0, 12, sky.shape), 0, 255).astype(np.uint8)


def to_png(pixels: Pixels) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()
