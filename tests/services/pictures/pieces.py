"""What the corpus is built of: chunks, segments and frames that say one thing and are another."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from tests.services.api.pictures import encode, make_photo, png_chunk

# What may become of a file: problem codes, "" for a clean picture; where the decoder's version decides, both.
CLEAN = frozenset({""})
CORRUPT = frozenset({"image-corrupt"})
EITHER = CLEAN | CORRUPT
LARGE = frozenset({"image-too-large"})
SMALL = frozenset({"image-too-small"})
OTHER = frozenset({"unsupported-media-type"})
SIGNATURE = b"\x89PNG\r\n\x1a\n"
HTML = b"<!DOCTYPE html><html><script>alert(document.domain)</script></html>"


@dataclass(frozen=True)
class Hostile:
    """One file of the corpus; ``make`` is called when it is needed, for some are large."""

    name: str
    make: Callable[[], bytes]
    codes: frozenset[str]

    def __str__(self) -> str:
        return self.name


def png_of(*chunks: bytes) -> bytes:
    return SIGNATURE + b"".join(chunks)


def ihdr(width: int = 64, height: int = 64, depth: int = 8, colour: int = 2, *rest: int) -> bytes:
    compression, filtering, interlace = rest or (0, 0, 0)
    return png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, compression, filtering, interlace))


def idat(rows: bytes = bytes(64 * (1 + 64 * 3))) -> bytes:
    return png_chunk(b"IDAT", zlib.compress(rows))


IEND = png_chunk(b"IEND", b"")


def lying_chunk(kind: bytes, length: int, body: bytes = b"") -> bytes:
    """A chunk that says it is so long."""
    return struct.pack(">I", length) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def before_data(chunk: bytes) -> bytes:
    """A good PNG with one more chunk behind its header."""
    photo = encode(make_photo())
    return photo[:33] + chunk + photo[33:]


def jpeg(**options: object) -> bytes:
    return encode(make_photo(), "JPEG", quality=90, **options)


def jpeg_segment(marker: int, body: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body


def after_soi(segment: bytes) -> bytes:
    """A good JPEG with one more segment at its start."""
    photo = jpeg()
    return photo[:2] + segment + photo[2:]


def change(data: bytes, marker: bytes, offset: int, new: bytes) -> bytes:
    """Overwrite bytes behind the first marker."""
    at = data.index(marker) + offset
    return data[:at] + new + data[at + len(new) :]


def without_segment(data: bytes, marker: bytes) -> bytes:
    at = data.index(marker)
    (length,) = struct.unpack_from(">H", data, at + 2)
    return data[:at] + data[at + 2 + length :]


def webp(**options: object) -> bytes:
    return encode(make_photo(), "WEBP", **options)


def webp_of(*chunks: tuple[bytes, bytes]) -> bytes:
    body = b"".join(kind + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2) for kind, data in chunks)
    return b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WEBP" + body


def vp8x(width: int, height: int, flags: int = 0) -> tuple[bytes, bytes]:
    size = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    return b"VP8X", bytes([flags, 0, 0, 0]) + size


def frame_of(data: bytes) -> tuple[bytes, bytes]:
    """The one chunk of a plain WebP."""
    (length,) = struct.unpack_from("<I", data, 16)
    return data[12:16], data[20 : 20 + length]


def zipped() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("META-INF/MANIFEST.MF", "Manifest-Version: 1.0\n")
    return buffer.getvalue()


def exif_loop() -> bytes:
    """EXIF whose directory points at itself, with an orientation inside."""
    entry = struct.pack(">HHII", 0x0112, 3, 1, 1 << 16) + struct.pack(">HHII", 0x8769, 4, 1, 8)
    return b"Exif\0\0MM\0*\0\0\0\x08" + struct.pack(">H", 2) + entry + struct.pack(">I", 8)


def animation(picture_format: str) -> bytes:
    frames = [make_photo(seed=seed) for seed in range(3)]
    return encode(frames[0], picture_format, save_all=True, append_images=frames[1:])


def late_animation() -> bytes:
    """An APNG that announces itself behind its first picture, where the standard forbids it."""
    photo = encode(make_photo())
    return photo[:-12] + png_chunk(b"acTL", struct.pack(">II", 50, 0)) + IEND


def swollen_data() -> bytes:
    """64 by 64 px, with a hundred megabytes of rows behind those that belong to it."""
    packer = zlib.compressobj(9)
    rows = packer.compress(bytes(100_000_000)) + packer.flush()
    return png_of(ihdr(), png_chunk(b"IDAT", rows), IEND)


def text_bombs() -> bytes:
    """Many comments that are each below the decoder's own limit and together are not."""
    text = png_chunk(b"zTXt", b"Comment\0\0" + zlib.compress(b"A" * 1_000_000, 9))
    return before_data(text * 200)


def profile_bomb() -> bytes:
    return before_data(png_chunk(b"iCCP", b"sRGB\0\0" + zlib.compress(bytes(200_000_000), 9)))


def wide_huffman() -> bytes:
    """A lossless WebP whose code lengths are noise: what CVE-2023-4863 was fed with."""
    data = bytearray(webp(lossless=True))
    noise = np.random.default_rng(4863).integers(0, 256, 400, dtype=np.uint8).tobytes()
    data[25 : 25 + len(noise)] = noise
    return bytes(data)


def lossless_header(width: int, height: int) -> bytes:
    bits = (width - 1) | (height - 1) << 14
    return webp_of((b"VP8L", b"\x2f" + struct.pack("<I", bits) + bytes(20)))


def lossy_header(width: int, height: int) -> bytes:
    return webp_of((b"VP8 ", b"\x10\0\0\x9d\x01\x2a" + struct.pack("<HH", width, height) + bytes(40)))


def profiled(profile: bytes) -> bytes:
    return jpeg(icc_profile=profile)
