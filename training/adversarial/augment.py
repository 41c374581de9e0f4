"""Adaptive discriminator augmentation: what the discriminator sees is moved and tinted, more so the more it overfits.

All operations are differentiable, act on real and drawn pictures alike and leave their distributions comparable as
long as p stays below about 0.8. The "bgc" set of the paper: blits, geometry, colour.
Source: Karras et al. 2020a (arXiv 2006.06676), appendix B. We reflect at the rim inside the sampling where the paper
pads first, which needs no margin that depends on the batch.
"""

import math
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from training.adversarial.draws import Draws
from training.adversarial.sampling import sample_reflected

# Daubechies' least asymmetric wavelet of order 6: orthogonal, so that doubling and halving undo each other
SYM6 = (
    *(0.015404109327027373, 0.0034907120842174702, -0.11799011114819057, -0.048311742585633),
    *(0.4910559419267466, 0.787641141030194, 0.3379294217276218, -0.07263752278646252),
    *(-0.021060292512300564, 0.04472490177066578, 0.0017677118642428036, -0.007800708325034148),
)


@dataclass(frozen=True)
class AugmentStrengths:
    """How often each operation happens, as a share of p, and how far it goes. 0 leaves an operation out."""

    xflip: float = 1.0
    rotate90: float = 1.0
    xint: float = 1.0  # translation by whole pixels
    scale: float = 1.0
    rotate: float = 1.0
    aniso: float = 1.0
    xfrac: float = 1.0  # translation by fractions of a pixel
    brightness: float = 1.0
    contrast: float = 1.0
    lumaflip: float = 1.0
    hue: float = 1.0
    saturation: float = 1.0
    xint_max: float = 0.125  # of the size
    scale_std: float = 0.2  # of log2
    rotate_max: float = 1.0  # of half a turn
    aniso_std: float = 0.2  # of log2
    xfrac_std: float = 0.125  # of the size
    brightness_std: float = 0.2
    contrast_std: float = 0.5  # of log2
    hue_max: float = 1.0  # of half a turn
    saturation_std: float = 1.0  # of log2


OPERATIONS = tuple(field.name for field in fields(AugmentStrengths))[:12]
FACES = AugmentStrengths(rotate90=0.0, lumaflip=0.0, hue=0.0)
"""For small sets of faces: an upside-down or green one never has to be told from a real one."""


def only(**strengths: float) -> AugmentStrengths:
    """Give strengths with every operation off but those named."""
    return AugmentStrengths(**(dict.fromkeys(OPERATIONS, 0.0) | strengths))


Array = npt.NDArray[np.float64]


def _eye(count: int, size: int) -> Array:
    return np.tile(np.eye(size), (count, 1, 1))


def _scale(x: Array, y: Array) -> Array:
    m = _eye(len(x), 3)
    m[:, 0, 0], m[:, 1, 1] = x, y
    return m


def _shift(x: Array, y: Array) -> Array:
    m = _eye(len(x), 3)
    m[:, 0, 2], m[:, 1, 2] = x, y
    return m


def _turn(angle: Array) -> Array:
    m = _eye(len(angle), 3)
    m[:, 0, 0] = m[:, 1, 1] = np.cos(angle)
    m[:, 0, 1], m[:, 1, 0] = -np.sin(angle), np.sin(angle)
    return m


@dataclass(frozen=True)
class Amounts:
    """What happens to each picture of a batch: the numbers of every operation, neutral where its gate stayed shut."""

    gates: Array  # [N,13] uniform; rotation has two
    uniforms: Array  # [N,8]
    normals: Array  # [N,7]

    @classmethod
    def draw(cls, draws: Draws) -> "Amounts":
        """Draw them; always as many numbers, whatever the strengths are."""
        return cls(draws.uniform(13), draws.uniform(8), draws.normal(7).numpy().astype(np.float64))


def build_geometry(amounts: Amounts, strengths: AugmentStrengths, p: float, size: int) -> Array:
    """Give where each picture's pixels are taken from: a map from target to source coordinates.

    Shapes: [N,3,3] float64, in pixels from the picture's centre.
    """
    s, gates, u, n = strengths, amounts.gates, amounts.uniforms, amounts.normals
    ones = np.ones(len(gates))

    def on(column: int, share: float, value: Array, neutral: float) -> Array:
        return np.where(gates[:, column] < share * p, value, neutral)

    inverse = _scale(1 - 2 * on(0, s.xflip, np.floor(u[:, 0] * 2), 0.0), ones)
    inverse = inverse @ _turn(np.pi / 2 * on(1, s.rotate90, np.floor(u[:, 1] * 4), 0.0))
    shifts = [on(2, s.xint, np.round((u[:, k] * 2 - 1) * s.xint_max * size), 0.0) for k in (2, 3)]
    inverse = inverse @ _shift(-shifts[0], -shifts[1])
    zoom = on(3, s.scale, np.exp2(n[:, 0] * s.scale_std), 1.0)
    inverse = inverse @ _scale(1 / zoom, 1 / zoom)
    # two rotations around the stretching; together they happen with probability p
    rotate_share = 1 - math.sqrt(max(0.0, 1 - min(1.0, s.rotate * p)))
    turns = [
        np.where(gates[:, column] < rotate_share, (u[:, k] * 2 - 1) * np.pi * s.rotate_max, 0.0)
        for column, k in ((4, 4), (6, 5))
    ]
    inverse = inverse @ _turn(-turns[0])
    stretch = on(5, s.aniso, np.exp2(n[:, 1] * s.aniso_std), 1.0)
    inverse = inverse @ _scale(1 / stretch, stretch)
    inverse = inverse @ _turn(-turns[1])
    moves = [on(7, s.xfrac, n[:, k] * s.xfrac_std * size, 0.0) for k in (2, 3)]
    return inverse @ _shift(-moves[0], -moves[1])


def build_colours(amounts: Amounts, strengths: AugmentStrengths, p: float) -> Array:
    """Give each picture's affine map of colours.

    Shapes: [N,3,4] float64: matrix and offset on RGB in [-1,1].
    """
    s, gates, u, n = strengths, amounts.gates, amounts.uniforms, amounts.normals
    count = len(gates)

    def on(column: int, share: float, value: Array, neutral: float) -> Array:
        return np.where(gates[:, column] < share * p, value, neutral)

    luma = np.full((3, 1), 1 / math.sqrt(3))
    along = luma @ luma.T
    axis = np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / math.sqrt(3)  # cross product with the luma axis
    eye = _eye(count, 3)
    offset = np.repeat(on(8, s.brightness, n[:, 4] * s.brightness_std, 0.0)[:, None], 3, 1)
    gain = on(9, s.contrast, np.exp2(n[:, 5] * s.contrast_std), 1.0)[:, None, None]
    matrix, offset = eye * gain, offset * gain[:, :, 0]
    flip = on(10, s.lumaflip, np.floor(u[:, 6] * 2), 0.0)[:, None, None]
    step = eye - 2 * along * flip
    angle = on(11, s.hue, (u[:, 7] * 2 - 1) * np.pi * s.hue_max, 0.0)[:, None, None]
    step = (along + (eye - along) * np.cos(angle) + axis * np.sin(angle)) @ step
    saturation = on(12, s.saturation, np.exp2(n[:, 6] * s.saturation_std), 1.0)[:, None, None]
    step = (along + (eye - along) * saturation) @ step
    return np.concatenate([step @ matrix, step @ offset[:, :, None]], 2)


def _along(taps: Tensor, axis: int, channels: int) -> Tensor:
    weight = taps.view(1, 1, -1, 1) if axis == 2 else taps.view(1, 1, 1, -1)
    return weight.expand(channels, -1, -1, -1)


def _double(x: Tensor, taps: Tensor, axis: int) -> Tensor:
    """Double an axis, pixel i's taps beginning at 2i: [.., s, ..] → [.., 2s + 10, ..]."""
    stride = (2, 1) if axis == 2 else (1, 2)
    return F.conv_transpose2d(x, _along(taps, axis, x.shape[1]), stride=stride, groups=x.shape[1])


def _halve(x: Tensor, taps: Tensor, axis: int) -> Tensor:
    """Halve an axis, pixel i's taps beginning at 2i: [.., 2s + 10, ..] → [.., s, ..]."""
    stride = (2, 1) if axis == 2 else (1, 2)
    return F.conv2d(x, _along(taps, axis, x.shape[1]), stride=stride, groups=x.shape[1])


def move_pictures(pictures: Tensor, geometry: Array) -> Tensor:
    """Move pictures along a map from target to source, without aliasing: doubled, sampled, halved.

    Shapes: pictures [N,C,R,R], geometry [N,3,3] in pixels from the centre → [N,C,R,R].
    """
    size, count = pictures.shape[-1], len(SYM6)
    taps = torch.tensor(SYM6, dtype=pictures.dtype, device=pictures.device)
    margin = size // 8
    pad = margin + count // 2
    mirrored = torch.arange(-pad, size + pad, device=pictures.device) % (2 * size)
    mirrored = torch.minimum(mirrored, 2 * size - 1 - mirrored)
    x = pictures[:, :, mirrored][:, :, :, mirrored]
    for axis in (2, 3):
        x = _double(x, taps, axis)
    # On the doubled raster, pixel i's taps begin at 2i and weigh most at 2i + 5, which is where the pixel lies.
    # The raster is cut symmetrically about the picture's centre; beyond the margin the sampling reflects again.
    lowest, middle = -2 * margin - 1, size + 4
    length = 2 * (middle - lowest) + 1
    x = x[:, :, 2 * pad + lowest :, 2 * pad + lowest :][:, :, :length, :length]
    # the taps of pixels 0 … R − 1 cover the places 0 … 2R + 9 of the moved raster
    places = torch.arange(2 * size + count - 2, dtype=pictures.dtype, device=pictures.device) - middle
    row, column = torch.meshgrid(places, places, indexing="ij")
    m = torch.from_numpy(geometry).to(pictures)[:, None, None]
    # a shift is given in pixels of the picture, which are two here
    source_x = m[..., 0, 0] * column + m[..., 0, 1] * row + 2 * m[..., 0, 2]
    source_y = m[..., 1, 0] * column + m[..., 1, 1] * row + 2 * m[..., 1, 2]
    grid = torch.stack([source_x, source_y], 3) / (middle - lowest)
    x = sample_reflected(x, grid)
    for axis in (2, 3):
        x = _halve(x, taps, axis)
    return x


def tint_pictures(pictures: Tensor, colours: Array) -> Tensor:
    """Change colours by an affine map: [N,3,R,R], [N,3,4] → [N,3,R,R]."""
    m = torch.from_numpy(colours).to(pictures)
    flat = torch.baddbmm(m[:, :, 3:], m[:, :, :3], pictures.flatten(2))
    return flat.view_as(pictures)


def augment(pictures: Tensor, draws: Draws, strengths: AugmentStrengths, p: float) -> Tensor:
    """Augment a batch, in float32 at least; with p = 0 it is given back as it is.

    Shapes: [N,3,R,R] in [-1,1] → [N,3,R,R].
    """
    if p <= 0:
        return pictures
    with torch.autocast(pictures.device.type, enabled=False):
        pictures = pictures.to(torch.promote_types(pictures.dtype, torch.float32))
        amounts = Amounts.draw(draws)
        if any(getattr(strengths, name) for name in OPERATIONS[:7]):
            pictures = move_pictures(pictures, build_geometry(amounts, strengths, p, pictures.shape[-1]))
        if any(getattr(strengths, name) for name in OPERATIONS[7:]):
            pictures = tint_pictures(pictures, build_colours(amounts, strengths, p))
        return pictures


@dataclass
class Adaptation:
    """Steers p by how sure the discriminator is of real pictures: the mean sign of D(real), r_t.

    Source: Karras et al. 2020a, section 3; r_t above the target means overfitting.
    """

    target: float = 0.6  # None of the steering happens where it is 0
    interval: int = 4  # steps between corrections
    speed_kimg: float = 500.0  # thousand pictures in which p could go from 0 to 1
    limit: float = 0.8
    """Beyond about this share the augmentation leaks into what is drawn."""
    p: float = 0.0
    signs: float = 0.0
    seen: int = 0
    r_t: float = 0.0

    def note(self, sign_sum: float, count: int, step: int) -> None:
        """Take the signs of a step's real scores, and correct p when it is time."""
        self.signs, self.seen = self.signs + sign_sum, self.seen + count
        if (step + 1) % self.interval == 0:
            self.r_t = self.signs / max(self.seen, 1)
            if self.target > 0:
                change = self.seen / (self.speed_kimg * 1000)
                self.p = min(self.limit, max(0.0, self.p + math.copysign(change, self.r_t - self.target)))
            self.signs, self.seen = 0.0, 0

    def state(self) -> dict[str, float]:
        """Give what must outlive a cut."""
        return {"p": self.p, "signs": self.signs, "seen": self.seen, "r_t": self.r_t}

    def load_state(self, state: dict[str, float]) -> None:
        """Take it back."""
        self.p, self.signs, self.r_t = state["p"], state["signs"], state["r_t"]
        self.seen = int(state["seen"])
