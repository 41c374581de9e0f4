"""What the headers of a picture say: format, size, frames and JPEG scans, read before any decoder sees a byte.

Plain Python over bytes, so that hostile ones can do no more than be refused. Decodes nothing; knows nothing of HTTP.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass

from services.errors import RequestError

MAX_JPEG_SCANS = 100
# Markers outside of the scans; a real photo has a few dozen.
MAX_JPEG_SEGMENTS = 5_000
# Padding between markers; some encoders align with a few bytes.
MAX_JPEG_FILL_BYTES = 65_536
# Longest edge that all three formats and every later step can hold.
MAX_SIDE_PX = 16_383

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
# Ends a JPEG scan: a marker that is neither a stuffed zero, nor a restart, nor a fill byte.
_SCAN_END = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
_LONG_FILL = b"\xff" * MAX_JPEG_FILL_BYTES
_JPEG_SOF = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_ACCEPTED = "Send a JPEG, PNG or WebP picture."


@dataclass(frozen=True)
class PictureLimits:
    """What a picture may be: ``max_pixels`` in total, ``min_side_px`` along the shorter edge."""

    max_pixels: int
    min_side_px: int


@dataclass(frozen=True)
class Header:
    """What the headers say, before anything is decoded."""

    format: str
    width: int
    height: int
    animated: bool = False


def read_header(data: bytes) -> Header:
    """Return what the headers say.

    Raises:
        RequestError: unsupported-media-type, image-corrupt.
    """
    if not data:
        raise RequestError("image-corrupt", "The picture is empty.", _ACCEPTED)
    try:
        if data.startswith(_PNG_SIGNATURE):
            return _read_png_header(data)
        if data.startswith(b"\xff\xd8\xff"):
            return _read_jpeg_header(data)
        if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
            return _read_webp_header(data)
    except (struct.error, IndexError) as error:
        raise corrupt() from error
    raise RequestError("unsupported-media-type", _name_format(data), _ACCEPTED)


def _name_format(data: bytes) -> str:
    """Say what the bytes look like, for people who sent the wrong thing in good faith."""
    start = data[:512].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    names = (
        (start.startswith(b"gif8"), "a GIF"),
        (b"<svg" in start or start.startswith(b"<?xml"), "an SVG or XML document"),
        (start.startswith((b"<!doctype", b"<html")), "an HTML page"),
        (start.startswith(b"%!ps"), "PostScript"),
        (start.startswith(b"%pdf"), "a PDF"),
        (start.startswith((b"ii*\x00", b"mm\x00*")), "a TIFF"),
        (start.startswith(b"bm"), "a BMP"),
        (data[4:12] in (b"ftypheic", b"ftypheix", b"ftypmif1", b"ftyphevc"), "a HEIC picture"),
        (data[4:12] in (b"ftypavif", b"ftypavis"), "an AVIF picture"),
        (start.startswith(b"8bps"), "a Photoshop document"),
        (data.startswith(b"\0\0\1\0"), "an icon"),
    )
    found = next((name for matched, name in names if matched), None)
    return f"The file is {found}, which is not accepted." if found else "The file is no JPEG, PNG or WebP picture."


def check_header(header: Header, limits: PictureLimits) -> None:
    """Refuse what must not reach a decoder.

    Raises:
        RequestError: image-corrupt, unsupported-media-type, image-too-large, image-too-small.
    """
    width, height = header.width, header.height
    if width <= 0 or height <= 0:
        raise corrupt()
    if header.animated:
        raise RequestError(
            "unsupported-media-type",
            "The picture has more than one frame.",
            "Send a still picture: save one frame as JPEG, PNG or WebP.",
        )
    if width * height > limits.max_pixels or max(width, height) > MAX_SIDE_PX:
        raise RequestError(
            "image-too-large",
            f"The picture has {width}×{height} px; at most {limits.max_pixels / 1e6:g} megapixels are accepted.",
            "Scale it down, or crop it to the face.",
            max_pixels=limits.max_pixels,
        )
    if min(width, height) < limits.min_side_px:
        raise too_small(width, height, limits)


def _read_png_header(data: bytes) -> Header:
    if data[12:16] != b"IHDR":
        raise corrupt()
    width, height = struct.unpack_from(">II", data, 16)
    # An animation announces itself before the first image data.
    position, animated = 8, False
    while position + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        if kind == b"IDAT":
            break
        animated = animated or kind == b"acTL"
        position += 12 + length
    return Header("PNG", width, height, animated)


def _read_webp_header(data: bytes) -> Header:
    kind, body = data[12:16], data[20:30]
    if kind == b"VP8X":
        width = 1 + int.from_bytes(body[4:7], "little")
        height = 1 + int.from_bytes(body[7:10], "little")
        return Header("WEBP", width if len(body) == 10 else 0, height, bool(body[0] & 0x02))
    if kind == b"VP8L":
        (bits,) = struct.unpack_from("<I", body, 1)
        return Header("WEBP", 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF))
    if kind == b"VP8 " and body[3:6] == b"\x9d\x01\x2a":
        width, height = struct.unpack_from("<HH", body, 6)
        return Header("WEBP", width & 0x3FFF, height & 0x3FFF)
    raise corrupt()


def _read_jpeg_header(data: bytes) -> Header:
    """Walk the markers to the end: size, and the number of scans (each one costs the decoder a whole pass)."""
    position, scans, segments, fill, width, height = 2, 0, 0, 0, 0, 0
    while position + 4 <= len(data):
        if data[position] != 0xFF:
            position = data.find(b"\xff", position)
            if position < 0:
                break
        marker = data[position + 1]
        if marker == 0xFF:  # fill bytes: jump over the whole run at once, as Pillow does not
            after = _skip_fill(data, position)
            fill += after - position
            if fill > MAX_JPEG_FILL_BYTES:
                raise corrupt()
            position = after
            continue
        if marker == 0xD9:
            break
        segments += 1
        if segments > MAX_JPEG_SEGMENTS:
            raise corrupt()
        if marker in (0x00, 0x01) or 0xD0 <= marker <= 0xD8:  # markers without a length
            position += 2
            continue
        (length,) = struct.unpack_from(">H", data, position + 2)
        if marker in _JPEG_SOF:
            found_height, found_width = struct.unpack_from(">HH", data, position + 5)
            width, height = max(width, found_width), max(height, found_height)
        position += 2 + length
        if marker == 0xDA:
            scans += 1
            if scans > MAX_JPEG_SCANS:
                raise RequestError(
                    "image-corrupt",
                    f"The JPEG has more than {MAX_JPEG_SCANS} scans, which no camera writes.",
                    "Save the picture again as an ordinary JPEG or PNG.",
                )
            position = _skip_scan(data, position)
    return Header("JPEG", width, height)


def _skip_scan(data: bytes, position: int) -> int:
    """Return where the marker stands that ends the scan, or the end of the data."""
    found = _SCAN_END.search(data, position)
    end = len(data) if found is None else found.start()
    if data.find(_LONG_FILL, position, end) >= 0:  # libjpeg would look at it again with each piece that Pillow hands it
        raise corrupt()
    return end


def _skip_fill(data: bytes, position: int) -> int:
    """Return where the last 0xFF of a run stands."""
    run = re.compile(rb"\xff+").match(data, position)
    assert run is not None
    return run.end() - 1


def corrupt() -> RequestError:
    """Return the refusal of a picture that can't be decoded."""
    return RequestError(
        "image-corrupt",
        "The picture is damaged or cut off and can't be decoded.",
        "Open it in a viewer to check it, save it again, then send the new file.",
    )


def too_small(width: int, height: int, limits: PictureLimits) -> RequestError:
    """Return the refusal of a picture of this size."""
    return RequestError(
        "image-too-small",
        f"The picture has {width}×{height} px; the shorter edge must have at least {limits.min_side_px} px.",
        "Send a larger picture of the face.",
        min_side_px=limits.min_side_px,
    )
