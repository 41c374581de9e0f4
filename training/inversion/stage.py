"""The stage that trains the encoder through the frozen generator, with a latent discriminator beside it.

Every step is a function of (seed, step) and the weights: pictures come by their place in an endless order, sampled w
by (seed, step), so a resumed run equals an uninterrupted one. Of several processes each takes its share of the batch;
batch norms see their own share only.
"""

from contextlib import nullcontext

import numpy as np
import torch
from torch import Tensor, nn

from training.adversarial.order import Order
from training.adversarial.pictures import PictureSet
from training.devices import autocast
from training.errors import DataError
from training.inversion.features import compare_maps
from training.inversion.figures import average_figures, join_figures, measure_reconstruction
from training.inversion.losses import (
    delta_norm,
    identity_loss,
    latent_discriminator_loss,
    latent_realism_loss,
    r1_penalty,
    squared_error,
    w_norm,
)
from training.inversion.parts import InversionParts
from training.networks.discriminator import WDiscriminator
from training.networks.irse import PyramidEncoder
from training.optimizers import schedule, set_learning_rate
from training.ranks import current_ranks, sum_gradients
from training.recipes.inversion import EncoderTraining

EVALUATION_BATCH = 8


def build_encoder(recipe: EncoderTraining, parts: InversionParts) -> PyramidEncoder:
    """Build an untrained encoder for a generator, around its average w."""
    network = recipe.network
    encoder = PyramidEncoder(
        parts.synthesis.num_ws,
        parts.synthesis.w_dim,
        network.input_size,
        network.widths,
        network.units,
        network.coarse_rows,
        network.middle_rows,
    )
    encoder.w_avg.copy_(parts.w_avg)
    return encoder.to(parts.device)


def to_pictures(pixels: np.ndarray, device: torch.device) -> Tensor:
    """Turn pixels into network pictures: [N,R,R,3] uint8 → [N,3,R,R] in [-1,1]."""
    return torch.tensor(pixels, device=device).permute(0, 3, 1, 2).float().div_(127.5).sub_(1)


class EncoderStage:
    """Trains the encoder; a SteppedStage of training.loop."""

    name = "pyramid"

    def __init__(
        self, recipe: EncoderTraining, parts: InversionParts, pictures: PictureSet, held_out: PictureSet
    ) -> None:
        for some in (pictures, held_out):
            if some.resolution != parts.synthesis.resolution:
                raise DataError(
                    f"{some.name}: pictures are {some.resolution} px, and the generator draws "
                    f"{parts.synthesis.resolution} px; scale them to that"
                )
        ranks = current_ranks()
        if recipe.batch % ranks.world:
            raise DataError(f"a batch of {recipe.batch} can't be shared among {ranks.world} processes")
        torch.manual_seed(recipe.seed)
        self.recipe, self.parts, self.pictures, self.steps = recipe, parts, pictures, recipe.steps
        self.ema_decay = recipe.ema_decay
        self.encoder = build_encoder(recipe, parts)
        self.judge = WDiscriminator(parts.synthesis.w_dim).to(parts.device)
        self.modules = nn.ModuleDict({"encoder": self.encoder, "latent_discriminator": self.judge})
        self.averaged = nn.ModuleDict({"encoder": self.encoder})
        self.optimizers: list[torch.optim.Optimizer] = [
            torch.optim.Adam(self.encoder.parameters(), recipe.lr, (0.9, 0.99)),
            torch.optim.Adam(self.judge.parameters(), recipe.latent_lr, (0.0, 0.99)),
        ]
        self._order = Order(len(pictures), recipe.seed, recipe.mirrored)
        count = min(recipe.held_out, len(held_out))
        self.held_pictures = to_pictures(np.stack([held_out.read(i) for i in range(count)]), parts.device)

    # --- what the loop asks ---------------------------------------------------------------------------------

    def ema_warmup(self, step: int) -> int:
        """Average from the first step on."""
        return step

    def ema_decay_at(self, step: int) -> float:
        """Give the average's decay at a step: short at first."""
        return min(self.ema_decay, 1 - 1 / ((step + 1) * 0.1 + 1))

    def advance(self, step: int) -> dict[str, float]:
        """Teach the latent discriminator, then the encoder, on one batch."""
        recipe = self.recipe
        pictures, unlocked = self._read(step), self.unlocked(step)
        self.encoder.unlocked_rows.fill_(unlocked)
        figures: dict[str, float] = {}
        judged = recipe.weights.latent > 0 and step >= recipe.latent_from
        if judged:
            figures |= self._advance_judge(step, pictures, unlocked)
        rate = recipe.lr * schedule(step, self.steps, recipe.flat, recipe.warmup)
        set_learning_rate(self.optimizers[:1], rate)
        self.encoder.train()
        with autocast(self.parts.device) if recipe.half else nullcontext():
            ws = self.encoder(pictures, unlocked).float()
            drawn = self.parts.draw(ws).float()
        losses = self._compare(ws, drawn, pictures, unlocked, judged)
        weights = recipe.weights
        total = torch.stack([getattr(weights, name) * value for name, value in losses.items()]).sum()
        self._take_step(self.optimizers[0], self.encoder, total)
        figures |= {name: float(value.detach()) for name, value in losses.items()}
        return {"loss": float(total.detach()), **figures, "unlocked": float(unlocked), "lr": rate}

    @torch.no_grad()
    def evaluate(self, ema: nn.ModuleDict) -> dict[str, float]:
        """Measure the reconstruction of held-out pictures."""
        encoder, found = ema["encoder"], []
        for pictures in self.held_pictures.split(EVALUATION_BATCH):
            drawn = self.parts.draw(encoder(pictures))
            found.append(measure_reconstruction(drawn, pictures, self.parts.describe, self.parts.identity))
        return average_figures(join_figures(found))

    def unlocked(self, step: int) -> int:
        """Give how many rows behind the first have a delta of their own at a step."""
        if step < self.recipe.unlock_from:
            return 0
        return min(1 + (step - self.recipe.unlock_from) // self.recipe.unlock_every, self.encoder.num_ws - 1)

    # --- inside ---------------------------------------------------------------------------------------------

    def _read(self, step: int) -> Tensor:
        """Read this process's pictures of a step's batch."""
        ranks, batch = current_ranks(), self.recipe.batch
        places = [self._order.at(step * batch + row) for row in range(ranks.rank, batch, ranks.world)]
        pixels = [self.pictures.read(index)[:, :: -1 if mirrored else 1] for index, mirrored in places]
        return to_pictures(np.stack(pixels), self.parts.device)

    def _advance_judge(self, step: int, pictures: Tensor, unlocked: int) -> dict[str, float]:
        recipe, ranks = self.recipe, current_ranks()
        # batch norms move once a step, in the encoder's own turn
        self.encoder.eval()
        with torch.no_grad():
            fake = self.encoder(pictures, unlocked)[:, : unlocked + 1].flatten(0, 1)
            rng = np.random.default_rng([recipe.seed, 2, step, ranks.rank])
            real = self.parts.sample_w(len(fake), rng)
        self.judge.requires_grad_(True)
        loss = latent_discriminator_loss(self.judge, real, fake)
        total = loss
        if step % recipe.r1_every == 0:
            total = total + recipe.r1_gamma / 2 * recipe.r1_every * r1_penalty(self.judge, real)
        self._take_step(self.optimizers[1], self.judge, total)
        self.judge.requires_grad_(False)
        return {"latent_discriminator": float(loss.detach())}

    def _compare(self, ws: Tensor, drawn: Tensor, pictures: Tensor, unlocked: int, judged: bool) -> dict[str, Tensor]:
        """Give every loss that counts, by its weight's name, averaged over the batch."""
        weights, parts = self.recipe.weights, self.parts
        losses = {"l2": squared_error(drawn, pictures)}
        if weights.features:
            with torch.no_grad():
                wanted = parts.describe(pictures)
            losses["features"] = compare_maps(parts.describe(drawn), wanted)
        if weights.identity and parts.identity is not None:
            with torch.no_grad():
                who = parts.identity(pictures)
            losses["identity"] = identity_loss(parts.identity(drawn), who)
        if weights.delta and unlocked:
            losses["delta"] = delta_norm(ws, unlocked)
        if weights.w_norm:
            losses["w_norm"] = w_norm(ws, parts.w_avg) / parts.w_scale**2
        if judged:
            losses["latent"] = latent_realism_loss(self.judge, ws, unlocked)
        return {name: value.mean() for name, value in losses.items()}

    @staticmethod
    def _take_step(optimizer: torch.optim.Optimizer, module: nn.Module, loss: Tensor) -> None:
        optimizer.zero_grad(set_to_none=True)
        # each process's loss is its share of the global mean; a loss that is no number is the loop's to refuse,
        # before anything is written
        (loss / current_ranks().world).backward()
        sum_gradients(module.parameters())
        optimizer.step()
