"""What becomes of an uploaded picture: headers judged, pixels decoded elsewhere, a plain RGB PNG made of them.

Nothing of the upload itself is kept: the PNG is written anew from bare pixels, so it carries no metadata, no trailing
bytes and nothing that a decoder could trip over. Who decodes is handed in. Knows nothing of HTTP.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from dataclasses import dataclass

from PIL import Image

from services.pictures.decoding import Pixels, UndecodableError
from services.pictures.headers import PictureLimits, check_header, corrupt, read_header, too_small

# The fastest that zlib has for filtered rows (half the time of its default, and no larger): zlib's Z_RLE.
PNG_COMPRESS_LEVEL = 1
PNG_COMPRESS_TYPE = 3

# As services.pictures.decoding.decode: bytes, their format, the most pixels.
Decode = Callable[[bytes, str, int], Pixels]


@dataclass(frozen=True)
class Picture:
    """A clean picture: RGB PNG bytes, their SHA-256 and the size in px after EXIF orientation."""

    png: bytes
    sha256: str
    width: int
    height: int


def clean_picture(data: bytes, limits: PictureLimits, decode: Decode) -> Picture:
    """Check, decode and re-encode a picture.

    Raises:
        RequestError: unsupported-media-type, image-corrupt, image-too-small or image-too-large.
    """
    header = read_header(data)
    check_header(header, limits)
    try:
        pixels = decode(data, header.format, limits.max_pixels)
    except UndecodableError as error:
        raise corrupt() from error
    if min(pixels.width, pixels.height) < limits.min_side_px:  # headers that contradict themselves
        raise too_small(pixels.width, pixels.height, limits)
    png = encode_png(pixels)
    return Picture(png, hashlib.sha256(png).hexdigest(), pixels.width, pixels.height)


def encode_png(pixels: Pixels) -> bytes:
    """Return the pixels as a PNG."""
    buffer = io.BytesIO()
    picture = Image.frombuffer("RGB", (pixels.width, pixels.height), pixels.rgb, "raw", "RGB", 0, 1)
    picture.save(buffer, "PNG", compress_level=PNG_COMPRESS_LEVEL, compress_type=PNG_COMPRESS_TYPE)
    return buffer.getvalue()
