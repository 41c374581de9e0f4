"""A dog's coat: chest and collar, the head with its shading, markings, blotches and blush.

Units as in `geometry`.
"""

import skia

from training.faces.dog.geometry import Dog
from training.faces.dog.soft import glow, ramp, smoothstep
from training.faces.drawing import WHITE, clipped, fill, linear, mix, oval, path, radial, rgb, stroke

BLOTCHES = ((-44, -48, 26, 20), (30, -62, 24, 17), (56, -10, 20, 26), (-66, 22, 18, 22), (8, -36, 13, 11))
"""A merle's blotches: x, y off the middle of the head, radii."""
GOLD = rgb(0.93, 0.75, 0.32)


def draw_chest(canvas: skia.Canvas, dog: Dog) -> None:
    """Draw neck and chest with its bib."""
    colors = dog.colors
    body = path(
        ("M", 18, 262),
        ("C", 26, 236, 50, 222, 62, 176),
        ("L", 192, 176),
        ("C", 206, 222, 230, 236, 238, 262),
        ("Z",),
    )
    shade = linear((60 + dog.light_x, 190), (196, 262), colors.coat, colors.coat_shade)
    fill(canvas, body, colors.coat, shader=shade)
    bib = path(
        ("M", 84, 262),
        ("C", 88, 238, 100, 218, 128, 212),
        ("C", 156, 218, 168, 238, 172, 262),
        ("Z",),
    )
    fill(canvas, bib, colors.points, shader=linear((0, 212), (0, 262), colors.points_shade, colors.points))


def draw_collar(canvas: skia.Canvas, dog: Dog) -> None:
    """Draw the collar with its tag, before the head that covers its middle."""
    color = dog.colors.collar
    band = path(
        ("M", 50, 204),
        ("C", 62, 248, 194, 248, 206, 204),
        ("L", 212, 216),
        ("C", 200, 267, 56, 267, 44, 216),
        ("Z",),
    )
    shade = linear((52 + dog.light_x, 0), (206, 0), mix(color, WHITE, 0.16), color * 0.74)
    fill(canvas, band, color, shader=shade)
    fill(canvas, oval(128, 251, 9.5, 9.5), GOLD * 0.72)
    fill(canvas, oval(128, 250, 8.2, 8.2), GOLD, shader=radial((125, 247), 12, [mix(GOLD, WHITE, 0.6), GOLD]))


def draw_patches(canvas: skia.Canvas, dog: Dog) -> None:
    """Draw the marks that stand for glasses: "round" a patch over one eye, "square" a mask over both."""
    kind = dog.params["glasses"]
    if kind == "none":
        return
    color, y = dog.colors.patch, dog.eye_y
    if kind == "round":
        x = dog.eye_x(1)
        shape = path(
            ("M", x - 24, y + 4),
            ("C", x - 27, y - 22, x - 10, y - 38, x + 8, y - 37),
            ("C", x + 30, y - 36, x + 34, y - 8, x + 29, y + 8),
            ("C", x + 24, y + 27, x - 20, y + 30, x - 24, y + 4),
            ("Z",),
        )
        fill(canvas, shape, color, 0.92, blur=1.6)
        return
    for side in (-1, 1):
        x = dog.eye_x(side)
        inner, outer = x - side * 22, x + side * 52
        shape = path(
            ("M", inner, y - 2),
            ("C", inner + side * 4, y - 22, x + side * 16, y - 26, outer, y - 25),
            ("C", outer - side * 6, y - 4, x + side * 32, y + 14, x + side * 14, y + 19),
            ("C", x, y + 23, inner - side * 2, y + 18, inner, y - 2),
            ("Z",),
        )
        fill(canvas, shape, color, 0.92, blur=1.6)


def draw_markings(canvas: skia.Canvas, dog: Dog) -> None:
    """Draw blotches, the markings on cheeks and muzzle and the stripe up the forehead."""
    params, colors = dog.params, dog.colors
    x, y = dog.x, dog.y
    if colors.blotches:
        for offset_x, offset_y, radius_x, radius_y in BLOTCHES:
            blotch = oval(x + offset_x, y + offset_y, radius_x, radius_y)
            fill(canvas, blotch, colors.patch, colors.blotches, blur=3)
    breed = dog.breed
    low, middle, nose_y = dog.bottom_y, dog.muzzle_x, dog.nose_y
    reach = dog.muzzle_w + 3 + (dog.half_width - dog.muzzle_w - 10) * breed.cheeks
    high = nose_y - 6 - 4 * breed.cheeks
    cheeks = path(
        ("M", middle, high),
        ("C", middle + 20, high + 2, middle + reach * 0.7, high - 2, middle + reach, high + 20),
        ("C", middle + reach + 4, high + 44, middle + reach * 0.7, low + 8, middle, low + 8),
        ("C", middle - reach * 0.7, low + 8, middle - reach - 4, high + 44, middle - reach, high + 20),
        ("C", middle - reach * 0.7, high - 2, middle - 20, high + 2, middle, high),
        ("Z",),
    )
    fill(canvas, cheeks, colors.points, blur=2.2)
    width, top = 5 + 8 * breed.blaze, dog.top_y + 50 - 44 * breed.blaze
    bridge = path(
        ("M", dog.features_x - width * 0.5, top + 14),
        ("Q", dog.features_x, top - 6, dog.features_x + width * 0.5, top + 14),
        ("C", middle + width * 0.7, dog.eye_y - 10, middle + width * 0.6, dog.eye_y + 10, middle + 28, nose_y + 12),
        ("L", middle - 28, nose_y + 12),
        (
            "C",
            middle - width * 0.6,
            dog.eye_y + 10,
            middle - width * 0.7,
            dog.eye_y - 10,
            middle - width * 0.5,
            top + 14,
        ),
        ("Z",),
    )
    fill(canvas, bridge, colors.points, blur=1.8)
    if params["beard"] == "stubble":
        glow(canvas, middle, dog.mouth.upper_y, dog.muzzle_w + 26, 50, colors.soot, 0.6)


def draw_head(canvas: skia.Canvas, dog: Dog) -> None:
    """Draw the head with light, shadow, markings, lifted cheeks and blush."""
    colors, params = dog.colors, dog.params
    head = dog.head()
    glow(canvas, dog.x, dog.bottom_y + 2, dog.half_width * 0.86, 26, rgb(0.08, 0.04, 0.06), 0.42)  # on the collar
    tones = [colors.coat_light, colors.coat, colors.coat_shade]
    lit = radial((dog.x + dog.light_x * 0.8 + 4 * dog.yaw, dog.y - 46), 150, tones, [0, 0.5, 1.0])
    fill(canvas, head, colors.coat, shader=lit)
    with clipped(canvas, head):
        draw_markings(canvas, dog)
        draw_patches(canvas, dog)
        # a dark coat is paler around the eyes: shut lids must stand out from it
        spectacles = smoothstep(0.46 - float(colors.coat.mean()), 0.0, 0.22)
        pale = mix(colors.coat, dog.breed.brow, 0.55)
        light = params["light"]
        shadow = rgb(0.16, 0.08, 0.10)
        for side in (-1, 1):
            strength = 0.26 - 0.24 * side * light
            glow(canvas, dog.x + side * (dog.half_width + 4), dog.y + 10, 40, 104, shadow, strength)
            glow(canvas, dog.eye_x(side), dog.eye_y - 2, 30, 26, shadow, 0.20 * (1 - spectacles))
            glow(canvas, dog.eye_x(side), dog.eye_y + 3, 35, 28, pale, 0.72 * spectacles)
        glow(canvas, dog.x, dog.bottom_y + 4, 62, 26, shadow, 0.40)
        cheek_y, cheek_x = dog.eye_y + 39 - 5 * dog.smile, 55 + 1.5 * params["eye_gap"]
        for side in (-1, 1):
            x = dog.features_x + side * cheek_x
            lift = dog.smile
            glow(canvas, x, cheek_y - 6, 24, 17, WHITE, 0.26 * lift)
            glow(canvas, x, cheek_y, 25, 18, rgb(0.98, 0.30, 0.32), 0.04 + 0.54 * params["blush"])
            crease = path(
                ("M", x - side * 22, dog.eye_y + 22 - 2 * lift),
                ("Q", x - side * 2, dog.eye_y + 24 - 7 * lift, x + side * 14, dog.eye_y + 14 - 4 * lift),
            )
            stroke(canvas, crease, colors.line, 2.4, 0.45 * ramp(lift, 0.3))
            puff = params["pout"]
            glow(canvas, x - side * 4, cheek_y + 18, 22, 20, WHITE, 0.34 * puff)


def draw_forehead(canvas: skia.Canvas, dog: Dog) -> None:
    """Draw the furrows between lowered brows and the folds that raised brows push up."""
    params, colors = dog.params, dog.colors
    x, y = dog.features_x, dog.eye_y
    anger = ramp(params["brow_a"]) * (0.55 + 0.45 * ramp(-params["brow_h"]))
    raised = ramp(params["brow_h"])
    ink = mix(colors.line, colors.brow, 0.35)
    for side in (-1, 1):
        furrow = path(("M", x + side * 8, y - 27), ("Q", x + side * 4, y - 19, x + side * 5, y - 9))
        stroke(canvas, furrow, ink, 3.0, 0.85 * anger)
        fold = path(("M", x + side * 44, y - 46), ("Q", x + side * 24, y - 57, x + side * 5, y - 50))
        stroke(canvas, fold, ink, 2.4, 0.42 * raised)
        worry = path(("M", x + side * 11, y - 40), ("Q", x + side * 7, y - 33, x + side * 9, y - 25))
        stroke(canvas, worry, ink, 2.6, 0.55 * ramp(-params["brow_a"]))
