"""Draws what a bundle does, through its own ONNX graphs: `python -m training.strips --bundle bundles/human --out
docs/human.png`.

One row a sample face: the picture, its inversion, then each core expression at its judged frame; the last row follows
one motion through time. For eyes, not for gates.
"""

import argparse
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from model.animator import Animator
from training.faces.expressions import GATE_NAMES

FRAMES = 25
TIMELINE = ("smiling", "winking")


def read_picture(path: Path) -> npt.NDArray[np.uint8]:
    """Read a picture as RGB: [H,W,3] uint8."""
    return np.asarray(Image.open(path).convert("RGB"))


def shrink(picture: npt.NDArray[np.uint8], size_px: int) -> npt.NDArray[np.uint8]:
    """Shrink a picture to a square: [size_px,size_px,3]."""
    return np.asarray(Image.fromarray(picture).resize((size_px, size_px), Image.Resampling.BOX))


def draw_sheet(animator: Animator, samples: list[Path]) -> npt.NDArray[np.uint8]:
    """Draw the sheet.

    Shapes: returns [rows·R, (2 + expressions)·R, 3] uint8.
    """
    size = animator.manifest.resolution
    rows = []
    for path in samples:
        picture = read_picture(path)
        face = animator.invert(picture)
        cells = [shrink(picture, size)]
        for prompt in GATE_NAMES:
            motion = animator.move(face, prompt, frames=FRAMES, seed=1)
            video = np.concatenate(list(animator.draw(face, motion)))
            if len(cells) == 1:
                cells.append(video[0])
            cells.append(video[motion.peak_frame])
        rows.append(np.concatenate(cells, 1))
    face = animator.invert(read_picture(samples[0]))
    columns = len(GATE_NAMES) + 2
    for prompt in TIMELINE:
        motion = animator.move(face, prompt, frames=columns, seed=1)
        rows.append(np.concatenate(list(np.concatenate(list(animator.draw(face, motion)))), 1))
    return np.concatenate(rows)


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bundle", type=Path, default=Path("bundles/human"))
    parser.add_argument("--samples", type=Path, default=Path("samples"))
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    animator = Animator.from_bundle(options.bundle, providers=("cpu",), threads=1)
    sheet = draw_sheet(animator, sorted(options.samples.glob("*.png")))
    Image.fromarray(sheet).save(options.out, optimize=True)


if __name__ == "__main__":
    main()
