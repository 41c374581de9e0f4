"""Pictures for the API's tests, good and hostile, all made here."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
from PIL import Image


def make_photo(width: int = 96, height: int = 128, seed: int = 0) -> Image.Image:
    """A smooth picture in which every pixel differs from its neighbours, so that shifts and turns show."""
    random = np.random.default_rng(seed)
    small = Image.fromarray(random.integers(0, 255, (6, 8, 3), dtype=np.uint8))
    return small.resize((width, height), Image.Resampling.BICUBIC)


def encode(picture: Image.Image, picture_format: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, picture_format, **options)
    return buffer.getvalue()


def decode(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data))


def png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png_with_header(width: int, height: int, body: bytes = b"") -> bytes:
    """A PNG that says it is so large, with almost nothing behind it."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + png_chunk(b"IHDR", header)
        + png_chunk(b"IDAT", zlib.compress(body))
        + png_chunk(b"IEND", b"")
    )


def png_bomb() -> bytes:
    """Ten kilobytes that become 1.2 gigabytes when they are decoded without a look at the header."""
    rows = zlib.compressobj(9)
    packed = rows.compress(b"\0" * 4_000_000) + rows.flush()
    header = struct.pack(">IIBBBBB", 20_000, 20_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + png_chunk(b"IDAT", packed) + png_chunk(b"IEND", b"")


def scan_bomb(scans: int, width: int = 4000, height: int = 4000) -> bytes:
    """A progressive JPEG with one more tiny scan after another; each costs the decoder a pass over all pixels."""
    base = encode(Image.new("L", (width, height), 128), "JPEG", progressive=True, quality=50)
    body, end = base[:-2], base[-2:]
    shortest = min(body.split(b"\xff\xda")[1:], key=len)
    return body + (b"\xff\xda" + shortest) * scans + end


def oriented_jpeg(picture: Image.Image, orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    exif[0x010E] = "A SECRET DESCRIPTION"
    return encode(picture, "JPEG", quality=95, exif=exif)


def metadata_bomb() -> bytes:
    """A photo with a comment of 200 KB that unpacks to 200 MB."""
    text = png_chunk(b"zTXt", b"Comment\0\0" + zlib.compress(b"A" * 200_000_000, 9))
    photo = encode(make_photo())
    return photo[:33] + text + photo[33:]
