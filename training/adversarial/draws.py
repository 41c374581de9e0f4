"""Random numbers by name: each is a function of (seed, kind, step, place in the global batch) and of nothing else.

So the same training comes out on one process or many, in one batch or several micro-batches, cut and resumed anywhere.
"""

from enum import IntEnum

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from training.adversarial.order import Rows


class Kind(IntEnum):
    """What the numbers are for; no two phases of a step share any."""

    G_MAIN = 10
    G_PATH = 11
    D_FAKE = 12
    D_REAL = 13
    D_PENALTY = 14
    GRID = 15
    MEASURE = 16


class Draws:
    """The numbers of one micro-batch in one phase of one step."""

    def __init__(self, seed: int, kind: Kind, step: int, rows: Rows) -> None:
        self._generators = [np.random.default_rng([seed, int(kind), step, int(row)]) for row in rows]

    def normal(self, *shape: int) -> Tensor:
        """Give standard normal numbers: [n,*shape] float32 on the CPU."""
        return torch.from_numpy(np.stack([g.standard_normal(shape, dtype=np.float32) for g in self._generators]))

    def uniform(self, count: int) -> npt.NDArray[np.float64]:
        """Give numbers in [0, 1): [n,count]."""
        return np.stack([g.random(count) for g in self._generators])

    def seeds(self) -> list[int]:
        """Give one 63-bit seed for each row."""
        return [int(g.integers(1 << 63)) for g in self._generators]


class NoiseSource:
    """Noise for synthesis layers, as their `noise_mode`: each row has a generator of its own on the device."""

    def __init__(self, seeds: list[int], device: torch.device) -> None:
        self._generators = [torch.Generator(device).manual_seed(seed) for seed in seeds]

    def __call__(self, x: Tensor) -> Tensor:
        """Draw noise for a feature map: x [N,C,H,W] → [N,1,H,W]."""
        rows = [torch.randn(1, *x.shape[2:], generator=g, device=x.device) for g in self._generators]
        return torch.stack(rows).to(x.dtype)


def pick_crossovers(uniforms: npt.NDArray[np.float64], num_ws: int, probability: float) -> Tensor:
    """Turn two uniform numbers a row into where styles are mixed: 1 … num_ws − 1, or num_ws for not at all.

    Shapes: [n,2] → int64 [n].
    """
    places = 1 + (uniforms[:, 1] * (num_ws - 1)).astype(np.int64)
    return torch.from_numpy(np.where(uniforms[:, 0] < probability, places, num_ws))
