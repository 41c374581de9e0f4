"""The dog domain: parameters → antialiased picture of a dog's face. No torch; skia only.

The same parameters give the same pixels. Factors, ranges and expressions are those of the human domain.
"""

import numpy as np
import numpy.typing as npt
import skia

from training.faces.dog.coat import draw_chest, draw_collar, draw_forehead, draw_head
from training.faces.dog.ears import draw_folded, draw_hanging, draw_standing, draw_topknot_back, draw_topknot_front
from training.faces.dog.eyes import draw_brow, draw_eye
from training.faces.dog.geometry import place
from training.faces.dog.muzzle import (
    draw_beard,
    draw_jaw,
    draw_lips,
    draw_nose,
    draw_opening,
    draw_pads,
    draw_pout,
    draw_whiskers,
)
from training.faces.drawing import radial, turned
from training.faces.parameters import Parameters

DOMAIN = "dog"
CORE = ("smiling", "angry", "sad", "surprised", "closing eyes", "winking", "opening mouth", "pouting")
"""The core expressions, by gate name, that a dog must show."""
ROLL_DEGREES = 9.0
NECK_PIVOT = (128.0, 224.0)


def draw(canvas: skia.Canvas, params: Parameters) -> None:
    """Draw a whole picture in 256 units, from the back to the front."""
    dog = place(params)
    backdrop = radial((128 + dog.light_x, 92), 215, [dog.colors.back, dog.colors.back_dark])
    canvas.drawPaint(skia.Paint(Shader=backdrop))
    draw_chest(canvas, dog)
    draw_collar(canvas, dog)
    with turned(canvas, ROLL_DEGREES * params["roll"], *NECK_PIVOT):
        draw_topknot_back(canvas, dog)
        draw_standing(canvas, dog)
        draw_head(canvas, dog)
        draw_folded(canvas, dog)
        draw_hanging(canvas, dog)
        draw_topknot_front(canvas, dog)
        draw_forehead(canvas, dog)
        for side in (-1, 1):
            draw_eye(canvas, dog, side)
            draw_brow(canvas, dog, side)
        draw_jaw(canvas, dog)
        draw_beard(canvas, dog)
        draw_opening(canvas, dog)
        draw_pads(canvas, dog)
        draw_whiskers(canvas, dog)
        draw_lips(canvas, dog)
        draw_pout(canvas, dog)
        draw_nose(canvas, dog)


def render(params: Parameters, size_px: int = 128) -> npt.NDArray[np.uint8]:
    """Draw a dog's face.

    Shapes: returns [size_px, size_px, 3] uint8 RGB.
    """
    pixels = np.zeros((size_px, size_px, 4), np.uint8)
    info = skia.ImageInfo.Make(size_px, size_px, skia.kRGBA_8888_ColorType, skia.kPremul_AlphaType)
    surface = skia.Surface.MakeRasterDirect(info, pixels)
    with surface as canvas:
        canvas.scale(size_px / 256, size_px / 256)
        draw(canvas, params)
    return pixels[..., :3].copy()
