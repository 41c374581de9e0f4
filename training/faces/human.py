"""The human domain: parameters → antialiased picture of a toon avatar. No torch; skia only.

The same parameters give the same pixels. About 500 pictures a second and core at 128 px.
"""

import numpy as np
import numpy.typing as npt
import skia

from training.faces.drawing import WHITE, clipped, fill, linear, mix, oval, path, radial, rgb, stroke, turned
from training.faces.features import draw_brow, draw_eye, draw_frown, draw_glasses, draw_mouth, draw_nose
from training.faces.geometry import Face, place
from training.faces.hair import draw_back, draw_beard, draw_front, draw_locks, draw_moustache
from training.faces.parameters import Parameters

DOMAIN = "human"
ROLL_DEGREES = 9.0
NECK_PIVOT = (128.0, 205.0)
FRAMING = 1.27
"""How much the 256-unit drawing is enlarged, so that the face fills the picture as an aligned crop does."""


def draw_body(canvas: skia.Canvas, face: Face) -> None:
    """Draw neck, shoulders and collar."""
    colors, shoulder, neck = face.colors, 92 - 12 * face.fem, 25 - 5 * face.fem
    throat = path(
        ("M", 128 - neck, 160),
        ("L", 128 - neck, 206),
        ("Q", 128 - neck - 2, 213, 128 - neck - 8, 215),
        ("Q", 128, 240, 128 + neck + 8, 215),
        ("Q", 128 + neck + 2, 213, 128 + neck, 206),
        ("L", 128 + neck, 160),
        ("Z",),
    )
    body = path(
        ("M", 128 - shoulder, 262),
        ("C", 128 - shoulder, 226, 128 - shoulder * 0.6, 217, 128 - neck - 6, 210),
        ("Q", 128, 232, 128 + neck + 6, 210),
        ("C", 128 + shoulder * 0.6, 217, 128 + shoulder, 226, 128 + shoulder, 262),
        ("Z",),
    )
    fill(canvas, throat, colors.shade, shader=linear((0, 170), (0, 222), colors.shade * 0.88, colors.skin * 0.97))
    lit = linear((68 + face.light_x, 205), (188, 262), mix(colors.cloth, WHITE, 0.12), colors.cloth * 0.74)
    fill(canvas, body, colors.cloth, shader=lit)
    collar = path(("M", 128 - neck - 7, 211), ("Q", 128, 234, 128 + neck + 7, 211))
    stroke(canvas, collar, colors.cloth * 0.62, 4)


def draw_ears(canvas: skia.Canvas, face: Face) -> None:
    """Draw both ears behind the head."""
    colors, y = face.colors, face.features_y + 8
    for side in (-1, 1):
        x = face.x + side * (face.half_width - 1) - 6 * face.yaw
        fill(
            canvas,
            oval(x, y, 10, 15),
            colors.skin,
            shader=radial((x - side * 4, y - 4), 18, [colors.skin, colors.shade]),
        )
        stroke(
            canvas,
            path(("M", x + side * 3, y - 7), ("Q", x + side * 7, y, x + side, y + 7)),
            colors.shade * 0.85,
            2,
            0.8,
        )


def draw_head(canvas: skia.Canvas, face: Face) -> None:
    """Draw the head with light, shadow, blush and the puffed cheeks of a pout."""
    colors, params = face.colors, face.params
    head = face.head()
    tones = [colors.light, colors.skin, colors.shade]
    lit = radial((face.x + face.light_x * 0.8 + 4 * face.yaw, face.y - 18), 122, tones, [0, 0.55, 1.0])
    fill(canvas, head, colors.skin, shader=lit)
    with clipped(canvas, head):
        dark_side = -1 if params["light"] > 0 else 1
        strength = 0.20 + 0.25 * abs(params["light"])
        fill(
            canvas,
            oval(face.x + dark_side * (face.half_width + 6), face.y + 14, 22, 76),
            colors.shade,
            strength,
            blur=11,
        )
        fill(canvas, oval(face.x, face.y + face.chin + 5, 40, 12), colors.shade, 0.45, blur=8)
        blush = rgb(0.95, 0.36, 0.36) if colors.tone > 1.6 else rgb(0.62, 0.2, 0.18)
        cheek_x, cheek_y = 35 + 1.5 * params["eye_gap"], face.features_y + 33 - 3 * face.smile
        for side in (-1, 1):
            x = face.features_x + side * cheek_x
            fill(canvas, oval(x, cheek_y, 14, 9), blush, 0.08 + 0.5 * params["blush"], blur=6)
            if params["pout"] > 0.02:
                fill(canvas, oval(x, cheek_y + 10, 12, 11), colors.light, 0.32 * params["pout"], blur=6)
                rim = path(
                    ("M", x - side * 13, cheek_y + 4), ("Q", x - side * 15, cheek_y + 16, x - side * 8, cheek_y + 23)
                )
                stroke(canvas, rim, colors.shade * 0.85, 2.4, 0.24 * params["pout"], blur=1.8)


def draw(canvas: skia.Canvas, params: Parameters) -> None:
    """Draw a whole picture in 256 units, from the back to the front."""
    face = place(params)
    backdrop = radial((128 + face.light_x, 92), 215, [face.colors.back, face.colors.back_dark])
    canvas.drawPaint(skia.Paint(Shader=backdrop))
    degrees = ROLL_DEGREES * params["roll"]
    with turned(canvas, degrees, *NECK_PIVOT):
        draw_back(canvas, face)
    draw_body(canvas, face)
    draw_locks(canvas, face)
    with turned(canvas, degrees, *NECK_PIVOT):
        draw_ears(canvas, face)
        draw_head(canvas, face)
        draw_beard(canvas, face)
        draw_nose(canvas, face)
        for side in (-1, 1):
            draw_eye(canvas, face, side)
            draw_brow(canvas, face, side)
        draw_frown(canvas, face)
        draw_mouth(canvas, face)
        draw_moustache(canvas, face)
        draw_glasses(canvas, face)
        draw_front(canvas, face)


def render(params: Parameters, size_px: int = 128) -> npt.NDArray[np.uint8]:
    """Draw a face.

    Shapes: returns [size_px, size_px, 3] uint8 RGB.
    """
    pixels = np.zeros((size_px, size_px, 4), np.uint8)
    info = skia.ImageInfo.Make(size_px, size_px, skia.kRGBA_8888_ColorType, skia.kPremul_AlphaType)
    surface = skia.Surface.MakeRasterDirect(info, pixels)
    with surface as canvas:
        canvas.scale(size_px / 256, size_px / 256)
        canvas.translate(128, 128)
        canvas.scale(FRAMING, FRAMING)
        canvas.translate(-128, -122)
        draw(canvas, params)
    return pixels[..., :3].copy()
