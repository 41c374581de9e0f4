"""The stage that teaches an image tower what a picture set's captions say, beside a locked text tower.

What it can tell apart is what the captions tell apart, no more. Torch only; no files.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.adversarial.pictures import PictureSet
from training.devices import CPU, autocast
from training.embedding import contrast_pictures
from training.encoder import spoil
from training.generator import to_pictures
from training.networks.encoder import ImageTower, Trunk
from training.optimizers import schedule
from training.paper.towers import TOWER_RESOLUTION, resize
from training.photos.captions import Captions
from training.photos.pictures import Subset, stack
from training.recipes.photos import TowerRecipe

EVALUATED = 64


def build_tower(recipe: TowerRecipe, embed_dim: int) -> ImageTower:
    """Build an untrained image tower."""
    return ImageTower(Trunk(recipe.widths, recipe.feature_dim), embed_dim)


def see(pictures: PictureSet, rows: Sequence[int], device: torch.device) -> Tensor:
    """Read pictures at the tower's size: [N,3,S,S] in [-1,1]."""
    return resize(to_pictures(stack(pictures, rows), device=device), TOWER_RESOLUTION)


class CaptionStage:
    """Trains trunk and head by contrast: a picture lies nearest to the sentences of its own label."""

    name = "embedding"

    def __init__(
        self,
        recipe: TowerRecipe,
        pictures: Subset,
        held_out: Subset,
        captions: Captions,
        embed_texts: Callable[[Sequence[str]], Tensor],
        device: torch.device = CPU,
    ) -> None:
        """`captions` are those of the whole set that both subsets come from."""
        torch.manual_seed(recipe.seed)
        self.recipe, self.pictures, self.device, self.steps = recipe, pictures, device, recipe.steps
        self.ema_decay = recipe.ema_decay
        self.texts = [embed_texts(texts).to(device) for texts in captions.texts]  # [phrasings,embed_dim] a label
        self.tower = build_tower(recipe, self.texts[0].shape[1]).to(device)
        self.modules = nn.ModuleDict({"tower": self.tower})
        self.modules.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch does not declare it
        self.optimizers: list[torch.optim.Optimizer] = [
            torch.optim.AdamW(self.modules.parameters(), recipe.lr, (0.9, 0.99), weight_decay=0.02)
        ]
        self.labels = captions.labels[list(pictures.rows)]
        kept = list(range(min(EVALUATED, len(held_out))))
        self.held_pictures = see(held_out, kept, device)
        self.held_labels = torch.from_numpy(captions.labels[list(held_out.rows)][kept]).to(device)

    def learning_rate(self, step: int) -> float:
        """Give the learning rate at a step."""
        return self.recipe.lr * schedule(step, self.steps, 0.4, warmup=max(1, min(100, self.steps // 4)))

    def ema_warmup(self, step: int) -> int:
        """Average from the first step on."""
        return step

    def loss(self, step: int) -> tuple[Tensor, dict[str, float]]:
        """Pair a batch of spoilt pictures with one phrasing each. Nothing is mirrored: left is not right."""
        recipe = self.recipe
        rng = np.random.default_rng([recipe.seed, 7, step])
        rows = rng.choice(len(self.pictures), recipe.batch, replace=len(self.pictures) < recipe.batch)
        pictures = spoil(see(self.pictures, rows.tolist(), self.device), rng)
        labels = self.labels[rows]
        texts = torch.stack([self.texts[label][rng.integers(len(self.texts[label]))] for label in labels])
        with autocast(self.device):
            embed = self.tower(pictures.contiguous(memory_format=torch.channels_last))
        return contrast_pictures(embed.float(), texts, torch.from_numpy(labels).to(self.device), recipe.temperature), {}

    @torch.no_grad()
    def evaluate(self, ema: nn.ModuleDict) -> dict[str, float]:
        """Measure how often a held-out picture lies nearest to its own label's sentences."""
        centers = F.normalize(torch.stack([texts.mean(0) for texts in self.texts]), dim=1)
        nearest = (ema["tower"](self.held_pictures) @ centers.t()).argmax(1)
        return {"top1": float((nearest == self.held_labels).float().mean())}
