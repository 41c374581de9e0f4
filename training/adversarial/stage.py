"""The adversarial stage: generator and discriminator in turns, their lazy penalties, augmentation that adapts.

A step shows the discriminator one global batch of real pictures. Its phases (generator, path length every few steps,
discriminator, R1 every few steps) each end in one optimiser step, whose gradient is the sum over micro-batches and
processes of what their rows add. Driven by training.loop; knows no files but those of its snapshots.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from training.adversarial.augment import FACES, Adaptation, AugmentStrengths, augment
from training.adversarial.draws import Draws, Kind, NoiseSource, pick_crossovers
from training.adversarial.losses import fake_loss, generator_loss, path_lengths, path_penalty, r1_penalty, real_loss
from training.adversarial.order import Order, Reader, share_rows
from training.adversarial.pictures import PictureSet, Pixels, require_enough
from training.networks.discriminator import Discriminator
from training.networks.stylegan2 import (
    ZGenerator,
    build_discriminator,
    build_z_generator,
    config_f_channels,
    decay_of_half_life,
    mix_styles,
)
from training.networks.synthesis import Architecture
from training.ranks import current_ranks, gather_ranks, sum_gradients, sum_ranks
from training.recipes.adversarial import AdversarialRecipe

PRECISIONS = {
    "float64": torch.float64,  # to compare with, slowly
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}
STRENGTHS = {"none": None, "all": AugmentStrengths(), "faces": FACES}
BETAS = (0.0, 0.99)
Observer = Callable[[ZGenerator, int], dict[str, float]]
"""Looks at the averaged generator after so many steps: snapshots, FID."""


def build_networks(recipe: AdversarialRecipe, label_dim: int = 0) -> tuple[ZGenerator, Discriminator]:
    """Build untrained networks; the same weights for the same seed."""
    torch.manual_seed(recipe.seed)
    channels = recipe.channels or config_f_channels(recipe.resolution, multiplier=recipe.channel_multiplier)
    generator = build_z_generator(
        recipe.resolution,
        channels,
        recipe.z_dim,
        recipe.w_dim,
        label_dim,
        recipe.mapping_layers,
        cast("Architecture", recipe.generator_architecture),
        recipe.noise,
        recipe.clamp,
    )
    architecture = cast("Architecture", recipe.discriminator_architecture)
    judge = build_discriminator(recipe.resolution, channels, label_dim, architecture, recipe.group_size, recipe.clamp)
    return generator, judge


def build_lazy_adam(module: nn.Module, lr: float, interval: int) -> torch.optim.Adam:
    """Build Adam for a module whose penalty comes every `interval` steps as a step of its own; 0: there is none.

    Source: Karras et al. 2020, appendix B: rate and betas shrink, because there are more steps.
    """
    share = interval / (interval + 1) if interval else 1.0
    betas = (BETAS[0] ** share, BETAS[1] ** share)
    return torch.optim.Adam(module.parameters(), lr * share, betas, eps=1e-8)


def to_tensor(pixels: Pixels, device: torch.device, dtype: torch.dtype = torch.float32) -> Tensor:
    """Give pictures as networks want them: [N,R,R,3] uint8 → [N,3,R,R] in [-1,1], channels last."""
    return torch.from_numpy(pixels).to(device).permute(0, 3, 1, 2).to(dtype).div_(127.5).sub_(1)


@contextmanager
def frozen(module: nn.Module) -> Iterator[None]:
    """Let gradients pass through a module without collecting any for it."""
    module.requires_grad_(False)
    try:
        yield
    finally:
        module.requires_grad_(True)


class AdversarialStage:
    """Trains generator and discriminator against each other."""

    name = "gan"

    def __init__(
        self,
        recipe: AdversarialRecipe,
        pictures: PictureSet,
        device: torch.device,
        observe: Observer | None = None,
        threads: int = 2,
    ) -> None:
        assert pictures.resolution == recipe.resolution, (pictures.resolution, recipe.resolution)
        require_enough(pictures, recipe.batch)
        ranks = current_ranks()
        self.recipe, self.pictures, self.device, self.observe = recipe, pictures, device, observe
        self.steps, self.ema_decay = recipe.steps, decay_of_half_life(recipe.batch, recipe.ema_kimg)
        self.label_dim = pictures.label_dim if recipe.labels else 0
        self.dtype = torch.float64 if recipe.precision == "float64" else torch.float32
        generator, judge = build_networks(recipe, self.label_dim)
        self.modules = nn.ModuleDict({"generator": generator, "discriminator": judge})
        self.modules.to(device, self.dtype)
        self.modules.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch does not declare it
        self.generator, self.discriminator = generator, judge
        self.averaged = nn.ModuleDict({"generator": generator})
        path_interval = recipe.path_interval if recipe.path_weight else 0
        r1_interval = recipe.r1_interval if recipe.r1_gamma else 0
        self.optimizers: list[torch.optim.Optimizer] = [
            build_lazy_adam(generator, recipe.lr_generator, path_interval),
            build_lazy_adam(judge, recipe.lr_discriminator, r1_interval),
        ]
        micro, shrink = recipe.micro_batch, recipe.path_shrink
        self.rows = share_rows(recipe.batch, recipe.group_size, ranks.world, ranks.rank, micro)
        self.path_rows = share_rows(recipe.batch // shrink, 1, ranks.world, ranks.rank, max(1, micro // shrink))
        order = Order(len(pictures), recipe.seed, recipe.mirrored)
        self.reader = Reader(pictures, order, recipe.batch, self.rows, threads)
        self.strengths = STRENGTHS[recipe.augment]
        target = recipe.augment_target if self.strengths else 0.0
        self.adaptation = Adaptation(
            target, recipe.augment_interval, recipe.augment_kimg, p=recipe.augment_p if self.strengths else 0.0
        )
        self.path_mean = torch.zeros((), dtype=torch.float64)
        self._done = 0
        self._seldom = {"r1": 0.0, "path_length": 0.0}

    # --- what the loop asks ---------------------------------------------------------------------------------------

    def ema_warmup(self, step: int) -> int:
        """Average from the first step on."""
        return step

    def ema_decay_at(self, step: int) -> float:
        """Give the decay of the generator's average."""
        recipe = self.recipe
        if recipe.ema_rampup is None:
            return self.ema_decay
        seen = step * recipe.batch / 1000
        return decay_of_half_life(recipe.batch, recipe.ema_kimg, seen, recipe.ema_rampup)

    def extra_state(self) -> dict[str, Any]:
        """Give what a resumed run needs beside weights; the data's position is the step itself."""
        return {"adaptation": self.adaptation.state(), "path_mean": self.path_mean, "seldom": dict(self._seldom)}

    def load_extra_state(self, state: dict[str, Any]) -> None:
        """Take it back."""
        self.adaptation.load_state(state["adaptation"])
        self.path_mean, self._seldom = state["path_mean"], dict(state["seldom"])

    def evaluate(self, ema: nn.ModuleDict) -> dict[str, float]:
        """Let the observer look at the averaged generator."""
        if self.observe is None:
            return {}
        with torch.no_grad():
            return self.observe(cast("ZGenerator", ema["generator"]), self._done)

    def advance(self, step: int) -> dict[str, float]:
        """Take all phases of one step."""
        recipe = self.recipe
        self._done = step + 1
        real = [self.reader.read(step, micro) for micro in range(len(self.rows))]
        generated = self._train_generator(step)
        if recipe.path_weight and step % recipe.path_interval == 0:
            self._regularise_generator(step)
        judged = self._train_discriminator(step, real)
        if recipe.r1_gamma and step % recipe.r1_interval == 0:
            self._regularise_discriminator(step, real)
        sums = sum_ranks(torch.cat([generated, judged])).tolist()
        means = [value / recipe.batch for value in sums]
        self.adaptation.note(sums[3], recipe.batch, step)
        figures = {
            "loss": means[0] + means[1],
            "generator": means[0],
            "discriminator": means[1],
            "score_real": means[2],
            "score_fake": means[4],
            "sign_real": means[3],
            **self._seldom,
            "kimg": (step + 1) * recipe.batch / 1000,
        }
        return figures | ({"augment_p": self.adaptation.p, "r_t": self.adaptation.r_t} if self.strengths else {})

    # --- phases ---------------------------------------------------------------------------------------------------

    def _train_generator(self, step: int) -> Tensor:
        total = torch.zeros(1, dtype=torch.float64, device=self.device)
        ws_seen: list[Tensor] = []
        with frozen(self.discriminator):
            for rows in self.rows:
                draws = Draws(self.recipe.seed, Kind.G_MAIN, step, rows)
                with self._lower():
                    pictures, ws, c = self._draw(draws)
                    losses = generator_loss(self._judge(pictures, c, draws))
                (losses.sum() / self.recipe.batch).backward()
                total += losses.detach().sum()
                ws_seen.append(ws.detach()[:, 0])
        self.generator.mapping.track(gather_ranks(torch.cat(ws_seen)))
        self._step(0, self.generator)
        return total

    def _regularise_generator(self, step: int) -> None:
        recipe, total = self.recipe, torch.zeros((), dtype=torch.float64, device=self.device)
        count = recipe.batch // recipe.path_shrink
        weight = recipe.path_weight * recipe.path_interval / count
        mean = self.path_mean.to(self.device, self.dtype)
        for rows in self.path_rows:
            draws = Draws(recipe.seed, Kind.G_PATH, step, rows)
            # in full precision: second derivatives lose too much in half
            pictures, ws, _ = self._draw(draws)
            noise = draws.normal(*pictures.shape[1:]).to(pictures)
            lengths = path_lengths(pictures, ws, noise)
            (path_penalty(lengths, mean).sum() * weight).backward()
            total += lengths.detach().sum()
        self._step(0, self.generator)
        length = float(sum_ranks(total)) / count
        self.path_mean = self.path_mean.lerp(torch.tensor(length, dtype=torch.float64), recipe.path_decay)
        self._seldom["path_length"] = length

    def _train_discriminator(self, step: int, real: list[tuple[Pixels, np.ndarray]]) -> Tensor:
        # sums over rows: loss, real scores, their signs, scores of drawn pictures
        sums = torch.zeros(4, dtype=torch.float64, device=self.device)
        for rows, (pixels, labels) in zip(self.rows, real, strict=True):
            draws = Draws(self.recipe.seed, Kind.D_FAKE, step, rows)
            with self._lower():
                with torch.no_grad():
                    pictures, _, c = self._draw(draws)
                fake_scores = self._judge(pictures, c, draws)
                loss = fake_loss(fake_scores).sum()
            (loss / self.recipe.batch).backward()
            draws = Draws(self.recipe.seed, Kind.D_REAL, step, rows)
            with self._lower():
                pictures, c = to_tensor(pixels, self.device, self.dtype), self._to_labels(labels)
                scores = self._judge(pictures, c, draws)
                real_part = real_loss(scores).sum()
            (real_part / self.recipe.batch).backward()
            with torch.no_grad():
                sums += torch.stack([loss + real_part, scores.sum(), scores.sign().sum(), fake_scores.sum()])
        self._step(1, self.discriminator)
        return sums

    def _regularise_discriminator(self, step: int, real: list[tuple[Pixels, np.ndarray]]) -> None:
        recipe, total = self.recipe, torch.zeros((), dtype=torch.float64, device=self.device)
        weight = recipe.r1_gamma / 2 * recipe.r1_interval / recipe.batch
        for rows, (pixels, labels) in zip(self.rows, real, strict=True):
            draws = Draws(recipe.seed, Kind.D_PENALTY, step, rows)
            pictures = to_tensor(pixels, self.device, self.dtype).requires_grad_(True)
            penalties = r1_penalty(self._judge(pictures, self._to_labels(labels), draws), pictures)
            (penalties.sum() * weight).backward()
            total += penalties.detach().sum()
        self._step(1, self.discriminator)
        self._seldom["r1"] = float(sum_ranks(total)) / recipe.batch

    # --- inside ---------------------------------------------------------------------------------------------------

    def _lower(self) -> AbstractContextManager[None]:
        dtype = PRECISIONS[self.recipe.precision]
        return torch.autocast(self.device.type, dtype=dtype, enabled=dtype in (torch.bfloat16, torch.float16))

    def _draw(self, draws: Draws) -> tuple[Tensor, Tensor, Tensor | None]:
        """Draw pictures for some rows: pictures in full precision, ws, labels."""
        recipe, mapping = self.recipe, self.generator.mapping
        z = draws.normal(2, recipe.z_dim).to(self.device, self.dtype)
        uniforms = draws.uniform(3)
        c = None
        if self.label_dim:
            chosen = (uniforms[:, 2] * len(self.pictures)).astype(np.int64)
            c = self._to_labels(np.stack([self.pictures.label(int(index)) for index in chosen]))
        ws = mapping(z[:, 0], c)
        if recipe.mixing:
            crossovers = pick_crossovers(uniforms, mapping.num_ws, recipe.mixing)
            ws = mix_styles(ws, mapping(z[:, 1], c), crossovers)
        noise = NoiseSource(draws.seeds(), self.device)
        return self.generator.synthesis(ws, noise_mode=noise).to(self.dtype), ws, c

    def _judge(self, pictures: Tensor, c: Tensor | None, draws: Draws) -> Tensor:
        if self.strengths is not None:
            pictures = augment(pictures, draws, self.strengths, self.adaptation.p)
        scores: Tensor = self.discriminator(pictures.contiguous(memory_format=torch.channels_last), c)
        return scores

    def _to_labels(self, labels: np.ndarray) -> Tensor | None:
        return torch.from_numpy(labels).to(self.device, self.dtype) if self.label_dim else None

    def _step(self, index: int, module: nn.Module) -> None:
        sum_gradients(module.parameters())
        if self.recipe.precision == "float16":
            # half precision overflows now and then; the published code does the same
            for parameter in module.parameters():
                if parameter.grad is not None:
                    torch.nan_to_num(parameter.grad, nan=0, posinf=1e5, neginf=-1e5, out=parameter.grad)
        self.optimizers[index].step()
        self.optimizers[index].zero_grad(set_to_none=True)


def check_recipe(recipe: AdversarialRecipe, world: int) -> None:
    """Refuse numbers that don't fit together.

    Raises: ValueError that says which.
    """
    if recipe.precision not in PRECISIONS:
        raise ValueError(f"precision {recipe.precision!r}: one of {', '.join(PRECISIONS)} is wanted")
    if recipe.augment not in STRENGTHS:
        raise ValueError(f"augment {recipe.augment!r}: one of {', '.join(STRENGTHS)} is wanted")
    share_rows(recipe.batch, recipe.group_size, world, 0, recipe.micro_batch)
    if recipe.path_weight and recipe.micro_batch % recipe.path_shrink:
        raise ValueError(f"micro_batch {recipe.micro_batch} must be a multiple of path_shrink {recipe.path_shrink}")
