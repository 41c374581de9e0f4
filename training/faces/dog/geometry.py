"""Where everything of a dog's face stands and which colours it has, worked out once per picture from the parameters.

Units: a 256-unit square, the whole picture; y grows downwards; side −1 is the viewer's left. The factors keep their
human names; what each does to a dog is said where it is used.
"""

from dataclasses import dataclass

import skia

from training.faces.dog.soft import ramp
from training.faces.drawing import Color, hsv, mix, path, rgb
from training.faces.parameters import Parameters


@dataclass(frozen=True, slots=True)
class Coat:
    """A breed's colours: main coat, markings on muzzle, cheeks and chest, brow marks, blotches."""

    base: Color
    ear: Color
    points: Color  # muzzle, cheeks, chest
    brow: Color
    blaze: float  # 0 none … 1 a broad stripe up the forehead
    cheeks: float  # how far the markings reach over the cheeks
    patch: Color  # blotches and eye patches
    blotches: float  # opacity of a merle's blotches


COATS = {
    "black": Coat(
        rgb(0.21, 0.19, 0.21),
        rgb(0.15, 0.13, 0.15),
        rgb(0.83, 0.57, 0.35),
        rgb(0.90, 0.64, 0.38),
        0.0,
        0.7,
        rgb(0.62, 0.44, 0.31),
        0.0,
    ),
    "brown": Coat(
        rgb(0.44, 0.29, 0.20),
        rgb(0.34, 0.21, 0.14),
        rgb(0.80, 0.62, 0.46),
        rgb(0.88, 0.70, 0.52),
        0.25,
        0.3,
        rgb(0.78, 0.60, 0.44),
        0.0,
    ),
    "chestnut": Coat(
        rgb(0.66, 0.35, 0.19),
        rgb(0.54, 0.26, 0.13),
        rgb(0.97, 0.93, 0.88),
        rgb(0.30, 0.13, 0.07),
        1.0,
        0.5,
        rgb(0.34, 0.16, 0.09),
        0.0,
    ),
    "blond": Coat(
        rgb(0.94, 0.78, 0.53),
        rgb(0.84, 0.62, 0.36),
        rgb(0.99, 0.92, 0.79),
        rgb(0.55, 0.33, 0.14),
        0.35,
        0.4,
        rgb(0.62, 0.40, 0.20),
        0.0,
    ),
    "ginger": Coat(
        rgb(0.90, 0.53, 0.24),
        rgb(0.82, 0.43, 0.17),
        rgb(1.0, 0.95, 0.88),
        rgb(0.42, 0.17, 0.06),
        0.0,
        1.0,
        rgb(0.48, 0.22, 0.10),
        0.0,
    ),
    "grey": Coat(
        rgb(0.58, 0.61, 0.66),
        rgb(0.45, 0.48, 0.54),
        rgb(0.97, 0.97, 0.98),
        rgb(0.19, 0.20, 0.25),
        0.5,
        1.0,
        rgb(0.24, 0.26, 0.31),
        0.0,
    ),
    "pink": Coat(
        rgb(0.88, 0.63, 0.55),
        rgb(0.70, 0.38, 0.30),
        rgb(0.99, 0.94, 0.90),
        rgb(0.42, 0.17, 0.12),
        0.8,
        0.6,
        rgb(0.55, 0.27, 0.20),
        0.62,
    ),
    "blue": Coat(
        rgb(0.58, 0.67, 0.80),
        rgb(0.32, 0.39, 0.52),
        rgb(0.97, 0.96, 0.95),
        rgb(0.15, 0.18, 0.27),
        0.8,
        0.6,
        rgb(0.25, 0.31, 0.43),
        0.62,
    ),
}


@dataclass(frozen=True, slots=True)
class Palette:
    """Colours of one dog."""

    coat: Color
    coat_light: Color
    coat_shade: Color
    ear: Color
    ear_light: Color
    ear_shade: Color
    points: Color
    points_shade: Color
    soot: Color  # the darker snout that stands for stubble
    brow: Color
    patch: Color
    blotches: float
    line: Color
    nose: Color
    lip: Color
    collar: Color
    back: Color
    back_dark: Color


@dataclass(frozen=True, slots=True)
class Mouth:
    """The mouth: corners, middle of the upper lip under the nose, depth of the jowls, the lower lip and the chin."""

    x: float
    half_width: float
    corner_y: float
    upper_y: float
    jowl_y: float  # control height of the hanging lips
    lower_y: float
    chin_y: float
    gap: float  # 0 closed … 1 wide open, smile and snarl included
    snarl: float

    def upper(self) -> list[tuple[object, ...]]:
        """Give the upper lip from the left corner over the middle to the right one, after a move to the left."""
        x, width = self.x, self.half_width
        outer = self.corner_y * 0.35 + self.jowl_y * 0.65 + 2
        return [
            ("C", x - width * 0.86, outer, x - width * 0.26, self.jowl_y + 5, x, self.upper_y),
            ("C", x + width * 0.26, self.jowl_y + 5, x + width * 0.86, outer, x + width, self.corner_y),
        ]

    def lower(self) -> list[tuple[object, ...]]:
        """Give the lower lip from the right corner back to the left one."""
        x, width = self.x, self.half_width
        control = (4 * self.lower_y - self.corner_y) / 3
        return [("C", x + width * 0.82, control, x - width * 0.82, control, x - width, self.corner_y)]


@dataclass(frozen=True, slots=True)
class Dog:
    """Geometry and colours of one dog's face."""

    params: Parameters
    breed: Coat
    colors: Palette
    fem: float  # 0 … 1: rounder skull, finer muzzle, lashes
    yaw: float
    pitch: float
    x: float  # middle of the head
    y: float
    half_width: float  # at the cheeks
    skull: float  # half width above the eyes
    top_y: float
    bottom_y: float
    fluff: float  # tufts of the cheeks and volume of the ears
    features_x: float
    eye_y: float
    eye_gap: float
    eye_scale: float
    nose_x: float
    nose_y: float
    nose_w: float
    muzzle_x: float
    muzzle_w: float  # half width
    smile: float
    light_x: float
    mouth: Mouth

    def eye_x(self, side: int) -> float:
        """Give the middle of an eye."""
        return self.features_x + side * self.eye_gap * (1 - 0.08 * side * self.yaw)

    def brow_lift(self, side: int) -> float:
        """Say how far a brow is raised, the asymmetry included."""
        return self.params["brow_h"] + (0.8 if side < 0 else -0.4) * self.params["brow_asym"]

    def head(self) -> skia.Path:
        """Outline the head: skull, cheeks with three tufts a side, chin."""
        x, top, low, skull, width = self.x, self.top_y, self.bottom_y, self.skull, self.half_width
        tuft = 5 + 4 * self.fluff
        right = (
            ("C", x + skull * 0.60, top - 2, x + skull, top + 18, x + skull + 2, top + 52),
            ("C", x + skull + 3, top + 70, x + width - 3, top + 78, x + width, top + 96),
            ("Q", x + width + 1, top + 108, x + width + tuft, top + 119),
            ("Q", x + width - 1, top + 118, x + width - 6, top + 116),
            ("Q", x + width - 5, top + 129, x + width - 10 + tuft, top + 138),
            ("Q", x + width - 15, top + 138, x + width - 23, top + 135),
            ("Q", x + width - 27, top + 144, x + width - 33 + tuft * 0.6, top + 150),
            ("C", x + width * 0.46, low - 7, x + width * 0.28, low, x, low),
        )
        left = (
            ("C", x - width * 0.28, low, x - width * 0.46, low - 7, x - width + 33 - tuft * 0.6, top + 150),
            ("Q", x - width + 27, top + 144, x - width + 23, top + 135),
            ("Q", x - width + 15, top + 138, x - width + 10 - tuft, top + 138),
            ("Q", x - width + 5, top + 129, x - width + 6, top + 116),
            ("Q", x - width + 1, top + 118, x - width - tuft, top + 119),
            ("Q", x - width - 1, top + 108, x - width, top + 96),
            ("C", x - width + 3, top + 78, x - skull - 3, top + 70, x - skull - 2, top + 52),
            ("C", x - skull, top + 18, x - skull * 0.60, top - 2, x, top),
        )
        return path(("M", x, top), *right, *left, ("Z",))


def choose_palette(params: Parameters) -> Palette:
    """Work the colours out: `hair_col` is the coat, `hair_dark` its depth, `skin_t` the tone of the markings."""
    coat = COATS[params["hair_col"]]
    depth = 1 - 0.20 * params["hair_dark"]
    base, ear = coat.base * depth, coat.ear * depth
    tone = params["skin_t"]
    tan, pale = coat.points * rgb(0.82, 0.65, 0.48), mix(coat.points, rgb(1, 0.99, 0.97), 0.75)
    points = mix(tan, pale, tone * 0.5 + 0.5)
    fem = params["fem"] * 0.5 + 0.5
    return Palette(
        coat=base,
        coat_light=mix(base, rgb(1, 0.96, 0.88), 0.22),
        coat_shade=base * rgb(0.72, 0.66, 0.68),
        ear=ear,
        ear_light=mix(ear, rgb(1, 0.94, 0.86), 0.22),
        ear_shade=ear * rgb(0.70, 0.64, 0.66),
        points=points,
        points_shade=points * rgb(0.84, 0.77, 0.76),
        soot=points * rgb(0.50, 0.42, 0.40),
        brow=coat.brow,
        patch=coat.patch * depth,
        blotches=coat.blotches,
        line=rgb(0.14, 0.08, 0.09),
        nose=mix(rgb(0.13, 0.10, 0.12), rgb(0.34, 0.19, 0.17), 0.35 * fem + 0.25 * ramp(-params["hair_dark"])),
        lip=mix(rgb(0.42, 0.20, 0.22), rgb(0.66, 0.32, 0.35), 0.4 + 0.4 * fem),
        collar=hsv(params["cloth_hue"] * 0.5 + 0.25, 0.62, 0.78),
        back=hsv(params["bg_hue"] * 0.5 + 0.5, 0.34, 0.86 + 0.1 * params["bg_val"]),
        back_dark=hsv(params["bg_hue"] * 0.5 + 0.55, 0.46, 0.62 + 0.14 * params["bg_val"]),
    )


def place_mouth(params: Parameters, x: float, y: float, fem: float) -> Mouth:
    """Work the mouth out.

    A smile pulls the corners up and back and parts the lips; lowered corners under lowered brows are a snarl that lifts
    the lips off the teeth; a pout draws the mouth in and up.
    """
    curve, pout = params["mouth_curve"], params["pout"]
    smile = ramp(curve, 0.2)
    snarl = min(1.0, 2.0 * ramp(-curve, 0.15) * ramp(params["brow_a"], 0.15))
    gap = params["mouth_open"] + 0.20 * smile * smile + 0.27 * snarl
    upper_y = y - 2.5 * pout - 3.5 * snarl + 1.5 * smile
    drop = 42 * gap
    return Mouth(
        x=x,
        half_width=(34 + 1.5 * params["jaw"]) * params["mouth_width"] * (1 - 0.30 * pout) * (1 + 0.06 * smile),
        corner_y=y + 3 - 14.5 * curve + 0.18 * drop - 2 * pout - 5 * snarl,
        upper_y=upper_y,
        jowl_y=y + 5 + 3.2 * params["lip_full"] - 1.0 * fem + 4.0 * curve - 4.5 * snarl - 3 * pout,
        lower_y=y + 4 + drop,
        chin_y=y + 23 + 3.5 * params["chin"] - 1.5 * fem + drop * 0.92 - 1.5 * pout,
        gap=gap,
        snarl=snarl,
    )


def place(params: Parameters) -> Dog:
    """Work a whole dog out."""
    yaw, pitch = params["yaw"], params["pitch"]
    fem = params["fem"] * 0.5 + 0.5
    x, y = 128 + 5 * yaw, 124 + 2.5 * pitch
    half_width = 82 + 7 * params["face_w"] - 2 * fem
    features_x, features_y = x + 11 * yaw, y + 6 * pitch
    muzzle_x = features_x + 6 * yaw
    mouth_y = features_y + 55 + 4 * params["mouth_y"] + 2 * params["nose_len"] + 2 * pitch
    mouth = place_mouth(params, muzzle_x, mouth_y, fem)
    smile = ramp(params["mouth_curve"], 0.2)
    return Dog(
        params=params,
        breed=COATS[params["hair_col"]],
        colors=choose_palette(params),
        fem=fem,
        yaw=yaw,
        pitch=pitch,
        x=x,
        y=y,
        half_width=half_width,
        skull=67 + 4.5 * params["face_w"] + 2 * fem,
        top_y=y - 78,
        bottom_y=y + 86 + 3 * params["chin"] + 0.45 * (mouth.chin_y - mouth_y - 23),
        fluff=params["hair_vol"],
        features_x=features_x,
        eye_y=features_y - 7 + 4 * params["eye_y"],
        eye_gap=36 + 3.6 * params["eye_gap"],
        eye_scale=1 + 0.13 * params["eye_size"] + 0.05 * fem,
        nose_x=features_x + 9 * yaw,
        nose_y=features_y + 27 + 5 * params["nose_len"] + 3 * pitch - 1.5 * mouth.snarl,
        nose_w=17 + 3.4 * params["nose_w"] - 2 * fem,
        muzzle_x=muzzle_x,
        muzzle_w=(44 + 4.5 * params["jaw"] - 2.5 * fem) * (1 - 0.13 * params["pout"]),
        smile=smile,
        light_x=50 * params["light"],
        mouth=mouth,
    )
