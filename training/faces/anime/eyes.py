"""Eyes, brows and glasses of an anime face.

Units as in `geometry`.
"""

import skia

from training.faces.anime.geometry import INK, Face
from training.faces.drawing import WHITE, Color, Command, clipped, fill, linear, mix, oval, path, rgb, stroke

IRISES = {
    "brown": (rgb(0.62, 0.30, 0.08), rgb(1.0, 0.72, 0.32)),
    "blue": (rgb(0.10, 0.42, 0.92), rgb(0.50, 0.92, 1.0)),
    "green": (rgb(0.06, 0.56, 0.32), rgb(0.62, 1.0, 0.55)),
    "grey": (rgb(0.46, 0.48, 0.60), rgb(0.88, 0.90, 0.98)),
}
"""Each iris' own colour and the glow of its lower half."""
EYE_WIDTH = 24.0
EYE_ABOVE = 27.0
EYE_BELOW = 21.0
SHUT_CORNER = 9.0
"""How far the corners of a closed eye sink."""
SHUT_MIDDLE = 28.0
"""How far the middle of a closed eye sinks below its corners' place when open: a line that curves downwards."""


class Lids:
    """The outline of one eye: its corners, and the heights that its lids' curves pull towards."""

    def __init__(self, face: Face, side: int) -> None:
        params = face.params
        opening = params["eye_l"] if side < 0 else params["eye_r"]
        shut = 1 - min(opening, 1.0)
        height = face.eye_scale * (0.86 + 0.16 * face.fem)
        self.side, self.opening, self.shut, self.scale = side, opening, shut, face.eye_scale
        self.x, self.y = face.eye_x(side), face.eye_y
        self.width = EYE_WIDTH * face.eye_scale * (1 - 0.08 * side * face.yaw)
        tilt = 2.6 * params["eye_tilt"] + 1.2 * face.fem
        self.inner = (self.x - side * self.width, self.y + 1 + 0.6 * tilt + SHUT_CORNER * shut)
        self.outer = (self.x + side * self.width, self.y - 1 - tilt + SHUT_CORNER * shut)
        joy = face.smile**4  # only a broad smile turns a narrowed eye's curve upwards
        sunk = SHUT_MIDDLE * shut * (1 - 1.55 * joy)
        slant = 10.0 * params["brow_a"] * min(opening, 1.0)  # anger presses the inner half of the lid down
        above = EYE_ABOVE * height * opening * 1.32
        self.upper_inner = self.y - above + sunk + slant
        self.upper_outer = self.y - above * 0.94 + sunk - slant * 0.75
        raised = (1 - 0.15 * face.smile) * (1 - 0.55 * joy * shut)  # a smile pushes the lower lid up
        self.lower = self.y + EYE_BELOW * height * min(opening, 1.0 + 0.6 * (opening - 1)) * 1.30 * raised + sunk

    def upper(self, lift: float = 0.0) -> tuple[Command, Command]:
        """Draw the upper lid from the inner to the outer corner; `lift` bows it upwards."""
        x, width, side = self.x, self.width, self.side
        return (
            ("M", *self.inner),
            (
                *("C", x - side * width * 0.86, self.upper_inner - lift),
                *(x + side * width * 0.62, self.upper_outer - lift, *self.outer),
            ),
        )

    def lower_edge(self) -> Command:
        """Draw the lower lid from the outer to the inner corner."""
        x, width, side = self.x, self.width, self.side
        return ("C", x + side * width * 0.80, self.lower, x - side * width * 0.68, self.lower, *self.inner)

    def outline(self) -> skia.Path:
        """Outline what lies between the lids."""
        return path(*self.upper(), self.lower_edge(), ("Z",))


def draw_eye(canvas: skia.Canvas, face: Face, side: int) -> None:
    """Draw one eye: white, iris, the lid's crisp shadow, lower line, thick upper lashes and the fold above."""
    lids = Lids(face, side)
    ink = mix(INK, face.colors.hair_line, 0.25)
    eye = lids.outline()
    fill(canvas, eye, rgb(0.74, 0.74, 0.86))  # what the lid shades
    with clipped(canvas, eye):
        canvas.save()
        canvas.translate(0, 7.5 * lids.scale)
        fill(canvas, eye, rgb(0.99, 0.985, 1.0))
        canvas.restore()
        draw_iris(canvas, face, lids)
        draw_tear(canvas, face, lids)
    low = path(("M", *lids.outer), lids.lower_edge())
    stroke(canvas, low, face.colors.skin_line, 2.6, 0.85)
    draw_lashes(canvas, face, lids, ink)
    wide = lids.opening - 1 if lids.opening > 1 else 0.0
    fold_y = lids.y - 31.0 * lids.scale - 18 * wide + 6 * lids.shut
    fold = path(
        ("M", lids.x - side * lids.width * 0.55, fold_y),
        ("Q", lids.x + side * 3, fold_y - 6, lids.x + side * lids.width * 0.80, fold_y + 7),
    )
    stroke(canvas, fold, face.colors.skin_line, 2.2, 0.55)


def draw_lashes(canvas: skia.Canvas, face: Face, lids: Lids, ink: Color) -> None:
    """Draw the upper lash line: a crescent, thicker outside, with a flick that grows with femininity."""
    side, (outer_x, outer_y) = lids.side, lids.outer
    thick = 6.0 + 2.4 * face.fem
    flick, lift = (
        (5.5 + 4.5 * face.fem) * (1 - 0.45 * lids.shut),
        5.0 * (1 - 2.1 * lids.shut) + 2.0 * face.fem * (1 - lids.shut),
    )
    x, width = lids.x, lids.width
    crescent = path(
        *lids.upper(lift=-1.0),
        ("L", outer_x + side * flick, outer_y - lift),
        ("Q", outer_x + side * flick * 0.4, outer_y - lift * 0.6 - thick * 0.4, outer_x - side, outer_y - thick * 0.9),
        (
            *("C", x + side * width * 0.56, lids.upper_outer - thick * 1.25),
            *(x - side * width * 0.82, lids.upper_inner - thick * 1.25),
            *(lids.inner[0] - side * 1.5, lids.inner[1] + 0.5),
        ),
        ("Z",),
    )
    fill(canvas, crescent, ink)
    stroke(canvas, path(*lids.upper()), ink, 3.6)
    lash = path(
        ("M", outer_x - side * 3, outer_y + 1),
        ("Q", outer_x + side * 2, outer_y + 4, outer_x + side * flick * 0.75, outer_y + 4.5 + 2 * lids.shut),
    )
    stroke(canvas, lash, ink, 2.6, 0.15 + 0.75 * face.fem)


def draw_iris(canvas: skia.Canvas, face: Face, lids: Lids) -> None:
    """Draw the tall iris (dark above, bright below), pupil and two lights, moved by the gaze.

    A widened eye has a smaller iris.
    """
    params, scale = face.params, lids.scale
    small = 1 - 0.95 * max(lids.opening - 1, 0.0)
    radius_x = 17.0 * scale * small
    radius_y = 23.5 * scale * (0.92 + 0.10 * face.fem) * small
    x = lids.x + 10.0 * params["gaze_x"] * scale + 1.5 * face.yaw
    y = lids.y + 9.0 * params["gaze_y"] * scale + 1.5 * face.pitch
    color, bright = IRISES[params["iris"]]
    iris = oval(x, y, radius_x, radius_y)
    deep = mix(color * 0.42, INK, 0.25)
    fill(
        canvas, iris, color, shader=linear((0, y - radius_y * 0.75), (0, y + radius_y), deep, mix(color, bright, 0.55))
    )
    with clipped(canvas, iris):
        glow = oval(x, y + radius_y * 0.82, radius_x * 0.74, radius_y * 0.48)
        fill(canvas, glow, bright, 0.8)
    fill(canvas, oval(x, y - radius_y * 0.05, radius_x * 0.42, radius_y * 0.46), mix(color * 0.12, INK, 0.5))
    stroke(canvas, iris, mix(color * 0.25, INK, 0.4), 2.8)
    fill(canvas, oval(x - 5.4 * scale, y - 8.6 * scale * small, 5.2 * scale, 6.2 * scale), WHITE)
    fill(canvas, oval(x + 6.0 * scale, y + 8.4 * scale * small, 3.1 * scale, 3.5 * scale), WHITE, 0.92)


def draw_tear(canvas: skia.Canvas, face: Face, lids: Lids) -> None:
    """Draw the water that stands on the lower lid of a sad eye (mouth and brows both sad)."""
    params = face.params
    sorrow = max(-params["mouth_curve"], 0.0) * max(-params["brow_a"], 0.0)
    edge = path(("M", *lids.outer), lids.lower_edge())
    stroke(canvas, edge, rgb(0.80, 0.94, 1.0), 14 * lids.scale * sorrow + 0.01, 0.9)


def draw_brow(canvas: skia.Canvas, face: Face, side: int) -> None:
    """Draw one brow over the hair: height, slant (inner end down is anger) and thickness."""
    params = face.params
    x, width = face.eye_x(side), 21.0 * (0.4 + 0.6 * face.eye_scale) * (1 - 0.08 * side * face.yaw)
    lift = 13.0 * params["brow_h"] + (13.0 if side < 0 else -5.0) * params["brow_asym"]
    y = face.eye_y - 41.0 - 3.0 * params["eye_size"] - lift
    slant = 9.5 * params["brow_a"]
    thick = 5.6 + 2.2 * params["brow_t"] - 1.6 * face.fem
    inner_x = x - side * (width * 0.90 + 2.5 * max(params["brow_a"], 0))
    outer_x = x + side * width * 1.02
    inner_y, outer_y, middle_y = y + 2.0 + slant, y + 4.5 - slant * 0.55, y - 5.0 - slant * 0.10
    shape = path(
        ("M", inner_x, inner_y - thick * 0.5),
        ("Q", x + side * 2, middle_y - thick * 0.62, outer_x, outer_y),
        ("Q", x + side * 2, middle_y + thick * 0.62, inner_x, inner_y + thick * 0.5),
        ("Q", inner_x - side * 2.4, inner_y, inner_x, inner_y - thick * 0.5),
        ("Z",),
    )
    color = mix(face.colors.hair_line, INK, 0.35)
    stroke(canvas, shape, mix(face.colors.skin, face.colors.hair_light, 0.4), 3.6, 0.7)  # keeps it readable on hair
    fill(canvas, shape, color)
    stroke(canvas, shape, color, 1.0)


def draw_frown(canvas: skia.Canvas, face: Face) -> None:
    """Draw the two crisp wrinkles between lowered brows."""
    depth = max(face.params["brow_a"], 0) * max(-face.params["brow_h"] + 0.3, 0)
    for side in (-1, 1):
        x = face.features_x + side * 5.5
        wrinkle = path(("M", x, face.eye_y - 31), ("Q", x - side * 2.5, face.eye_y - 25, x - side, face.eye_y - 19))
        stroke(canvas, wrinkle, face.colors.skin_line, 2.8, min(0.9 * depth**1.5, 0.9))


def draw_glasses(canvas: skia.Canvas, face: Face) -> None:
    """Draw crisp round or square glasses with bridge and temples."""
    kind, y = face.params["glasses"], face.eye_y + 3
    if kind == "none":
        return
    color = rgb(0.12, 0.13, 0.20) if kind == "square" else rgb(0.72, 0.24, 0.22)
    width, gap = 30.0, face.eye_gap
    for side in (-1, 1):
        x = face.eye_x(side)
        if kind == "round":
            lens = oval(x, y, width, 31)
        else:
            lens = path(
                ("M", x - width, y - 20),
                ("L", x + width, y - 20),
                ("Q", x + width + 2, y + 22, x + width - 8, y + 26),
                ("L", x - width + 8, y + 26),
                ("Q", x - width - 2, y + 22, x - width, y - 20),
                ("Z",),
            )
        fill(canvas, lens, WHITE, 0.10)
        stroke(canvas, lens, color, 3.8)
        temple_x = face.x + side * (face.half_width + 1) - 4 * face.yaw
        stroke(canvas, path(("M", x + side * width, y - 6), ("L", temple_x, y - 9)), color, 3.4)
    inner = gap - width
    bridge = path(("M", face.features_x - inner, y - 4), ("Q", face.features_x, y - 9, face.features_x + inner, y - 4))
    stroke(canvas, bridge, color, 3.6)
