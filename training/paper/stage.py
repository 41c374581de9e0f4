"""The stage that trains the published motion generator through a frozen generator, by the published losses.

Every part is given (`FrozenParts`); a batch is some pictures and as many prompts. Only frames 0 and T−1 are drawn: no
loss looks at the others.
"""

import copy
from collections.abc import Callable
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from training.networks.motion import PaperMotion
from training.paper.losses import (
    RowAdversary,
    first_last_loss,
    fooling_loss,
    latent_loss,
    path_length_loss,
    telling_loss,
)
from training.paper.parts import FrozenParts
from training.paper.towers import Towers, contrastive_loss, plain_loss, resize
from training.recipes.paper import PaperRecipe

Pictures = Callable[[np.random.Generator, int], Tensor]
"""Draws a batch: random generator, N → pictures [N,3,R,R] in [-1,1]."""


def build_paper_motion(recipe: PaperRecipe, parts: FrozenParts) -> PaperMotion:
    """Build the untrained published motion generator for some parts."""
    return PaperMotion(parts.towers.embed_dim, parts.num_ws, parts.w_dim, recipe.h_dim, recipe.hidden).to(parts.device)


class PaperStage:
    """Trains recurrence and mapper, the conditioning towers at their own rate, and the adversary where one is asked
    for."""

    name = "paper"
    ema_decay = 0.0  # the paper averages no weights

    def __init__(self, recipe: PaperRecipe, parts: FrozenParts, pictures: Pictures, held_out: Tensor) -> None:
        """`held_out` [N,3,R,R]: pictures that `evaluate` measures on."""
        torch.manual_seed(recipe.seed)
        self.recipe, self.parts, self.pictures, self.steps = recipe, parts, pictures, recipe.steps
        self.held_out = held_out.to(parts.device)
        self.network = build_paper_motion(recipe, parts)
        self.modules = nn.ModuleDict({"motion": self.network})
        self.towers: Towers = parts.towers
        groups = [{"params": list(self.network.parameters()), "lr": recipe.lr}]
        if recipe.lr_towers:
            if not isinstance(parts.towers, nn.Module):
                raise TypeError("towers that shall be trained along must be modules; set lr_towers to 0")
            # a copy: the losses go on seeing with the towers as they were
            tuned = copy.deepcopy(parts.towers).requires_grad_(True)
            self.modules["towers"] = tuned
            self.towers = cast("Towers", tuned)
            groups.append({"params": list(tuned.parameters()), "lr": recipe.lr_towers})
        self.optimizers: list[torch.optim.Optimizer] = [torch.optim.Adam(groups, recipe.lr, recipe.betas)]
        self.adversary: RowAdversary | None = None
        if recipe.weights.adversarial:
            self.adversary = RowAdversary(parts.w_dim).to(parts.device)
            self.modules["adversary"] = self.adversary
            self.optimizers.append(torch.optim.Adam(self.adversary.parameters(), recipe.lr_adversary))
        self.sentences = recipe.sentences()
        with torch.no_grad():
            self.judged_texts = parts.judges.embed_texts(self.sentences)
            self.texts = parts.towers.embed_texts(self.sentences)

    def ema_warmup(self, step: int) -> int:
        """Nothing is averaged."""
        return step

    def advance(self, step: int) -> dict[str, float]:
        """Move one batch of faces by one batch of sentences; then the adversary's own step."""
        rng = np.random.default_rng([self.recipe.seed, 20, step])
        chosen = torch.from_numpy(rng.integers(len(self.sentences), size=self.recipe.batch)).to(self.parts.device)
        pictures, ws, image_embed = self._pick_faces(rng)
        delta_ws, residual = self.move(self._embed(chosen), image_embed, self._draw_noise(rng))
        offsets = delta_ws if residual is None else delta_ws + residual[:, None]
        last_ws = ws + offsets[:, -1]
        losses = self.losses(pictures, ws + offsets[:, 0], last_ws, delta_ws, offsets, self.judged_texts[chosen])
        if self.adversary is not None:
            self.adversary.requires_grad_(False)
            losses["adversarial"] = fooling_loss(self.adversary(last_ws))
        weights = self.recipe.weights
        total = torch.stack([getattr(weights, name) * value for name, value in losses.items()]).sum()
        figures = {"loss": float(total.detach())} | {name: float(value.detach()) for name, value in losses.items()}
        if torch.isfinite(total.detach()):
            self.optimizers[0].zero_grad(set_to_none=True)
            total.backward()
            self.optimizers[0].step()
            if self.adversary is not None:
                figures["telling"] = self._train_adversary(self.adversary, last_ws.detach(), rng)
        return figures

    def move(self, text_embed: Tensor, image_embed: Tensor | None, h_0: Tensor) -> tuple[Tensor, Tensor | None]:
        """Run the motion generator as in training.

        Shapes: text_embed, image_embed [N,embed_dim] (None: sampled faces), h_0 [N,h_dim] → delta_ws
        [N,T,num_ws,w_dim], δ_v [N,num_ws,w_dim] or None.
        """
        recipe = self.recipe
        # as published: the recurrence takes v as given, and v's tower learns through δ_v alone
        z_0 = text_embed if image_embed is None else text_embed + image_embed.detach()
        _, delta_ws = self.network(z_0, h_0, recipe.frames, recipe.decay)
        return delta_ws, None if image_embed is None else self.network.residual(image_embed)

    def losses(
        self,
        pictures: Tensor | None,
        first_ws: Tensor,
        last_ws: Tensor,
        delta_ws: Tensor,
        offsets: Tensor,
        judged_texts: Tensor,
    ) -> dict[str, Tensor]:
        """Give every loss that counts, by its name in `PaperWeights`, unweighted.

        Shapes: pictures [N,3,R,R] or None (sampled faces: nothing to keep to), first_ws, last_ws [N,num_ws,w_dim],
        delta_ws, offsets [N,T,num_ws,w_dim], judged_texts [N,d].
        """
        recipe, weights, parts = self.recipe, self.recipe.weights, self.parts
        last = parts.draw(last_ws)
        found: dict[str, Tensor] = {}
        if weights.language:
            compare = (lambda v, t: contrastive_loss(v, t, recipe.temperature)) if recipe.contrastive else plain_loss
            found["language"] = compare(parts.judges.embed_images(last), judged_texts)
        if weights.path_length:
            found["path_length"] = path_length_loss(delta_ws)
        if weights.first_last:
            found["first_last"] = first_last_loss(delta_ws)
        if weights.latent:
            found["latent"] = latent_loss(offsets)
        if pictures is not None and (weights.perceptual or weights.l1 or weights.l2 or weights.identity):
            # frames are brought to the pictures' size, as published (1024 px to 224)
            drawn = resize(torch.cat([parts.draw(first_ws), last]), pictures.shape[-1])
            wanted = pictures.repeat(2, 1, 1, 1)
            # sums over the two frames, means over the batch
            if weights.perceptual:
                found["perceptual"] = 2 * parts.distance(drawn, wanted).mean()
            if weights.l1:
                found["l1"] = 2 * (drawn - wanted).abs().mean()
            if weights.l2:
                found["l2"] = 2 * (drawn - wanted).square().mean()
            if weights.identity:
                with torch.no_grad():
                    kept = parts.identity(wanted)
                found["identity"] = 2 * (1 - (parts.identity(drawn) * kept).sum(1)).mean()
        return found

    @torch.no_grad()
    def evaluate(self, ema: nn.ModuleDict) -> dict[str, float]:
        """Measure on held-out faces: language score, sentences told apart, distance to the picture, size of Δ."""
        del ema  # equal to the weights
        count, parts = len(self.held_out), self.parts
        rows = torch.arange(count, device=parts.device) % len(self.sentences)
        zeros = torch.zeros(count, self.recipe.h_dim, device=parts.device)
        image_embed = None if self.recipe.sampled else self.towers.embed_images(self.held_out)
        delta_ws, residual = self.move(self._embed(rows), image_embed, zeros)
        moved = delta_ws[:, -1] if residual is None else delta_ws[:, -1] + residual
        last = torch.cat([parts.draw(ws) for ws in (parts.encode(self.held_out) + moved).split(8)])
        score = parts.judges.embed_images(last) @ self.judged_texts.t()
        return {
            "language": float(score.gather(1, rows[:, None]).mean()),
            "top1": float((score.argmax(1) == rows).float().mean()),
            "distance": float(parts.distance(last, self.held_out).mean()),
            "size": float((delta_ws[:, -1] - delta_ws[:, 0]).square().mean().sqrt()),
        }

    def _embed(self, chosen: Tensor) -> Tensor:
        if self.towers is self.parts.towers:
            return self.texts[chosen]
        return self.towers.embed_texts([self.sentences[i] for i in chosen.tolist()])

    def _draw_noise(self, rng: np.random.Generator) -> Tensor:
        noise = rng.standard_normal((self.recipe.batch, self.recipe.h_dim), dtype=np.float32)
        return self.recipe.h_noise * torch.from_numpy(noise).to(self.parts.device)

    def _pick_faces(self, rng: np.random.Generator) -> tuple[Tensor | None, Tensor, Tensor | None]:
        if self.recipe.sampled:
            return None, self._sample_ws(rng), None
        pictures = self.pictures(rng, self.recipe.batch).to(self.parts.device)
        with torch.no_grad():
            ws = self.parts.encode(pictures)
        with torch.set_grad_enabled(self.towers is not self.parts.towers):
            return pictures, ws, self.towers.embed_images(pictures)

    @torch.no_grad()
    def _sample_ws(self, rng: np.random.Generator) -> Tensor:
        z = torch.from_numpy(rng.standard_normal((self.recipe.batch, self.parts.z_dim), dtype=np.float32))
        return self.parts.sample_ws(z.to(self.parts.device))

    def _train_adversary(self, adversary: RowAdversary, fake: Tensor, rng: np.random.Generator) -> float:
        adversary.requires_grad_(True)
        loss = telling_loss(adversary(self._sample_ws(rng)), adversary(fake))
        self.optimizers[1].zero_grad(set_to_none=True)
        loss.backward()
        self.optimizers[1].step()
        return float(loss.detach())
