"""Video files read again: their frames, and what a decoder says of them. For strips, tests and benchmarks."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from worker.video import Frames, ffmpeg_binary

PICTURES = {".gif", ".webp", ".apng"}


@dataclass(frozen=True)
class Probe:
    """What a decoder says about a file."""

    width: int
    height: int
    frames: int
    fps: float
    words: str


def probe(path: Path) -> Probe:
    """Decode a whole file and return its size, number of frames and frame rate.

    Animated pictures are read by Pillow.
    """
    if path.suffix in PICTURES:
        with Image.open(path) as picture:
            frames = int(getattr(picture, "n_frames", 1))
            duration_ms = 0.0
            for index in range(frames):
                picture.seek(index)
                picture.load()
                duration_ms += float(picture.info.get("duration", 0))
            looped = picture.info.get("loop")
            fps = 1000.0 * frames / duration_ms if duration_ms else 0.0
            return Probe(picture.width, picture.height, frames, fps, f"{picture.format} loop={looped}")
    command = [ffmpeg_binary(), "-nostdin", "-hide_banner", "-i", f"file:{path}", "-map", "0:v:0", "-f", "null", "-"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120, stdin=subprocess.DEVNULL)
    size = re.search(r"Video: .*?(\d{2,5})x(\d{2,5})", shown.stderr)
    rate = re.search(r"Video: .*?([\d.]+) fps", shown.stderr)
    count = re.findall(r"frame=\s*(\d+)", shown.stderr)
    assert size is not None
    assert rate is not None
    return Probe(int(size[1]), int(size[2]), int(count[-1]), float(rate[1]), shown.stderr)


def read_frames(path: Path) -> Iterator[Frames]:
    """Decode a file that ``VideoWriter`` wrote, frame by frame.

    Shapes: yields uint8 [H, W, 3], RGB.
    """
    if path.suffix in PICTURES:
        with Image.open(path) as picture:
            for index in range(int(getattr(picture, "n_frames", 1))):
                picture.seek(index)
                yield np.asarray(picture.convert("RGB"))
        return
    facts = probe(path)
    command = [
        ffmpeg_binary(),
        "-nostdin",
        "-loglevel",
        "error",
        "-i",
        f"file:{path}",
        "-map",
        "0:v:0",
        "-fps_mode",
        "passthrough",
    ]
    command += ["-f", "rawvideo", "-pix_fmt", "rgb24", "pipe:1"]
    frame_bytes = facts.width * facts.height * 3
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        while len(data := process.stdout.read(frame_bytes)) == frame_bytes:
            yield np.frombuffer(data, np.uint8).reshape(facts.height, facts.width, 3)
