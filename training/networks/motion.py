"""The recurrent motion generator with its mapper: the paper's form, and ours that mends its weak spots.

Plain PyTorch. Source: Hang et al. 2022 (arXiv 2208.05617), section 3; names as in the design notes: z_k, h_k, motion
codes m_k = z_k − z_0, delta_ws Δ_k.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.networks.stylegan2 import SQRT2, FactorMapping, FullyConnected

TOTAL_STEP = 0.8
"""Sum of all recurrence steps of a video: r_k = 0.8 / T in the paper."""
PAPER_DECAYS = ("const", "linear", "sqrt", "exp")
CELL_SPEED = 4.0
"""How much faster than the paper's our cell moves, so that weights of unit size reach far enough."""
NUM_PHASES = 6
PASSING_RISE = 0.4
"""Share of a video in which something that passes comes up, and goes again."""


def decay(kind: str, k: int, frames: int) -> float:
    """Give the paper's decay of step k of T frames."""
    match kind:
        case "const":
            return 1.0
        case "linear":
            return (frames - k) / frames
        case "sqrt":
            return math.sqrt((frames - k) / frames)
        case "exp":
            return 1 - math.exp(k / frames - 1)
    raise ValueError(f"decay is one of {PAPER_DECAYS}, not {kind!r}")


class PaperCell(nn.Module):
    """One step of the recurrence: u = [lrelu(A z); h], z + r·lrelu(B u), h + r·lrelu(C u)."""

    def __init__(self, embed_dim: int, h_dim: int) -> None:
        super().__init__()
        self.a = nn.Linear(embed_dim, h_dim)
        self.b = nn.Linear(2 * h_dim, embed_dim)
        self.c = nn.Linear(2 * h_dim, h_dim)

    def forward(self, z: Tensor, h: Tensor, rate: float) -> tuple[Tensor, Tensor]:
        """Shapes: z [N,embed_dim], h [N,h_dim] → the same."""
        u = torch.cat([F.leaky_relu(self.a(z)), h], 1)
        return z + rate * F.leaky_relu(self.b(u)), h + rate * F.leaky_relu(self.c(u))


class PaperMapper(nn.Module):
    """PixelNorm and three equalised linear layers with leaky ReLU, to one row of w_dim for each ws row.

    The last activation is part of the paper's mapper; PixelNorm throws the size of its input away.
    """

    def __init__(self, embed_dim: int, hidden: int, num_ws: int, w_dim: int) -> None:
        super().__init__()
        self.num_ws, self.w_dim = num_ws, w_dim
        self.layers = nn.ModuleList(
            [
                FullyConnected(embed_dim, hidden, activate=True),
                FullyConnected(hidden, hidden, activate=True),
                FullyConnected(hidden, num_ws * w_dim, activate=True),
            ]
        )

    def forward(self, x: Tensor) -> Tensor:
        """Shapes: [N,embed_dim] → [N,num_ws,w_dim]."""
        x = x * torch.rsqrt(x.square().mean(1, keepdim=True) + 1e-8)
        for layer in self.layers:
            x = layer(x)
        return x.view(-1, self.num_ws, self.w_dim)


class PaperMotion(nn.Module):
    """The published motion generator, for real checkpoints and for comparison."""

    def __init__(self, embed_dim: int, num_ws: int, w_dim: int, h_dim: int = 384, hidden: int = 1024) -> None:
        super().__init__()
        self.h_dim = h_dim
        self.cell = PaperCell(embed_dim, h_dim)
        self.text_mapper = PaperMapper(embed_dim, hidden, num_ws, w_dim)
        self.visual_mapper = PaperMapper(embed_dim, hidden, num_ws, w_dim)

    def forward(self, z_0: Tensor, h_0: Tensor, frames: int, kind: str = "linear") -> tuple[Tensor, Tensor]:
        """Run T frames.

        Shapes: z_0 [N,embed_dim] (τ + v, or τ alone), h_0 [N,h_dim] → motion_codes [N,T,embed_dim],
        delta_ws [N,T,num_ws,w_dim].
        """
        z, h, codes = z_0, h_0, [torch.zeros_like(z_0)]
        for k in range(1, frames):
            z, h = self.cell(z, h, TOTAL_STEP / frames * decay(kind, k, frames))
            codes.append(z - z_0)
        motion_codes = torch.stack(codes, 1)
        delta_ws = self.text_mapper(motion_codes.flatten(0, 1)).unflatten(0, (-1, frames))
        return motion_codes, delta_ws

    def residual(self, image_embed: Tensor) -> Tensor:
        """Give δ_v, the one residual of a video: [N,embed_dim] → [N,num_ws,w_dim]."""
        return self.visual_mapper(image_embed)


def phase_features(progress: Tensor) -> Tensor:
    """Tell where in the motion a frame stands, in shapes that rise and hold and in shapes that come back to zero.

    Shapes: [...] in [0,1] → [...,NUM_PHASES], all zero at progress 0.
    """
    rise = smoothstep(progress)
    turn = 2 * math.pi * progress
    half = torch.sin(math.pi * progress)
    return torch.stack([progress, rise, half, half * half, torch.sin(turn), half**4], -1)


def smoothstep(x: Tensor) -> Tensor:
    """Rise softly from 0 at 0 to 1 at 1."""
    x = x.clamp(0, 1)
    return x * x * (3 - 2 * x)


def envelopes(progress: Tensor) -> tuple[Tensor, Tensor]:
    """Give the two ways of motion in time: rise and stay; up, a moment at the top, and back.

    Shapes: [...] in [0,1] → [...] twice, both in [0,1] and 0 at progress 0.
    """
    return smoothstep(progress), smoothstep(torch.minimum(progress, 1 - progress) / PASSING_RISE)


def sway(progress: Tensor) -> Tensor:
    """Give how far the head sways: out to one side, through the middle, to the other side, and back.

    Shapes: [...] in [0,1] → [...] in [-1,1]; it starts and ends softly, and is 0 at progress 0, ½ and 1.
    """
    return torch.sin(2 * math.pi * smoothstep(progress))


def toss(noise: Tensor) -> Tensor:
    """Give the side that the head sways to first, 1 or -1: the seed decides. A 0, which no seed draws, keeps it still.

    Shapes: noise [N,h_dim] → [N].
    """
    return torch.sign(noise[:, 0])


class MotionNetwork(nn.Module):
    """Our motion generator: the paper's recurrence, driven by the phase, with a mapper that keeps the size of m_k.

    Differences from the paper: steps follow the given progress, so any number of frames draws the same motion; the
    cell sees the phase, so a wink can come back; h_0 starts from the sentence, the face and the intensity, with
    0.01·noise on top. The mapper divides m_k by a constant instead of its size and is zero at frame 0 by
    construction; it says how expression factors change and speaks through the generator's own mapping, which rendered
    domains know, so that nothing but expression and pose can move. The first number of the noise tosses for the side
    that the head sways to, so that two seeds are two takes. One gate a ws row says where motion lives.
    """

    lows: Tensor
    highs: Tensor

    def __init__(
        self,
        mapping: FactorMapping,  # the generator's, frozen
        lows: Tensor,  # [moved] ranges of the factors that may move, the first of a factor vector
        highs: Tensor,  # [moved]
        factor_dim: int,  # length of a factor vector
        embed_dim: int,
        num_ws: int,
        h_dim: int = 384,
        hidden: int = 512,
        code_scale: float = 0.25,
    ) -> None:
        super().__init__()
        self.mapping = mapping
        self.embed_dim, self.h_dim, self.num_ws, self.code_scale = embed_dim, h_dim, num_ws, code_scale
        self.w_dim, self.num_moved = mapping.fc1.weight.shape[0], len(lows)
        self.register_buffer("lows", lows)
        self.register_buffer("highs", highs)
        self.start = FullyConnected(2 * embed_dim + 1, h_dim)
        self.a = FullyConnected(embed_dim + NUM_PHASES, h_dim)
        self.b = FullyConnected(2 * h_dim, embed_dim)
        self.c = FullyConnected(2 * h_dim, h_dim)
        self.read0 = FullyConnected(embed_dim, hidden)
        self.read1 = FullyConnected(hidden, factor_dim)
        self.fc0 = FullyConnected(2 * embed_dim + NUM_PHASES + 1 + self.num_moved, hidden)
        self.fc1 = FullyConnected(hidden, hidden)
        self.fc2 = FullyConnected(hidden, 3 * self.num_moved)
        self.row_gates = nn.Parameter(torch.ones(num_ws))

    def forward(
        self, text_embed: Tensor, image_embed: Tensor, noise: Tensor, intensity: Tensor, progress: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Run the frames at the given progress.

        Shapes: text_embed, image_embed [N,embed_dim], noise [N,h_dim] standard normal, intensity [N] in [0,2],
        progress [N,T] rising from 0 within [0,1] → delta_ws [N,T,num_ws,w_dim] with Δ_0 = 0 exactly,
        motion_codes [N,T,embed_dim].
        """
        codes = self.recur(text_embed, image_embed, noise, intensity, progress)
        factors = self.read(image_embed)
        change = self.change(codes, image_embed, factors, intensity, progress, toss(noise))
        return self.map(factors, change), codes

    def recur(
        self, text_embed: Tensor, image_embed: Tensor, noise: Tensor, intensity: Tensor, progress: Tensor
    ) -> Tensor:
        """Run the recurrence.

        Shapes: as `forward` → motion_codes [N,T,embed_dim].
        """
        unit = math.sqrt(self.embed_dim)  # embeddings have unit norm; layers want unit components
        z_0 = (text_embed + image_embed) * unit
        h = self.start(torch.cat([text_embed * unit, image_embed * unit, intensity[:, None]], 1)) + 0.01 * noise
        phases = phase_features(progress)
        z, codes = z_0, [torch.zeros_like(z_0)]
        for k in range(1, progress.shape[1]):
            rate = (TOTAL_STEP * CELL_SPEED * (progress[:, k] - progress[:, k - 1]))[:, None]
            middle = 0.5 * (phases[:, k] + phases[:, k - 1])
            u = torch.cat([F.leaky_relu(self.a(torch.cat([z, middle], 1))), h], 1)
            z, h = z + rate * F.leaky_relu(self.b(u)), h + rate * F.leaky_relu(self.c(u))
            codes.append(z - z_0)
        return torch.stack(codes, 1)

    def read(self, image_embed: Tensor) -> Tensor:
        """Read the face's factor vector from its embedding.

        Shapes: [N,embed_dim] → [N,factor_dim]; the factors that may move are clipped to their ranges.
        """
        x = F.leaky_relu(self.read0(image_embed * math.sqrt(self.embed_dim)), 0.2) * SQRT2
        factors = self.read1(x)
        moved = self._clip(factors[:, : self.num_moved])
        return torch.cat([moved, factors[:, self.num_moved :]], 1)

    def change(
        self,
        motion_codes: Tensor,
        image_embed: Tensor,
        factors: Tensor,
        intensity: Tensor,
        progress: Tensor,
        side: Tensor,
    ) -> Tensor:
        """Say how the factors change, within their ranges: what rises and stays, what comes and goes, and what sways.

        All three start softly; the second is back at zero in the end, so a wink ends with open eyes, and so is the
        third.

        Shapes: motion_codes [N,T,embed_dim], factors [N,factor_dim], side [N] of `toss` → [N,T,moved], zero at
        progress 0.
        """
        frames = motion_codes.shape[1]
        phases, now = phase_features(progress), factors[:, : self.num_moved]
        fixed = torch.cat([image_embed * math.sqrt(self.embed_dim), intensity[:, None], now], 1)[:, None]
        shaped = self._layers(torch.cat([motion_codes * self.code_scale, phases, fixed.expand(-1, frames, -1)], 2))
        rising, passing = (envelope[:, :, None] for envelope in envelopes(progress))
        swaying = (sway(progress) * side[:, None])[:, :, None]
        rises, passes, sways = shaped.split(self.num_moved, 2)
        reached = now[:, None] + rising * rises + passing * passes + swaying * sways
        return self._clip(reached) - now[:, None]

    def map(self, factors: Tensor, change: Tensor) -> Tensor:
        """Give delta_ws: what the generator's mapping makes of the changed factors, less what it makes of frame 0.

        Shapes: factors [N,factor_dim], change [N,T,moved] → [N,T,num_ws,w_dim].
        """
        still = factors[:, None].expand(-1, change.shape[1], -1)
        moved = torch.cat([still[..., : self.num_moved] + change, still[..., self.num_moved :]], 2)
        w = self.mapping(moved.flatten(0, 1)).unflatten(0, change.shape[:2])
        # frame 0 is the face itself: subtracting its own row makes Δ_0 exactly zero
        return (w - w[:, :1])[:, :, None] * self.row_gates[:, None]

    def _clip(self, x: Tensor) -> Tensor:
        """Clip to the factors' ranges; gradients pass, or whatever starts beyond an edge would stay there for ever."""
        clipped = torch.maximum(torch.minimum(x, self.highs), self.lows)
        return x + (clipped - x).detach() if torch.is_grad_enabled() else clipped

    def _layers(self, x: Tensor) -> Tensor:
        x = F.leaky_relu(self.fc0(x), 0.2) * SQRT2
        x = F.leaky_relu(self.fc1(x), 0.2) * SQRT2
        return self.fc2(x)
