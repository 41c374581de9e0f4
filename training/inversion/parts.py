"""What inversion needs of a generator, adversarially trained or rendered: how it draws, its average w, samples of w.

Knows neither files nor how the generator was trained.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from training.devices import CPU
from training.inversion.features import Description
from training.networks.stylegan2 import Generator, ZGenerator
from training.networks.synthesis import SynthesisNetwork

Identity = Callable[[Tensor], Tensor]
"""Pictures [N,3,R,R] in [-1,1] → identity features [N,k], unit norm.

For aligned photographs of faces `read_identity` of training.checkpoints.irse gives one from a user's ir_se50.
"""
WSampler = Callable[[int, np.random.Generator], Tensor]
"""Count, random numbers → w [count,w_dim] as the mapping makes them."""
W_SAMPLES = 2000


@dataclass(frozen=True)
class InversionParts:
    """A frozen generator seen from its ws, and what pictures are compared by; all on one device."""

    synthesis: SynthesisNetwork
    sample_w: WSampler
    w_avg: Tensor  # [w_dim]
    w_scale: float  # root mean square of w − w_avg: what a step in w is measured by
    describe: Description
    identity: Identity | None  # None: no network of this domain tells who someone is
    device: torch.device

    def draw(self, ws: Tensor) -> Tensor:
        """Shapes: ws [N,num_ws,w_dim] → [N,3,R,R], about [-1,1]. The noise is the constant one."""
        return self.synthesis(ws)


def measure_w(sample_w: WSampler, count: int = W_SAMPLES) -> tuple[Tensor, float]:
    """Give the mean of sampled w [w_dim], and the root mean square distance of one number from it."""
    with torch.no_grad():
        w = sample_w(count, np.random.default_rng(0))
        mean = w.mean(0)
        return mean, float((w - mean).square().mean().sqrt())


def parts_of_generator(
    generator: ZGenerator,
    describe: Description,  # its network lies on the same device
    identity: Identity | None = None,
    device: torch.device = CPU,
) -> InversionParts:
    """Take an adversarially trained generator: the average of a run of ours, or one of a foreign file.

    Conditional generators are refused: they have no one average w.
    """
    if generator.mapping.c_dim:
        raise ValueError("inversion needs an unconditional generator; this one was trained with labels")
    generator.eval().requires_grad_(False).to(device)

    def sample_w(count: int, rng: np.random.Generator) -> Tensor:
        z = torch.from_numpy(rng.standard_normal((count, generator.mapping.z_dim), dtype=np.float32))
        return generator.mapping.map(z.to(device))

    w_avg, w_scale = measure_w(sample_w)
    return InversionParts(generator.synthesis, sample_w, w_avg, w_scale, describe, identity, device)


def parts_of_rendered(
    generator: Generator,
    factors: np.ndarray,  # [M,Z_DIM] factor vectors of plausible people
    describe: Description,
    identity: Identity | None,
    device: torch.device = CPU,
) -> InversionParts:
    """Take a rendered domain's generator; w is sampled through its mapping from people of a pool."""
    generator.eval().requires_grad_(False).to(device)
    known = torch.tensor(np.asarray(factors), dtype=torch.float32)

    def sample_w(count: int, rng: np.random.Generator) -> Tensor:
        return generator.mapping(known[rng.integers(0, len(known), count)].to(device))

    w_avg, w_scale = measure_w(sample_w)
    return InversionParts(generator.synthesis, sample_w, w_avg, w_scale, describe, identity, device)
