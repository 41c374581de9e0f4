"""A real ffmpeg that takes frames no faster than a viewer would: a job lasts as long as its film on any machine."""

from __future__ import annotations

import shlex
from pathlib import Path

# What imageio-ffmpeg reads: the binary to run in place of its own.
FFMPEG_VARIABLE = "IMAGEIO_FFMPEG_EXE"


def pace_ffmpeg(folder: Path) -> Path:
    """Write a program that is ffmpeg with ``-re`` (read the first input at its own frame rate) and return its path.

    Drawing waits for the encoder, so a film of 960 frames at 24 a second takes 40 s where the processor would need
    one: tests that interrupt a running job find it running.
    """
    import imageio_ffmpeg

    path = folder / "ffmpeg-at-viewing-speed"
    path.write_text(f'#!/bin/sh\nexec {shlex.quote(imageio_ffmpeg.get_ffmpeg_exe())} -re "$@"\n')
    path.chmod(0o755)
    return path
