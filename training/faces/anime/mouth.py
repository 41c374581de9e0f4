"""Mouth, nose, cheeks and beard of an anime face.

Units as in `geometry`.
"""

import skia

from training.faces.anime.geometry import Face
from training.faces.drawing import WHITE, clipped, fill, mix, oval, path, rgb, stroke

INVISIBLE = 0.003
"""An alpha below one step of eight bits: leaving such a stroke out changes no pixel."""


def draw_nose(canvas: skia.Canvas, face: Face) -> None:
    """Draw the nose: a small crisp shadow beside the tip and a dot of a line under it."""
    x, y, params, colors = face.nose_x, face.nose_y, face.params, face.colors
    lean = -params["light"]
    width = 6.0 + 3.2 * params["nose_w"] - 0.8 * face.fem
    bridge = y - 13 - 3 * params["nose_len"]
    shadow = path(
        ("M", x + lean * 1.5, bridge),
        ("L", x + width * (0.35 + 0.65 * lean), y + 1),
        ("Q", x, y + 4, x - width * (0.35 - 0.65 * lean), y + 1),
        ("Z",),
    )
    fill(canvas, shadow, mix(colors.skin_shade, colors.skin_line, 0.12))
    tip = path(("M", x - width * 0.6, y + 1.5), ("Q", x, y + 4.0, x + width * 0.6, y + 1.5))
    stroke(canvas, tip, colors.skin_line, 2.8, 0.9)


def draw_cheeks(canvas: skia.Canvas, face: Face) -> None:
    """Draw blush (ovals with slanted lines) and the crisp folds of puffed cheeks."""
    colors, pout = face.colors, face.pout
    y = face.eye_y + 33 - 2 * face.smile + 2 * pout
    with clipped(canvas, face.head()):
        for side in (-1, 1):
            draw_blush(canvas, face, face.features_x + side * (face.eye_gap + 9 + 3 * pout), y)
    if pout <= INVISIBLE:
        return
    for side in (-1, 1):
        puff_x, puff_y = face.mouth.x + side * 39, face.mouth.y - 5
        fill(canvas, oval(puff_x, puff_y, 16, 13), colors.blush, 0.42 * pout)
        fill(canvas, oval(puff_x + 5, puff_y - 5, 4.5, 3.4), WHITE, 0.9 * pout)
        fold = path(
            ("M", puff_x - side * 15, puff_y - 4),
            ("Q", puff_x - side * 20, puff_y + 5, puff_x - side * 13, puff_y + 12),
        )
        stroke(canvas, fold, colors.skin_line, 3.0, 0.5 * pout)


def draw_blush(canvas: skia.Canvas, face: Face, x: float, y: float) -> None:
    """Draw one cheek's blush; the lines come up later than the oval."""
    colors, blush = face.colors, face.params["blush"]
    fill(canvas, oval(x, y, 17, 9.5), colors.blush, 0.04 + 0.56 * blush)
    for k in (-1, 0, 1):
        line = path(("M", x + k * 8 + 2.5, y - 5), ("L", x + k * 8 - 2.5, y + 5))
        stroke(canvas, line, colors.blush * rgb(0.86, 0.45, 0.5), 2.8, 0.85 * blush**1.5)


def draw_mouth(canvas: skia.Canvas, face: Face) -> None:
    """Draw the mouth: a line that opens into teeth and tongue, a lower lip, and the pucker of a pout."""
    mouth, colors, pout, params = face.mouth, face.colors, face.pout, face.params
    opening = min(params["mouth_open"], 1.0)
    x, width, corner = mouth.x, mouth.half_width, mouth.corner_y
    round_up, round_low = width * (0.45 + 0.40 * opening), width * (0.50 + 0.62 * opening)
    upper = (4 * mouth.upper_y - corner) / 3
    lower = (4 * mouth.lower_y - corner) / 3
    top_edge = ("C", x - round_up, upper, x + round_up, upper, x + width, corner)
    low_edge = ("C", x + round_low, lower, x - round_low, lower, x - width, corner)
    full = 0.5 + 0.30 * params["lip_full"] + 0.2 * face.fem
    draw_lips(canvas, face, full)
    hole = path(("M", x - width, corner), top_edge, low_edge, ("Z",))
    fill(canvas, hole, rgb(0.48, 0.09, 0.14))
    with clipped(canvas, hole):
        tongue_y = mouth.lower_y + 3 + 3 * (1 - opening)
        fill(canvas, oval(x, tongue_y, width * 0.74, 4 + 11 * opening), rgb(0.96, 0.46, 0.50))
        teeth = path(
            ("M", x - width - 2, corner - 20),
            ("L", x + width + 2, corner - 20),
            ("L", x + width + 2, corner + 1),
            ("C", x + round_up, upper + 9.5, x - round_up, upper + 9.5, x - width - 2, corner + 1),
            ("Z",),
        )
        fill(canvas, teeth, rgb(1.0, 0.99, 0.98))
    line = mix(colors.skin_line, rgb(0.45, 0.08, 0.14), 0.35)
    stroke(canvas, hole, line, 3.4)
    for side in (-1, 1):
        end = x + side * width
        tick = path(
            ("M", end - side * 1.5, corner + 1.5), ("Q", end + side * 2, corner - 0.5, end + side * 3, corner - 4.5)
        )
        stroke(canvas, tick, line, 2.8, 0.9 * face.smile * (1 - pout))


def draw_lips(canvas: skia.Canvas, face: Face, full: float) -> None:
    """Draw the lower lip's tint and shadow; pouting turns it into two small, full lips."""
    mouth, colors, pout = face.mouth, face.colors, face.pout
    x, low, opening = mouth.x, mouth.lower_y, min(face.params["mouth_open"], 1.0)
    lip_width = mouth.half_width * (0.42 + 0.10 * full) + 5.0 * pout
    lip = oval(x, low + 1.2 + 0.8 * full + 2.2 * pout, lip_width, 1.4 + 4.2 * full + 5.5 * pout)
    fill(canvas, lip, colors.lips, 0.25 + 0.40 * full + 0.45 * pout)
    top = oval(x, mouth.upper_y - 2.2 * pout, lip_width * 0.92, 1.0 + 2.0 * full + 6.0 * pout)
    fill(canvas, top, colors.lips, min(0.15 + 0.30 * full * face.fem + 0.75 * pout, 1.0))
    shade_y = low + 8.5 + 3.2 * full + 4.0 * pout
    shade = path(("M", x - lip_width * 0.6, shade_y), ("Q", x, shade_y + 3.0, x + lip_width * 0.6, shade_y))
    stroke(canvas, shade, mix(colors.skin_shade, colors.skin_line, 0.3), 2.8, 0.8 * (1 - opening) ** 2)


def draw_beard(canvas: skia.Canvas, face: Face) -> None:
    """Draw a goatee of light strokes (stubble), a crisp chin beard (full) or a thin moustache.

    The beards follow the chin and keep clear of the mouth.
    """
    kind, colors, mouth = face.params["beard"], face.colors, face.mouth
    if kind == "none":
        return
    x, chin = face.x + (mouth.x - face.x) * 0.5, face.chin
    hair, line = mix(colors.hair, colors.hair_line, 0.25), colors.hair_line
    if kind in ("full", "stubble"):
        reach, high = face.jaw * 0.98, chin - 44
        inner = mouth.lower_y + 10
        region = path(
            ("M", x - reach - 36, high - 40),
            ("C", x - reach * 0.80, high + 8, x - reach * 0.62, high + 16, x - 17, inner + 2),
            ("Q", x, inner - 3, x + 17, inner + 2),
            ("C", x + reach * 0.62, high + 16, x + reach * 0.80, high + 8, x + reach + 36, high - 40),
            ("L", x + reach + 44, chin + 20),
            ("L", x - reach - 44, chin + 20),
            ("Z",),
        )
        with clipped(canvas, face.head()):
            if kind == "stubble":
                fill(canvas, region, mix(colors.hair_line, colors.skin_shade, 0.35), 0.42)
            else:
                fill(canvas, region, hair)
                stroke(canvas, region, line, 3.0)
    if kind in ("full", "moustache"):
        root = mouth.upper_y - 11.5
        for side in (-1, 1):  # two wings with a gap, curled up at the ends: nothing that could be taken for a mouth
            wing = path(
                ("M", mouth.x + side * 3.0, root - 1.5),
                (
                    *("C", mouth.x + side * 10, root - 1, mouth.x + side * 17, root + 9),
                    *(mouth.x + side * 31, root - 1 - 3 * face.params["mouth_curve"]),
                ),
                ("C", mouth.x + side * 22, root + 13, mouth.x + side * 6, root + 10, mouth.x + side * 2.6, root + 4),
                ("Z",),
            )
            fill(canvas, wing, hair)
            stroke(canvas, wing, line, 2.2)
