"""A dog's ears and topknot: what the factor `hair` chooses, and how ears follow the brows.

`short` pricked, `sidepart` one pricked and one folded, `fringe` shaggy with a fringe, `long` a spaniel's, `bob` floppy,
`curly` a poodle's, `bald` small and round, `bun` pricked with a tied topknot. Units as in `geometry`.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import skia

from training.faces.dog.geometry import Dog
from training.faces.dog.soft import glow, ramp
from training.faces.drawing import Color, Command, fill, linear, mix, oval, path, radial, rgb, stroke

HANGING = frozenset({"fringe", "long", "bob", "curly"})
PINK = rgb(0.93, 0.62, 0.60)


@dataclass(frozen=True, slots=True)
class Pose:
    """How an ear stands: +1 raised, +1 laid back (anger), +1 drooping (sadness)."""

    raised: float
    back: float
    droop: float


def pose_ear(dog: Dog, side: int) -> Pose:
    """Let an ear follow the brows, its own side's height included."""
    slope = dog.params["brow_a"]
    return Pose(dog.brow_lift(side), ramp(slope), ramp(-slope))


@contextmanager
def at_ear(canvas: skia.Canvas, dog: Dog, side: int, pose: Pose) -> Iterator[None]:
    """Draw around a standing ear's base: outwards is +x."""
    size = 1 + 0.13 * dog.fluff
    canvas.save()
    canvas.translate(
        dog.x - 4 * dog.yaw + side * (dog.skull - 24),
        dog.top_y + 36 - 3 * pose.raised + 8 * pose.back + 5 * pose.droop,
    )
    canvas.rotate(side * (8 - 9 * pose.raised + 30 * pose.back + 26 * pose.droop))
    canvas.scale(side * size, size * (1 + 0.10 * pose.raised - 0.16 * pose.back - 0.08 * pose.droop))
    try:
        yield
    finally:
        canvas.restore()


def draw_standing(canvas: skia.Canvas, dog: Dog) -> None:
    """Draw pricked, folded and round ears, behind the head."""
    style = dog.params["hair"]
    if style in HANGING:
        return
    for side in (-1, 1):
        with at_ear(canvas, dog, side, pose_ear(dog, side)):
            if style == "bald":
                draw_round(canvas, dog)
            elif style == "sidepart" and side > 0:
                draw_stem(canvas, dog)
            else:
                draw_pricked(canvas, dog)


def draw_pricked(canvas: skia.Canvas, dog: Dog) -> None:
    """Draw a pointed ear that grows upwards from the origin; outwards is +x."""
    colors = dog.colors
    outer = path(
        ("M", -25, 8),
        ("C", -22, -20, -4, -50, 17, -66),
        ("Q", 22, -68, 24, -61),
        ("C", 33, -34, 37, -6, 34, 26),
        ("L", -10, 36),
        ("Z",),
    )
    fill(canvas, outer, colors.ear, shader=linear((-20, 0), (34, -10), colors.ear_light, colors.ear_shade))
    inner = path(
        ("M", -11, 8),
        ("C", -9, -14, 2, -38, 16, -52),
        ("C", 24, -32, 27, -6, 24, 20),
        ("Z",),
    )
    inside = inner_color(dog)
    fill(canvas, inner, inside, shader=linear((0, -50), (0, 20), inside, inside * 0.72))
    tuft = path(("M", -12, 10), ("C", -8, -8, 0, -18, 7, -24), ("C", 6, -6, 6, 8, 8, 22), ("Z",))
    fill(canvas, tuft, colors.ear_light, 0.85)


def draw_stem(canvas: skia.Canvas, dog: Dog) -> None:
    """Draw the standing part of a folded ear."""
    colors = dog.colors
    stem = path(
        ("M", -25, 8),
        ("C", -24, -16, -16, -40, -2, -50),
        ("C", 14, -58, 30, -44, 34, 26),
        ("L", -10, 36),
        ("Z",),
    )
    fill(canvas, stem, colors.ear_shade, shader=linear((-20, 0), (34, -10), colors.ear, colors.ear_shade))


def draw_folded(canvas: skia.Canvas, dog: Dog) -> None:
    """Draw the tip of a folded ear, which falls forward over the head; a raised one lifts."""
    if dog.params["hair"] != "sidepart":
        return
    colors, pose = dog.colors, pose_ear(dog, 1)
    with at_ear(canvas, dog, 1, pose):
        low = 6 - 9 * pose.raised + 6 * pose.droop
        flap = path(
            ("M", -17, -33),
            ("C", -10, -56, 18, -62, 30, -28),
            ("C", 34, -14, 30, low - 8, 24, low + 4),
            ("Q", 21, low + 9, 16, low + 3),
            ("C", 6, -8, -4, -20, -17, -33),
            ("Z",),
        )
        fill(canvas, flap, colors.ear, shader=linear((0, -50), (18, low + 6), colors.ear_light, colors.ear))
        edge = path(("M", -17, -33), ("C", -4, -20, 6, -8, 16, low + 3), ("Q", 21, low + 9, 24, low + 4))
        stroke(canvas, edge, colors.ear_shade * 0.7, 2.6, 0.7)
        glow(canvas, 12, -20, 16, 18, rgb(1.0, 0.36, 0.38), 0.24 * dog.params["blush"])


def draw_round(canvas: skia.Canvas, dog: Dog) -> None:
    """Draw a small bear's ear."""
    colors = dog.colors
    fill(canvas, oval(10, -20, 29, 28), colors.ear, shader=radial((4, -30), 46, [colors.ear_light, colors.ear_shade]))
    inside = inner_color(dog)
    fill(canvas, oval(10, -16, 17, 17), inside, shader=radial((10, -10), 22, [inside * 0.78, inside]))


def inner_color(dog: Dog) -> Color:
    """Give the colour inside an ear, warmer with blush."""
    base = mix(dog.colors.ear, PINK, 0.52)
    return mix(base, rgb(1.0, 0.40, 0.42), 0.62 * dog.params["blush"])


def outline_hanging(style: str) -> tuple[list[Command], float]:
    """Give a hanging ear from its base at the origin, outwards +x, and how low it reaches."""
    if style == "long":
        return [
            ("M", -24, -6),
            ("C", -4, -26, 26, -20, 34, 8),
            ("C", 46, 40, 52, 76, 46, 104),
            ("Q", 44, 116, 38, 124),
            ("Q", 34, 116, 30, 118),
            ("Q", 26, 130, 18, 134),
            ("Q", 14, 124, 10, 122),
            ("Q", 4, 128, -2, 126),
            ("C", -10, 104, -4, 70, -8, 40),
            ("Q", -12, 14, -24, -6),
            ("Z",),
        ], 134
    if style == "fringe":
        return [
            ("M", -26, -8),
            ("C", -6, -28, 24, -24, 34, 4),
            ("C", 42, 24, 48, 48, 44, 70),
            ("Q", 40, 78, 36, 84),
            ("Q", 32, 78, 28, 80),
            ("Q", 24, 90, 16, 92),
            ("Q", 12, 84, 8, 82),
            ("Q", 4, 84, 0, 82),
            ("C", -4, 62, -4, 40, -26, -8),
            ("Z",),
        ], 92
    return [
        ("M", -28, -6),
        ("C", -10, -30, 24, -28, 34, 0),
        ("C", 44, 26, 52, 56, 44, 78),
        ("C", 36, 98, 14, 98, 6, 80),
        ("C", -4, 58, -2, 36, -28, -6),
        ("Z",),
    ], 94


def draw_hanging(canvas: skia.Canvas, dog: Dog) -> None:
    """Draw hanging ears, over the head; raised ones swing out, sad ones hang low, angry ones lie back."""
    style, colors = dog.params["hair"], dog.colors
    if style not in HANGING:
        return
    for side in (-1, 1):
        pose = pose_ear(dog, side)
        degrees = -side * (4 + 17 * pose.raised + 20 * pose.back - 6 * pose.droop)
        size = 1 + 0.10 * dog.fluff
        stretch = size * (1 + 0.08 * pose.droop - 0.14 * pose.back - 0.04 * pose.raised)
        canvas.save()
        canvas.translate(
            dog.x - 3 * dog.yaw + side * (dog.skull - 9 + 3 * pose.back),
            dog.top_y + 34 - 7 * pose.raised + 7 * pose.droop + 5 * pose.back,
        )
        canvas.rotate(degrees)
        canvas.scale(side * size * (1 - 0.08 * pose.back), stretch)
        if style == "curly":
            draw_curly(canvas, dog)
        else:
            commands, low = outline_hanging(style)
            ear = path(*commands)
            stroke(canvas, ear, rgb(0.12, 0.06, 0.07), 4.0, 0.16)
            fill(canvas, ear, colors.ear, shader=linear((0, -20), (18, low), colors.ear_light, colors.ear_shade))
            fold = path(("M", 8, 0), ("C", 18, low * 0.3, 20, low * 0.5, 17, low * 0.8))
            stroke(canvas, fold, colors.ear_shade * 0.82, 3.0, 0.5)
            if style != "bob":
                wave = path(("M", 22, 8), ("C", 34, low * 0.35, 30, low * 0.55, 33, low * 0.76))
                stroke(canvas, wave, colors.ear_light, 3.0, 0.5)
            glow(canvas, 22, low * 0.72, 15, 22, rgb(1.0, 0.36, 0.38), 0.24 * dog.params["blush"])
        canvas.restore()


CURLS = ((-2, 4, 17), (14, 0, 17), (28, 16, 16), (8, 24, 18), (34, 38, 17), (12, 46, 18), (36, 62, 17), (16, 70, 18))
CURL_TIPS = ((30, 82, 17), (14, 88, 14))


def draw_curly(canvas: skia.Canvas, dog: Dog) -> None:
    """Draw a poodle's ear of curls."""
    colors = dog.colors
    shape = skia.Path()
    for x, y, radius in (*CURLS, *CURL_TIPS):
        shape.addCircle(x, y, radius)
    shape.setFillType(skia.PathFillType.kWinding)
    fill(canvas, shape, colors.ear, shader=linear((0, -10), (22, 100), colors.ear_light, colors.ear_shade))
    for x, y, radius in CURLS[2:]:
        curl = path(("M", x - radius * 0.5, y + 2), ("Q", x, y + radius * 0.7, x + radius * 0.5, y))
        stroke(canvas, curl, colors.ear_shade * 0.78, 2.4, 0.55)
    glow(canvas, 20, 66, 16, 24, rgb(1.0, 0.36, 0.38), 0.24 * dog.params["blush"])


def draw_topknot_back(canvas: skia.Canvas, dog: Dog) -> None:
    """Draw what rises behind the skull: a poodle's curls or a tied tuft."""
    style, colors = dog.params["hair"], dog.colors
    x, top, volume = dog.x - 4 * dog.yaw, dog.top_y, 1 + 0.12 * dog.fluff
    if style == "curly":
        shape = skia.Path()
        for across, up, radius in ((-44, 12, 22), (-24, 0, 25), (0, -6, 27), (24, 0, 25), (44, 12, 22)):
            shape.addCircle(x + across, top + 18 - (18 - up) * volume * 0.9, radius * volume)
        shape.setFillType(skia.PathFillType.kWinding)
        fill(
            canvas,
            shape,
            colors.ear,
            shader=radial((x + dog.light_x * 0.5, top - 10), 90, [colors.ear_light, colors.ear_shade]),
        )
    elif style == "bun":
        tuft = path(
            ("M", x - 9, top + 8),
            ("C", x - 14, top - 8, x - 34 * volume, top - 14, x - 38 * volume, top - 30),
            ("Q", x - 22 * volume, top - 30, x - 18 * volume, top - 38),
            ("Q", x - 6, top - 32, x, top - 42),
            ("Q", x + 6, top - 32, x + 18 * volume, top - 38),
            ("Q", x + 22 * volume, top - 30, x + 38 * volume, top - 30),
            ("C", x + 34 * volume, top - 14, x + 14, top - 8, x + 9, top + 8),
            ("Z",),
        )
        fill(canvas, tuft, colors.ear, shader=linear((0, top - 40), (0, top + 8), colors.ear_light, colors.ear_shade))


def draw_topknot_front(canvas: skia.Canvas, dog: Dog) -> None:
    """Draw what lies on the forehead: curls, a fringe, or the tie of the tuft in the collar's colour."""
    style, colors = dog.params["hair"], dog.colors
    x, top, volume = dog.x, dog.top_y, 1 + 0.12 * dog.fluff
    if style == "curly":
        shape = skia.Path()
        for across, down, radius in ((-40, 14, 17), (-21, 17, 18), (0, 19, 18), (21, 17, 18), (40, 14, 17), (0, 4, 26)):
            shape.addCircle(x + across * volume, top + down - 10, radius * volume)
        shape.addOval(skia.Rect(x - 42, top - 22, x + 42, top + 14))
        shape.setFillType(skia.PathFillType.kWinding)
        lit = radial((x + dog.light_x * 0.5, top - 14), 70, [colors.ear_light, colors.ear])
        fill(canvas, shape, colors.ear, shader=lit)
        for across in (-38, -20, 0, 20, 38):
            curl = path(("M", x + across - 8, top + 9), ("Q", x + across, top + 17, x + across + 8, top + 8))
            stroke(canvas, curl, colors.ear_shade * 0.85, 2.4, 0.5)
    elif style == "fringe":
        deep = top + 30 + 5 * volume
        fringe = path(
            ("M", x - 52, top + 24),
            ("C", x - 46, top - 10, x - 18, top - 16 * volume, x, top - 15 * volume),
            ("C", x + 18, top - 16 * volume, x + 46, top - 10, x + 52, top + 24),
            ("Q", x + 42, top + 20, x + 36, deep - 8),
            ("Q", x + 30, top + 20, x + 22, deep - 4),
            ("Q", x + 16, top + 22, x + 6, deep),
            ("Q", x - 2, top + 20, x - 12, deep - 3),
            ("Q", x - 18, top + 20, x - 28, deep - 5),
            ("Q", x - 36, top + 18, x - 42, deep - 10),
            ("Q", x - 44, top + 20, x - 52, top + 24),
            ("Z",),
        )
        lit = linear((0, top - 14), (0, deep), colors.coat_light, mix(colors.coat_light, colors.coat, 0.7))
        fill(canvas, fringe, colors.coat_light, shader=lit)
        edge = path(("M", x - 30, top + 4), ("Q", x - 26, top + 14, x - 30, deep - 12))
        stroke(canvas, edge, colors.coat_shade, 2.2, 0.45)
        edge = path(("M", x + 22, top + 2), ("Q", x + 26, top + 12, x + 20, deep - 12))
        stroke(canvas, edge, colors.coat_shade, 2.2, 0.45)
    elif style == "bun":
        y, tie = top + 5, colors.collar
        for side in (-1, 1):
            bow = path(
                ("M", x, y),
                ("C", x + side * 8, y - 13, x + side * 24, y - 13, x + side * 24, y - 2),
                ("C", x + side * 24, y + 11, x + side * 8, y + 10, x, y),
                ("Z",),
            )
            fill(canvas, bow, tie, shader=linear((0, y - 11), (0, y + 10), mix(tie, rgb(1, 1, 1), 0.2), tie * 0.8))
        fill(canvas, oval(x, y - 1, 5.5, 6), tie * 0.72)
