"""Draw the README's moving picture and the strip of core expressions with the shipped bundles.

`.venv/bin/python docs/draw_images.py`: writes docs/images/hero.webp and docs/images/expressions.png.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from model.animator import Animator

ROOT = Path(__file__).parent.parent
IMAGES = ROOT / "docs" / "images"
SIDE_PX = 208
SMALL_PX = 144
CAPTION_PX = 34
PAPER = (250, 247, 242)
INK = (40, 34, 30)
FPS = 24
HERO = (
    ("ada", "smiling"),
    ("chidi", "winks, then laughs"),
    ("anime/yuki", "furious"),
    ("dog/max", "wow, what a surprise!"),
)
SHOWN = ("ada", "chidi", "dalia", "emil", "anime/hana", "anime/ren", "anime/yuki", "dog/bella", "dog/max", "dog/rex")
CORE = ("smiling", "angry", "sad", "surprised", "closing eyes", "winking", "opening mouth", "pouting")


def write_caption(width: int, text: str) -> Image.Image:
    """Return a caption on paper, centred. Shapes: [CAPTION_PX,width]."""
    paper = Image.new("RGB", (width, CAPTION_PX), PAPER)
    font = ImageFont.load_default(size=15)
    draw = ImageDraw.Draw(paper)
    draw.text(((width - draw.textlength(text, font=font)) / 2, 8), text, INK, font)
    return paper


@lru_cache
def open_bundle(domain: str) -> Animator:
    """Return a domain's shipped bundle."""
    return Animator.from_bundle(ROOT / "bundles" / domain, providers=("cpu",), threads=1)


def animator_of(face: str) -> Animator:
    """Return the bundle that a sample belongs to: that of its folder, or human."""
    return open_bundle(face.rpartition("/")[0] or "human")


def read_sample(face: str) -> np.ndarray:
    """Return a sample. Shapes: [H,W,3] uint8."""
    with Image.open(ROOT / "samples" / f"{face}.png") as sample:
        return np.asarray(sample.convert("RGB"))


def film(face: str, prompt: str, frames: int, seed: int = 7) -> list[Image.Image]:
    """Animate a sample and return its frames, SIDE_PX wide."""
    drawn = np.concatenate(list(animator_of(face).animate(read_sample(face), prompt, frames=frames, seed=seed)))
    return [Image.fromarray(frame).resize((SIDE_PX, SIDE_PX), Image.Resampling.LANCZOS) for frame in drawn]


def draw_hero() -> None:
    """Write four faces side by side, each doing its sentence out and going back."""
    gap = 12
    films = [film(face, prompt, frames=2 * FPS) for face, prompt in HERO]
    order = [*range(2 * FPS), *[2 * FPS - 1] * 8, *range(2 * FPS - 2, 0, -2)]
    size = (len(HERO) * SIDE_PX + (len(HERO) - 1) * gap, SIDE_PX + CAPTION_PX)
    pages = []
    for index in order:
        page = Image.new("RGB", size, PAPER)
        for column, (frames, (_, prompt)) in enumerate(zip(films, HERO, strict=True)):
            left = column * (SIDE_PX + gap)
            page.paste(frames[index], (left, 0))
            page.paste(write_caption(SIDE_PX, f"“{prompt}”"), (left, SIDE_PX))
        pages.append(page)
    pages[0].save(
        IMAGES / "hero.webp", save_all=True, append_images=pages[1:], duration=1000 // FPS, loop=0, quality=70, method=4
    )


def draw_expressions() -> None:
    """Write a strip a sample: the still face and its eight core expressions, each at the frame that is judged."""
    rows = []
    for sample in SHOWN:
        animator = animator_of(sample)
        face = animator.invert(read_sample(sample))
        row = [np.concatenate(list(animator.draw(face, animator.move(face, CORE[0], frames=1, seed=0))))[0]]
        for prompt in CORE:
            motion = animator.move(face, prompt, frames=2 * FPS, seed=0)
            row.append(np.concatenate(list(animator.draw(face, motion)))[motion.peak_frame])
        rows.append(np.concatenate(row, axis=1))
    drawn = Image.fromarray(np.concatenate(rows))
    side = SMALL_PX
    strip = drawn.resize(((len(CORE) + 1) * side, len(rows) * side), Image.Resampling.LANCZOS)
    page = Image.new("RGB", (strip.width, strip.height + CAPTION_PX), PAPER)
    page.paste(strip, (0, CAPTION_PX))
    for column, prompt in enumerate(("still", *CORE)):
        page.paste(write_caption(side, prompt), (column * side, 0))
    page.save(IMAGES / "expressions.png", optimize=True)


if __name__ == "__main__":
    draw_expressions()
    draw_hero()
