"""The PNG that is stored: every reader finds the very pixels in it, and nothing else."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from services.pictures.cleaning import _STRIP_ROWS, encode_png
from services.pictures.decoding import Pixels

HEIGHTS = (1, 2, _STRIP_ROWS - 1, _STRIP_ROWS, _STRIP_ROWS + 1, 3 * _STRIP_ROWS + 7)


@pytest.mark.parametrize("height", HEIGHTS)
@pytest.mark.parametrize("width", [1, 5, 97])
def test_pixels_come_back(width: int, height: int) -> None:
    rgb = np.random.default_rng(height * 100 + width).integers(0, 256, (height, width, 3), np.uint8)
    with Image.open(io.BytesIO(encode_png(Pixels(width, height, rgb.tobytes())))) as opened:
        assert (opened.format, opened.mode, opened.size) == ("PNG", "RGB", (width, height))
        assert np.array_equal(np.asarray(opened), rgb)


def test_it_holds_three_chunks_whose_sums_are_right() -> None:
    png = encode_png(Pixels(3, 2, bytes(range(18))))
    place, kinds = 8, []
    while place < len(png):
        (length,), kind = struct.unpack_from(">I", png, place), png[place + 4 : place + 8]
        data, (crc,) = png[place + 8 : place + 8 + length], struct.unpack_from(">I", png, place + 8 + length)
        assert crc == zlib.crc32(kind + data)
        kinds.append(kind)
        place += 12 + length
    assert kinds == [b"IHDR", b"IDAT", b"IEND"]


def test_a_smooth_picture_is_packed() -> None:
    sky = np.tile(np.arange(256, dtype=np.uint8)[:, None, None], (1, 256, 3))
    assert len(encode_png(Pixels(256, 256, sky.tobytes()))) < 256 * 256 * 3 / 50
