"""Pictures as they come from the store: turned, flattened, or refused in words."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from services.errors import PermanentError
from worker.picture import encode_jpeg, read_picture


def store(path: Path, picture: Image.Image, **options: object) -> Path:
    picture.save(path, **options)  # type: ignore[arg-type]
    return path


def test_exif_orientation_is_applied(tmp_path: Path):
    picture = Image.new("RGB", (8, 4), "blue")
    exif = Image.Exif()
    exif[0x0112] = 6
    assert read_picture(store(tmp_path / "p.jpg", picture, exif=exif)).shape == (8, 4, 3)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparency_becomes_white(tmp_path: Path, mode: str):
    if mode == "P":
        picture = Image.new("P", (4, 4), 0)
        picture.info["transparency"] = 0
    else:
        picture = Image.new(mode, (4, 4), 0)
    assert (read_picture(store(tmp_path / "p.png", picture)) == 255).all()


@pytest.mark.parametrize("mode", ["L", "1", "CMYK", "I;16"])
def test_other_modes_become_rgb(tmp_path: Path, mode: str):
    name = "p.jpg" if mode == "CMYK" else "p.png"
    pixels = read_picture(store(tmp_path / name, Image.new(mode, (6, 5), 0)))
    assert pixels.shape == (5, 6, 3)
    assert pixels.dtype == np.uint8


def bomb() -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 30000, 30000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


def truncated() -> bytes:
    buffer = io.BytesIO()
    Image.effect_noise((64, 64), 60).save(buffer, format="PNG")
    return buffer.getvalue()[:400]


@pytest.mark.parametrize("data", [b"", b"<svg/>", b"GIF89a", bomb(), truncated()], ids=range(5))
def test_what_is_no_picture_is_refused_in_words(tmp_path: Path, data: bytes):
    (tmp_path / "p").write_bytes(data)
    with pytest.raises(PermanentError) as caught:
        read_picture(tmp_path / "p")
    assert caught.value.code == "image-corrupt"
    assert caught.value.hint


def test_previews_are_small_and_posters_have_the_videos_size():
    frame = np.zeros((512, 512, 3), np.uint8)
    assert Image.open(io.BytesIO(encode_jpeg(frame, quality=75, at_most_px=192))).size == (192, 192)
    assert Image.open(io.BytesIO(encode_jpeg(frame, quality=90, edge_px=1024))).size == (1024, 1024)
