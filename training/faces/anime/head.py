"""Background, body, ears and head of an anime face, in flat tones with crisp shadows.

Units as in `geometry`.
"""

import skia

from training.faces.anime.geometry import Face
from training.faces.drawing import WHITE, clipped, fill, linear, mix, oval, path, rgb, stroke

HOODIES = ("short", "sidepart", "curly", "bald")
"""Hair styles that come with a hooded jumper; the others wear a sailor collar."""


def draw_background(canvas: skia.Canvas, face: Face) -> None:
    """Draw a flat tone with a large bright disc behind the head."""
    colors = face.colors
    canvas.drawPaint(skia.Paint(Shader=linear((0, 0), (0, 256), mix(colors.back, WHITE, 0.12), colors.back)))
    fill(canvas, oval(128 + face.light_x, 112, 116, 116), colors.back_light)


def draw_body(canvas: skia.Canvas, face: Face) -> None:
    """Draw neck, shoulders and collar."""
    colors, shoulder, neck = face.colors, 104 - 16 * face.fem, 24 - 6 * face.fem
    throat = path(
        ("M", 128 - neck, 196),
        ("L", 128 - neck, 232),
        ("Q", 128 - neck, 240, 128 - neck - 12, 262),
        ("L", 128 + neck + 12, 262),
        ("Q", 128 + neck, 240, 128 + neck, 232),
        ("L", 128 + neck, 196),
        ("Z",),
    )
    fill(canvas, throat, colors.skin_shade)
    lit = path(("M", 128 - neck, 244), ("Q", 128, 254, 128 + neck, 244), ("L", 160, 262), ("L", 96, 262), ("Z",))
    fill(canvas, lit, colors.skin)
    stroke(canvas, throat, colors.skin_line, 3)
    body = path(
        ("M", 128 - shoulder, 266),
        ("C", 128 - shoulder + 2, 246, 128 - shoulder * 0.66, 240, 128 - neck - 4, 230),
        ("L", 128, 264),
        ("L", 128 + neck + 4, 230),
        ("C", 128 + shoulder * 0.66, 240, 128 + shoulder - 2, 246, 128 + shoulder, 266),
        ("Z",),
    )
    fill(canvas, body, colors.cloth)
    stroke(canvas, body, colors.cloth_line, 3)
    if face.params["hair"] in HOODIES:
        for side in (-1, 1):
            hood = path(
                ("M", 128 + side * (neck + 1), 222),
                ("C", 128 + side * (neck + 26), 224, 128 + side * (neck + 34), 244, 128 + side * (neck + 22), 262),
                ("L", 128 + side * 6, 262),
                ("Q", 128 + side * (neck + 2), 244, 128 + side * (neck + 1), 222),
                ("Z",),
            )
            fill(canvas, hood, mix(colors.cloth, WHITE, 0.22))
            stroke(canvas, hood, colors.cloth_line, 3)
    else:
        for side in (-1, 1):
            flap = path(
                ("M", 128 + side * (neck + 2), 226),
                ("L", 128 + side * (neck + 42), 248),
                ("L", 128 + side * (neck + 34), 262),
                ("L", 128, 264),
                ("Z",),
            )
            fill(canvas, flap, colors.cloth_shade)
            stripe = path(("M", 128 + side * (neck + 4), 236), ("L", 128 + side * 6, 262))
            stroke(canvas, stripe, rgb(0.98, 0.97, 0.95), 3.6)
            stroke(canvas, flap, colors.cloth_line, 3)


def draw_ears(canvas: skia.Canvas, face: Face) -> None:
    """Draw both ears behind the head."""
    colors, y = face.colors, face.eye_y + 12
    for side in (-1, 1):
        x = face.x + side * (face.half_width - 3) - 6 * face.yaw
        ear = oval(x, y, 10, 17)
        fill(canvas, ear, colors.skin)
        stroke(canvas, ear, colors.skin_line, 3)
        inner = path(("M", x + side * 4, y - 8), ("Q", x - side * 3, y - 2, x + side * 1, y + 9))
        stroke(canvas, inner, mix(colors.skin_shade, colors.skin_line, 0.3), 3)


def draw_head(canvas: skia.Canvas, face: Face) -> None:
    """Draw the head in two tones, the border between them moving with the light."""
    colors, head = face.colors, face.head()
    fill(canvas, head, colors.skin_shade)
    with clipped(canvas, head):
        canvas.save()
        canvas.translate(1.25 * face.light_x, -4.5)
        fill(canvas, head, colors.skin)
        canvas.restore()
    stroke(canvas, head, colors.skin_line, 3)
