"""Where everything of a human face stands and which colours it has, worked out once per picture from the parameters.

Units: a 256-unit square before framing; y grows downwards; side −1 is the viewer's left.
"""

from dataclasses import dataclass

import skia

from training.faces.drawing import Color, hsv, mix, path, rgb
from training.faces.parameters import Parameters

SKINS = (
    rgb(0.36, 0.22, 0.16),
    rgb(0.55, 0.36, 0.25),
    rgb(0.74, 0.53, 0.39),
    rgb(0.90, 0.70, 0.55),
    rgb(0.97, 0.82, 0.71),
    rgb(1.0, 0.89, 0.81),
)
HAIRS = {
    "black": rgb(0.13, 0.11, 0.13),
    "brown": rgb(0.30, 0.19, 0.13),
    "chestnut": rgb(0.48, 0.26, 0.15),
    "blond": rgb(0.90, 0.72, 0.40),
    "ginger": rgb(0.80, 0.38, 0.15),
    "grey": rgb(0.70, 0.70, 0.73),
    "pink": rgb(0.95, 0.52, 0.68),
    "blue": rgb(0.30, 0.45, 0.80),
}


@dataclass(frozen=True, slots=True)
class Palette:
    """Colours of one face."""

    tone: float  # 0 darkest … 5 lightest skin
    skin: Color
    shade: Color
    light: Color
    hair: Color
    hair_dark: Color
    hair_light: Color
    brow: Color
    line: Color
    lips: Color
    cloth: Color
    back: Color
    back_dark: Color


@dataclass(frozen=True, slots=True)
class Mouth:
    """The mouth's curve: corners, middle, opening and thickness of the lips."""

    x: float
    half_width: float
    corner_y: float
    upper_y: float  # middle of the upper lip's inner edge
    lower_y: float
    upper_lip: float  # thickness
    lower_lip: float

    def sag(self, middle: float, share: float) -> float:
        """Give the height of a cubic's control points so that the curve passes near `middle`."""
        control = 2 * middle - self.corner_y
        return control * share + self.corner_y * (1 - share)


@dataclass(frozen=True, slots=True)
class Face:
    """Geometry and colours of one face."""

    params: Parameters
    colors: Palette
    fem: float  # 0 … 1
    yaw: float
    pitch: float
    x: float  # centre of the head
    y: float
    half_width: float
    top: float  # head above the centre
    chin: float  # head below the centre
    jaw: float
    features_x: float
    features_y: float
    hair_x: float
    hair_volume: float
    light_x: float
    smile: float
    eye_y: float
    eye_gap: float
    eye_scale: float
    nose_x: float
    nose_y: float
    nose_w: float
    mouth: Mouth

    def eye_x(self, side: int) -> float:
        """Give the centre of an eye."""
        return self.features_x + side * self.eye_gap * (1 - 0.08 * side * self.yaw)

    def head(self, grow: float = 0.0, drop: float = 0.0) -> skia.Path:
        """Outline the head; `grow` widens it, `drop` moves it down."""
        x, y, width, jaw = self.x, self.y + drop, self.half_width + grow, self.jaw + grow
        top, bottom, jaw_y = y - self.top, y + self.chin + grow, y + self.chin * 0.58
        return path(
            ("M", x, top),
            ("C", x + width * 0.62, top, x + width, y - self.top * 0.52, x + width, y - 2),
            ("C", x + width, y + self.chin * 0.30, x + jaw * 1.04, jaw_y - 4, x + jaw * 0.86, jaw_y + 8),
            ("C", x + jaw * 0.66, bottom - 8, x + jaw * 0.34, bottom, x, bottom),
            ("C", x - jaw * 0.34, bottom, x - jaw * 0.66, bottom - 8, x - jaw * 0.86, jaw_y + 8),
            ("C", x - jaw * 1.04, jaw_y - 4, x - width, y + self.chin * 0.30, x - width, y - 2),
            ("C", x - width, y - self.top * 0.52, x - width * 0.62, top, x, top),
            ("Z",),
        )


def choose_palette(params: Parameters) -> Palette:
    """Work the colours out."""
    tone = (params["skin_t"] * 0.5 + 0.5) * (len(SKINS) - 1)
    index = min(int(tone), len(SKINS) - 2)
    skin = mix(SKINS[index], SKINS[index + 1], tone - index)
    shade = skin * rgb(0.80, 0.68, 0.66)
    hair = HAIRS[params["hair_col"]] * (1 - 0.22 * params["hair_dark"])
    fem = params["fem"] * 0.5 + 0.5
    lips = mix(skin * rgb(0.86, 0.52, 0.50), rgb(0.80, 0.22, 0.28), 0.28 + 0.30 * fem)
    return Palette(
        tone=tone,
        skin=skin,
        shade=shade,
        light=mix(skin, rgb(1, 0.97, 0.9), 0.35),
        hair=hair,
        hair_dark=hair * 0.62,
        hair_light=mix(hair, rgb(1, 0.95, 0.9), 0.28),
        brow=mix(hair * 0.72, rgb(0.15, 0.1, 0.1), 0.35),
        line=mix(shade * 0.5, rgb(0.15, 0.06, 0.06), 0.45),
        lips=mix(lips, rgb(0.55, 0.2, 0.2), 0.12 if tone < 1.5 else 0.0),
        cloth=hsv(params["cloth_hue"] * 0.5 + 0.25, 0.52, 0.72),
        back=hsv(params["bg_hue"] * 0.5 + 0.5, 0.34, 0.86 + 0.1 * params["bg_val"]),
        back_dark=hsv(params["bg_hue"] * 0.5 + 0.55, 0.46, 0.62 + 0.14 * params["bg_val"]),
    )


def place_mouth(params: Parameters, x: float, y: float, fem: float) -> Mouth:
    """Work the mouth out; pouting narrows it, thickens both lips and pushes them up and forward."""
    curve, opening, pout = params["mouth_curve"], params["mouth_open"], params["pout"]
    y -= 2.5 * pout
    fullness = 1 + 0.28 * params["lip_full"] + 0.28 * fem
    middle = y + 4.2 * curve + 0.2
    gap = 25 * opening
    return Mouth(
        x=x,
        half_width=22.5 * params["mouth_width"] * (1 - 0.28 * pout) * 0.94,
        corner_y=y - 8.0 * curve + 2.5 * opening,
        upper_y=middle - gap * 0.30,
        lower_y=middle + gap * 0.80,
        upper_lip=3.5 * fullness + 5.5 * pout,
        lower_lip=4.6 * fullness + 8.0 * pout,
    )


def place(params: Parameters) -> Face:
    """Work a whole face out."""
    yaw, pitch = params["yaw"], params["pitch"]
    fem = params["fem"] * 0.5 + 0.5
    x, y = 128 + 4 * yaw, 122 + 2 * pitch
    half_width = 61 + 6 * params["face_w"] - 3 * fem
    features_x, features_y = x + 10 * yaw, y + 5 * pitch
    mouth_y = features_y + 43 + 3 * params["mouth_y"] + 2.0 * params["mouth_open"]
    return Face(
        params=params,
        colors=choose_palette(params),
        fem=fem,
        yaw=yaw,
        pitch=pitch,
        x=x,
        y=y,
        half_width=half_width,
        top=72,
        chin=70 + 5 * params["chin"] - 3 * fem + 7 * params["mouth_open"],
        jaw=half_width * (0.83 + 0.09 * params["jaw"] - 0.10 * fem),
        features_x=features_x,
        features_y=features_y,
        hair_x=x - 5 * yaw,  # the back of the hair moves against the features
        hair_volume=7 + 4 * params["hair_vol"],
        light_x=40 * params["light"],
        smile=max(params["mouth_curve"], 0),
        eye_y=features_y + 3 * params["eye_y"],
        eye_gap=27 + 2.6 * params["eye_gap"],
        eye_scale=1 + 0.13 * params["eye_size"] + 0.07 * fem,
        nose_x=features_x + 5 * yaw,
        nose_y=features_y + 21 + 4 * params["nose_len"] + 2 * pitch,
        nose_w=8.5 + 2.2 * params["nose_w"] - 1.5 * fem,
        mouth=place_mouth(params, features_x + 3.0 * yaw, mouth_y, fem),
    )
