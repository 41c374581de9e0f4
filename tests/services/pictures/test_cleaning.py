"""Good and hostile pictures, made here: each is cleaned or refused in words, in time that no size can stretch.

All decoding happens in the real children.
"""

from __future__ import annotations

import io
import struct
import tracemalloc
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from PIL import Image

from services.errors import RequestError
from services.pictures.cleaner import PictureCleaner
from services.pictures.cleaning import Picture, clean_picture
from services.pictures.decoding import Pixels
from services.pictures.decoding import decode as decode_here
from services.pictures.headers import MAX_JPEG_SCANS, MAX_JPEG_SEGMENTS, PictureLimits
from tests.services.api.pictures import (
    decode,
    encode,
    make_photo,
    metadata_bomb,
    oriented_jpeg,
    png_bomb,
    png_chunk,
    png_with_header,
    scan_bomb,
)

LIMITS = PictureLimits(max_pixels=16_000_000, min_side_px=32)
CLEANER = PictureCleaner(LIMITS, max_bytes=40_000_000)  # starts its children when they are needed


@pytest.fixture(autouse=True, scope="module")
def _children() -> Iterator[None]:
    yield
    CLEANER.close()


def refuse_unseen(data: bytes) -> RequestError:
    """Refuse a picture by its headers alone: no decoder may see it."""

    def decode(*_: object) -> Pixels:
        raise SystemExit("hostile bytes reached the decoder")

    with pytest.raises(RequestError) as caught:
        clean_picture(data, LIMITS, decode)
    assert caught.value.message
    assert caught.value.hint
    return caught.value


def clean(data: bytes) -> Image.Image:
    """Clean a picture; check that what is stored is a plain RGB PNG without any metadata."""
    picture = CLEANER.clean(data)
    cleaned = decode(picture.png)
    assert cleaned.format == "PNG"
    assert cleaned.mode == "RGB"
    assert cleaned.size == (picture.width, picture.height)
    assert not cleaned.getexif()
    assert {"exif", "icc_profile", "transparency", "comment", "xmp"}.isdisjoint(cleaned.info)
    return cleaned


def refuse(data: bytes) -> RequestError:
    with pytest.raises(RequestError) as caught:
        CLEANER.clean(data)
    assert caught.value.message
    assert caught.value.hint
    return caught.value


CODES = ("", "image-corrupt", "image-too-small", "image-too-large", "unsupported-media-type")


def try_to_clean(data: bytes, clean: Callable[[bytes], Picture] = CLEANER.clean) -> str:
    """Return the code of the refusal, "" where there is none; any other exception fails the test."""
    try:
        clean(data)
    except RequestError as error:
        return error.code
    return ""


def distance(first: Image.Image, second: Image.Image) -> float:
    """Mean absolute difference of two pictures, in values of 255."""
    assert first.size == second.size
    return float(np.abs(np.asarray(first, np.int16) - np.asarray(second, np.int16)).mean())


@pytest.mark.parametrize(
    ("picture_format", "options", "most"),
    [
        ("PNG", {}, 0.0),
        ("WEBP", {"lossless": True}, 0.0),
        ("WEBP", {"quality": 95}, 4.0),
        ("JPEG", {"quality": 95}, 4.0),
        ("JPEG", {"quality": 95, "progressive": True}, 4.0),
    ],
)
def test_good_pictures(picture_format: str, options: dict[str, object], most: float) -> None:
    photo = make_photo()
    assert distance(clean(encode(photo, picture_format, **options)), photo) <= most


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA"])
def test_modes_of_png(mode: str) -> None:
    photo = make_photo().convert(mode)
    assert distance(clean(encode(photo)), photo.convert("RGB")) == 0


def test_16_bit_grey_keeps_the_high_byte() -> None:
    grey = np.asarray(make_photo().convert("L"))
    deep = Image.fromarray(grey.astype(np.uint16) * 257)
    assert decode(encode(deep)).mode.startswith("I")
    assert distance(clean(encode(deep)), Image.fromarray(grey).convert("RGB")) == 0


def test_16_bit_colour_keeps_the_high_byte() -> None:
    import zlib

    pixels = np.asarray(make_photo(64, 48))
    rows = b"".join(b"\0" + (row.astype(">u2") * 257).tobytes() for row in pixels)
    header = struct.pack(">IIBBBBB", 64, 48, 16, 2, 0, 0, 0)
    data = (
        b"\x89PNG\r\n\x1a\n"
        + png_chunk(b"IHDR", header)
        + png_chunk(b"IDAT", zlib.compress(rows))
        + png_chunk(b"IEND", b"")
    )
    assert distance(clean(data), make_photo(64, 48)) == 0


def test_cmyk_jpeg() -> None:
    photo = make_photo()
    assert distance(clean(encode(photo.convert("CMYK"), "JPEG", quality=95)), photo) < 8


def test_alpha_lies_over_white() -> None:
    photo = make_photo()
    photo.putalpha(0)
    assert clean(encode(photo)).getextrema() == ((255, 255),) * 3
    palette = Image.new("P", (40, 40), 0)
    palette.putpalette([200, 0, 0] * 256)
    assert clean(encode(palette, transparency=0)).getpixel((5, 5)) == (255, 255, 255)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied_then_dropped(orientation: int) -> None:
    photo = make_photo(96, 64)
    turns = {
        1: None,
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_270,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_90,
    }
    turn = turns[orientation]
    expected = photo if turn is None else photo.transpose(turn)
    data = oriented_jpeg(photo, orientation)
    assert b"A SECRET" in data
    assert distance(clean(data), expected) < 4
    assert b"SECRET" not in CLEANER.clean(data).png


def test_broken_exif_is_no_reason_to_refuse() -> None:
    data = encode(make_photo(), "JPEG", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff broken")
    clean(data)


def test_trailing_bytes_are_dropped() -> None:
    for picture_format in ("PNG", "JPEG", "WEBP"):
        polyglot = encode(make_photo(), picture_format) + b"PK\x03\x04<script>alert(1)</script>"
        assert b"script" not in CLEANER.clean(polyglot).png


@pytest.mark.parametrize(
    ("data", "word"),
    [
        (encode(make_photo(), "GIF"), "GIF"),
        (encode(make_photo(), "BMP"), "BMP"),
        (encode(make_photo(), "TIFF"), "TIFF"),
        (b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg" width="64" height="64"/>', "SVG"),
        (b'  <svg width="64" height="64"><script>alert(1)</script></svg>', "SVG"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\n", "PostScript"),
        (b"%PDF-1.7\n", "PDF"),
        (b"<!DOCTYPE html><html></html>", "HTML"),
        (b"\0\0\0\x18ftypheic\0\0\0\0", "HEIC"),
        (b"GIF89a" + encode(make_photo()), "GIF"),  # a GIF that goes on as a PNG
        (b"just some text", "no JPEG, PNG or WebP"),
        (bytes(1000), "no JPEG, PNG or WebP"),
    ],
)
def test_other_formats(data: bytes, word: str) -> None:
    error = refuse(data)
    assert error.code == "unsupported-media-type"
    assert word in error.message


def test_animations_are_refused() -> None:
    frames = [make_photo(seed=seed) for seed in range(3)]
    for picture_format in ("WEBP", "PNG"):
        data = encode(frames[0], picture_format, save_all=True, append_images=frames[1:])
        error = refuse(data)
        assert error.code == "unsupported-media-type"
        assert "more than one frame" in error.message


@pytest.mark.parametrize("picture_format", ["PNG", "JPEG", "WEBP"])
def test_every_cut_is_refused_or_whole(picture_format: str) -> None:
    """A file that is cut anywhere is refused as corrupt, and nothing else ever comes out."""
    whole = encode(make_photo(64, 64), picture_format)
    reference = np.asarray(clean(whole))
    codes = set()
    for length in [*range(40), *range(40, len(whole), max(1, len(whole) // 60))]:
        try:
            cleaned = np.asarray(decode(CLEANER.clean(whole[:length]).png))
        except RequestError as error:
            codes.add(error.code)
        else:
            assert np.array_equal(cleaned, reference)
    assert codes <= {"image-corrupt", "unsupported-media-type"}
    assert "image-corrupt" in codes


def test_flipped_bytes_never_escape() -> None:
    """Any damage ends as a picture or as a refusal, never as another exception."""
    random = np.random.default_rng(7)
    for picture_format in ("PNG", "JPEG", "WEBP"):
        whole = np.frombuffer(encode(make_photo(64, 64), picture_format), np.uint8)
        for _ in range(60):
            data = whole.copy()
            places = random.integers(0, len(data), 6)
            data[places] = random.integers(0, 256, 6)
            assert try_to_clean(data.tobytes()) in CODES


@pytest.mark.parametrize(
    "data",
    [b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"\xff\xd8\xff\xe0\0", b"RIFF\0\0\0\0WEBP", b"RIFF\4\0\0\0WEBPVP8X"],
)
def test_nothing_but_a_signature(data: bytes) -> None:
    assert refuse(data).code == "image-corrupt"


@pytest.mark.parametrize("size", [(1, 1), (31, 200), (200, 31)])
def test_too_small(size: tuple[int, int]) -> None:
    for picture_format in ("PNG", "JPEG", "WEBP"):
        assert refuse(encode(make_photo(*size), picture_format)).code == "image-too-small"


def test_limits_are_inclusive() -> None:
    clean(encode(make_photo(32, 32)))
    limits = PictureLimits(max_pixels=64 * 64, min_side_px=32)
    clean_picture(encode(make_photo(64, 64)), limits, decode_here)
    with pytest.raises(RequestError, match="at most"):
        clean_picture(encode(make_photo(64, 65)), limits, decode_here)


def webp_with_header(width: int, height: int) -> bytes:
    body = b"\0\0\0\0" + (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    chunk = b"VP8X" + len(body).to_bytes(4, "little") + body
    return b"RIFF" + (4 + len(chunk)).to_bytes(4, "little") + b"WEBP" + chunk


def jpeg_with_header(width: int, height: int) -> bytes:
    data = bytearray(encode(make_photo(64, 64), "JPEG"))
    at = data.index(b"\xff\xc0") + 5
    data[at : at + 4] = struct.pack(">HH", height, width)
    return bytes(data)


@pytest.mark.parametrize(
    "data",
    [
        png_bomb(),
        png_with_header(20_000, 20_000),
        png_with_header(2**31 - 1, 2**31 - 1),
        png_with_header(500_000, 32),
        webp_with_header(16_000, 16_000),
        jpeg_with_header(65_000, 65_000),
    ],
    ids=["bomb", "header", "largest", "thin", "webp", "jpeg"],
)
def test_too_large_is_refused_before_decoding(data: bytes) -> None:
    assert refuse_unseen(data).code == "image-too-large"


@pytest.mark.parametrize("data", [png_with_header(0, 64), jpeg_with_header(64, 0), png_with_header(64, 64, b"\0" * 9)])
def test_sizes_that_lie(data: bytes) -> None:
    assert refuse(data).code == "image-corrupt"


def test_compressed_metadata_bomb_is_not_unpacked() -> None:
    data = metadata_bomb()
    assert try_to_clean(data) in ("", "image-corrupt")
    # The same in this process, where memory can be counted.
    tracemalloc.start()
    try:
        code = try_to_clean(data, lambda data: clean_picture(data, LIMITS, decode_here))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert code in ("", "image-corrupt")
    assert peak < 20_000_000, "it is not unpacked"


def test_scan_bomb() -> None:
    data = scan_bomb(600)
    assert len(data) < 20_000_000
    error = refuse_unseen(data)
    assert error.code == "image-corrupt"
    assert "scans" in error.message


def test_scans_are_counted_one_by_one() -> None:
    """At the limit a picture still passes the count; one scan more does not."""
    base = scan_bomb(0, 64, 64)
    own = base.count(b"\xff\xda")
    clean_or_corrupt = []
    for scans in (MAX_JPEG_SCANS - own, MAX_JPEG_SCANS - own + 1):
        try:
            CLEANER.clean(scan_bomb(scans, 64, 64))
            clean_or_corrupt.append("")
        except RequestError as error:
            clean_or_corrupt.append(error.message)
    assert "scans" not in clean_or_corrupt[0]
    assert "scans" in clean_or_corrupt[1]


class CountedBytes(bytes):
    """Bytes that count how often they are looked at."""

    looks = 0

    def __getitem__(self, at: Any) -> Any:
        self.looks += 1
        return super().__getitem__(at)

    def find(self, *what: Any) -> int:
        self.looks += 1
        return super().find(*what)


@pytest.mark.parametrize(
    ("filler", "decodable"),
    [
        (b"\xff\x00", True),
        (b"\xff\xff", False),
        (b"\xff\xd0", True),
        (b"\xff\xe0\x00\x02", False),
        (b"\xff\x01", False),
        (b"\x00", True),
        (b"\xff", False),
    ],
)
def test_marker_walk_gives_up_early(filler: bytes, decodable: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Twenty megabytes of one marker cost few steps of ours, and Pillow sees them only as picture data in a scan."""
    decoded: list[object] = []
    decode_all = CLEANER._decode
    monkeypatch.setattr(CLEANER, "_decode", lambda *args: (decoded.append(args), decode_all(*args))[1])
    photo = encode(make_photo(64, 64), "JPEG")
    scan = photo.index(b"\xff\xda") + 16
    for at, reaches_decoder in ((2, False), (scan, decodable)):
        data = CountedBytes(photo[:at] + filler * (20_000_000 // len(filler)) + photo[at:])
        decoded.clear()
        code = try_to_clean(data)
        assert code == "" if reaches_decoder else code in ("image-corrupt", "unsupported-media-type")
        assert bool(decoded) == reaches_decoder
        assert 0 < data.looks < 3 * MAX_JPEG_SEGMENTS


def test_names_and_extensions_do_not_matter() -> None:
    """There is no name in here at all: the bytes alone decide."""
    assert clean(encode(make_photo(), "WEBP", lossless=True)).size == (96, 128)


def test_mpo_of_a_phone() -> None:
    buffer = io.BytesIO()
    first = make_photo()
    first.save(buffer, "MPO", save_all=True, append_images=[make_photo(seed=1)], quality=95)
    assert distance(clean(buffer.getvalue()), first) < 4
