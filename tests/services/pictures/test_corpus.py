"""Every file of the hostile corpus through the real children, and odd but honest pictures, which come out right."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator

import numpy as np
import pytest
from PIL import Image

from services.errors import RequestError
from services.pictures.cleaner import PictureCleaner
from services.pictures.cleaning import Picture, clean_picture
from services.pictures.decoding import decode as decode_here
from services.pictures.headers import PictureLimits
from tests.services.api.pictures import decode, encode, make_photo, png_chunk
from tests.services.pictures.hostile import CORPUS
from tests.services.pictures.pieces import CLEAN, IEND, Hostile, before_data, ihdr, png_of

LIMITS = PictureLimits(max_pixels=16_000_000, min_side_px=32)


@pytest.fixture(scope="module")
def cleaner() -> Iterator[PictureCleaner]:
    with PictureCleaner(LIMITS, max_bytes=40_000_000) as made:
        yield made


def outcome(cleaner: PictureCleaner, data: bytes) -> tuple[str, Picture | None]:
    """Return the problem code and None, or "" and the picture; any other exception fails the test."""
    try:
        return "", cleaner.clean(data)
    except RequestError as error:
        return error.code, None


def outcome_here(data: bytes) -> tuple[str, Picture | None]:
    """The same, decoded in this process."""
    try:
        return "", clean_picture(data, LIMITS, decode_here)
    except RequestError as error:
        return error.code, None


def test_names_are_told_once() -> None:
    assert len({hostile.name for hostile in CORPUS}) == len(CORPUS) > 200


@pytest.mark.parametrize("hostile", CORPUS, ids=str)
def test_hostile_file(hostile: Hostile, cleaner: PictureCleaner) -> None:
    data = hostile.make()
    children = [child._process.pid for child in cleaner._idle]
    code, picture = outcome(cleaner, data)
    assert code in hostile.codes
    assert children in ([], [child._process.pid for child in cleaner._idle]), "the child died of it"
    if picture is not None:
        stored = decode(picture.png)
        assert (stored.format, stored.mode, stored.size) == ("PNG", "RGB", (picture.width, picture.height))
        for trace in (b"<script", b"<?php", b"PK\3\4", b"Manifest"):
            assert trace not in picture.png
    if len(data) < 1_000_000:
        # What the fences forbid, no decoding needs: the child says what a free process says.
        assert (code, picture) == outcome_here(data)


@pytest.mark.parametrize(
    "hostile", [hostile for hostile in CORPUS if hostile.codes == CLEAN and "comment" not in hostile.name], ids=str
)
def test_what_is_accepted_shows_the_photo(hostile: Hostile, cleaner: PictureCleaner) -> None:
    shown = np.asarray(decode(cleaner.clean(hostile.make()).png), np.int16)
    assert np.abs(shown - np.asarray(make_photo(), np.int16)).mean() < 5


def deep_png(values: np.ndarray, colour: int, *chunks: bytes, interlace: int = 0) -> bytes:
    """A PNG of 16-bit values [H,W,C]."""
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    height, width = values.shape[:2]
    header = ihdr(width, height, 16, colour, 0, 0, interlace)
    return png_of(header, *chunks, png_chunk(b"IDAT", zlib.compress(rows)), IEND)


def test_16_bits_with_transparency(cleaner: PictureCleaner) -> None:
    photo = np.asarray(make_photo()).astype(np.uint16) * 257
    alpha = np.full((*photo.shape[:2], 1), 65_535, np.uint16)
    alpha[:, :48] = 0
    picture = np.asarray(decode(cleaner.clean(deep_png(np.concatenate([photo, alpha], 2), 6)).png))
    assert np.array_equal(picture[:, 48:], (photo >> 8)[:, 48:])
    assert (picture[:, :48] == 255).all()


def test_16_bit_grey_with_a_transparent_value(cleaner: PictureCleaner) -> None:
    grey = np.asarray(make_photo().convert("L")).astype(np.uint16) * 257
    data = deep_png(grey[..., None], 0, png_chunk(b"tRNS", struct.pack(">H", 40_000)))
    assert np.array_equal(np.asarray(decode(cleaner.clean(data).png))[..., 0], grey >> 8)


def test_inverted_cmyk_of_photo_editors(cleaner: PictureCleaner) -> None:
    """Adobe writes CMYK upside down and says so in a mark of its own; Pillow writes the same."""
    photo = make_photo()
    data = encode(photo.convert("CMYK"), "JPEG", quality=95)
    assert b"Adobe" in data
    shown = np.asarray(decode(cleaner.clean(data).png), np.int16)
    assert np.abs(shown - np.asarray(photo, np.int16)).mean() < 8


@pytest.mark.parametrize("picture_format", ["PNG", "WEBP", "JPEG"])
@pytest.mark.parametrize("orientation", [3, 6, 8])
def test_orientation_in_every_format(picture_format: str, orientation: int, cleaner: PictureCleaner) -> None:
    photo = make_photo(96, 64)
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if picture_format == "WEBP" else {"quality": 95} if picture_format == "JPEG" else {}
    turned = photo.rotate({3: 180, 6: 270, 8: 90}[orientation], expand=True)
    shown = decode(cleaner.clean(encode(photo, picture_format, exif=exif, **options)).png)
    assert shown.size == turned.size
    assert np.abs(np.asarray(shown, np.int16) - np.asarray(turned, np.int16)).mean() < 5


@pytest.mark.parametrize("orientation", [0, 9, 65_535])
def test_orientation_that_means_nothing(orientation: int, cleaner: PictureCleaner) -> None:
    exif = b"MM\0*\0\0\0\x08" + struct.pack(">HHHIHHI", 1, 0x0112, 3, 1, orientation, 0, 0)
    shown = decode(cleaner.clean(before_data(png_chunk(b"eXIf", exif))).png)
    assert np.array_equal(np.asarray(shown), np.asarray(make_photo()))


def test_the_longest_and_the_largest_that_are_accepted(cleaner: PictureCleaner) -> None:
    for size in ((32, 16_383), (16_383, 32), (4000, 4000)):
        buffer = io.BytesIO()
        Image.new("L", size, 77).save(buffer, "PNG")
        picture = cleaner.clean(buffer.getvalue())
        assert (picture.width, picture.height) == size
