"""What chaos asks the service for, and the ffmpeg that makes some of it slow and some of it deadly.

A film's frame rate says what is to become of its job, because ffmpeg's command line shows it: the service itself knows
nothing of chaos.
"""

from __future__ import annotations

import base64
import io
import random
import shlex
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


class Kind(Enum):
    """What a job is there for."""

    TRIVIAL = "trivial"
    LONG = "long"  # eighty seconds of the same: to be canceled
    SLOW = "slow"  # ffmpeg reads at viewing speed: three seconds to be hit in, at no cost of processor time
    POISON = "poison"  # kills the process that runs the model, every time
    VENOM = "venom"  # kills the worker with everything below it, every time


FPS = {Kind.TRIVIAL: 24, Kind.SLOW: 12, Kind.LONG: 12, Kind.POISON: 13, Kind.VENOM: 11}
FRAMES = {Kind.TRIVIAL: 4, Kind.SLOW: 36, Kind.LONG: 960, Kind.POISON: 4, Kind.VENOM: 4}
DEADLY = frozenset({Kind.POISON, Kind.VENOM})
PROMPTS = ("smiling", "angry", "sad", "winks, then laughs")


@dataclass(frozen=True)
class Order:
    """One job to be: its idempotency key and its body."""

    key: str
    kind: Kind
    body: dict[str, Any]


def make_orders(prefix: str, jobs: int, *, seed: int, webhook: str) -> list[Order]:
    """Return so many orders in a seeded mixture: two of each deadly kind, a sixth slow, the others trivial.

    The deadly ones come early: each needs three crashes, and every crash of a worker costs a lease. A third of all has
    a picture, so that inputs are stored too, and another third wants its end to be told to ``webhook``.
    """
    assert jobs >= 12, "a mixture needs some jobs"
    random_ = random.Random(seed)
    kinds = [Kind.SLOW] * (jobs // 6) + [Kind.TRIVIAL] * (jobs - 4 - jobs // 6)
    random_.shuffle(kinds)
    for place, kind in ((1, Kind.VENOM), (2, Kind.POISON), (jobs // 4, Kind.VENOM), (jobs // 3, Kind.POISON)):
        kinds.insert(place, kind)
    return [
        make_order(f"{prefix}-{index:05d}", kind, random_.randrange(2**31), webhook if index % 3 == 0 else None)
        for index, kind in enumerate(kinds)
    ]


def make_order(key: str, kind: Kind, seed: int, webhook: str | None = None) -> Order:
    """Return one order."""
    random_ = random.Random(seed)
    body: dict[str, Any] = {
        "prompt": random_.choice(PROMPTS),
        "seed": random_.randrange(2**31),
        "frames": FRAMES[kind],
        "fps": FPS[kind],
        "metadata": {"chaos": key},
    }
    if webhook is not None:
        body["webhook"] = {"url": webhook}
    if random_.random() < 1 / 3:
        body["image_base64"] = base64.b64encode(_draw(random_)).decode()
    else:
        body["source"] = "sampled"
    return Order(key, kind, body)


def _draw(random_: random.Random, edge_px: int = 80) -> bytes:
    """Return a picture that no other job has, as PNG."""
    rows, columns = np.mgrid[0:edge_px, 0:edge_px]
    colour = [random_.randrange(1, 9) for _ in range(3)]
    pixels = np.stack([(rows * colour[0] + columns * c) % 256 for c in colour], axis=-1).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return buffer.getvalue()


def write_ffmpeg(folder: Path) -> Path:
    """Write the ffmpeg of chaos and return its path, for the variable that imageio-ffmpeg reads.

    ``$PPID`` is the inference child; the group is the worker's.
    """
    import imageio_ffmpeg

    real = shlex.quote(imageio_ffmpeg.get_ffmpeg_exe())
    path = folder / "ffmpeg-of-chaos"
    path.write_text(
        f"""#!/bin/sh
case " $* " in
*" -framerate {FPS[Kind.POISON]} "*) kill -9 $PPID; exit 1 ;;
*" -framerate {FPS[Kind.VENOM]} "*) kill -9 0 ;;
*" -framerate {FPS[Kind.SLOW]} "*) exec {real} -re "$@" ;;
esac
exec {real} "$@"
"""
    )
    path.chmod(0o755)
    return path
