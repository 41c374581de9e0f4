"""Plots as SVG, written by hand: no plotting library, sharp at every size, a few kB each."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import numpy as np
import numpy.typing as npt

COLOURS = ("#d1495b", "#2e86ab", "#edae49", "#3d7a5a", "#7a5195", "#6c757d", "#bc8f5f", "#5fa8bc", "#9aa05b")
FONT = "font-family='system-ui, sans-serif'"
INK = "#333"
BAR_PX, GAP_PX, LABEL_PX, BARS_PX, TITLE_PX, COLUMNS = 16, 5, 150, 150, 26, 2
PLOT_W, PLOT_H, MARGIN = 560, 260, 44


def colour_of(index: int) -> str:
    """Give the colour of a method by its place."""
    return COLOURS[index % len(COLOURS)]


def text(x: float, y: float, words: str, anchor: str = "start", size: int = 11, weight: str = "normal") -> str:
    """Write words."""
    return (
        f"<text x='{x:.1f}' y='{y:.1f}' text-anchor='{anchor}' font-size='{size}' font-weight='{weight}' "
        f"fill='{INK}' {FONT}>{escape(words)}</text>"
    )


def wrap(width: float, height: float, parts: Sequence[str]) -> str:
    """Put parts on a white page."""
    size = f"viewBox='0 0 {width:.0f} {height:.0f}' width='{width:.0f}' height='{height:.0f}'"
    head = f"<svg xmlns='http://www.w3.org/2000/svg' {size}>"
    return "\n".join([head, "<rect width='100%' height='100%' fill='white'/>", *parts, "</svg>", ""])


def plot_bars(names: Sequence[str], panels: Sequence[tuple[str, Sequence[float], Sequence[float]]]) -> str:
    """Draw one panel of bars a figure, a bar a method with its standard error as a whisker.

    Panels: (title, means, errors); a mean that is no number gets no bar.
    """
    step = BAR_PX + GAP_PX
    panel_w, panel_h = LABEL_PX + BARS_PX + 60, TITLE_PX + step * len(names) + 12
    parts = []
    for p, (title, means, errors) in enumerate(panels):
        left, top = (p % COLUMNS) * panel_w, (p // COLUMNS) * panel_h
        known = [abs(m) + (e if np.isfinite(e) else 0.0) for m, e in zip(means, errors, strict=True) if np.isfinite(m)]
        unit = BARS_PX / max([*known, 1e-9])
        parts.append(text(left + 8, top + 18, title, size=12, weight="bold"))
        for i, (name, mean, error) in enumerate(zip(names, means, errors, strict=True)):
            y = top + TITLE_PX + i * step
            parts.append(text(left + LABEL_PX - 6, y + 12, name, "end"))
            if not np.isfinite(mean):
                parts.append(text(left + LABEL_PX + 4, y + 12, "–"))
                continue
            length = max(mean, 0.0) * unit
            parts.append(
                f"<rect x='{left + LABEL_PX}' y='{y}' width='{length:.1f}' height='{BAR_PX}' fill='{colour_of(i)}'/>"
            )
            reach = length
            if np.isfinite(error):
                low, high = left + LABEL_PX + max(mean - error, 0) * unit, left + LABEL_PX + max(mean + error, 0) * unit
                middle, reach = y + BAR_PX / 2, max(mean + error, 0) * unit
                whisker = f"M{low:.1f} {middle}H{high:.1f}M{low:.1f} {y + 4}v8M{high:.1f} {y + 4}v8"
                parts.append(f"<path d='{whisker}' stroke='{INK}'/>")
            parts.append(text(left + LABEL_PX + reach + 5, y + 12, f"{mean:.3g}"))
    rows = -(-len(panels) // COLUMNS)
    return wrap(panel_w * min(COLUMNS, len(panels)), panel_h * rows + 4, parts)


def plot_lines(title: str, across: str, names: Sequence[str], lines: Sequence[npt.NDArray[np.float64] | None]) -> str:
    """Draw one line a method over the share of the video that has passed, 0 … 1.

    Lines: [T] each; None where a method has none (its colour is kept free).
    """
    drawn = [(i, name, line) for i, (name, line) in enumerate(zip(names, lines, strict=True)) if line is not None]
    values = np.concatenate([line for _, _, line in drawn]) if drawn else np.zeros(1)
    low, high = min(0.0, float(values.min())), max(float(values.max()), 1e-9)
    scale_y = (PLOT_H - 2 * MARGIN) / (high - low)
    base = PLOT_H - MARGIN

    def place(x: float, y: float) -> str:
        return f"{MARGIN + x * (PLOT_W - 2 * MARGIN):.1f} {base - (y - low) * scale_y:.1f}"

    parts = [text(MARGIN, 20, title, size=12, weight="bold"), text(PLOT_W / 2, PLOT_H - 10, across, "middle")]
    for tick in np.linspace(low, high, 5):
        parts.append(f"<path d='M{place(0, tick)}L{place(1, tick)}' stroke='#ddd'/>")
        parts.append(
            text(
                MARGIN - 6, base - (tick - low) * scale_y + 4, f"{tick if abs(tick) > 1e-6 * high else 0.0:.2g}", "end"
            )
        )
    for i, name, line in drawn:
        points = "L".join(place(k / max(len(line) - 1, 1), float(v)) for k, v in enumerate(line))
        parts.append(f"<path d='M{points}' fill='none' stroke='{colour_of(i)}' stroke-width='2'/>")
        y = MARGIN + 16 * [d[0] for d in drawn].index(i)
        parts.append(f"<path d='M{PLOT_W - MARGIN + 12} {y}h18' stroke='{colour_of(i)}' stroke-width='3'/>")
        parts.append(text(PLOT_W - MARGIN + 36, y + 4, name))
    return wrap(PLOT_W + 160, max(PLOT_H, MARGIN + 16 * len(drawn) + 8), parts)
