"""Damaged pictures: each is refused with a code or becomes a clean PNG, and hurts nothing that comes after it."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from functools import partial
from typing import TypeVar

import pytest
from PIL import Image

from services.errors import RequestError
from services.pictures.cleaner import PictureCleaner
from services.pictures.cleaning import Picture
from services.pictures.headers import Header, PictureLimits, check_header, read_header
from tests.fuzz.mutants import blamed, how_many, make_mutants
from tests.services.api.pictures import encode, make_photo, oriented_jpeg

Answer = TypeVar("Answer")
CODES = {"unsupported-media-type", "image-corrupt", "image-too-small", "image-too-large"}
LIMITS = PictureLimits(max_pixels=1_000_000, min_side_px=32)


def answer(ask: Callable[[], Answer]) -> Answer | RequestError:
    """Return what it answers, or the refusal, which must be one that a picture may meet and say what to do."""
    try:
        return ask()
    except RequestError as error:
        refusal = error
    assert refusal.code in CODES
    assert refusal.hint
    return refusal


def read_and_check(data: bytes) -> Header:
    header = read_header(data)
    check_header(header, LIMITS)
    return header


def corpus() -> dict[str, bytes]:
    photo = make_photo(64, 48)
    grey = photo.convert("L")
    return {
        "jpeg": encode(photo, "JPEG"),
        "jpeg-cmyk": encode(photo.convert("CMYK"), "JPEG"),
        "jpeg-exif": oriented_jpeg(photo, 6),
        "jpeg-progressive": encode(photo, "JPEG", progressive=True),
        "png": encode(photo),
        "png-16-bit": encode(grey.convert("I;16")),
        "png-alpha": encode(photo.convert("RGBA")),
        "png-palette": encode(photo.quantize(16), transparency=3),
        "webp": encode(photo, "WEBP"),
        "webp-alpha": encode(photo.convert("RGBA"), "WEBP", exact=True),
        "webp-exif": encode(photo, "WEBP", exif=photo.getexif().tobytes()),
        "webp-lossless": encode(photo, "WEBP", lossless=True),
    }


@pytest.fixture(scope="module")
def cleaner() -> Iterator[PictureCleaner]:
    with PictureCleaner(LIMITS, 10_000_000, most_children=1) as started:
        yield started


def clean(cleaner: PictureCleaner, data: bytes) -> Picture | None:
    """Return the clean picture, or None where it was refused as a picture may be."""
    picture = answer(partial(cleaner.clean, data))
    return None if isinstance(picture, RequestError) else picture


def test_the_corpus_itself_is_accepted(cleaner: PictureCleaner) -> None:
    refused = [name for name, data in corpus().items() if clean(cleaner, data) is None]
    assert not refused


def test_headers_of_damaged_pictures_are_read_or_refused() -> None:
    read = refused = 0
    for mutant in make_mutants(corpus(), how_many(6_000)):
        with blamed(mutant):
            header = answer(partial(read_and_check, mutant.data))
            if isinstance(header, RequestError):
                refused += 1
                continue
            read += 1
            assert header.format in {"JPEG", "PNG", "WEBP"}
            assert header.width * header.height <= LIMITS.max_pixels
    # Both happen often, else the mutants are all alike.
    assert min(read, refused) > (read + refused) / 10


def test_damaged_pictures_are_cleaned_or_refused(cleaner: PictureCleaner) -> None:
    cleaned = refused = 0
    for mutant in make_mutants(corpus(), how_many(600)):
        with blamed(mutant):
            picture = clean(cleaner, mutant.data)
            if picture is None:
                refused += 1
                continue
            cleaned += 1
            with Image.open(io.BytesIO(picture.png)) as opened:
                opened.load()
                assert (opened.format, opened.mode, opened.size) == ("PNG", "RGB", (picture.width, picture.height))
                assert not opened.info
            assert picture.width * picture.height <= LIMITS.max_pixels
    assert min(cleaned, refused) > (cleaned + refused) / 10
    assert clean(cleaner, corpus()["png"]) is not None, "an innocent picture is refused after the damaged ones"
