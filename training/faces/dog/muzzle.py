"""A dog's muzzle: lower jaw, opening with teeth and tongue, the hanging lips, nose, whisker dots, moustache and beard.

Units as in `geometry`.
"""

import skia

from training.faces.dog.geometry import Dog
from training.faces.dog.soft import glow, ramp, smoothstep
from training.faces.drawing import WHITE, clipped, fill, linear, mix, oval, path, rgb, stroke

CAVITY = rgb(0.26, 0.06, 0.09)
TONGUE = rgb(0.93, 0.46, 0.52)
TEETH = rgb(1.0, 0.98, 0.94)
TEETH_AT = (-0.74, -0.60, -0.45, -0.30, -0.15, 0.0, 0.15, 0.30, 0.45, 0.60, 0.74)
"""Edges of the bared rows' teeth in half widths of the mouth."""
INK = rgb(0.13, 0.07, 0.08)


def draw_jaw(canvas: skia.Canvas, dog: Dog) -> None:
    """Draw the lower jaw behind everything of the mouth."""
    mouth, colors = dog.mouth, dog.colors
    x, width = mouth.x, min(mouth.half_width, 60) * 0.62 + 8
    top, low = mouth.upper_y - 4, mouth.chin_y
    shape = path(
        ("M", x - width - 6, top),
        ("C", x - width - 3, low - 10, x - width * 0.72, low, x, low),
        ("C", x + width * 0.72, low, x + width + 3, low - 10, x + width + 6, top),
        ("Z",),
    )
    glow(canvas, x, low + 1, width * 1.05, 13, rgb(0.14, 0.07, 0.09), 0.45)
    tint = mix(colors.points, colors.soot, 0.55) if dog.params["beard"] == "stubble" else colors.points
    fill(canvas, shape, tint, shader=linear((0, top + 6), (0, low), tint * rgb(0.84, 0.77, 0.76), tint))


def draw_opening(canvas: skia.Canvas, dog: Dog) -> None:
    """Draw the open mouth: cavity, teeth, tongue and the lower lip's rim."""
    mouth = dog.mouth
    x, width, gap, snarl = mouth.x, mouth.half_width, mouth.gap, mouth.snarl
    hole = path(("M", x - width, mouth.corner_y), *mouth.upper(), *mouth.lower(), ("Z",))
    fill(canvas, hole, CAVITY)
    lip = path(("M", x + width, mouth.corner_y), *mouth.lower())
    with clipped(canvas, hole):
        drop = mouth.lower_y - mouth.upper_y
        body = oval(x, mouth.lower_y + 3 - 3 * snarl, width * 0.60, 2 + drop * 0.62 * (1 - 0.55 * snarl))
        shade = linear((0, mouth.lower_y - drop * 0.6), (0, mouth.lower_y + 4), TONGUE * 0.72, TONGUE)
        fill(canvas, body, TONGUE, shader=shade)
        draw_teeth(canvas, dog)
    stroke(canvas, lip, INK, 3.6)
    draw_fangs(canvas, dog)
    open_wide = smoothstep(gap, 0.34, 0.95) * smoothstep(mouth.half_width, 20, 36) * (1 - snarl)
    length, half = 38 * open_wide, width * 0.40 * smoothstep(open_wide, 0.0, 0.25)
    if length > 0.2:  # the tongue hangs out over the lip
        top = mouth.lower_y - 11
        tongue = path(
            ("M", x - half, top),
            ("C", x - half * 1.15, top + length * 0.75, x - half * 0.95, top + length + 4, x, top + length + 4),
            ("C", x + half * 0.95, top + length + 4, x + half * 1.15, top + length * 0.75, x + half, top),
            ("Q", x, top - 8, x - half, top),
            ("Z",),
        )
        stroke(canvas, tongue, TONGUE * 0.62, 2.4, min(1.0, length / 8))
        tip = linear((0, top - 6), (0, top + length + 4), TONGUE * 0.92, mix(TONGUE, WHITE, 0.16))
        fill(canvas, tongue, TONGUE, shader=tip)
        middle = path(("M", x, top - 2), ("L", x, top + length * 0.62))
        stroke(canvas, middle, TONGUE * 0.70, 2.4, min(1.0, length / 12))


def draw_teeth(canvas: skia.Canvas, dog: Dog) -> None:
    """Draw the bared rows of a snarl."""
    mouth = dog.mouth
    x, width, snarl = mouth.x, mouth.half_width, mouth.snarl
    if snarl > 0:
        low = mouth.lower_y - 1.0
        lower_row = path(
            ("M", x - width * 0.70, low + 8),
            *(("L", x + width * t, low - (7.5 if i % 2 else 4.0) * snarl) for i, t in enumerate(TEETH_AT)),
            ("L", x + width * 0.70, low + 8),
            ("Z",),
        )
        fill(canvas, lower_row, TEETH * 0.92, min(1.0, 2 * snarl))
        row = mouth.upper_y + 3
        upper_row = path(
            ("M", x - width * 0.80, row - 4),
            *(("L", x + width * t, row + (8.0 if i % 2 else 4.0) * snarl) for i, t in enumerate(TEETH_AT)),
            ("L", x + width * 0.80, row - 4),
            ("Z",),
        )
        fill(canvas, upper_row, TEETH, min(1.0, 2 * snarl))


def draw_fangs(canvas: skia.Canvas, dog: Dog) -> None:
    """Draw the upper fangs; a snarl's reach over the lower lip."""
    mouth = dog.mouth
    x, width, gap, snarl = mouth.x, mouth.half_width, mouth.gap, mouth.snarl
    size = 4.0 * smoothstep(gap, 0.1, 0.6) + 3.0 * snarl
    length = 12 * smoothstep(gap, 0.08, 0.6) * (1 - 0.6 * snarl) + 12 * snarl
    for side in (-1, 1):
        root_x, root_y = x + side * width * 0.56, mouth.jowl_y - 1
        fang = path(
            ("M", root_x - size, root_y - 3),
            ("Q", root_x - side * size * 0.1, root_y + length * 0.35, root_x - side * 1.0, root_y + length),
            ("Q", root_x + side * size * 0.9, root_y + length * 0.4, root_x + size, root_y - 3),
            ("Z",),
        )
        stroke(canvas, fang, CAVITY, 2.6 * snarl, snarl)
        fill(canvas, fang, TEETH)


def draw_pads(canvas: skia.Canvas, dog: Dog) -> None:
    """Draw the hanging upper lips."""
    mouth, colors = dog.mouth, dog.colors
    x, width, corner = mouth.x, mouth.half_width, mouth.corner_y
    top = dog.nose_y - 7
    puff = dog.muzzle_w
    pads = path(
        ("M", x - width, corner),
        *mouth.upper(),
        ("C", x + width + 5, corner - 4, x + puff + 3, mouth.upper_y - 22, x + puff * 0.62, top + 8),
        ("Q", x + puff * 0.30, top - 4, x, top),
        ("Q", x - puff * 0.30, top - 4, x - puff * 0.62, top + 8),
        ("C", x - puff - 3, mouth.upper_y - 22, x - width - 5, corner - 4, x - width, corner),
        ("Z",),
    )
    fill(canvas, pads, colors.points)
    with clipped(canvas, pads):
        if dog.params["beard"] == "stubble":
            glow(canvas, x, mouth.upper_y - 4, puff + 16, 44, colors.soot, 0.85)
        shadow = rgb(0.20, 0.10, 0.11)
        glow(canvas, x, dog.nose_y + 10, dog.nose_w + 15, 24, shadow, 0.26)
        for side in (-1, 1):
            pad_x = x + side * puff * 0.52
            glow(canvas, pad_x + dog.light_x * 0.06, mouth.upper_y - 13, puff * 0.52, 19, WHITE, 0.34)
            glow(canvas, x + side * (puff + 4), mouth.upper_y - 12, 14, 30, shadow, 0.26)


def draw_lips(canvas: skia.Canvas, dog: Dog) -> None:
    """Draw the upper lip's dark edge, the line up to the nose, whisker dots, drawn-back corners, a snarl's wrinkles."""
    mouth, colors = dog.mouth, dog.colors
    x, width, corner, puff = mouth.x, mouth.half_width, mouth.corner_y, dog.muzzle_w
    edge = path(("M", x - width, corner), *mouth.upper())
    stroke(canvas, edge, INK, 4.2)
    middle = path(("M", x, mouth.upper_y), ("Q", x - 0.5, dog.nose_y + 14, dog.nose_x, dog.nose_y + 8))
    stroke(canvas, middle, INK, 3.0, 0.9)
    dark = mix(colors.points * 0.42, INK, 0.3)
    for side in (-1, 1):
        for across, up in ((0.40, 10.5), (0.63, 12.5), (0.52, 4.5)):
            spot = oval(x + side * puff * across, mouth.upper_y - up - 3 * dog.smile, 1.9, 1.9)
            fill(canvas, spot, dark, 0.75)
        end = x + side * width
        dimple = path(
            ("M", end - side * 1.0, corner + 3 * (1 - dog.smile)),
            ("Q", end + side * 4, corner - 1, end + side * (3 + 2.5 * dog.smile), corner - 6 * dog.smile),
        )
        stroke(canvas, dimple, INK, 3.2, 0.35 + 0.65 * ramp(dog.smile))
        sneer = mouth.snarl
        for k in (0, 1):
            wrinkle = path(
                ("M", dog.nose_x + side * (dog.nose_w + 2 + 9 * k), dog.nose_y - 3 + 8 * k),
                (
                    *("Q", dog.nose_x + side * (dog.nose_w * 0.55 + 5 + 9 * k), dog.nose_y - 13 + 6 * k),
                    *(dog.nose_x + side * (5 + 10 * k), dog.nose_y - 20 + 4 * k),
                ),
            )
            stroke(canvas, wrinkle, mix(colors.points_shade * 0.4, INK, 0.4), 2.8, 0.75 * sneer)


def draw_pout(canvas: skia.Canvas, dog: Dog) -> None:
    """Draw the lower lip that juts over the upper one."""
    pout = dog.params["pout"]
    if pout <= 0:
        return
    mouth, color = dog.mouth, mix(dog.colors.lip, rgb(0.86, 0.42, 0.46), 0.45)
    x, half = mouth.x, 5 + 17 * pout * dog.params["mouth_width"]
    thick = 15.5 * pout
    y = mouth.upper_y + 7.5 + 0.35 * (mouth.lower_y - mouth.upper_y - 4)
    lip = path(
        ("M", x - half, y + thick * 0.42),
        ("C", x - half * 0.80, y - thick * 0.66, x + half * 0.80, y - thick * 0.66, x + half, y + thick * 0.42),
        ("C", x + half * 1.04, y + thick * 0.86, x + half * 0.62, y + thick * 0.74, x, y + thick * 0.70),
        ("C", x - half * 0.62, y + thick * 0.74, x - half * 1.04, y + thick * 0.86, x - half, y + thick * 0.42),
        ("Z",),
    )
    alpha = smoothstep(pout, 0.0, 0.35)
    glow(canvas, x, y + thick * 0.7 + 3, half * 1.1, 9, rgb(0.12, 0.06, 0.08), 0.6 * alpha)
    stroke(canvas, lip, INK, 3.4, alpha)
    fill(canvas, lip, color, alpha, shader=None)
    glow(canvas, x, y + thick * 0.12, half * 0.72, thick * 0.36, WHITE, 0.62 * alpha)


def draw_nose(canvas: skia.Canvas, dog: Dog) -> None:
    """Draw the nose with nostrils and its gloss."""
    x, y, width, color = dog.nose_x, dog.nose_y, dog.nose_w, dog.colors.nose
    shape = path(
        ("M", x, y - 10),
        ("C", x + width * 0.55, y - 11.5, x + width * 1.05, y - 8, x + width, y - 1),
        ("C", x + width * 0.95, y + 6, x + width * 0.35, y + 9, x, y + 11),
        ("C", x - width * 0.35, y + 9, x - width * 0.95, y + 6, x - width, y - 1),
        ("C", x - width * 1.05, y - 8, x - width * 0.55, y - 11.5, x, y - 10),
        ("Z",),
    )
    fill(canvas, shape, color, shader=linear((0, y - 11), (0, y + 11), mix(color, WHITE, 0.26), color * 0.75))
    for side in (-1, 1):
        nostril = path(
            ("M", x + side * width * 0.28, y + 3),
            ("Q", x + side * width * 0.52, y - 3, x + side * width * 0.80, y + 1.5),
            ("Q", x + side * width * 0.55, y + 3, x + side * width * 0.28, y + 3),
            ("Z",),
        )
        fill(canvas, nostril, color * 0.3)
    gloss = oval(x - 1 + dog.light_x * 0.10, y - 6.0, width * 0.42, 2.5)
    fill(canvas, gloss, WHITE, 0.62)


def draw_whiskers(canvas: skia.Canvas, dog: Dog) -> None:
    """Draw a terrier's moustache ("moustache"), with chin beard and side tufts ("full")."""
    kind = dog.params["beard"]
    if kind not in ("full", "moustache"):
        return
    mouth, colors = dog.mouth, dog.colors
    tint = mix(colors.points, colors.coat_light, 0.30)
    x, width = mouth.x, mouth.half_width
    top, y, bend = dog.nose_y + 2, mouth.upper_y, 0.55 * (mouth.corner_y - mouth.upper_y)
    far = dog.muzzle_w + 19
    right = (
        ("Q", x + 22, top - 5, x + 34, top + 4),
        ("Q", x + far - 12, y - 16 + bend, x + far + 2, y - 11 + bend),
        ("Q", x + far - 6, y - 5 + bend, x + far - 7, y - 3 + bend),
        ("Q", x + far - 2, y + 3 + bend, x + far + 1, y + 7 + bend),
        ("Q", x + far - 12, y + 8 + bend, x + far - 15, y + 7 + bend),
        ("Q", x + far - 14, y + 15 + bend, x + far - 16, y + 21 + bend),
        ("Q", x + width + 2, y + 16 + bend, x + width, mouth.corner_y),
    )
    left = (
        ("Q", x - width - 2, y + 16 + bend, x - far + 16, y + 21 + bend),
        ("Q", x - far + 14, y + 15 + bend, x - far + 15, y + 7 + bend),
        ("Q", x - far + 12, y + 8 + bend, x - far - 1, y + 7 + bend),
        ("Q", x - far + 2, y + 3 + bend, x - far + 7, y - 3 + bend),
        ("Q", x - far + 6, y - 5 + bend, x - far - 2, y - 11 + bend),
        ("Q", x - far + 12, y - 16 + bend, x - 34, top + 4),
        ("Q", x - 22, top - 5, x, top),
    )
    outline = skia.Path()
    outline.addPath(path(("M", x, top), *right, ("L", x, y - 2), ("Z",)))
    outline.addPath(path(("M", x - width, mouth.corner_y), *left, ("L", x, y - 2), ("Z",)))
    outline.addPath(path(("M", x - width, mouth.corner_y), *mouth.upper(), ("L", x, top), ("Z",)))
    outline.setFillType(skia.PathFillType.kWinding)
    lit = linear((0, top), (0, y + 18), mix(tint, WHITE, 0.30), tint * 0.86)
    fill(canvas, outline, rgb(0.15, 0.08, 0.08), 0.22, blur=2.5)
    fill(canvas, outline, tint, shader=lit)
    for side in (-1, 1):
        for k in (0, 1):
            hair = path(
                ("M", x + side * (20 + 6 * k), top + 12 + 6 * k),
                ("Q", x + side * (36 + 6 * k), y - 14 + 6 * k, x + side * (far - 14 - 2 * k), y - 6 + 9 * k + bend),
            )
            stroke(canvas, hair, tint * 0.72, 2.2, 0.45)


def draw_beard(canvas: skia.Canvas, dog: Dog) -> None:
    """Draw the chin beard of "full", which hangs from the lower jaw."""
    if dog.params["beard"] != "full":
        return
    mouth, colors = dog.mouth, dog.colors
    tint = mix(colors.points, colors.coat_light, 0.30)
    x, low, width = mouth.x, mouth.chin_y, 36
    top = mouth.lower_y + 4
    shape = path(
        ("M", x - width, top - 8),
        ("Q", x - width - 1, low + 4, x - width + 7, low + 12),
        ("Q", x - width * 0.6, low + 8, x - width * 0.5, low + 19),
        ("Q", x - width * 0.2, low + 12, x, low + 24),
        ("Q", x + width * 0.2, low + 12, x + width * 0.5, low + 19),
        ("Q", x + width * 0.6, low + 8, x + width - 7, low + 12),
        ("Q", x + width + 1, low + 4, x + width, top - 8),
        ("Q", x, top + 12, x - width, top - 8),
        ("Z",),
    )
    fill(canvas, shape, tint, shader=linear((0, top), (0, low + 22), tint * 0.84, mix(tint, WHITE, 0.2)))
    for offset in (-16, 0, 16):
        hair = path(("M", x + offset, low - 1), ("Q", x + offset * 1.1, low + 6, x + offset * 0.95, low + 13))
        stroke(canvas, hair, tint * 0.66, 2.2, 0.5)
