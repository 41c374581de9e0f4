"""A corpus of hostile and odd pictures, all made here: name, bytes, and what may become of them."""

from __future__ import annotations

from collections.abc import Iterator

from tests.services.api.pictures import (
    encode,
    make_photo,
    metadata_bomb,
    png_bomb,
    png_chunk,
    png_with_header,
    scan_bomb,
)
from tests.services.pictures.liars import lying_jpegs, lying_pngs, lying_webps
from tests.services.pictures.pieces import (
    CLEAN,
    CORRUPT,
    EITHER,
    HTML,
    IEND,
    LARGE,
    OTHER,
    SIGNATURE,
    Hostile,
    after_soi,
    before_data,
    change,
    frame_of,
    idat,
    ihdr,
    jpeg,
    jpeg_segment,
    lossless_header,
    lossy_header,
    png_of,
    profile_bomb,
    swollen_data,
    text_bombs,
    vp8x,
    webp,
    webp_of,
    zipped,
)


def bombs() -> Iterator[Hostile]:
    yield Hostile("png of 20,000 by 20,000", png_bomb, LARGE)
    yield Hostile("png of 2^31 by 2^31", lambda: png_with_header(2**31 - 1, 2**31 - 1), LARGE)
    yield Hostile("png of 2^32 - 1 columns", lambda: png_with_header(2**32 - 1, 32), LARGE)
    yield Hostile("png thin and long", lambda: png_with_header(500_000, 32), LARGE)
    yield Hostile("png interlaced and large", lambda: png_of(ihdr(9000, 9000, 8, 6, 0, 0, 1), idat(), IEND), LARGE)
    yield Hostile("png with 100 MB too many", swollen_data, EITHER)
    yield Hostile("png with a comment of 200 MB", metadata_bomb, EITHER)
    yield Hostile("png with 200 comments of 1 MB", text_bombs, EITHER)
    yield Hostile("png with a profile of 200 MB", profile_bomb, EITHER)
    yield Hostile("jpeg of 65,000 by 65,000", lambda: change(jpeg(), b"\xff\xc0", 5, b"\xfd\xe8\xfd\xe8"), LARGE)
    yield Hostile("jpeg with 600 scans", lambda: scan_bomb(600), CORRUPT)
    yield Hostile("jpeg with 20 MB of markers", lambda: after_soi(b"\xff\xe0\0\2" * 5_000_000), CORRUPT)
    yield Hostile("jpeg with 20 MB of padding", lambda: after_soi(b"\xff" * 20_000_000), CORRUPT)
    yield Hostile("webp canvas of 16,384 by 16,384", lambda: webp_of(vp8x(2**14, 2**14), frame_of(webp())), LARGE)
    yield Hostile("webp lossless of 16,384 by 16,384", lambda: lossless_header(2**14, 2**14), LARGE)
    yield Hostile("webp lossy of 16,383 by 16,383", lambda: lossy_header(16_383, 16_383), LARGE)


def other_formats() -> Iterator[Hostile]:
    for name in ("GIF", "BMP", "TIFF", "PPM", "ICO", "TGA", "JPEG2000", "DDS", "PDF", "EPS", "ICNS", "SGI", "XBM"):
        mode = "1" if name == "XBM" else "RGB"
        yield Hostile(name.lower(), lambda name=name, mode=mode: encode(make_photo().convert(mode), name), OTHER)  # type: ignore[misc]
    for name, data in {
        "svg": b'<svg xmlns="http://www.w3.org/2000/svg" onload="alert(1)" width="64" height="64"/>',
        "svg with an entity": b'<?xml version="1.0"?><!DOCTYPE s [<!ENTITY x SYSTEM "file:///etc/passwd">]><svg>&x;</svg>',
        "imagemagick script": b"push graphic-context\nviewbox 0 0 640 480\nfill 'url(https://127.0.0.1/x.jpg\"|id\")'\n",
        "postscript": b"%!PS-Adobe-3.0\n(%pipe%id) (w) file\n",
        "psd": b"8BPS\0\1" + bytes(6) + b"\0\3\0\0\0\x40\0\0\0\x40\0\x08\0\3" + bytes(20),
        "avif": b"\0\0\0\x1cftypavif\0\0\0\0avifmif1miaf",
        "heic": b"\0\0\0\x18ftypheic\0\0\0\0mif1heic",
        "jpeg xl": b"\xff\x0a\xfa\x1f\x41\x91",
        "flif": b"FLIF31\x3f\x3f" + bytes(60),
        "elf": b"\x7fELF\2\1\1" + bytes(60),
        "riff that is no webp": b"RIFF\x24\0\0\0WAVEfmt " + bytes(24),
        "zip": zipped(),
        "html": HTML,
        "nothing but zeros": bytes(10_000),
    }.items():
        yield Hostile(name, lambda data=data: data, OTHER)  # type: ignore[misc]


def polyglots() -> Iterator[Hostile]:
    yield Hostile("png then html", lambda: encode(make_photo()) + HTML, CLEAN)
    yield Hostile("png with html inside", lambda: before_data(png_chunk(b"tEXt", b"Comment\0" + HTML)), CLEAN)
    yield Hostile("png with a private chunk", lambda: before_data(png_chunk(b"prVt", HTML)), CLEAN)
    yield Hostile("jpeg then zip", lambda: jpeg() + zipped(), CLEAN)
    yield Hostile("jpeg with html inside", lambda: after_soi(jpeg_segment(0xFE, HTML)), CLEAN)
    yield Hostile("jpeg with php inside", lambda: after_soi(jpeg_segment(0xFE, b"<?php system('id'); ?>")), CLEAN)
    yield Hostile("webp then html", lambda: webp() + HTML, CLEAN)
    yield Hostile("webp with html inside", lambda: webp_of(vp8x(96, 128), frame_of(webp()), (b"XHTM", HTML)), CLEAN)
    yield Hostile("gif then png", lambda: encode(make_photo(), "GIF") + encode(make_photo()), OTHER)
    yield Hostile("html then png", lambda: HTML + encode(make_photo()), OTHER)
    yield Hostile("pdf then jpeg", lambda: b"%PDF-1.7\n" + jpeg(), OTHER)
    yield Hostile("a space, then png", lambda: b" " + encode(make_photo()), OTHER)
    yield Hostile("png with a jpeg behind its signature", lambda: SIGNATURE + jpeg(), CORRUPT)
    yield Hostile("jpeg with a png behind its first marker", lambda: b"\xff\xd8\xff" + encode(make_photo()), CORRUPT)
    yield Hostile("webp frame that is a png", lambda: webp_of((b"VP8 ", encode(make_photo()))), CORRUPT)


def cuts() -> Iterator[Hostile]:
    """Cut at every kind of place: in a signature, in a header, behind it, amid data, before the end."""
    for name, make in (("png", lambda: encode(make_photo())), ("jpeg", jpeg), ("webp", webp)):
        for part in (0.0, 0.001, 0.004, 0.02, 0.2, 0.5, 0.9, 0.99):
            codes = CORRUPT | OTHER if part < 0.02 else CORRUPT
            # A decoder may take what lacks nothing but its end for whole.
            codes = codes | CLEAN if part > 0.98 else codes
            yield Hostile(
                f"{name} cut at {part}", lambda make=make, part=part: make()[: int(len(make()) * part)], codes
            )  # type: ignore[misc]


CORPUS = [
    *bombs(),
    *other_formats(),
    *polyglots(),
    *lying_pngs(),
    *lying_jpegs(),
    *lying_webps(),
    *cuts(),
]
