"""Hair of a human face: what hangs behind the head, the cap in front of it, and the beard.

Units as in `geometry`.
"""

import math

import skia

from training.faces.drawing import Command, clipped, fill, linear, oval, path, radial, stroke
from training.faces.geometry import Face


def outline_curls(x: float, y: float, radius_x: float, radius_y: float, count: int = 15) -> skia.Path:
    """Outline a ring of curls around an ellipse."""
    shape = skia.Path()
    radius = 15 if radius_x > 64 else 13
    for i in range(count):
        angle = 2 * math.pi * i / count
        shape.addCircle(x + math.cos(angle) * (radius_x - 8), y + math.sin(angle) * (radius_y - 8), radius)
    shape.addOval(skia.Rect(x - radius_x + 4, y - radius_y + 4, x + radius_x - 4, y + radius_y - 4))
    shape.setFillType(skia.PathFillType.kWinding)
    return shape


def draw_back(canvas: skia.Canvas, face: Face) -> None:
    """Draw the hair behind head and neck."""
    style, colors = face.params["hair"], face.colors
    x, y, volume = face.hair_x, face.y, face.hair_volume
    if style in ("long", "bob"):
        low = 236 if style == "long" else 186
        width = face.half_width + volume + (6 if style == "long" else 9)
        crown = y - face.top - volume
        shape = path(
            ("M", x, crown),
            ("C", x + width * 0.8, crown, x + width, y - 40, x + width, y),
            ("C", x + width + 3, y + 40, x + width + 6, low - 24, x + width - 4, low),
            ("Q", x, low + 13, x - width + 4, low),
            ("C", x - width - 6, low - 24, x - width - 3, y + 40, x - width, y),
            ("C", x - width, y - 40, x - width * 0.8, crown, x, crown),
            ("Z",),
        )
        shader = linear((0, y - 60), (0, low), colors.hair * 0.8, colors.hair_dark * 0.8)
        fill(canvas, shape, colors.hair_dark, shader=shader)
    elif style == "curly":
        shader = radial((x + face.light_x * 0.4, y - 60), 120, [colors.hair * 0.95, colors.hair_dark * 0.85])
        curls = outline_curls(x, y - 14, face.half_width + 17 + volume, 74 + volume)
        fill(canvas, curls, colors.hair_dark, shader=shader)
    elif style == "bun":
        bun_y = y - face.top - 12
        shader = radial((x - 6, bun_y - 8), 36, [colors.hair_light, colors.hair_dark])
        bun = oval(x - 3 * face.yaw, bun_y, 25 + volume * 0.5, 22 + volume * 0.5)
        fill(canvas, bun, colors.hair_dark, shader=shader)


def draw_locks(canvas: skia.Canvas, face: Face) -> None:
    """Draw long hair's two locks over the shoulders."""
    if face.params["hair"] != "long":
        return
    for side in (-1, 1):
        x = face.hair_x + side * (face.half_width + face.hair_volume)
        lock = path(
            ("M", x - side * 22, 150),
            ("C", x + side * 10, 165, x + side * 9, 215, x + side * 4, 246),
            ("Q", x - side * 14, 252, x - side * 26, 238),
            ("C", x - side * 16, 205, x - side * 14, 180, x - side * 22, 150),
            ("Z",),
        )
        shader = linear((x, 150), (x, 245), face.colors.hair_dark, face.colors.hair)
        fill(canvas, lock, face.colors.hair, shader=shader)


def outline_hairline(face: Face, x: float, outer: float) -> list[Command] | None:
    """Give the inner hairline from the right temple to the left, None for hair that is not a cap."""
    style = face.params["hair"]
    y, width, middle, crown = face.y, face.half_width, face.features_x, face.y - face.top
    if style == "short":
        return [
            ("L", x + width - 4, y + 2),
            ("C", x + width - 2, y - 22, x + width - 14, y - 36, middle + 26, y - 41),
            ("Q", middle, y - 47, middle - 26, y - 41),
            ("C", x - width + 14, y - 36, x - width + 2, y - 22, x - width + 4, y + 2),
        ]
    if style == "sidepart":
        return [
            ("L", x + width - 3, y + 4),
            ("C", x + width - 6, y - 18, middle + 32, y - 26, middle + 2, y - 38),
            ("C", middle - 14, y - 44, middle - 22, y - 50, middle - 26, y - 56),
            ("C", middle - 32, y - 38, x - width + 6, y - 30, x - width + 3, y + 4),
        ]
    if style in ("fringe", "bob"):
        return [
            ("L", x + width - 2, y + 14),
            ("C", x + width - 10, y - 2, x + width - 14, y - 14, middle + 36, y - 22),
            ("Q", middle + 24, y - 31, middle + 12, y - 25),
            ("Q", middle + 2, y - 33, middle - 10, y - 25),
            ("Q", middle - 22, y - 32, middle - 36, y - 22),
            ("C", x - width + 14, y - 14, x - width + 10, y - 2, x - width + 2, y + 14),
        ]
    if style == "long":
        return [
            ("L", x + outer - 1, y + 50),
            ("C", x + width - 12, y + 20, x + width - 6, y - 22, middle + 6, crown + 16),
            ("L", middle - 2, crown + 16),
            ("C", x - width + 6, y - 22, x - width + 12, y + 20, x - outer + 1, y + 50),
        ]
    if style == "bun":
        return [
            ("L", x + width - 2, y + 4),
            ("C", x + width - 6, y - 28, middle + 34, y - 44, middle, y - 49),
            ("C", middle - 34, y - 44, x - width + 6, y - 28, x - width + 2, y + 4),
        ]
    return None


def draw_front(canvas: skia.Canvas, face: Face) -> None:
    """Draw the hair on the head, with its shadow on the forehead, a gloss and strands."""
    style, colors, volume = face.params["hair"], face.colors, face.hair_volume
    crown, x, y = face.y - face.top, face.x - 1.5 * face.yaw, face.y
    if style == "curly":
        shader = radial((x + face.light_x * 0.5, crown - 14), 80, [colors.hair_light, colors.hair])
        curls = outline_curls(x, crown + 10, face.half_width - 4, 19 + volume, count=11)
        fill(canvas, curls, colors.hair, shader=shader)
    outer = face.half_width + 3 + volume * 0.55
    hairline = outline_hairline(face, x, outer)
    if hairline is None:
        return
    top = crown - volume
    cap = path(
        ("M", x - outer, y + 2),
        ("C", x - outer - 4, y - 52, x - outer * 0.66, top, x, top),
        ("C", x + outer * 0.66, top, x + outer + 4, y - 52, x + outer, y + 2),
        *hairline,
        ("Z",),
    )
    with clipped(canvas, face.head()):
        canvas.translate(0, 5)
        fill(canvas, cap, colors.shade * 0.8, 0.38, blur=4)
    gloss = linear((x + face.light_x - 40, top), (x + 30, y - 10), colors.hair_light, colors.hair)
    fill(canvas, cap, colors.hair, shader=gloss)
    with clipped(canvas, cap):
        shine = path(
            ("M", x - outer * 0.62, crown + 26),
            ("C", x - outer * 0.4, crown + 8, x + outer * 0.1, crown + 4, x + outer * 0.42, crown + 14),
        )
        stroke(canvas, shine, colors.hair_light, 7, 0.42, blur=3)
        if style in ("sidepart", "long"):
            root = face.features_x + (-26 if style == "sidepart" else 2)
            width = face.half_width
            for k in (1, 2, 3):
                strand = path(
                    ("M", root, crown + 4),
                    (
                        *("C", root + 14 * k, crown + 10),
                        *(x + width * (0.5 + 0.14 * k), y - 46, x + width * (0.72 + 0.1 * k), y - 18),
                    ),
                )
                stroke(canvas, strand, colors.hair_dark, 1.5, 0.30)


def outline_beard(face: Face) -> skia.Path:
    """Outline the hairy region: sideburns, along the cheeks to the corners of the mouth, a free field around the
    lips."""
    mouth, middle, y = face.mouth, face.features_x, face.features_y
    left, right = face.x - face.half_width - 8, face.x + face.half_width + 8
    reach = mouth.half_width + 9
    lip_y = mouth.upper_y - mouth.upper_lip
    shape = path(
        ("M", left, y + 4),
        ("L", face.x - face.half_width + 3, y + 4),
        ("C", left + 17, y + 30, middle - reach - 12, lip_y - 2, mouth.x - reach, lip_y - 1),
        ("Q", mouth.x, lip_y - 6, mouth.x + reach, lip_y - 1),
        ("C", middle + reach + 12, lip_y - 2, right - 17, y + 30, face.x + face.half_width - 3, y + 4),
        ("L", right, y + 4),
        ("L", right, face.y + 120),
        ("L", left, face.y + 120),
        ("Z",),
    )
    low = mouth.lower_y + mouth.lower_lip
    high = min(lip_y, mouth.corner_y) - 3
    shape.addOval(skia.Rect(mouth.x - mouth.half_width - 2, high, mouth.x + mouth.half_width + 2, low + 3))
    shape.setFillType(skia.PathFillType.kEvenOdd)
    return shape


def draw_beard(canvas: skia.Canvas, face: Face) -> None:
    """Draw a full beard or stubble inside the outline of the jaw (the moustache comes over the lips later).

    The full beard has a soft upper edge, darkens towards the chin and carries faint strands.
    """
    kind, colors = face.params["beard"], face.colors
    if kind not in ("full", "stubble"):
        return
    region = outline_beard(face)
    if kind == "stubble":
        with clipped(canvas, face.head()):
            fill(canvas, region, colors.hair_dark, 0.28, blur=4)
        return
    bottom = face.y + face.chin
    shader = linear((0, face.features_y + 10), (0, bottom + 6), colors.hair * 0.92, colors.hair_dark * 0.95)
    with clipped(canvas, face.head(grow=2.5, drop=1.0)):
        fill(canvas, region, colors.hair, 0.55, blur=4, shader=shader)
        fill(canvas, region, colors.hair, 0.92, blur=1.8, shader=shader)
        with clipped(canvas, region):
            for i in range(-6, 7):
                start = face.x + i * face.jaw * 0.145
                high = face.features_y + 38 + 10 * math.cos(i * 0.42) - 2.6 * abs(i)
                strand = path(
                    ("M", start, high),
                    ("Q", start + i * 0.8, high + 14, face.x + (start - face.x) * 0.78, high + 30),
                )
                stroke(canvas, strand, colors.hair_light if i % 2 else colors.hair_dark * 0.8, 1.7, 0.28, blur=0.7)


def draw_moustache(canvas: skia.Canvas, face: Face) -> None:
    """Draw the hair above the upper lip."""
    if face.params["beard"] not in ("full", "moustache"):
        return
    mouth = face.mouth
    x, width, corner = mouth.x, mouth.half_width, mouth.corner_y + 3
    lip = mouth.upper_y - mouth.upper_lip
    shape = path(
        ("M", x, lip - 5.5),
        ("C", x + 10, lip - 9, x + width * 0.9, lip - 2, x + width + 5, corner),
        ("C", x + width * 0.7, corner - 2, x + 9, lip + 2.6, x, lip + 1.2),
        ("C", x - 9, lip + 2.6, x - width * 0.7, corner - 2, x - width - 5, corner),
        ("C", x - width * 0.9, lip - 2, x - 10, lip - 9, x, lip - 5.5),
        ("Z",),
    )
    fill(canvas, shape, face.colors.hair * 0.84)
