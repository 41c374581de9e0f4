"""Features of a human face: nose, eyes, brows, mouth and glasses.

Units as in `geometry`.
"""

import skia

from training.faces.drawing import WHITE, clipped, fill, linear, mix, oval, path, radial, rgb, stroke
from training.faces.geometry import Face

IRISES = {
    "brown": rgb(0.36, 0.20, 0.10),
    "blue": rgb(0.22, 0.48, 0.80),
    "green": rgb(0.25, 0.55, 0.32),
    "grey": rgb(0.45, 0.52, 0.58),
}


def draw_nose(canvas: skia.Canvas, face: Face) -> None:
    """Draw the nose: a shadow on the dark side, the wings' line, a light tip."""
    x, y, width, colors = face.nose_x, face.nose_y, face.nose_w, face.colors
    side = 1 if face.params["light"] < 0 else -1
    shadow = path(
        ("M", x + side * 2, face.features_y - 10),
        ("Q", x + side * 10, y - 8, x + side * (width + 2), y + 2),
        ("Q", x, y + 8, x, y),
        ("Z",),
    )
    fill(canvas, shadow, colors.shade, 0.34, blur=2.5)
    wings = path(
        ("M", x - width, y + 0.5), ("C", x - width * 0.7, y + 6.5, x + width * 0.7, y + 6.5, x + width, y + 0.5)
    )
    stroke(canvas, wings, colors.line, 2.6, 0.62)
    fill(canvas, oval(x, y - 3, 4.2, 3.4), colors.light, 0.65, blur=2)


def draw_eye(canvas: skia.Canvas, face: Face, side: int) -> None:
    """Draw one eye: socket, white, iris, lids, lashes and the fold above."""
    params, colors = face.params, face.colors
    opening = params["eye_l"] if side < 0 else params["eye_r"]
    scale, x, y = face.eye_scale, face.eye_x(side), face.eye_y
    width = 15.2 * scale * (1 - 0.10 * side * face.yaw)
    shut = 1 - min(opening, 1.0)
    above = 11.2 * scale * opening
    below = 7.2 * scale * min(opening, 1.0) * (1 - 0.30 * face.smile) - 2.2 * shut if opening > 0 else -2.2
    tilt = 1.6 * params["eye_tilt"] + 0.8 * face.fem
    inner_x, outer_x = x - side * width, x + side * width
    drop = 2.2 * shut
    inner_y, outer_y = y + 1.5 + tilt * 0.4 + drop, y + 0.5 - tilt + drop
    lid = (
        ("M", inner_x, inner_y),
        (
            *("C", x - side * width * 0.62, y - above * 1.20 + drop * 2.2),
            *(x + side * width * 0.48, y - above * 1.34 + drop * 2.2, outer_x, outer_y),
        ),
    )
    eye = path(
        *lid,
        (
            *("C", x + side * width * 0.55, y + below * 1.25 + drop * 3.4),
            *(x - side * width * 0.55, y + below * 1.30 + drop * 3.4, inner_x, inner_y),
        ),
        ("Z",),
    )
    fill(canvas, oval(x, y - 6, width + 3, 13), colors.shade, 0.30, blur=4)
    if opening > 0.03:
        fill(canvas, eye, rgb(0.99, 0.98, 0.97))
        with clipped(canvas, eye):
            draw_iris(canvas, face, x, y)
            stroke(canvas, path(*lid), rgb(0.15, 0.1, 0.18), 5.5, 0.25, blur=2)  # the upper lid's shadow
    stroke(canvas, path(*lid), colors.line * 0.55, 3.1 + 1.1 * face.fem)
    if face.fem > 0.5:
        length = (face.fem - 0.5) * 2
        lift = 4.2 * length * (1 if opening > 0.3 else -0.4)
        lash = path(
            ("M", outer_x - side, outer_y - 0.5),
            ("Q", outer_x + side * 2.5 * length, outer_y - 1.5 * length, outer_x + side * 4.6 * length, outer_y - lift),
        )
        stroke(canvas, lash, colors.line * 0.55, 2.4)
    wide = max(opening - 1, 0)
    fold = path(
        ("M", x - side * width * 0.7, y - 12.4 * scale - 9.6 * wide),
        ("Q", x + side * 2, y - 17.0 * scale - 11.2 * wide, x + side * width * 0.9, y - 10.6 * scale),
    )
    stroke(canvas, fold, colors.shade * 0.78, 1.6, 0.55 * min(opening, 1))


def draw_iris(canvas: skia.Canvas, face: Face, x: float, y: float) -> None:
    """Draw iris, pupil and the two lights, moved by the gaze."""
    scale, params = face.eye_scale, face.params
    radius = 8.9 * scale
    x = x + 5.6 * params["gaze_x"] * scale + 1.0 * face.yaw
    y = y - 0.8 + 4.6 * params["gaze_y"] * scale
    color = IRISES[params["iris"]]
    rings = [mix(color, WHITE, 0.42), color, color * 0.45]
    fill(canvas, oval(x, y, radius, radius), color, shader=radial((x, y + 3.5), radius * 1.12, rings, [0, 0.55, 1]))
    fill(canvas, oval(x, y, radius * 0.47, radius * 0.47), rgb(0.04, 0.03, 0.05))
    fill(canvas, oval(x + 2.9, y - 3.2, 2.7, 2.7), WHITE, 0.96)
    fill(canvas, oval(x - 2.8, y + 3.4, 1.3, 1.3), WHITE, 0.6)


def draw_brow(canvas: skia.Canvas, face: Face, side: int) -> None:
    """Draw one brow: height, slant (inner end down is anger) and thickness."""
    params = face.params
    x, width = face.eye_x(side), 15.2 * face.eye_scale * (1 - 0.10 * side * face.yaw)
    lift = 9.5 * params["brow_h"] + (7.5 if side < 0 else -3.0) * params["brow_asym"]
    y = face.eye_y - 24.5 - 2.0 * params["eye_size"] - lift
    slant = 7.2 * params["brow_a"]
    thick = 5.2 + 1.7 * params["brow_t"] - 1.5 * face.fem
    inner_x = x - side * (width * 0.98 + 1.6 * max(params["brow_a"], 0))
    outer_x = x + side * width * 1.20
    inner_y, outer_y, middle_y = y + 2.0 + slant, y + 3.2 - slant * 0.45, y - 4.4 - slant * 0.12
    shape = path(
        ("M", inner_x, inner_y - thick * 0.45),
        ("Q", x + side * 2, middle_y - thick * 0.62, outer_x, outer_y),
        ("Q", x + side * 2, middle_y + thick * 0.55, inner_x, inner_y + thick * 0.55),
        ("Q", inner_x - side * 2.2, inner_y, inner_x, inner_y - thick * 0.45),
        ("Z",),
    )
    fill(canvas, shape, face.colors.brow)


def draw_frown(canvas: skia.Canvas, face: Face) -> None:
    """Draw the two wrinkles between lowered brows."""
    depth = max(face.params["brow_a"], 0) * max(-face.params["brow_h"] + 0.3, 0)
    if depth <= 0.02:
        return
    for side in (-1, 1):
        wrinkle = path(
            ("M", face.features_x + side * 4.5, face.eye_y - 20), ("L", face.features_x + side * 3.2, face.eye_y - 11)
        )
        stroke(canvas, wrinkle, face.colors.line, 1.8, min(0.75 * depth, 0.8))


def draw_mouth(canvas: skia.Canvas, face: Face) -> None:
    """Draw lips, the opening with teeth and tongue, corners, dimples and the folds of a smile."""
    mouth, colors, pout = face.mouth, face.colors, face.params["pout"]
    opening = face.params["mouth_open"]
    x, width, corner = mouth.x, mouth.half_width, mouth.corner_y
    upper, lower, upper_lip, lower_lip = mouth.upper_y, mouth.lower_y, mouth.upper_lip, mouth.lower_lip
    left, right = x - width, x + width
    inner_top, inner_low = mouth.sag(upper, 0.62), mouth.sag(lower, 0.70)
    upper_edge = ("C", x - width * 0.45, inner_top, x + width * 0.45, inner_top, right, corner)
    lower_edge = ("C", x + width * 0.52, inner_low, x - width * 0.52, inner_low, left, corner)
    hole = path(("M", left, corner), upper_edge, lower_edge, ("Z",))
    fill(
        canvas,
        oval(x, lower + lower_lip + 5 - 1.5 * pout, width * (0.55 + 0.2 * pout), 3.2 + 0.6 * pout),
        colors.shade,
        0.5 + 0.15 * pout,
        blur=2.5,
    )
    bow, top_y, low_y = 1.6 + 1.6 * pout, mouth.sag(upper, 0.55) - upper_lip, mouth.sag(lower, 0.72) + lower_lip
    wide = 0.62 + 0.12 * pout
    lips = path(
        ("M", left - 1, corner),
        ("C", x - width * 0.55, top_y, x - 6, upper - upper_lip - bow, x, upper - upper_lip + 0.6),
        ("C", x + 6, upper - upper_lip - bow, x + width * 0.55, top_y, right + 1, corner),
        ("C", x + width * wide, low_y, x - width * wide, low_y, left - 1, corner),
        ("Z",),
    )
    tint = mix(colors.lips, rgb(0.84, 0.26, 0.32), 0.35 * pout)
    shader = linear((0, upper - upper_lip), (0, lower + lower_lip), tint * 0.9, mix(tint, rgb(1, 0.8, 0.8), 0.14))
    fill(canvas, lips, tint, shader=shader)
    gloss = oval(x + 1, lower + lower_lip * 0.55, width * (0.34 + 0.10 * pout), lower_lip * 0.32)
    fill(canvas, gloss, rgb(1, 0.92, 0.92), 0.30 + 0.35 * pout, blur=1.5)
    if opening > 0.015:
        fill(canvas, hole, rgb(0.27, 0.06, 0.09))
        with clipped(canvas, hole):
            tongue = oval(x, lower + 4 + 1.5 * (1 - opening), width * 0.62, 5 + 8 * opening)
            fill(canvas, tongue, rgb(0.85, 0.36, 0.40))
            teeth = path(
                ("M", left, corner - 6),
                ("L", right, corner - 6),
                ("L", right, corner),
                ("C", x + width * 0.45, inner_top + 5.5, x - width * 0.45, inner_top + 5.5, left, corner),
                ("Z",),
            )
            fill(canvas, teeth, rgb(0.98, 0.97, 0.95))
    stroke(canvas, path(("M", left, corner), upper_edge), colors.lips * 0.42, 2.2, 1.0)
    for side in (-1, 1):
        end = x + side * (width + 1)
        dimple = path(
            ("M", end + side * 0.5, corner - 2.5), ("Q", end + side * 2.5, corner, end + side * 0.5, corner + 2.5)
        )
        stroke(canvas, dimple, colors.line, 1.7, 0.25 + 0.5 * face.smile)
        if face.smile > 0.2:
            fold = path(
                ("M", face.nose_x + side * (face.nose_w + 5), face.nose_y + 1),
                ("Q", end + side * 6, corner - 12, end + side * 6.5, corner - 1),
            )
            stroke(canvas, fold, colors.shade * 0.85, 2, 0.55 * (face.smile - 0.2))


def draw_glasses(canvas: skia.Canvas, face: Face) -> None:
    """Draw round or square glasses with temples and bridge."""
    kind, y = face.params["glasses"], face.eye_y
    if kind == "none":
        return
    color = rgb(0.13, 0.12, 0.16) if kind == "square" else rgb(0.45, 0.30, 0.18)
    for side in (-1, 1):
        x = face.eye_x(side)
        if kind == "round":
            lens = oval(x, y + 1, 20.5, 19.5)
        else:
            lens = path(
                ("M", x - 21, y - 12),
                ("L", x + 21, y - 12),
                ("Q", x + 23, y + 14, x + 13, y + 16),
                ("L", x - 13, y + 16),
                ("Q", x - 23, y + 14, x - 21, y - 12),
                ("Z",),
            )
        fill(canvas, lens, rgb(0.9, 0.96, 1.0), 0.13)
        stroke(canvas, lens, color, 3.2)
        temple_x = face.x + side * (face.half_width + 1) - 4 * face.yaw
        stroke(canvas, path(("M", x + side * 20.5, y - 5), ("L", temple_x, y - 2)), color, 3)
    inner = face.eye_gap - 20
    bridge = path(("M", face.features_x - inner, y - 2), ("Q", face.features_x, y - 8, face.features_x + inner, y - 2))
    stroke(canvas, bridge, color, 3)
