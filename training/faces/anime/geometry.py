"""Where everything of an anime face stands and which colours it has, worked out once per picture from the parameters.

Units: the picture is a 256-unit square; y grows downwards; side −1 is the viewer's left.
"""

from dataclasses import dataclass

import skia

from training.faces.drawing import Color, hsv, mix, path, rgb
from training.faces.parameters import Parameters

SKINS = (
    rgb(0.45, 0.28, 0.20),
    rgb(0.64, 0.42, 0.30),
    rgb(0.83, 0.60, 0.45),
    rgb(0.96, 0.77, 0.62),
    rgb(1.0, 0.87, 0.77),
    rgb(1.0, 0.93, 0.88),
)
HAIRS = {
    "black": rgb(0.17, 0.17, 0.25),
    "brown": rgb(0.42, 0.26, 0.18),
    "chestnut": rgb(0.66, 0.30, 0.20),
    "blond": rgb(0.99, 0.82, 0.40),
    "ginger": rgb(0.98, 0.50, 0.16),
    "grey": rgb(0.76, 0.77, 0.84),
    "pink": rgb(1.0, 0.50, 0.70),
    "blue": rgb(0.22, 0.50, 0.95),
}
INK = rgb(0.16, 0.08, 0.12)
"""What dark outlines tend to."""


@dataclass(frozen=True, slots=True)
class Palette:
    """Colours of one face: a flat tone, its crisp shadow and the outline of each material."""

    skin: Color
    skin_shade: Color
    skin_line: Color
    hair: Color
    hair_shade: Color
    hair_light: Color
    hair_line: Color
    lips: Color
    blush: Color
    cloth: Color
    cloth_shade: Color
    cloth_line: Color
    back: Color
    back_light: Color


@dataclass(frozen=True, slots=True)
class Mouth:
    """The mouth's line and opening."""

    x: float
    y: float
    half_width: float
    corner_y: float
    upper_y: float  # middle of the upper edge
    lower_y: float


@dataclass(frozen=True, slots=True)
class Face:
    """Geometry and colours of one face."""

    params: Parameters
    colors: Palette
    fem: float  # 0 … 1
    yaw: float
    pitch: float
    x: float  # centre of the head
    y: float  # height of the widest place, at the temples
    half_width: float
    top: float
    chin: float
    jaw: float  # half width at the corners of the jaw
    pout: float
    features_x: float
    eye_y: float
    eye_gap: float
    eye_scale: float
    nose_x: float
    nose_y: float
    hair_x: float
    hair_volume: float
    light_x: float
    smile: float
    mouth: Mouth

    def eye_x(self, side: int) -> float:
        """Give the centre of an eye."""
        return self.features_x + side * self.eye_gap * (1 - 0.06 * side * self.yaw)

    def head(self) -> skia.Path:
        """Outline the head: a wide cranium, soft cheeks that a pout puffs, a small pointed chin."""
        x, y, width, jaw, top, chin = self.x, self.y, self.half_width, self.jaw, self.top, self.chin
        puff = 14 * self.pout
        jaw_y = chin - 37
        cheek_x, low_x, low_y = jaw + 10 + puff * 1.5, jaw - 13 + puff * 0.9, chin - 14
        return path(
            ("M", x, top),
            ("C", x + width * 0.6, top, x + width, y - 44, x + width, y),
            ("C", x + width, y + 26, x + cheek_x, jaw_y - 20, x + jaw + puff, jaw_y),
            ("C", x + low_x, low_y, x + 10, chin, x, chin),
            ("C", x - 10, chin, x - low_x, low_y, x - jaw - puff, jaw_y),
            ("C", x - cheek_x, jaw_y - 20, x - width, y + 26, x - width, y),
            ("C", x - width, y - 44, x - width * 0.6, top, x, top),
            ("Z",),
        )


def choose_palette(params: Parameters) -> Palette:
    """Work the colours out."""
    tone = (params["skin_t"] * 0.5 + 0.5) * (len(SKINS) - 1)
    index = min(int(tone), len(SKINS) - 2)
    skin = mix(SKINS[index], SKINS[index + 1], tone - index)
    hair = HAIRS[params["hair_col"]] * (1 - 0.24 * params["hair_dark"])
    fem = params["fem"] * 0.5 + 0.5
    cloth = hsv(params["cloth_hue"] * 0.5 + 0.25, 0.60, 0.74)
    hue, value = params["bg_hue"] * 0.5 + 0.5, params["bg_val"]
    return Palette(
        skin=skin,
        skin_shade=skin * rgb(0.90, 0.73, 0.74),
        skin_line=mix(skin * rgb(0.50, 0.30, 0.30), INK, 0.45),
        hair=hair,
        hair_shade=hair * rgb(0.72, 0.66, 0.78),
        hair_light=mix(hair, rgb(0.94, 0.96, 1), 0.45),
        hair_line=mix(hair * 0.42, INK, 0.45),
        lips=mix(skin * rgb(0.92, 0.58, 0.56), rgb(0.95, 0.38, 0.45), 0.25 + 0.4 * fem),
        blush=mix(rgb(1.0, 0.38, 0.42), skin, 0.05),
        cloth=cloth,
        cloth_shade=cloth * rgb(0.72, 0.68, 0.80),
        cloth_line=mix(cloth * 0.35, INK, 0.4),
        back=hsv(hue + 0.03, 0.40 - 0.06 * value, 0.76 + 0.16 * value),
        back_light=hsv(hue, 0.24 - 0.04 * value, 0.88 + 0.10 * value),
    )


def place_mouth(params: Parameters, x: float, y: float) -> Mouth:
    """Work the mouth out; pouting puckers it into a small, pushed-up button."""
    curve, opening, pout = params["mouth_curve"], params["mouth_open"], params["pout"]
    gap = 36 * opening
    middle = y + 5.5 * curve - 2 * pout
    return Mouth(
        x=x,
        y=y,
        half_width=23 * params["mouth_width"] * (1 - 0.48 * pout) * (1 - 0.10 * opening),
        corner_y=y - 10.5 * curve * (1 - 0.5 * pout) + 4 * opening - 2 * pout,
        upper_y=middle - gap * 0.28,
        lower_y=middle + gap * 0.72,
    )


def place(params: Parameters) -> Face:
    """Work a whole face out."""
    yaw, pitch = params["yaw"], params["pitch"]
    fem = params["fem"] * 0.5 + 0.5
    x, y = 128 + 5 * yaw, 124 + 2.5 * pitch
    half_width = 77 + 6 * params["face_w"] - 2 * fem
    features_x, features_y = x + 12 * yaw, y + 6 * pitch
    eye_y = features_y + 20 + 4 * params["eye_y"]
    mouth_y = features_y + 69 + 3.5 * params["mouth_y"] - 3.0 * params["mouth_open"]
    return Face(
        params=params,
        colors=choose_palette(params),
        fem=fem,
        yaw=yaw,
        pitch=pitch,
        x=x,
        y=y,
        half_width=half_width,
        top=y - 88,
        chin=y + 98 + 5 * params["chin"] - 3 * fem + 8 * params["mouth_open"] + 2 * pitch,
        jaw=half_width * (0.74 + 0.08 * params["jaw"] - 0.07 * fem),
        pout=params["pout"],
        features_x=features_x,
        eye_y=eye_y,
        eye_gap=37.5 + 3.4 * params["eye_gap"],
        eye_scale=1 + 0.12 * params["eye_size"] + 0.05 * fem,
        nose_x=features_x + 6 * yaw,
        nose_y=features_y + 48 + 4 * params["nose_len"] + 2 * pitch,
        hair_x=x - 5 * yaw,  # the back of the hair moves against the features
        hair_volume=7 + 5 * params["hair_vol"],
        light_x=10 * params["light"],
        smile=max(params["mouth_curve"], 0),
        mouth=place_mouth(params, features_x + 3.0 * yaw, mouth_y),
    )
