"""The generator stage: a StyleGAN2 that learns to draw what the renderer draws, from pairs of one identity.

Supervised by pictures whose factors are known; no discriminator. Needs a rendered pool, not skia.
"""

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.devices import CPU, autocast
from training.faces.parameters import (
    CATEGORY_SLICES,
    FACTOR_HIGHS,
    FACTOR_LOWS,
    FACTOR_MEANS,
    HALF_RANGES,
    NUM_EXPRESSION,
    NUM_OPTIONS,
)
from training.losses import explained_difference, face_weights, pair_loss, picture_loss, psnr_db
from training.networks.stylegan2 import Crop, FactorFeatures, FactorMapping, Generator, SynthesisNetwork
from training.optimizers import build_optimizers, schedule
from training.recipes import GeneratorPhase, GeneratorRecipe
from training.renders import Pool

FACE_CROP = Crop(top=4, left=3, height=10, width=10)
HELD_OUT_PICTURES = 64
LATE = 0.6
"""From this share of a phase's steps on, the whole picture counts more."""
EVALUATION_GAIN = 6.0
COMMON_SHARE = 0.2
"""An option that fewer have is rare."""
SINGLES_GAIN = 3.0
"""A single picture's loss counts about as much as a pair's, which adds differences and local weights."""


def build_generator(recipe: GeneratorRecipe) -> Generator:
    """Build an untrained generator."""
    lows = torch.from_numpy((FACTOR_LOWS - FACTOR_MEANS) / HALF_RANGES)
    highs = torch.from_numpy((FACTOR_HIGHS - FACTOR_MEANS) / HALF_RANGES)
    features = FactorFeatures(lows, highs, NUM_EXPRESSION, NUM_OPTIONS)
    resolution = 4 * 2 ** (len(recipe.channels) - 1)
    synthesis = SynthesisNetwork(resolution, recipe.w_dim, recipe.channels)
    return Generator(FactorMapping(features, recipe.w_dim), synthesis)


def to_pictures(pixels: np.ndarray, size_px: int | None = None, device: torch.device = CPU) -> Tensor:
    """Turn pool pictures into network pictures, shrunk to `size_px` by whole steps where it is given.

    Shapes: [N,S,S,3] uint8 → [N,3,S,S] in [-1,1], channels last.
    """
    pictures = torch.tensor(pixels, device=device).permute(0, 3, 1, 2).float().div_(127.5).sub_(1)
    return pictures if size_px in (None, pictures.shape[-1]) else F.avg_pool2d(pictures, pictures.shape[-1] // size_px)


class GeneratorStage:
    """Trains a generator through its phases."""

    name = "generator"

    def __init__(self, recipe: GeneratorRecipe, pool: Pool, held_out: Pool, device: torch.device = CPU) -> None:
        torch.manual_seed(recipe.seed)
        self.recipe, self.pool, self.device = recipe, pool, device
        self.generator = build_generator(recipe).to(device)
        self.generator.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch does not declare it
        self.modules = nn.ModuleDict({"generator": self.generator})
        self.optimizers = build_optimizers([self.generator], recipe.phases[0].lr)
        self.ema_decay = recipe.ema_decay
        self.steps = sum(phase.steps for phase in recipe.phases)
        self._weights: dict[tuple[int, float], Tensor] = {}
        self.held_pictures = to_pictures(np.asarray(held_out.pictures[:HELD_OUT_PICTURES]), device=device)
        self.held_factors = torch.tensor(held_out.factors[:HELD_OUT_PICTURES], device=device)
        self._resolution = recipe.phases[0].resolution
        self._order: tuple[tuple[int, int, int], np.ndarray] | None = None

    def locate(self, step: int) -> tuple[GeneratorPhase, int]:
        """Give the phase of a step and the step within it."""
        for phase in self.recipe.phases:
            if step < phase.steps:
                return phase, step
            step -= phase.steps
        raise IndexError(f"the recipe ends before step {step}")

    def learning_rate(self, step: int) -> float:
        """Give the learning rate at a step: every phase rises, stays and falls by itself."""
        phase, within = self.locate(step)
        return phase.lr * schedule(within, phase.steps, phase.flat)

    def ema_warmup(self, step: int) -> int:
        """Start the average anew with every phase."""
        return self.locate(step)[1]

    def loss(self, step: int) -> tuple[Tensor, dict[str, float]]:
        """Compare one batch of pairs with the renderer's pictures, on a window around the face now and then."""
        phase, within = self.locate(step)
        self._resolution = phase.resolution
        rng = np.random.default_rng([self.recipe.seed, 0, step])
        resolution = phase.resolution // 2 if within < phase.half_size * phase.steps else phase.resolution
        # fewer windows and less weight on the face late, so that hair and clothes get crisp
        late = within >= LATE * phase.steps
        share = phase.crop * (0.4 if late else 1.0)
        crop = FACE_CROP if rng.random() < share else None
        rows = self._pick_rows(phase, within)
        truth = to_pictures(self.pool.pictures[rows], resolution, self.device)
        factors = torch.tensor(self.pool.factors[rows], device=self.device)
        with autocast(self.device):
            drawn = self.generator(factors, resolution, crop)
        weights = self._weigh(resolution, phase.late_face_gain if late else phase.face_gain)
        if crop is not None:
            # the window's rim lacks its surroundings: leave it out
            rim = max(1, resolution // 32)
            top, left = crop.at(resolution)
            scale = crop.height * crop.width / 16**2
            truth, weights = truth[:, :, top, left], weights[:, :, top, left] * scale
            truth, drawn, weights = (t[:, :, rim:-rim, rim:-rim] for t in (truth, drawn, weights))
        paired = phase.batch - phase.singles
        drawn = drawn.float()
        loss = pair_loss(drawn[:paired], truth[:paired], weights, squared=phase.squared) * (paired / phase.batch)
        if phase.singles:
            alone = picture_loss(drawn[paired:] - truth[paired:], weights, phase.squared)
            loss = loss + alone * (SINGLES_GAIN * phase.singles / phase.batch)
        return loss, {"resolution": resolution}

    @torch.no_grad()
    def evaluate(self, ema: nn.ModuleDict) -> dict[str, float]:
        """Measure explained difference and PSNR on held-out identities, at the resolution that is being trained."""
        generator = ema["generator"]
        size = self._resolution
        truth = F.avg_pool2d(self.held_pictures, self.held_pictures.shape[-1] // size)
        drawn = torch.cat([generator(part, size) for part in self.held_factors.split(16)])
        explained = explained_difference(drawn, truth, self._weigh(size, EVALUATION_GAIN))
        return {"explained": float(explained), "psnr_db": float(psnr_db(drawn, truth))}

    def _weigh(self, resolution: int, gain: float) -> Tensor:
        if (resolution, gain) not in self._weights:
            self._weights[resolution, gain] = face_weights(resolution, gain).to(self.device)
        return self._weights[resolution, gain]

    def _pick_rows(self, phase: GeneratorPhase, step: int) -> np.ndarray:
        """Give the pool's rows of a batch: pairs first, then one picture each of other pairs."""
        count = (phase.batch - phase.singles) // 2
        pairs = self._pick(step, count + phase.singles, phase.rare)
        together = np.stack([2 * pairs[:count], 2 * pairs[:count] + 1], 1).ravel()
        return np.concatenate([together, 2 * pairs[count:] + step % 2])

    def _pick(self, step: int, per_batch: int, rare: int) -> np.ndarray:
        pairs = list_pairs(self.pool.factors, rare)
        epoch, place = divmod(step, len(pairs) // per_batch)
        if self._order is None or self._order[0] != (epoch, per_batch, rare):
            order = np.random.default_rng([self.recipe.seed, 1, epoch]).permutation(pairs)
            self._order = ((epoch, per_batch, rare), order)
        return self._order[1][place * per_batch : (place + 1) * per_batch]


def list_pairs(factors: np.ndarray, most: int) -> np.ndarray:
    """Give the numbers of a pool's pairs for one epoch: each once, those with a rare option up to `most` times.

    Thin rims of glasses or a moustache, worn by one in thirty, are otherwise learned as a smudge.

    Shapes: factors [2P,Z_DIM], rows 2p and 2p + 1 of one identity → [at least P].
    """
    rarest = np.ones(len(factors) // 2)
    for place in CATEGORY_SLICES.values():
        worn = factors[1::2, place]
        rarest = np.minimum(rarest, worn.mean(0)[worn.argmax(1)])
    return np.repeat(np.arange(len(rarest)), np.clip(np.rint(COMMON_SHARE / rarest), 1, most).astype(int))


def measure_w_avg(generator: Generator, factors: Tensor) -> None:
    """Set the mapping's average w from plausible factors.

    Shapes: factors [N,Z_DIM].
    """
    with torch.no_grad():
        generator.mapping.w_avg.copy_(generator.mapping(factors).mean(0))


def count_ws(resolution: int) -> int:
    """Give the number of ws rows of a resolution (18 at 1024)."""
    return 2 * int(math.log2(resolution)) - 2
