"""A dog's eyes and the marks above them that serve as brows.

Units as in `geometry`.
"""

import skia

from training.faces.dog.geometry import Dog
from training.faces.dog.soft import ramp
from training.faces.drawing import WHITE, clipped, fill, mix, oval, path, radial, rgb, stroke

IRISES = {
    "brown": rgb(0.45, 0.24, 0.10),
    "blue": rgb(0.36, 0.66, 0.93),
    "green": rgb(0.58, 0.62, 0.22),
    "grey": rgb(0.62, 0.67, 0.72),
}
RIM = rgb(0.11, 0.07, 0.09)


def draw_eye(canvas: skia.Canvas, dog: Dog, side: int) -> None:
    """Draw one eye: dark rim, white, iris, lids and lashes."""
    params = dog.params
    opening = params["eye_l"] if side < 0 else params["eye_r"]
    scale, x, y = dog.eye_scale, dog.eye_x(side), dog.eye_y
    width = 19.5 * scale * (1 - 0.10 * side * dog.yaw)
    within = min(opening, 1.0)
    shut = 1 - within
    above = 17.5 * scale * opening
    below = 12.0 * scale * within * (1 - 0.34 * dog.smile) + 2.5 * ramp(opening - 1)
    tilt = 2.6 * params["eye_tilt"]
    anger, sorrow = ramp(params["brow_a"]), ramp(-params["brow_a"])  # the lids follow the brows
    drop = 5.0 * shut  # a shut eye hangs like a bow
    inner_x, outer_x = x - side * width, x + side * width
    inner_y, outer_y = y + 3.0 + tilt * 0.5 + drop * 0.4, y - 0.5 - tilt + drop * 0.4 + 3.0 * sorrow
    upper = (
        *("C", x - side * width * 0.60, y - above * (1.22 - 0.42 * anger + 0.10 * sorrow) + drop * 2.2),
        *(x + side * width * 0.50, y - above * (1.32 - 0.30 * sorrow + 0.05 * anger) + drop * 2.2, outer_x, outer_y),
    )
    lower = (
        *("C", x + side * width * 0.55, y + below * 1.30 + drop * 2.2),
        *(x - side * width * 0.55, y + below * 1.30 + drop * 2.2, inner_x, inner_y),
    )
    eye = path(("M", inner_x, inner_y), upper, lower, ("Z",))
    lid = path(("M", inner_x, inner_y), upper)
    stroke(canvas, eye, RIM, 4.2)  # the rim stands out around the white, also over a dark coat
    if within > 0:
        fill(canvas, eye, rgb(0.97, 0.95, 0.92))
        with clipped(canvas, eye):
            draw_iris(canvas, dog, x, y)
            stroke(canvas, lid, RIM, 7, 0.24)
    halo = mix(dog.colors.coat_light, WHITE, 0.2)
    fold = path(
        ("M", inner_x + side * 2, inner_y - 13 * scale - above * 0.15),
        ("Q", x, y - 13 * scale - above * 0.56 + drop, outer_x + side * 1, outer_y - 10 * scale - above * 0.1),
    )
    stroke(canvas, fold, halo, 2.2, 0.35)
    stroke(canvas, lid, RIM, 4.6 + 1.0 * dog.fem)
    corner = path(("M", inner_x, inner_y), ("L", inner_x - side * 3.5, inner_y + 3))
    stroke(canvas, corner, RIM, 3.6)
    length = 7.5 * ramp(dog.fem - 0.35) / 0.65
    lift = length * (0.75 * within - 0.35 * shut)
    lash = path(
        ("M", outer_x - side, outer_y),
        ("Q", outer_x + side * length * 0.5, outer_y, outer_x + side * length, outer_y - lift),
    )
    stroke(canvas, lash, RIM, 3.2, min(1.0, length / 2))


def draw_iris(canvas: skia.Canvas, dog: Dog, x: float, y: float) -> None:
    """Draw iris, pupil and lights, moved by the gaze; a pout's pleading look widens the pupil."""
    scale, params, pleading = dog.eye_scale, dog.params, dog.params["pout"]
    radius = 13.0 * scale * (1 + 0.12 * pleading)
    x = x + 7.2 * params["gaze_x"] * scale + 1.2 * dog.yaw
    y = y - 1.5 + 6.4 * params["gaze_y"] * scale - 1.0 * pleading
    color = IRISES[params["iris"]]
    rings = [mix(color, WHITE, 0.40), color, color * 0.40]
    fill(canvas, oval(x, y, radius, radius), color, shader=radial((x, y + 5), radius * 1.15, rings, [0, 0.55, 1]))
    pupil = radius * (0.50 + 0.16 * pleading)
    fill(canvas, oval(x, y, pupil, pupil), rgb(0.04, 0.03, 0.04))
    shine = 3.9 * (1 + 0.35 * pleading)
    fill(canvas, oval(x + 4.0, y - 4.8, shine, shine), WHITE, 0.97)
    fill(canvas, oval(x - 4.2, y + 5.0, 2.0 + pleading, 2.0 + pleading), WHITE, 0.65)


def draw_brow(canvas: skia.Canvas, dog: Dog, side: int) -> None:
    """Draw one brow mark: height, slant (inner end down is anger) and thickness."""
    params, slope = dog.params, dog.params["brow_a"]
    x, width = dog.eye_x(side), 18.5 * (1 - 0.10 * side * dog.yaw)
    y = dog.eye_y - 31 - 2.5 * params["eye_size"] - 12.5 * dog.brow_lift(side)
    slant = 10.5 * slope
    thick = 7.2 + 2.0 * params["brow_t"]
    inner_x = x - side * (width * 0.95 + 2.5 * ramp(slope))
    outer_x = x + side * width * 1.0
    inner_y, outer_y, middle_y = y + 1.5 + slant, y + 4.5 - slant * 0.62, y - 5.0 - slant * 0.05
    shape = path(
        ("M", inner_x, inner_y - thick * 0.5),
        ("Q", x + side * 2, middle_y - thick * 0.55, outer_x, outer_y),
        ("Q", x + side * 1, middle_y + thick * 0.85, inner_x, inner_y + thick * 0.55),
        ("Q", inner_x - side * thick * 0.55, inner_y, inner_x, inner_y - thick * 0.5),
        ("Z",),
    )
    fill(canvas, shape, dog.colors.brow)
