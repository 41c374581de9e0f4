"""Mappings to w: from Gaussian z (StyleGAN2) and, in rendered domains, from a factor vector; truncation, style mixing.

Plain PyTorch; knows no synthesis, no file.
"""

import itertools
import math

import torch
from torch import Tensor, nn

from training.networks.layers import FullyConnected, normalize_second_moment

FACTOR_GAIN = 1.6
"""Raw features of a factor are its half-ranges times this, close to unit size."""
OPTION_GAIN = 1.5


class MappingLayers(nn.Module):
    """Pixel norm and equalised layers; a class condition is embedded, normalised and joined to z.

    Source: Karras et al. 2020 (arXiv 1912.04958), and 2020a (arXiv 2006.06676) for the condition.
    """

    def __init__(
        self,
        z_dim: int,  # 0: from the condition alone, as a discriminator's projection does
        w_dim: int,
        c_dim: int = 0,  # 0: no condition
        layers: int = 8,
        lr_multiplier: float = 0.01,
        hidden: int | None = None,  # length of what goes from layer to layer; None: w_dim
        embed_dim: int | None = None,  # length of an embedded condition; None: w_dim
    ) -> None:
        super().__init__()
        assert z_dim or c_dim, "a mapping needs z or a condition"
        self.z_dim, self.w_dim, self.c_dim, self.hidden = z_dim, w_dim, c_dim, hidden or w_dim
        embed_dim = (embed_dim or w_dim) if c_dim else 0
        if c_dim:
            self.embed = FullyConnected(c_dim, embed_dim)
        dims = [z_dim + embed_dim] + [self.hidden] * (layers - 1) + [w_dim]
        self.layers = nn.ModuleList(
            FullyConnected(before, after, activate=True, lr_multiplier=lr_multiplier)
            for before, after in itertools.pairwise(dims)
        )

    def map(self, z: Tensor | None, c: Tensor | None = None) -> Tensor:
        """Shapes: z [N,z_dim] (None where z_dim is 0), c [N,c_dim] (one-hot or any) → w [N,w_dim]."""
        parts = []
        if self.z_dim:
            assert z is not None
            assert z.shape[1:] == (self.z_dim,), tuple(z.shape)
            parts.append(normalize_second_moment(z))
        if self.c_dim:
            assert c is not None, "this mapping is conditional: give c"
            assert c.shape[1:] == (self.c_dim,), tuple(c.shape)
            parts.append(normalize_second_moment(self.embed(c)))
        x = torch.cat(parts, 1)
        for layer in self.layers:
            x = layer(x)
        return x


class ZMapping(MappingLayers):
    """z → ws, with the running average of w that truncation pulls towards."""

    w_avg: Tensor

    def __init__(
        self,
        z_dim: int,
        w_dim: int,
        num_ws: int,
        c_dim: int = 0,
        layers: int = 8,
        lr_multiplier: float = 0.01,
        w_avg_beta: float = 0.995,  # share of w_avg that one batch leaves standing
        hidden: int | None = None,
        embed_dim: int | None = None,
    ) -> None:
        super().__init__(z_dim, w_dim, c_dim, layers, lr_multiplier, hidden, embed_dim)
        self.num_ws, self.w_avg_beta = num_ws, w_avg_beta
        self.register_buffer("w_avg", torch.zeros(w_dim))

    def forward(
        self,
        z: Tensor,
        c: Tensor | None = None,
        truncation_psi: float = 1.0,
        truncation_cutoff: int | None = None,
        update_w_avg: bool = False,
    ) -> Tensor:
        """Map and truncate.

        Shapes: z [N,z_dim], c [N,c_dim] → ws [N,num_ws,w_dim]. Rows below `truncation_cutoff` (None: all) move
        towards w_avg until psi of their distance is left.
        """
        w = self.map(z, c)
        if update_w_avg:
            self.track(w)
        return truncate(self.broadcast(w), self.w_avg, truncation_psi, truncation_cutoff)

    def broadcast(self, w: Tensor) -> Tensor:
        """Shapes: w [N,w_dim] → ws [N,num_ws,w_dim]."""
        return w[:, None].expand(-1, self.num_ws, -1)

    @torch.no_grad()
    def track(self, w: Tensor) -> None:
        """Move w_avg towards the mean of a batch."""
        self.w_avg.copy_(w.detach().float().mean(0).lerp(self.w_avg.float(), self.w_avg_beta))

    @torch.no_grad()
    def measure_w(self, samples: int = 4096, seed: int = 0, c: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Give mean and standard deviation of w over seeded samples, each [w_dim].

        Shapes: c [samples,c_dim].
        """
        generator = torch.Generator().manual_seed(seed)
        z = torch.randn(samples, self.z_dim, generator=generator).to(self.w_avg)
        w = self.map(z, c)
        return w.mean(0), w.std(0)


def truncate(ws: Tensor, w_avg: Tensor, psi: float, cutoff: int | None = None) -> Tensor:
    """Pull the rows below `cutoff` (None: all) towards w_avg: w_avg + psi·(w − w_avg).

    Shapes: ws [N,num_ws,w_dim], w_avg [w_dim] → as ws.
    """
    if psi == 1:
        return ws
    near = torch.lerp(w_avg.to(ws.dtype).expand_as(ws), ws, psi)
    return near if cutoff is None else torch.cat([near[:, :cutoff], ws[:, cutoff:]], 1)


def mix_styles(ws: Tensor, other: Tensor, crossover: Tensor) -> Tensor:
    """Take the rows from each face's crossover on out of `other`.

    Shapes: ws, other [N,num_ws,w_dim], crossover [N] (num_ws: nothing is mixed) → as ws.
    """
    rows = torch.arange(ws.shape[1], device=ws.device)
    return torch.where((rows >= crossover.to(ws.device)[:, None])[:, :, None], other, ws)


def draw_crossovers(count: int, num_ws: int, probability: float, generator: torch.Generator | None = None) -> Tensor:
    """Draw where styles are mixed: with `probability` one of 1 … num_ws − 1, else num_ws, which mixes nothing.

    Shapes: [count] int64.
    """
    places = torch.randint(1, num_ws, (count,), generator=generator)
    mixed = torch.rand(count, generator=generator) < probability
    return torch.where(mixed, places, num_ws)


class FactorFeatures(nn.Module):
    """Fixed features of a factor vector: raw values, Gaussian bumps for expression factors, sines for identity
    factors."""

    centers: Tensor
    inverse_widths: Tensor

    def __init__(self, lows: Tensor, highs: Tensor, num_expression: int, num_options: int, bumps: int = 8) -> None:
        """`lows`, `highs` [continuous]: ranges of the factor vector's continuous part, expression factors first."""
        super().__init__()
        self.num_expression, self.num_continuous = num_expression, len(lows)
        low, high = lows[:num_expression] * FACTOR_GAIN, highs[:num_expression] * FACTOR_GAIN
        centers = low[:, None] + (high - low)[:, None] * torch.linspace(0, 1, bumps)
        self.register_buffer("centers", centers)
        self.register_buffer("inverse_widths", (bumps - 1) / (high - low)[:, None])
        identity = self.num_continuous - num_expression
        self.dim = self.num_continuous + num_options + num_expression * bumps + identity * 4

    def forward(self, factors: Tensor) -> Tensor:
        """Shapes: [N,Z_DIM] → [N,dim]."""
        continuous = factors[:, : self.num_continuous] * FACTOR_GAIN
        expression, identity = continuous[:, : self.num_expression], continuous[:, self.num_expression :]
        options = factors[:, self.num_continuous :] * OPTION_GAIN
        bumps = 2 * torch.exp(-0.5 * ((expression[:, :, None] - self.centers) * self.inverse_widths).square())
        angle = identity * (math.pi / FACTOR_GAIN)
        waves = [angle.sin(), angle.cos(), (2 * angle).sin(), (2 * angle).cos()]
        return torch.cat([expression, identity, options, bumps.flatten(1), *waves], 1)


class FactorMapping(nn.Module):
    """Mapping of a rendered domain: factor vector → w, two linear layers beside a linear skip, no pixel norm.

    The face's truth is known, so z is the factor vector; w of sampled faces is w of sampled factors.
    """

    w_avg: Tensor

    def __init__(self, features: FactorFeatures, w_dim: int, hidden: int = 256) -> None:
        super().__init__()
        self.features = features
        self.fc0 = FullyConnected(features.dim, hidden, activate=True)
        self.fc1 = FullyConnected(hidden, w_dim)
        self.skip = FullyConnected(features.dim, w_dim)
        self.register_buffer("w_avg", torch.zeros(w_dim))

    def forward(self, factors: Tensor) -> Tensor:
        """Shapes: [N,Z_DIM] → w [N,w_dim]."""
        features = self.features(factors)
        return (self.fc1(self.fc0(features)) + self.skip(features)) * 0.7
