"""The anime domain: parameters → antialiased picture of an anime face in cel shading. No torch; skia only.

The same factors as the human domain's, the same places of eyes and mouth within the picture, another look.
"""

import numpy as np
import numpy.typing as npt
import skia

from training.faces.anime.eyes import draw_brow, draw_eye, draw_frown, draw_glasses
from training.faces.anime.geometry import place
from training.faces.anime.hair import draw_back, draw_front, draw_locks
from training.faces.anime.head import draw_background, draw_body, draw_ears, draw_head
from training.faces.anime.mouth import draw_beard, draw_cheeks, draw_mouth, draw_nose
from training.faces.drawing import turned
from training.faces.parameters import Parameters

__all__ = ["DOMAIN", "render"]

DOMAIN = "anime"
ROLL_DEGREES = 8.0
NECK_PIVOT = (128.0, 232.0)


def draw(canvas: skia.Canvas, params: Parameters) -> None:
    """Draw a whole picture in 256 units, from the back to the front; brows lie over hair and glasses."""
    face = place(params)
    draw_background(canvas, face)
    degrees = ROLL_DEGREES * params["roll"]
    with turned(canvas, degrees, *NECK_PIVOT):
        draw_back(canvas, face)
    draw_body(canvas, face)
    draw_locks(canvas, face)
    with turned(canvas, degrees, *NECK_PIVOT):
        draw_ears(canvas, face)
        draw_head(canvas, face)
        draw_beard(canvas, face)
        draw_cheeks(canvas, face)
        draw_nose(canvas, face)
        draw_mouth(canvas, face)
        draw_front(canvas, face)
        for side in (-1, 1):
            draw_eye(canvas, face, side)
        draw_frown(canvas, face)
        draw_glasses(canvas, face)
        for side in (-1, 1):
            draw_brow(canvas, face, side)


def render(params: Parameters, size_px: int = 128) -> npt.NDArray[np.uint8]:
    """Draw a face.

    Shapes: returns [size_px, size_px, 3] uint8 RGB.
    """
    pixels = np.zeros((size_px, size_px, 4), np.uint8)
    info = skia.ImageInfo.Make(size_px, size_px, skia.kRGBA_8888_ColorType, skia.kPremul_AlphaType)
    surface = skia.Surface.MakeRasterDirect(info, pixels)
    with surface as canvas:
        canvas.scale(size_px / 256, size_px / 256)
        draw(canvas, params)
    return pixels[..., :3].copy()
