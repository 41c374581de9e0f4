"""The embedding stage: a head that puts a picture's embedding v beside the embeddings τ of sentences that describe it.

The text tower is locked (as in LiT) and the trunk is frozen, so this trains two small layers on stored features. v
also keeps what the motion stage must know of a face: a linear read-out of its factors is trained along and thrown
away.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.encoder import spoil
from training.faces.captions import sample_caption
from training.faces.expressions import EXPRESSIONS
from training.faces.parameters import NUM_CONTINUOUS, NUM_EXPRESSION, Z_DIM
from training.generator import to_pictures
from training.networks.encoder import ImageTower, Trunk
from training.optimizers import schedule
from training.recipes import EmbeddingRecipe
from training.renders import Pool, expression_of_pair

EmbedTexts = Callable[[Sequence[str]], Tensor]
"""Sentences → τ [N,embed_dim], unit norm."""


class Features(NamedTuple):
    """Stored features of pictures and the factors they were drawn from."""

    features: Tensor  # [N,feature_dim]
    factors: Tensor  # [N,Z_DIM]


@torch.no_grad()
def store_features(trunk: Trunk, pool: Pool, size_px: int, *, spoilt: bool, seed: int = 5, batch: int = 50) -> Features:
    """Run the trunk over a pool once, at `size_px`; every other batch is spoilt where `spoilt` says so."""
    trunk.eval()
    rows = []
    for number, start in enumerate(range(0, len(pool), batch)):
        pictures = to_pictures(pool.pictures[start : start + batch], size_px)
        if spoilt and number % 2:
            pictures = spoil(pictures, np.random.default_rng([seed, number]))
        rows.append(trunk(pictures.contiguous(memory_format=torch.channels_last)))
    return Features(torch.cat(rows), torch.tensor(np.asarray(pool.factors)))


def sample_class_captions(count: int, seed: int) -> dict[str, list[str]]:
    """Draw sentences for every expression, and calm ones under "neutral"."""
    texts = {}
    for number, name in enumerate([*EXPRESSIONS, "neutral"]):
        rng = np.random.default_rng([seed, number])
        texts[name] = [sample_caption(rng, name).text for _ in range(count)]
    return texts


def contrast_pictures(image_embed: Tensor, text_embed: Tensor, labels: Tensor, temperature: float) -> Tensor:
    """Give the symmetric contrastive loss where all pictures and sentences of one label belong together.

    Shapes: image_embed, text_embed [N,embed_dim] unit norm, labels int64 [N] of both.
    """
    logits = image_embed @ text_embed.t() / temperature
    same = (labels[:, None] == labels[None]).float()
    share = same / same.sum(1, keepdim=True)
    both = F.cross_entropy(logits, share) + F.cross_entropy(logits.t(), share)
    return both / 2


class EmbeddingStage:
    """Trains the image tower's head on stored features."""

    name = "embedding"

    def __init__(
        self,
        recipe: EmbeddingRecipe,
        tower: ImageTower,
        embed_texts: EmbedTexts,
        varied: Features,
        expressed: Features,
        held_out: Features,
    ) -> None:
        """`expressed` comes from a pool of expressed pairs: a calm face, then its expression."""
        torch.manual_seed(recipe.seed)
        self.recipe, self.steps, self.ema_decay = recipe, recipe.steps, recipe.ema_decay
        self.varied, self.expressed, self.held_out = varied, expressed, held_out
        self.tower = tower
        embed_dim = tower.out.out_features
        self.readout = nn.Linear(embed_dim, Z_DIM)
        self.modules = nn.ModuleDict({"hidden": tower.hidden, "out": tower.out, "readout": self.readout})
        self.optimizers: list[torch.optim.Optimizer] = [
            torch.optim.Adam(self.modules.parameters(), recipe.lr, (0.9, 0.99))
        ]
        texts = sample_class_captions(recipe.captions, recipe.seed)
        self.names = list(texts)
        self.texts = torch.stack([embed_texts(texts[name]) for name in self.names])  # [classes,captions,embed_dim]
        index = {name: i for i, name in enumerate(self.names)}
        pairs = len(expressed.features) // 2
        self.labels = torch.tensor([index[expression_of_pair(i)] for i in range(pairs)])
        # a blink's picture is that of closed eyes, and at rest it is a calm face: it teaches nothing here
        self.usable = (self.labels != index["blink"]).nonzero()[:, 0]
        self.calm = index["neutral"]

    def learning_rate(self, step: int) -> float:
        """Give the learning rate at a step."""
        return self.recipe.lr * schedule(step, self.steps, 0.4)

    def ema_warmup(self, step: int) -> int:
        """Average from the first step on."""
        return step

    def loss(self, step: int) -> tuple[Tensor, dict[str, float]]:
        """Pair pictures with sentences, and read the factors of all pictures back from v."""
        rng = np.random.default_rng([self.recipe.seed, 4, step])
        batch = self.recipe.batch
        pairs = self.usable[torch.from_numpy(rng.choice(len(self.usable), batch))]
        calm = torch.from_numpy(rng.random(batch) < 0.08)
        labels = torch.where(calm, self.calm, self.labels[pairs])
        rows = 2 * pairs + (~calm).long()
        texts = self.texts[labels, torch.from_numpy(rng.integers(self.recipe.captions, size=batch))]
        others = torch.from_numpy(rng.choice(len(self.varied.features), batch))
        features = torch.cat([self.expressed.features[rows], self.varied.features[others]])
        factors = torch.cat([self.expressed.factors[rows], self.varied.factors[others]])
        image_embed = self.tower.project(features)
        contrast = contrast_pictures(image_embed[:batch], texts, labels, self.recipe.temperature)
        read = self.readout(image_embed * image_embed.shape[1] ** 0.5)
        weights = torch.ones(Z_DIM)
        weights[:NUM_EXPRESSION] = 4.0
        weights[NUM_CONTINUOUS:] = 0.25
        kept = ((read - factors).square() * weights).mean()
        loss = contrast + self.recipe.factor_weight * kept
        return loss, {"contrast": float(contrast.detach()), "kept": float(kept.detach())}

    @torch.no_grad()
    def evaluate(self, ema: nn.ModuleDict) -> dict[str, float]:
        """Measure how much of the factors v keeps, and how often a picture's nearest class of sentences is its own."""
        tower = ImageTower(self.tower.trunk, self.tower.out.out_features)
        tower.hidden.load_state_dict(ema["hidden"].state_dict())
        tower.out.load_state_dict(ema["out"].state_dict())
        embed = tower.project(self.held_out.features)
        read = ema["readout"](embed * embed.shape[1] ** 0.5)
        error = (read - self.held_out.factors).square().mean(0)
        explained = 1 - error / self.held_out.factors.var(0)
        centers = F.normalize(self.texts.mean(1), dim=1)
        pairs = self.usable[: 21 * 20]
        nearest = (tower.project(self.expressed.features[2 * pairs + 1]) @ centers.t()).argmax(1)
        return {
            "r2_expression": float(explained[: NUM_EXPRESSION - 3].mean()),
            "r2_identity": float(explained[NUM_EXPRESSION:NUM_CONTINUOUS].mean()),
            "top1": float((nearest == self.labels[pairs]).float().mean()),
        }
