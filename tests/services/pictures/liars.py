"""The part of the corpus that lies: headers, lengths and tables that are not true, format by format."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from PIL import ImageCms

from tests.services.api.pictures import encode, make_photo, png_chunk, png_with_header
from tests.services.pictures.pieces import (
    CLEAN,
    CORRUPT,
    EITHER,
    IEND,
    LARGE,
    OTHER,
    SMALL,
    Hostile,
    after_soi,
    animation,
    before_data,
    change,
    exif_loop,
    frame_of,
    idat,
    ihdr,
    jpeg,
    jpeg_segment,
    late_animation,
    lossless_header,
    lossy_header,
    lying_chunk,
    png_of,
    profiled,
    vp8x,
    webp,
    webp_of,
    wide_huffman,
    without_segment,
)


def lying_pngs() -> Iterator[Hostile]:
    yield Hostile("png of no width", lambda: png_with_header(0, 64), CORRUPT)
    yield Hostile("png of 1 by 1000", lambda: encode(make_photo(1, 1000)), SMALL)
    yield Hostile("png header too short", lambda: png_of(lying_chunk(b"IHDR", 12, bytes(12)), idat(), IEND), CORRUPT)
    for length in (2**31 - 1, 2**31, 2**32 - 1):
        yield Hostile(
            f"png header of {length} bytes",
            lambda length=length: png_of(lying_chunk(b"IHDR", length, ihdr()[8:21]), idat(), IEND),  # type: ignore[misc]
            CORRUPT,
        )
        yield Hostile(
            f"png chunk of {length} bytes",
            lambda length=length: before_data(lying_chunk(b"prVt", length)),  # type: ignore[misc]
            CORRUPT,
        )
        yield Hostile(
            f"png data of {length} bytes",
            lambda length=length: png_of(ihdr(), lying_chunk(b"IDAT", length, b"x"), IEND),  # type: ignore[misc]
            CORRUPT,
        )
    yield Hostile("png with two headers", lambda: before_data(ihdr(8000, 8000)), CORRUPT)
    yield Hostile(
        "png that grows behind its header", lambda: png_of(ihdr(), ihdr(60_000, 60_000), idat(), IEND), CORRUPT
    )
    yield Hostile(
        "png header with a wrong sum", lambda: change(encode(make_photo()), b"IHDR", 17, b"\0\0\0\0"), CORRUPT
    )
    for what, header in {
        "depth 3": ihdr(64, 64, 3),
        "depth 16 of a palette": ihdr(64, 64, 16, 3),
        "colour 7": ihdr(64, 64, 8, 7),
        "compression 9": ihdr(64, 64, 8, 2, 9, 0, 0),
        "filter 9": ihdr(64, 64, 8, 2, 0, 9, 0),
        "interlace 9": ihdr(64, 64, 8, 2, 0, 0, 9),
    }.items():
        yield Hostile(f"png with {what}", lambda header=header: png_of(header, idat(), IEND), EITHER)  # type: ignore[misc]
    yield Hostile("png without data", lambda: png_of(ihdr(), IEND), CORRUPT)
    yield Hostile("png with empty data", lambda: png_of(ihdr(), png_chunk(b"IDAT", b""), IEND), CORRUPT)
    yield Hostile("png without an end", lambda: png_of(ihdr(), idat()), EITHER)
    yield Hostile("png with too few rows", lambda: png_of(ihdr(), idat(bytes(1000)), IEND), CORRUPT)
    yield Hostile("png with filters unknown", lambda: png_of(ihdr(), idat(b"\xfe" * 64 * 193), IEND), CORRUPT)
    yield Hostile(
        "png of data that is no zlib", lambda: png_of(ihdr(), png_chunk(b"IDAT", b"\xff" * 500), IEND), CORRUPT
    )
    yield Hostile("png with a palette too long", lambda: before_data(png_chunk(b"PLTE", bytes(3 * 1000))), EITHER)
    yield Hostile("png without its palette", lambda: png_of(ihdr(64, 64, 8, 3), idat(b"\xff" * 64 * 65), IEND), EITHER)
    yield Hostile(
        "png with an empty palette",
        lambda: png_of(ihdr(64, 64, 8, 3), png_chunk(b"PLTE", b""), idat(bytes(64 * 65)), IEND),
        EITHER,
    )
    for kind in (
        b"tRNS",
        b"pHYs",
        b"gAMA",
        b"cHRM",
        b"sBIT",
        b"sRGB",
        b"iCCP",
        b"eXIf",
        b"zTXt",
        b"iTXt",
        b"fcTL",
        b"fdAT",
    ):
        for body in (b"", b"\xff", b"\xff" * 3000, b"\0" * 3000):
            yield Hostile(
                f"png with {len(body)} bytes of {body[:1].hex()} as {kind.decode()}",
                lambda kind=kind, body=body: before_data(png_chunk(kind, body)),  # type: ignore[misc]
                EITHER,
            )
    yield Hostile("png with its data in single bytes", data_in_single_bytes, CLEAN)
    yield Hostile("apng", lambda: animation("PNG"), OTHER)
    yield Hostile("apng that says so too late", late_animation, EITHER)


def data_in_single_bytes() -> bytes:
    photo = encode(make_photo())
    at = photo.index(b"IDAT")
    (length,) = struct.unpack_from(">I", photo, at - 4)
    packed = photo[at + 4 : at + 4 + length]
    return photo[: at - 4] + b"".join(png_chunk(b"IDAT", bytes([byte])) for byte in packed) + IEND


def lying_jpegs() -> Iterator[Hostile]:
    yield Hostile("jpeg of no height", lambda: change(jpeg(), b"\xff\xc0", 5, b"\0\0"), CORRUPT)
    yield Hostile("jpeg of 9 bits", lambda: change(jpeg(), b"\xff\xc0", 4, b"\x09"), CORRUPT)
    yield Hostile("jpeg of 12 bits", lambda: change(jpeg(), b"\xff\xc0", 4, b"\x0c"), CORRUPT)
    for marker, name in ((0xC3, "lossless"), (0xC9, "arithmetic"), (0xCF, "differential")):
        yield Hostile(
            f"jpeg said to be {name}", lambda marker=marker: change(jpeg(), b"\xff\xc0", 1, bytes([marker])), EITHER
        )  # type: ignore[misc]
    yield Hostile("jpeg of two channels", lambda: change(jpeg(), b"\xff\xc0", 9, b"\2"), CORRUPT)
    yield Hostile("jpeg of 200 channels", lambda: change(jpeg(), b"\xff\xc0", 9, b"\xc8"), CORRUPT)
    for factor in (0x00, 0x51, 0xFF):
        yield Hostile(
            f"jpeg with sampling {factor:02x}",
            lambda factor=factor: change(jpeg(), b"\xff\xc0", 11, bytes([factor])),  # type: ignore[misc]
            CORRUPT,
        )
    yield Hostile("jpeg without huffman tables", lambda: without_segment(jpeg(), b"\xff\xc4"), EITHER)
    yield Hostile("jpeg without quantisation", lambda: without_segment(jpeg(), b"\xff\xdb"), CORRUPT)
    yield Hostile("jpeg with overfull huffman table", lambda: change(jpeg(), b"\xff\xc4", 5, b"\xff" * 16), CORRUPT)
    yield Hostile("jpeg with a scan of nothing", lambda: change(jpeg(), b"\xff\xda", 4, b"\0"), CORRUPT)
    yield Hostile("jpeg whose scan names no channel", lambda: change(jpeg(), b"\xff\xda", 5, b"\xee"), CORRUPT)
    yield Hostile("jpeg without a scan", lambda: jpeg()[: jpeg().index(b"\xff\xda")], CORRUPT)
    yield Hostile("jpeg with two frames", lambda: after_soi(jpeg()[jpeg().index(b"\xff\xc0") :][:19]), CORRUPT)
    yield Hostile(
        "jpeg whose second frame is huge",
        lambda: jpeg()[:-2] + jpeg_segment(0xC0, b"\x08\xff\xff\xff\xff\x03\1\x11\0\2\x11\1\3\x11\1") + b"\xff\xd9",
        LARGE,
    )
    yield Hostile("jpeg segment of no length", lambda: after_soi(b"\xff\xe1\0\0"), EITHER)
    yield Hostile("jpeg segment beyond the end", lambda: after_soi(b"\xff\xe1\xff\xff"), EITHER)
    yield Hostile("jpeg with 64 KB of exif", lambda: jpeg(exif=b"Exif\0\0MM\0*" + b"\xff" * 65_000), CLEAN)
    yield Hostile("jpeg whose exif turns in circles", lambda: jpeg(exif=exif_loop()), CLEAN)
    yield Hostile("jpeg with a broken profile", lambda: profiled(b"\xff" * 50_000), CLEAN)
    yield Hostile(
        "jpeg with a profile",
        lambda: profiled(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()),
        CLEAN,
    )
    yield Hostile(
        "jpeg with a broken MPF", lambda: after_soi(jpeg_segment(0xE2, b"MPF\0MM\0*" + b"\xff" * 200)), EITHER
    )
    yield Hostile("jpeg with a broken Adobe mark", lambda: after_soi(jpeg_segment(0xEE, b"Adobe\xff\xff")), EITHER)
    yield Hostile(
        "jpeg with a broken Photoshop mark",
        lambda: after_soi(jpeg_segment(0xED, b"Photoshop 3.0\0" + b"8BIM\4\4" * 900)),
        EITHER,
    )
    yield Hostile("jpeg of 2 px by 5000", lambda: encode(make_photo(2, 5000), "JPEG"), SMALL)


def lying_webps() -> Iterator[Hostile]:
    yield Hostile("webp animation", lambda: animation("WEBP"), OTHER)
    yield Hostile("webp said to be animated", lambda: webp_of(vp8x(96, 128, 2), frame_of(webp())), OTHER)
    yield Hostile("webp canvas smaller than its frame", lambda: webp_of(vp8x(40, 40), frame_of(webp())), EITHER)
    yield Hostile("webp canvas larger than its frame", lambda: webp_of(vp8x(3900, 3900), frame_of(webp())), EITHER)
    yield Hostile("webp canvas without a frame", lambda: webp_of(vp8x(96, 128)), CORRUPT)
    yield Hostile(
        "webp alpha of noise", lambda: webp_of(vp8x(96, 128, 16), (b"ALPH", b"\xff" * 99), frame_of(webp())), EITHER
    )
    yield Hostile("webp with broken exif", lambda: webp(exif=b"Exif\0\0II*\0" + b"\xff" * 3000), CLEAN)
    yield Hostile("webp with a broken profile", lambda: webp(icc_profile=b"\xff" * 3000), CLEAN)
    yield Hostile("webp with noise for huffman codes", wide_huffman, EITHER)
    yield Hostile("webp lossless of nothing", lambda: lossless_header(64, 64), CORRUPT)
    yield Hostile("webp lossy of nothing", lambda: lossy_header(64, 64), CORRUPT)
    yield Hostile("webp of no size", lambda: lossy_header(0, 64), CORRUPT)
    yield Hostile("webp riff of 4 GB", lambda: change(webp(), b"RIFF", 4, b"\xff\xff\xff\xff"), EITHER)
    yield Hostile("webp riff of nothing", lambda: change(webp(), b"RIFF", 4, b"\0\0\0\0"), CORRUPT)
    yield Hostile("webp chunk of 4 GB", lambda: change(webp(), b"VP8 ", 4, b"\xff\xff\xff\xff"), CORRUPT)
    yield Hostile("webp of 20 px", lambda: encode(make_photo(20, 20), "WEBP"), SMALL)
