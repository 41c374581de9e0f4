"""Drawing primitives over skia: colours, filled and stroked paths with gradients and blur.

Coordinates are in a 256-unit square, colours are RGB in [0, 1]. No torch. skia needs the system's libEGL and libGL.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import skia

Color = npt.NDArray[np.float64]
Command = tuple[Any, ...]
"""One path command: ("M", x, y), ("L", x, y), ("Q", x1, y1, x, y), ("C", x1, y1, x2, y2, x, y) or ("Z",)."""

_METHODS = {"M": "moveTo", "L": "lineTo", "Q": "quadTo", "C": "cubicTo", "Z": "close"}


def rgb(red: float, green: float, blue: float) -> Color:
    """Make a colour."""
    return np.array([red, green, blue], np.float64)


WHITE = rgb(1, 1, 1)


def hsv(hue: float, saturation: float, value: float) -> Color:
    """Make a colour from hue (wrapping at 1), saturation and value."""
    sector = (hue % 1.0) * 6
    fraction = sector - int(sector)
    low = value * (1 - saturation)
    falling = value * (1 - saturation * fraction)
    rising = value * (1 - saturation * (1 - fraction))
    ring = (
        (value, rising, low),
        (falling, value, low),
        (low, value, rising),
        (low, falling, value),
        (rising, low, value),
        (value, low, falling),
    )
    return rgb(*ring[int(sector) % 6])


def mix(first: Color, second: Color, share: float) -> Color:
    """Blend two colours; share 1 is the second."""
    return first * (1 - share) + second * share


def _paint_color(color: Color, alpha: float = 1.0) -> int:
    red, green, blue = (float(c) for c in np.clip(color, 0, 1))
    return int(skia.Color4f(red, green, blue, float(alpha)).toColor())


def linear(start: tuple[float, float], end: tuple[float, float], first: Color, second: Color) -> skia.Shader:
    """Shade along a line from one colour to another."""
    return skia.GradientShader.MakeLinear([start, end], [_paint_color(first), _paint_color(second)])


def radial(
    center: tuple[float, float], radius: float, colors: Sequence[Color], stops: list[float] | None = None
) -> skia.Shader:
    """Shade outwards from a point."""
    return skia.GradientShader.MakeRadial(center, radius, [_paint_color(color) for color in colors], stops)


def path(*commands: Command) -> skia.Path:
    """Build a path from commands."""
    built = skia.Path()
    for name, *numbers in commands:
        getattr(built, _METHODS[name])(*numbers)
    return built


def oval(x: float, y: float, radius_x: float, radius_y: float) -> skia.Path:
    """Build an ellipse around (x, y)."""
    return skia.Path.Oval(skia.Rect(x - radius_x, y - radius_y, x + radius_x, y + radius_y))


def fill(
    canvas: skia.Canvas,
    shape: skia.Path,
    color: Color,
    alpha: float = 1.0,
    blur: float = 0.0,
    shader: skia.Shader | None = None,
) -> None:
    """Fill a path; a shader's colours replace `color`, blur softens the edge."""
    paint = skia.Paint(AntiAlias=True, Color=_paint_color(color, alpha))
    if blur:
        paint.setMaskFilter(skia.MaskFilter.MakeBlur(skia.kNormal_BlurStyle, blur))
    if shader is not None:
        paint.setShader(shader)
    canvas.drawPath(shape, paint)


def stroke(
    canvas: skia.Canvas, shape: skia.Path, color: Color, width: float, alpha: float = 1.0, blur: float = 0.0
) -> None:
    """Stroke a path with round caps and joins."""
    paint = skia.Paint(
        AntiAlias=True,
        Color=_paint_color(color, alpha),
        Style=skia.Paint.kStroke_Style,
        StrokeWidth=width,
        StrokeCap=skia.Paint.kRound_Cap,
        StrokeJoin=skia.Paint.kRound_Join,
    )
    if blur:
        paint.setMaskFilter(skia.MaskFilter.MakeBlur(skia.kNormal_BlurStyle, blur))
    canvas.drawPath(shape, paint)


@contextmanager
def clipped(canvas: skia.Canvas, shape: skia.Path) -> Iterator[None]:
    """Draw inside a path only."""
    canvas.save()
    canvas.clipPath(shape, skia.ClipOp.kIntersect, True)
    try:
        yield
    finally:
        canvas.restore()


@contextmanager
def turned(canvas: skia.Canvas, degrees: float, x: float, y: float) -> Iterator[None]:
    """Draw turned around (x, y)."""
    canvas.save()
    canvas.rotate(degrees, x, y)
    try:
        yield
    finally:
        canvas.restore()
