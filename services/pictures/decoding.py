"""Turns the bytes of one picture into plain RGB with Pillow. Runs in the child; what it is fed is hostile.

Knows Pillow and nothing else of ours, so that the child starts quickly and holds nothing worth stealing.
"""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass
from typing import Any

# By name, for later nothing can be imported any more: Pillow opens WebP, a phone's MPO and EXIF's TIFF with these.
from PIL import Image, ImageOps, JpegImagePlugin, MpoImagePlugin, PngImagePlugin, TiffImagePlugin, WebPImagePlugin

FORMATS = ("JPEG", "PNG", "WEBP")
_PLUGINS = (JpegImagePlugin, MpoImagePlugin, PngImagePlugin, TiffImagePlugin, WebPImagePlugin)


class UndecodableError(Exception):
    """The bytes are no picture of the format and size that their headers promise."""


@dataclass(frozen=True)
class Pixels:
    """An upright picture: ``rgb`` holds ``width × height`` triples of uint8, row by row."""

    width: int
    height: int
    rgb: bytes


def decode(data: bytes | bytearray, picture_format: str, max_pixels: int) -> Pixels:
    """Decode, turn as EXIF says, flatten.

    Transparency is laid over white, 16-bit values keep their high byte, CMYK and palettes become RGB.

    Raises: UndecodableError.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data), formats=[picture_format]) as opened:
                _check(opened, picture_format, max_pixels)
                opened.load()
                plain = _flatten(_orient(opened))
                return Pixels(plain.width, plain.height, plain.tobytes())
    # Decoders that are fed hostile bytes raise whatever they like; whatever it is, the picture is at fault.
    except Exception as error:
        raise UndecodableError(type(error).__name__) from error


def rehearse() -> None:
    """Walk every path of ``decode`` once, so that whatever Pillow loads on first use is loaded."""
    exif = Image.Exif()
    exif[0x0112] = 6
    palette = Image.new("P", (8, 8), 0)
    palette.putpalette([200, 0, 0] * 256)
    samples: list[tuple[Image.Image, str, dict[str, Any]]]
    samples = [(Image.new("RGB", (8, 8)), name, {"exif": exif}) for name in FORMATS]
    samples += [(Image.new("CMYK", (8, 8)), "JPEG", {"progressive": True}), (palette, "PNG", {"transparency": 0})]
    samples += [(Image.new(mode, (8, 8)), "PNG", {}) for mode in ("1", "L", "LA", "RGBA", "I;16")]
    samples += [(Image.new("RGBA", (8, 8)), "WEBP", {"lossless": True})]
    for picture, picture_format, options in samples:
        buffer = io.BytesIO()
        picture.save(buffer, picture_format, **options)
        decode(buffer.getvalue(), picture_format, 64)
        try:
            decode(buffer.getvalue()[:-20], picture_format, 64)
        except UndecodableError:
            continue


def _check(opened: Image.Image, picture_format: str, max_pixels: int) -> None:
    """Refuse what the headers hid."""
    # A phone's MPO opens as JPEG with several pictures; the first is the photo.
    if picture_format != "JPEG" and getattr(opened, "n_frames", 1) != 1:
        raise UndecodableError("more than one frame")
    if opened.width * opened.height > max_pixels:
        raise UndecodableError("larger than its header says")


def _orient(picture: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(picture)
    # Broken EXIF is common and no reason to refuse a photo: it is shown as it lies.
    except Exception:  # noqa: BLE001
        return picture


def _flatten(picture: Image.Image) -> Image.Image:
    """Return a plain RGB picture."""
    if picture.mode.startswith("I"):  # 16-bit grey; Pillow's own conversion clips it, or not, as its version has it
        picture = picture.convert("I").point(lambda value: value * (1 / 256)).convert("L")
        picture.info.pop("transparency", None)  # counted in 16 bits
    if picture.has_transparency_data:
        overlay = picture.convert("RGBA")
        paper = Image.new("RGBA", overlay.size, (255, 255, 255, 255))
        picture = Image.alpha_composite(paper, overlay)
    return picture.convert("RGB")
