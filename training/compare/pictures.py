"""Strips of all methods beside each other, and pictures of their flow. Pillow only; labels in its built-in font."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from training.metrics.flow import Flow, colour_flow, draw_wheel

Frames = npt.NDArray[np.uint8]
COLUMNS = 8
CELL_PX = 96
LABEL_PX = 122
GAP_PX = 2
QUALITY = 86


def pick_columns(frames: int) -> list[int]:
    """Give the frames that a strip shows: first and last, evenly between."""
    return [round(k * (frames - 1) / (COLUMNS - 1)) for k in range(COLUMNS)]


def draw_grid(rows: Sequence[tuple[str, Frames]], size_px: int = CELL_PX) -> Image.Image:
    """Draw one labelled row of cells a method.

    Shapes: rows (label, cells [K,H,W,3]); rows may differ in K.
    """
    across = max(len(cells) for _, cells in rows)
    step = size_px + GAP_PX
    sheet = Image.new("RGB", (LABEL_PX + across * step, len(rows) * step), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(12)
    for r, (label, cells) in enumerate(rows):
        lines = break_label(label)
        for line, words in enumerate(lines):
            pen.text((6, r * step + size_px / 2 + 15 * (line - len(lines) / 2)), words, fill="#333", font=font)
        for c, cell in enumerate(cells):
            small = Image.fromarray(cell).resize((size_px, size_px), Image.Resampling.LANCZOS)
            sheet.paste(small, (LABEL_PX + c * step, r * step))
    return sheet


def break_label(label: str) -> list[str]:
    """Break a label into lines that fit the margin."""
    return textwrap.wrap(label, 16)


def draw_flow(rows: Sequence[tuple[str, Flow]]) -> tuple[Image.Image, float]:
    """Paint the flow of every method with one scale and put the colour wheel below → picture, px of full colour.

    The scale suits the first row, which is ours; a louder one is simply of full colour.

    Shapes: rows (label, flow [K,H,W,2]).
    """
    full_px = max(float(np.quantile(np.linalg.norm(rows[0][1], axis=-1), 0.995)), 0.05)
    painted = [(label, colour_flow(flow, full_px)) for label, flow in rows]
    wheel = draw_wheel(CELL_PX)
    return draw_grid([*painted, (f"full colour: {full_px:.2g} px a frame", wheel[None])]), full_px


def save_jpeg(picture: Image.Image, path: Path) -> None:
    """Write a picture small enough for a repository."""
    picture.save(path, quality=QUALITY, optimize=True, progressive=True)
