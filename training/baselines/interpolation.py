"""StyleCLIP's interpolation: one edited latent w* for a face and a sentence, and frames on the straight line ws → w*.

Two ways to w*: latent optimisation (nothing is trained) and a latent mapper (one training for all sentences). Both ask
the picture of w* to be near the sentence, of the same identity, and w* to stay near ws.
Source: Patashnik et al. 2021 (arXiv 2103.17249), sections 4 and 5. Where we differ: the mapper is told τ, so that one
serves every sentence, and it sees ws as it is, since a rendered domain's rows are far from unit size.
"""

import itertools
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from training.loop import load_ema
from training.networks.stylegan2 import FullyConnected
from training.paper.parts import FrozenParts, draw_frames, freeze, read_picture
from training.paper.stage import Pictures
from training.paper.towers import plain_loss
from training.recipes.baselines import LATENT_RENDERED, LatentRecipe, MapperRecipe, read_mapper_recipe
from training.stages import take_part

NUM_LAYERS = 4


class LevelMapper(nn.Module):
    """One level's network: a row of ws and τ to that row's change."""

    def __init__(self, w_dim: int, embed_dim: int, hidden: int, multiplier: float) -> None:
        super().__init__()
        sizes = [w_dim + embed_dim, *[hidden] * (NUM_LAYERS - 1), w_dim]
        self.layers = nn.Sequential(
            *(FullyConnected(a, b, activate=True, lr_multiplier=multiplier) for a, b in itertools.pairwise(sizes))
        )

    def forward(self, x: Tensor) -> Tensor:
        """Shapes: [...,w_dim + embed_dim] → [...,w_dim]."""
        change: Tensor = self.layers(x)
        return change


class LatentMapper(nn.Module):
    """ws and τ to w*, by one network each for coarse, medium and fine rows."""

    def __init__(self, recipe: MapperRecipe, num_ws: int, w_dim: int, embed_dim: int) -> None:
        super().__init__()
        bounds = [0, *(min(level, num_ws) for level in recipe.levels), num_ws]
        self.spans = [slice(a, b) for a, b in itertools.pairwise(bounds) if b > a]
        self.scale = recipe.scale
        self.levels = nn.ModuleList(
            LevelMapper(w_dim, embed_dim, recipe.hidden, recipe.lr_multiplier) for _ in self.spans
        )

    def forward(self, ws: Tensor, text_embed: Tensor) -> Tensor:
        """Shapes: ws [N,num_ws,w_dim], text_embed [N,embed_dim] → w* [N,num_ws,w_dim]."""
        unit = text_embed.shape[1] ** 0.5  # embeddings have unit norm; layers want unit components
        told = (text_embed * unit)[:, None].expand(-1, ws.shape[1], -1)
        x = torch.cat([ws, told], 2)
        parts = [level(x[:, span]) for level, span in zip(self.levels, self.spans, strict=True)]
        return ws + self.scale * torch.cat(parts, 1)


class MapperStage:
    """Trains the latent mapper."""

    name = "interpolation"
    ema_decay = 0.0

    def __init__(self, recipe: MapperRecipe, parts: FrozenParts, pictures: Pictures, held_out: Tensor) -> None:
        torch.manual_seed(recipe.seed)
        self.recipe, self.parts, self.pictures, self.steps = recipe, parts, pictures, recipe.steps
        self.held_out = held_out.to(parts.device)
        self.mapper = LatentMapper(recipe, parts.num_ws, parts.w_dim, parts.judges.embed_dim).to(parts.device)
        self.modules = nn.ModuleDict({"mapper": self.mapper})
        self.optimizers: list[torch.optim.Optimizer] = [torch.optim.Adam(self.mapper.parameters(), recipe.lr)]
        with torch.no_grad():
            self.texts = parts.judges.embed_texts(recipe.sentences())

    def learning_rate(self, step: int) -> float:
        """Stay the same, as published."""
        del step
        return self.recipe.lr

    def ema_warmup(self, step: int) -> int:
        """Nothing is averaged."""
        return step

    def loss(self, step: int) -> tuple[Tensor, dict[str, float]]:
        """Edit one batch of faces, each by its own sentence."""
        rng = np.random.default_rng([self.recipe.seed, 30, step])
        parts, recipe = self.parts, self.recipe
        chosen = torch.from_numpy(rng.integers(len(self.texts), size=recipe.batch)).to(parts.device)
        with torch.no_grad():
            ws = parts.encode(self.pictures(rng, recipe.batch).to(parts.device))
            kept = parts.identity(parts.draw(ws))
        edited = self.mapper(ws, self.texts[chosen])
        drawn = parts.draw(edited)
        language = plain_loss(parts.judges.embed_images(drawn), self.texts[chosen])
        identity = (1 - (parts.identity(drawn) * kept).sum(1)).mean()
        l2 = (edited - ws).flatten(1).norm(dim=1).mean()
        loss = recipe.language * language + recipe.identity * identity + recipe.l2 * l2
        figures = {"language": language, "identity": identity, "l2": l2}
        return loss, {name: float(value.detach()) for name, value in figures.items()}

    @torch.no_grad()
    def evaluate(self, ema: nn.ModuleDict) -> dict[str, float]:
        """Measure the language score, sentences told apart and identity on held-out faces."""
        del ema
        parts = self.parts
        rows = torch.arange(len(self.held_out), device=parts.device) % len(self.texts)
        ws = parts.encode(self.held_out)
        edited = self.mapper(ws, self.texts[rows])
        drawn = torch.cat([parts.draw(part) for part in edited.split(8)])
        before = torch.cat([parts.draw(part) for part in ws.split(8)])
        score = parts.judges.embed_images(drawn) @ self.texts.t()
        return {
            "language": float(score.gather(1, rows[:, None]).mean()),
            "top1": float((score.argmax(1) == rows).float().mean()),
            "identity": float((parts.identity(drawn) * parts.identity(before)).sum(1).mean()),
            "size": float((edited - ws).square().mean().sqrt()),
        }


def rate(recipe: LatentRecipe, step: int) -> float:
    """Give the latent optimisation's learning rate: up, flat, down along a cosine."""
    share = step / recipe.steps
    down = min(1.0, (1.0 - share) / recipe.fall)
    return recipe.lr * (0.5 - 0.5 * float(np.cos(down * np.pi))) * min(1.0, (share + 1 / recipe.steps) / recipe.rise)


def optimise_latent(parts: FrozenParts, ws: Tensor, text_embed: Tensor, recipe: LatentRecipe) -> Tensor:
    """Find w* by gradient descent from ws.

    Shapes: ws [N,num_ws,w_dim], text_embed [N,embed_dim] → [N,num_ws,w_dim]. Nothing is random.
    """
    with torch.no_grad():
        kept = parts.identity(parts.draw(ws))
    with torch.enable_grad():
        edited = ws.detach().clone().requires_grad_(True)
        optimizer = torch.optim.Adam([edited], recipe.lr)
        for step in range(recipe.steps):
            optimizer.param_groups[0]["lr"] = rate(recipe, step)
            drawn = parts.draw(edited)
            loss = recipe.language * plain_loss(parts.judges.embed_images(drawn), text_embed)
            loss = loss + recipe.identity * (1 - (parts.identity(drawn) * kept).sum(1)).mean()
            loss = loss + recipe.l2 * (edited - ws).square().sum((1, 2)).mean()
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
    return edited.detach()


@dataclass(frozen=True)
class Interpolation:
    """Either way to w*: a trained mapper, or the numbers of an optimisation."""

    mapper: LatentMapper | None = None
    latent: LatentRecipe = LATENT_RENDERED

    def edit(self, parts: FrozenParts, ws: Tensor, text_embed: Tensor) -> Tensor:
        """Shapes: ws [N,num_ws,w_dim], text_embed [N,embed_dim] → w* [N,num_ws,w_dim]."""
        if self.mapper is None:
            return optimise_latent(parts, ws, text_embed, self.latent)
        edited: Tensor = self.mapper(ws, text_embed)
        return edited


def load(folder: Path, parts: FrozenParts) -> Interpolation:
    """Load a trained mapper.

    Raises: FileNotFoundError when there is none; RuntimeError when it was trained for parts of other sizes.
    """
    recipe = read_mapper_recipe(json.loads((folder / "options.json").read_text()))
    mapper = LatentMapper(recipe, parts.num_ws, parts.w_dim, parts.judges.embed_dim).to(parts.device)
    mapper.load_state_dict(take_part(load_ema(folder), "mapper"))
    freeze(mapper)
    return Interpolation(mapper)


def move(
    model: Interpolation,
    parts: FrozenParts,
    picture: npt.NDArray[np.uint8],
    sentence: str,
    frames: int,
    seed: int,
    intensity: float = 1.0,
) -> npt.NDArray[np.float32]:
    """Give the straight line's delta_ws: frame k is k/(T−1) of the way. The seed plays no part.

    Shapes: picture [S,S,3] uint8 RGB → [frames,num_ws,w_dim], row 0 exactly 0.
    """
    del seed
    with torch.no_grad():
        ws = parts.encode(read_picture(picture, parts))
        text_embed = parts.judges.embed_texts([sentence]).to(parts.device)
        way = model.edit(parts, ws, text_embed) - ws
    share = torch.linspace(0, intensity, frames, device=parts.device)
    line: npt.NDArray[np.float32] = (share[:, None, None] * way).cpu().numpy()
    return line


def animate(
    model: Interpolation,
    parts: FrozenParts,
    picture: npt.NDArray[np.uint8],
    sentence: str,
    frames: int,
    seed: int,
    intensity: float = 1.0,
) -> npt.NDArray[np.uint8]:
    """Draw the frames of `move`.

    Shapes: picture [S,S,3] uint8 RGB → [frames,R,R,3] uint8 RGB.
    """
    return draw_frames(parts, picture, move(model, parts, picture, sentence, frames, seed, intensity))
