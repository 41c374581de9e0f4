"""Stored picture bytes in, RGB array out; and frames as JPEG. Knows no jobs and no models.

The API has judged the picture before it was stored; a worker judges it again, because it also reads what others put
into a bucket.
"""

from __future__ import annotations

import io
import warnings
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from services.errors import PermanentError

FORMATS = ("JPEG", "PNG", "WEBP")
PREVIEW_EDGE_PX = 192


def read_picture(path: Path) -> NDArray[np.uint8]:
    """Decode a picture, turn it as its EXIF orientation says, lay transparency over white.

    Shapes: returns uint8 [H, W, 3], RGB.
    Raises: PermanentError ``image-corrupt``.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path, formats=FORMATS) as stored:
                upright = ImageOps.exif_transpose(stored)
                rgba = upright.convert("RGBA") if "A" in upright.getbands() or "transparency" in upright.info else None
                if rgba is not None:
                    white = Image.new("RGBA", rgba.size, "white")
                    return np.asarray(Image.alpha_composite(white, rgba).convert("RGB"))
                return np.asarray(upright.convert("RGB"))
    except (
        OSError,
        ValueError,
        SyntaxError,
        EOFError,
        Image.DecompressionBombError,
        Image.DecompressionBombWarning,
    ) as error:
        raise PermanentError(
            "image-corrupt", "The picture could not be decoded.", "Send a JPEG, PNG or WebP that opens in a browser."
        ) from error


def encode_jpeg(
    frame: NDArray[np.uint8], *, quality: int, edge_px: int | None = None, at_most_px: int | None = None
) -> bytes:
    """Return a frame as a JPEG, scaled to an edge or down to a largest edge.

    Shapes: frame uint8 [H, W, 3], RGB.
    """
    picture = Image.fromarray(frame)
    if edge_px is not None and picture.size != (edge_px, edge_px):
        picture = picture.resize((edge_px, edge_px), Image.Resampling.LANCZOS)
    if at_most_px is not None:
        picture.thumbnail((at_most_px, at_most_px), Image.Resampling.BILINEAR)
    buffer = io.BytesIO()
    picture.save(buffer, format="JPEG", quality=quality)
    return buffer.getvalue()
