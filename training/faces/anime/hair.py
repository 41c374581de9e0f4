"""Hair of an anime face: eight bold styles with crisp two-tone shadows and a band of shine.

Units as in `geometry`; points of a hairline stand at (share of the head's half width, height from the temples).
"""

import math

import skia

from training.faces.anime.geometry import Face
from training.faces.drawing import Command, clipped, fill, oval, path, stroke

Point = tuple[float, float]

HAIRLINES: dict[str, tuple[Point, ...]] = {
    "short": (
        *((1.0, 15), (0.90, -35), (0.74, -32), (0.56, -66), (0.36, -38), (0.18, -68), (-0.06, -36)),
        *((-0.24, -68), (-0.48, -38), (-0.62, -64), (-0.78, -32), (-0.90, -35), (-1.0, 15)),
    ),
    "sidepart": (
        *((1.0, 21), (0.92, -25), (0.84, -18), (0.64, -48), (0.46, -38), (0.24, -62), (0.06, -48)),
        *((-0.36, -78), (-0.66, -38), (-0.76, -54), (-0.86, -9), (-0.92, -25), (-1.0, 21)),
    ),
    "long": (
        *((1.02, 59), (0.88, -25), (0.78, -20), (0.58, -56), (0.38, -40), (0.06, -78)),
        *((-0.06, -78), (-0.38, -40), (-0.58, -56), (-0.78, -20), (-0.88, -25), (-1.02, 59)),
    ),
    "bun": (
        *((0.98, 45), (0.88, -29), (0.76, -28), (0.54, -60), (0.32, -40), (0.16, -66), (0.0, -36)),
        *((-0.16, -66), (-0.32, -40), (-0.54, -60), (-0.76, -28), (-0.88, -29), (-0.98, 45)),
    ),
    "bob": (
        *((1.02, 67), (0.86, -21), (0.70, -34), (0.52, -52), (0.30, -37), (0.14, -56), (0.02, -34)),
        *((-0.12, -56), (-0.28, -37), (-0.52, -52), (-0.70, -34), (-0.86, -21), (-1.02, 67)),
    ),
}
"""Tips and gaps of each fringe from the right temple to the left: the first and every second point is a tip."""


def hang(points: tuple[Point, ...], face: Face, x: float) -> list[Command]:
    """Join the tips and gaps of a fringe: locks are full at the root and pointed below."""
    placed = [(x + share * face.half_width, face.y + height) for share, height in points]
    commands: list[Command] = [("L", *placed[0])]
    for i in range(1, len(placed)):
        (tip_x, tip_y), (gap_x, gap_y) = (placed[i - 1], placed[i]) if i % 2 else (placed[i], placed[i - 1])
        commands.append(("Q", gap_x + 0.12 * (tip_x - gap_x), gap_y + 0.62 * (tip_y - gap_y), *placed[i]))
    return commands


def outline_hairline(face: Face, x: float) -> list[Command]:
    """Give the lower edge of the hair from the right temple to the left."""
    style, width, y = face.params["hair"], face.half_width, face.y
    if style == "fringe":  # cut straight, with long straight locks at the sides
        commands: list[Command] = [("L", x + width * 1.05, y + 76), ("L", x + width * 0.82, y + 76)]
        commands += [("Q", x + width * 0.88, y + 20, x + width * 0.80, y - 34)]
        for right, left in ((0.80, 0.42), (0.42, 0.0), (0.0, -0.42), (-0.42, -0.80)):
            dip = 2 - 4 * abs(right + left) / 2
            commands += [
                ("Q", x + width * (right + left) / 2, y - 32 + dip, x + width * left, y - 38),
                ("L", x + width * (left + 0.02), y - 44),
            ]
        commands += [("L", x - width * 0.80, y - 34), ("Q", x - width * 0.88, y + 20, x - width * 0.82, y + 76)]
        return [*commands, ("L", x - width * 1.05, y + 76)]
    if style == "bald":
        return [
            ("L", x + width - 2, y + 6),
            ("L", x + width * 0.86, y - 22),
            ("C", x + width * 0.80, y - 46, x + width * 0.5, y - 52, x, y - 48),
            ("C", x - width * 0.5, y - 52, x - width * 0.80, y - 46, x - width * 0.86, y - 22),
            ("L", x - width + 2, y + 6),
        ]
    if style == "curly":
        return curl(face, x)
    return hang(HAIRLINES[style], face, x)


def curl(face: Face, x: float) -> list[Command]:
    """Give a fringe of round curls."""
    width, y = face.half_width, face.y
    shares = (1.02, 0.90, 0.60, 0.24, -0.12, -0.48, -0.84, -1.02)
    heights = (38.0, -24.0, -48.0, -55.0, -55.0, -48.0, -24.0, 38.0)
    commands: list[Command] = [("L", x + shares[0] * width, y + heights[0])]
    for i in range(1, len(shares)):
        middle = (shares[i - 1] + shares[i]) / 2
        low = (heights[i - 1] + heights[i]) / 2 + 20
        commands.append(("Q", x + middle * width * 0.98, y + low, x + shares[i] * width, y + heights[i]))
    return commands


def outline_crown(face: Face, x: float) -> list[Command]:
    """Give the upper edge of the hair from the left temple to the right: spiky, curly or smooth."""
    style, volume, y = face.params["hair"], face.hair_volume, face.y
    outer = face.half_width + 4 + 0.7 * volume
    top = face.top - 2 - volume
    if style == "bald":
        outer, top = face.half_width + 1 + 0.12 * volume, face.top - 1 - 0.25 * volume
    if style not in ("short", "curly"):
        return [
            ("M", x - outer, y + 4),
            ("C", x - outer - 3, y - 52, x - outer * 0.62, top, x, top),
            ("C", x + outer * 0.62, top, x + outer + 3, y - 52, x + outer, y + 4),
        ]
    count = 9 if style == "short" else 10
    commands: list[Command] = [("M", x - outer, y + 10)]
    middle_y = y - 6
    height = middle_y - top - 4
    for i in range(count):
        start, end = math.pi * i / count, math.pi * (i + 1) / count
        if style == "short":  # tips lean to one side
            angle = start + (end - start) * 0.30
            reach = 1.13 + 0.014 * volume
        else:
            angle, reach = (start + end) / 2, 1.17 + 0.014 * volume
        tip = (x - outer * reach * math.cos(angle), middle_y - height * reach * math.sin(angle))
        gap = (x - outer * math.cos(end) * 0.99, middle_y - height * math.sin(end) * 0.97)
        commands += [("L", *tip), ("L", *gap)] if style == "short" else [("Q", *tip, *gap)]
    return [*commands, ("L", x + outer, y + 10)]


def paint(canvas: skia.Canvas, shape: skia.Path, face: Face, drop: float = 6.0, back: bool = False) -> None:
    """Fill a piece of hair in two tones, the shadow lying below and away from the light, and outline it."""
    colors = face.colors
    fill(canvas, shape, colors.hair_shade * 0.78 if back else colors.hair_shade)
    with clipped(canvas, shape):
        canvas.translate(0.9 * face.light_x, -drop)
        fill(canvas, shape, colors.hair_shade if back else colors.hair)
    stroke(canvas, shape, colors.hair_line, 3.2)


def draw_back(canvas: skia.Canvas, face: Face) -> None:
    """Draw the hair behind head and neck."""
    style, x, y, volume = face.params["hair"], face.hair_x, face.y, face.hair_volume
    outer, top = face.half_width + 6 + volume, face.top - volume
    if style in ("long", "fringe"):
        flare = 14 if style == "long" else 2
        shape = path(
            ("M", x, top),
            ("C", x + outer * 0.7, top, x + outer, y - 50, x + outer, y),
            ("C", x + outer + flare, y + 50, x + outer - 4 + flare, y + 80, x + outer + flare + 4, 270),
            ("L", x - outer - flare - 4, 270),
            ("C", x - outer + 4 - flare, y + 80, x - outer - flare, y + 50, x - outer, y),
            ("C", x - outer, y - 50, x - outer * 0.7, top, x, top),
            ("Z",),
        )
        paint(canvas, shape, face, back=True)
    elif style == "bob":
        low = y + 92
        shape = path(
            ("M", x, top),
            ("C", x + outer * 0.7, top, x + outer, y - 50, x + outer + 2, y),
            ("C", x + outer + 8, y + 44, x + outer + 2, low - 16, x + outer - 22, low + 8),
            ("Q", x, low + 2, x - outer + 22, low + 8),
            ("C", x - outer - 2, low - 16, x - outer - 8, y + 44, x - outer - 2, y),
            ("C", x - outer, y - 50, x - outer * 0.7, top, x, top),
            ("Z",),
        )
        paint(canvas, shape, face, back=True)
    elif style == "curly":
        shape = skia.Path()
        for i in range(12):
            angle = math.pi * (-0.32 + 1.64 * i / 11)
            center_x, center_y = x - math.cos(angle) * (outer + 2), y + 6 - math.sin(angle) * 88
            shape.addCircle(center_x, center_y, 17 + 0.7 * volume)
        shape.addOval(skia.Rect(x - outer, top, x + outer, y + 80))
        shape.setFillType(skia.PathFillType.kWinding)
        stroke(canvas, shape, face.colors.hair_line, 6)
        fill(canvas, shape, face.colors.hair_shade)
    elif style == "bun":
        radius = 27 + 0.9 * volume
        for side in (-1, 1):
            bun = oval(x + side * 62 - 3 * face.yaw, face.top + 2, radius, radius)
            paint(canvas, bun, face, drop=8)
            middle = x + side * 62
            swirl = path(("M", middle - 12, face.top + 6), ("Q", middle, face.top - 14, middle + 13, face.top + 2))
            stroke(canvas, swirl, face.colors.hair_line, 3, 0.7)


def draw_locks(canvas: skia.Canvas, face: Face) -> None:
    """Draw long hair's two pointed locks over the shoulders."""
    if face.params["hair"] != "long":
        return
    for side in (-1, 1):
        x = face.hair_x + side * (face.half_width + face.hair_volume * 0.8)
        lock = path(
            ("M", x - side * 12, 170),
            ("C", x + side * 12, 190, x + side * 10, 220, x + side * 2, 262),
            ("L", x - side * 26, 262),
            ("C", x - side * 14, 226, x - side * 18, 200, x - side * 12, 170),
            ("Z",),
        )
        paint(canvas, lock, face, drop=0)


def draw_front(canvas: skia.Canvas, face: Face) -> None:
    """Draw the hair on the head: its crisp shadow on the skin, two tones, shine and strands."""
    colors, x = face.colors, face.x - 1.0 * face.yaw
    cap = path(*outline_crown(face, x), *outline_hairline(face, x), ("Z",))
    with clipped(canvas, face.head()):
        canvas.translate(-0.4 * face.light_x, 8)
        fill(canvas, cap, colors.skin_shade)
    if face.params["hair"] in ("sidepart", "bob"):
        draw_cowlick(canvas, face, x)
    paint(canvas, cap, face, drop=5 if face.params["hair"] != "bald" else 2)
    with clipped(canvas, cap):
        draw_shine(canvas, face, x)
        draw_strands(canvas, face, x)


def draw_shine(canvas: skia.Canvas, face: Face, x: float) -> None:
    """Draw the zigzag band of light around the crown."""
    reach, y = face.half_width * 0.80, face.y - 69
    middle, teeth = x + 0.9 * face.light_x, 6
    commands: list[Command] = [("M", middle - reach, y + 16), ("Q", middle, y - 26, middle + reach, y + 16)]
    for i in range(teeth * 2 + 1):
        share = 1 - 2 * i / (teeth * 2)
        arc = -10 + 26 * share * share
        commands.append(("L", middle + share * reach, y + arc + (18 if i % 2 else 7) * (1 - share * share)))
    fill(canvas, path(*commands, ("Z",)), face.colors.hair_light)


def draw_strands(canvas: skia.Canvas, face: Face, x: float) -> None:
    """Draw a few lines from the crown into the gaps of the fringe."""
    points = HAIRLINES.get(face.params["hair"], ())
    for share, height in points[1::2]:
        end_x, end_y = x + share * face.half_width, face.y + height
        start_x = x + share * face.half_width * 0.72
        strand = path(("M", end_x, end_y), ("Q", start_x, end_y - 10, start_x, end_y - 24))
        stroke(canvas, strand, face.colors.hair_line, 2.6, 0.8)


def draw_cowlick(canvas: skia.Canvas, face: Face, x: float) -> None:
    """Draw the one unruly lock that stands up from the crown."""
    root, volume = face.top - face.hair_volume + 6, face.hair_volume
    lock = path(
        ("M", x - 10, root),
        ("C", x - 8, root - 12 - volume, x + 12, root - 20 - volume, x + 30, root - 8 - volume),
        ("C", x + 16, root - 10, x + 10, root - 4, x + 8, root + 2),
        ("Z",),
    )
    fill(canvas, lock, face.colors.hair)
    stroke(canvas, lock, face.colors.hair_line, 3.2)
