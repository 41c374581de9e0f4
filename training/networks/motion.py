"""The recurrent motion generator with its mapper: the paper's form, and ours that mends its weak spots.

Plain PyTorch. Source: Hang et al. 2022 (arXiv 2208.05617), section 3; names as in the design notes: z_k, h_k, motion codes
m_k = z_k − z_0, delta_ws Δ_k.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.networks.stylegan2 import SQRT2, FullyConnected

TOTAL_STEP = 0.8
"""Sum of all recurrence steps of a video: r_k = 0.8 / T in the paper."""
PAPER_DECAYS = ("const", "linear", "sqrt", "exp")
NUM_PHASES = 6


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
    rise = progress * progress * (3 - 2 * progress)
    turn = 2 * math.pi * progress
    half = torch.sin(math.pi * progress)
    return torch.stack([progress, rise, half, half * half, torch.sin(turn), half**4], -1)


class MotionNetwork(nn.Module):
    """Our motion generator: the paper's recurrence, driven by the phase, with a mapper that keeps the size of m_k.

    Differences from the paper: steps follow the given progress, so any number of frames draws the same motion; the cell sees the
    phase, so a wink can come back; h_0 starts from the sentence, the face and the intensity, with 0.01·noise on top; the mapper
    divides m_k by a constant instead of its size, sees the face's embedding, and is zero at frame 0 by construction; one gate a
    ws row says where motion lives.
    """

    def __init__(
        self, embed_dim: int, num_ws: int, w_dim: int, h_dim: int = 384, hidden: int = 512, code_scale: float = 0.25
    ) -> None:
        super().__init__()
        self.embed_dim, self.h_dim, self.num_ws, self.w_dim, self.code_scale = embed_dim, h_dim, num_ws, w_dim, code_scale
        self.start = FullyConnected(2 * embed_dim + 1, h_dim)
        self.a = FullyConnected(embed_dim + NUM_PHASES, h_dim)
        self.b = FullyConnected(2 * h_dim, embed_dim)
        self.c = FullyConnected(2 * h_dim, h_dim)
        self.fc0 = FullyConnected(2 * embed_dim + NUM_PHASES + 1, hidden)
        self.fc1 = FullyConnected(hidden, hidden)
        self.fc2 = FullyConnected(hidden, w_dim)
        self.row_gates = nn.Parameter(torch.ones(num_ws))

    def forward(
        self, text_embed: Tensor, image_embed: Tensor, noise: Tensor, intensity: Tensor, progress: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Run the frames at the given progress.

        Shapes: text_embed, image_embed [N,embed_dim], noise [N,h_dim] standard normal, intensity [N] in [0,2], progress [N,T] rising
        from 0 within [0,1] → delta_ws [N,T,num_ws,w_dim] with Δ_0 = 0 exactly, motion_codes [N,T,embed_dim].
        """
        unit = math.sqrt(self.embed_dim)  # embeddings have unit norm; layers want unit components
        face, level = image_embed * unit, intensity[:, None]
        z_0 = (text_embed + image_embed) * unit
        h = self.start(torch.cat([text_embed * unit, face, level], 1)) + 0.01 * noise
        phases = phase_features(progress)
        z, codes = z_0, [torch.zeros_like(z_0)]
        for k in range(1, progress.shape[1]):
            rate = (TOTAL_STEP * (progress[:, k] - progress[:, k - 1]))[:, None]
            middle = 0.5 * (phases[:, k] + phases[:, k - 1])
            u = torch.cat([F.leaky_relu(self.a(torch.cat([z, middle], 1))), h], 1)
            z, h = z + rate * F.leaky_relu(self.b(u)) * 4, h + rate * F.leaky_relu(self.c(u)) * 4
            codes.append(z - z_0)
        motion_codes = torch.stack(codes, 1)
        return self.map(motion_codes, face, level, phases), motion_codes

    def map(self, motion_codes: Tensor, face: Tensor, level: Tensor, phases: Tensor) -> Tensor:
        """Give delta_ws of motion codes: M(m_k, phase) − M(0, 0), so that a still code is a still face.

        Shapes: motion_codes [N,T,embed_dim], face [N,embed_dim], level [N,1], phases [N,T,NUM_PHASES] → [N,T,num_ws,w_dim].
        """
        frames = motion_codes.shape[1]
        fixed = torch.cat([face, level], 1)[:, None].expand(-1, frames, -1)
        moved = self._layers(torch.cat([motion_codes * self.code_scale, phases, fixed], 2))
        still = self._layers(torch.cat([torch.zeros_like(motion_codes[:, :1]), torch.zeros_like(phases[:, :1]), fixed[:, :1]], 2))
        return (moved - still)[:, :, None] * self.row_gates[:, None]

    def _layers(self, x: Tensor) -> Tensor:
        x = F.leaky_relu(self.fc0(x), 0.2) * SQRT2
        x = F.leaky_relu(self.fc1(x), 0.2) * SQRT2
        return self.fc2(x)
