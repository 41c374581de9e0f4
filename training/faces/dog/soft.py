"""Soft shades and smooth ramps of the dog renderer: cheap gradients in place of blurred masks.

Units as in `geometry`. No torch.
"""

import skia

from training.faces.drawing import Color

FALLOFF = (1.0, 0.88, 0.61, 0.32, 0.11, 0.0)
"""Opacity from the middle to the rim: close to a Gaussian, 0 at the rim."""


def ramp(value: float, bend: float = 0.1) -> float:
    """Give about max(value, 0) without a corner: 0 at 0 and below, 1 at 1, flat where it leaves 0."""
    return value * value * (1 + bend) / (value + bend) if value > 0 else 0.0


def smoothstep(value: float, low: float, high: float) -> float:
    """Rise from 0 at `low` to 1 at `high` with flat ends."""
    share = min(max((value - low) / (high - low), 0.0), 1.0)
    return share * share * (3 - 2 * share)


def glow(canvas: skia.Canvas, x: float, y: float, radius_x: float, radius_y: float, color: Color, alpha: float) -> None:
    """Lay a soft oval of colour that fades to nothing at its rim."""
    if alpha <= 0:
        return
    red, green, blue = (round(255 * min(max(float(c), 0.0), 1.0)) for c in color)
    pigment = red << 16 | green << 8 | blue
    colors = [round(255 * min(alpha * share, 1.0)) << 24 | pigment for share in FALLOFF]
    canvas.save()
    canvas.translate(x, y)
    canvas.scale(1.0, radius_y / radius_x)
    paint = skia.Paint(AntiAlias=True, Shader=skia.GradientShader.MakeRadial((0, 0), radius_x, colors))
    canvas.drawCircle(0, 0, radius_x, paint)
    canvas.restore()
