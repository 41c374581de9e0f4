"""The encoder stages: pictures → factors, image embedding, ws.

1. `FactorStage` trains trunk and factor head on rendered pictures, spoilt the way that users' pictures and the
generator's are.
2. `InversionStage` trains the W+ residual (and the factor head) through the frozen generator.
The image embedding's head is trained in `training.embedding`.
"""

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.devices import CPU, autocast
from training.faces.parameters import (
    CATEGORIES,
    CATEGORY_SLICES,
    FACTOR_HIGHS,
    FACTOR_LOWS,
    FACTOR_MEANS,
    FACTOR_NAMES,
    HALF_RANGES,
    NUM_CONTINUOUS,
    NUM_EXPRESSION,
)
from training.generator import to_pictures
from training.losses import face_weights, picture_loss, psnr_db
from training.networks.encoder import FactorHead, Factors, Trunk, WPlusEncoder
from training.networks.stylegan2 import Generator
from training.optimizers import build_optimizers, schedule
from training.recipes import EncoderRecipe, InversionRecipe
from training.renders import Pool

HUES = torch.tensor([name.endswith("_hue") for name in FACTOR_NAMES])
POSE_SLICE = slice(NUM_EXPRESSION - 3, NUM_EXPRESSION)

FACE_GAIN, SQUARED = 2.5, 4.0
"""Of the inversion's picture loss: the whole picture counts, and large errors (a wrong background) count more."""


def factor_bounds() -> tuple[Tensor, Tensor]:
    """Give the ranges of the factor vector's continuous part: lows, highs [NUM_CONTINUOUS]."""
    lows, highs = (FACTOR_LOWS - FACTOR_MEANS) / HALF_RANGES, (FACTOR_HIGHS - FACTOR_MEANS) / HALF_RANGES
    return torch.from_numpy(lows), torch.from_numpy(highs)


def build_trunk(recipe: EncoderRecipe) -> Trunk:
    """Build an untrained trunk."""
    return Trunk(recipe.widths, recipe.feature_dim)


def build_factor_head(recipe: EncoderRecipe) -> FactorHead:
    """Build an untrained factor head."""
    return FactorHead(recipe.feature_dim, NUM_CONTINUOUS, tuple(CATEGORY_SLICES.values()))


def spoil(pictures: Tensor, rng: np.random.Generator) -> Tensor:
    """Spoil a batch: blur as small generators do, rescaling, noise, brightness, a slight shift and zoom.

    Shapes: [N,3,S,S] in [-1,1] → the same.
    """
    if rng.random() < 0.5:
        zoom, shift_x, shift_y = 1 + rng.uniform(-0.03, 0.03), *rng.uniform(-0.03, 0.03, 2)
        matrix = torch.tensor([[zoom, 0, shift_x], [0, zoom, shift_y]], dtype=torch.float32)
        matrix = matrix.to(pictures.device)
        grid = F.affine_grid(matrix[None].expand(len(pictures), -1, -1), list(pictures.shape), align_corners=False)
        pictures = F.grid_sample(pictures, grid, mode="bilinear", padding_mode="border", align_corners=False)
    kind = rng.random()
    if kind < 0.4:
        sigma = rng.uniform(0.3, 1.1)
        taps = torch.exp(-0.5 * (torch.arange(-2.0, 3.0) / sigma) ** 2)
        taps = (taps / taps.sum()).to(pictures)
        for shape in ((1, 1, 5, 1), (1, 1, 1, 5)):
            padding = (0, 0, 2, 2) if shape[2] == 5 else (2, 2, 0, 0)
            pictures = F.conv2d(F.pad(pictures, padding, "replicate"), taps.view(shape).repeat(3, 1, 1, 1), groups=3)
    elif kind < 0.55:
        size = pictures.shape[-1]
        small = F.interpolate(pictures, scale_factor=rng.uniform(0.45, 0.9), mode="bilinear", antialias=True)
        pictures = F.interpolate(small, size=(size, size), mode="bilinear")
    if rng.random() < 0.5:
        gain, offset = rng.uniform(0.92, 1.08), rng.uniform(-0.05, 0.05)
        pictures = pictures * gain + offset
    if rng.random() < 0.4:
        noise = rng.standard_normal(pictures.shape, dtype=np.float32) * np.float32(rng.uniform(0.01, 0.06))
        pictures = pictures + torch.from_numpy(noise).to(pictures.device)
    return pictures.clamp(-1, 1)


def measure_error(read: Factors, truth: Tensor) -> Tensor:
    """Give the error of the continuous factors; a hue of 1 is the hue of −1, so hues are measured around the circle.

    Shapes: truth [N,Z_DIM] → [N,NUM_CONTINUOUS].
    """
    error = read.continuous.float() - truth[:, :NUM_CONTINUOUS]
    return torch.where(HUES.to(truth.device), torch.remainder(error + 1, 2) - 1, error)


def factor_loss(read: Factors, truth: Tensor) -> Tensor:
    """Give a rounded L1 of the continuous factors (expressions count double) and cross-entropy of the options.

    Shapes: truth [N,Z_DIM] factor vectors.
    """
    weights = torch.ones(NUM_CONTINUOUS, device=truth.device)
    weights[:NUM_EXPRESSION] = 2.0
    error = measure_error(read, truth)
    loss = (F.smooth_l1_loss(error, torch.zeros_like(error), beta=0.1, reduction="none") * weights).mean()
    for category in CATEGORIES:
        where = CATEGORY_SLICES[category.name]
        logits = read.logits[:, where.start - NUM_CONTINUOUS : where.stop - NUM_CONTINUOUS].float()
        loss = loss + 0.04 * F.cross_entropy(logits, truth[:, where].argmax(1))
    return loss


def judge_factors(read: Factors, truth: Tensor) -> dict[str, float]:
    """Give R² of expression and identity factors and the accuracy of options on held-out pictures."""
    error = measure_error(read, truth).square().mean(0)
    explained = 1 - error / truth[:, :NUM_CONTINUOUS].var(0)
    right = []
    for category in CATEGORIES:
        where = CATEGORY_SLICES[category.name]
        guess = read.logits[:, where.start - NUM_CONTINUOUS : where.stop - NUM_CONTINUOUS].argmax(1)
        right.append(float((guess == truth[:, where].argmax(1)).float().mean()))
    return {
        "r2_expression": float(explained[: POSE_SLICE.start].mean()),
        "r2_expression_worst": float(explained[: POSE_SLICE.start].min()),
        "r2_identity": float(explained[NUM_EXPRESSION:].mean()),
        "options": float(np.mean(right)),
    }


class FactorStage:
    """Trains trunk and factor head to read the factors of rendered pictures."""

    name = "encoder"

    def __init__(
        self, recipe: EncoderRecipe, pool: Pool, held_out: Pool, size_px: int = 128, device: torch.device = CPU
    ) -> None:
        """`size_px`: what the encoder looks at; the pool's pictures are shrunk to it."""
        torch.manual_seed(recipe.seed)
        self.recipe, self.pool, self.steps, self.ema_decay = recipe, pool, recipe.steps, recipe.ema_decay
        self.size_px, self.device = size_px, device
        self.trunk, self.head = build_trunk(recipe), build_factor_head(recipe)
        self.modules = nn.ModuleDict({"trunk": self.trunk, "head": self.head}).to(device)
        self.modules.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch does not declare it
        self.optimizers = build_optimizers([self.modules], recipe.lr)
        self.held_pictures = to_pictures(held_out.pictures[:256], size_px, device)
        self.held_factors = torch.tensor(held_out.factors[:256], device=device)

    def learning_rate(self, step: int) -> float:
        """Give the learning rate at a step."""
        return self.recipe.lr * schedule(step, self.steps, 0.4, warmup=100)

    def ema_warmup(self, step: int) -> int:
        """Average from the first step on."""
        return step

    def loss(self, step: int) -> tuple[Tensor, dict[str, float]]:
        """Read the factors of one spoilt batch."""
        rng = np.random.default_rng([self.recipe.seed, 2, step])
        rows = np.sort(rng.choice(len(self.pool), self.recipe.batch, replace=False))
        pictures = spoil(to_pictures(self.pool.pictures[rows], self.size_px, self.device), rng)
        with autocast(self.device):
            read = self.modules["head"](self.modules["trunk"](pictures))
        return factor_loss(read, torch.tensor(self.pool.factors[rows], device=self.device)), {}

    @torch.no_grad()
    def evaluate(self, ema: nn.ModuleDict) -> dict[str, float]:
        """Measure on held-out identities, clean and spoilt."""
        spoilt = spoil(self.held_pictures, np.random.default_rng(7))
        clean = judge_factors(ema["head"](ema["trunk"](self.held_pictures)), self.held_factors)
        return clean | {
            f"{name}_spoilt": value
            for name, value in judge_factors(ema["head"](ema["trunk"](spoilt)), self.held_factors).items()
        }


class Inversion(NamedTuple):
    """What the inversion stage builds on."""

    trunk: Trunk
    head: FactorHead
    generator: Generator


def build_wplus_encoder(parts: Inversion) -> WPlusEncoder:
    """Join a trained trunk and head, the generator's mapping, and a zero residual."""
    lows, highs = factor_bounds()
    synthesis = parts.generator.synthesis
    hues = tuple(int(i) for i in HUES.nonzero()[:, 0])
    return WPlusEncoder(parts.trunk, parts.head, parts.generator.mapping, synthesis.num_ws, lows, highs, hues)


class InversionStage:
    """Trains the W+ residual and the factor head, first towards the true w, then through the frozen generator."""

    name = "inversion"

    def __init__(
        self,
        recipe: InversionRecipe,
        parts: Inversion,
        pool: Pool,
        held_out: Pool,
        size_px: int = 128,
        device: torch.device = CPU,
    ) -> None:
        """`size_px`: what the encoder looks at; the generator's pictures may be larger."""
        torch.manual_seed(recipe.seed)
        self.recipe, self.pool, self.steps, self.ema_decay = recipe, pool, recipe.steps, recipe.ema_decay
        self.size_px, self.device = size_px, device
        self.generator = parts.generator.to(device).eval().requires_grad_(False)
        self.encoder = build_wplus_encoder(parts).to(device)
        # the trunk also serves the image embedding, so it stays as it is
        self.encoder.trunk.eval().requires_grad_(False)
        self.encoder.mapping.requires_grad_(False)
        self.modules = nn.ModuleDict({"encoder": self.encoder})
        self.optimizers = build_optimizers([self.encoder], recipe.lr)
        self.held_pictures = to_pictures(held_out.pictures[:128], device=device)
        self.weights = face_weights(self.held_pictures.shape[-1], FACE_GAIN).to(device)

    def learning_rate(self, step: int) -> float:
        """Give the learning rate at a step."""
        return self.recipe.lr * schedule(step, self.steps, 0.5)

    def ema_warmup(self, step: int) -> int:
        """Average from the first step on."""
        return step

    def loss(self, step: int) -> tuple[Tensor, dict[str, float]]:
        """Invert one batch: distance in w first, then the picture that the generator draws from it."""
        rng = np.random.default_rng([self.recipe.seed, 3, step])
        drawn_stage = step >= self.recipe.w_steps
        batch = self.recipe.batch if drawn_stage else self.recipe.w_batch
        rows = np.sort(rng.choice(len(self.pool), batch, replace=False))
        truth = to_pictures(self.pool.pictures[rows], device=self.device)
        factors = torch.tensor(self.pool.factors[rows], device=self.device)
        with torch.no_grad():
            seen = self._shrink(truth)
            seen = spoil(seen, rng) if rng.random() < 0.3 else seen
            features = self.encoder.trunk(seen)
            true_w = self.generator.mapping(factors)
        ws, read = self.encoder.invert(features, seen)
        loss = self.recipe.factor_weight * factor_loss(read, factors)
        loss = loss + self.recipe.w_weight * (ws - true_w[:, None]).square().mean()
        if drawn_stage:
            with autocast(self.device):
                drawn = self.generator.synthesis(ws)
            loss = loss + picture_loss(drawn.float() - truth, self.weights, squared=SQUARED)
        return loss, {}

    @torch.no_grad()
    def evaluate(self, ema: nn.ModuleDict) -> dict[str, float]:
        """Measure the reconstruction of held-out renders."""
        encoder = ema["encoder"]
        parts = self.held_pictures.split(16)
        drawn = torch.cat([self.generator.synthesis(encoder(self._shrink(part))) for part in parts])
        return {"psnr_db": float(psnr_db(drawn, self.held_pictures))}

    def _shrink(self, pictures: Tensor) -> Tensor:
        """Give what the encoder sees of the generator's pictures."""
        return F.avg_pool2d(pictures, pictures.shape[-1] // self.size_px)
