"""The paper's motion: its published numbers as the default for real checkpoints, its ablations, and small forms that
train on a rendered domain's parts within minutes.

Source: Hang et al. 2022 (arXiv 2208.05617) and the configuration published with it for CelebA-HQ.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

PAPER_PROMPTS = (
    *("smiling", "angry", "closing eyes", "winking", "shocked", "pouting", "crying", "disgusted", "appalled"),
    *("opening mouth", "hatred", "surprised", "aha", "annoyed", "awkward", "biting tongues", "blank stare"),
    *("confused", "duck lips", "incredulous", "mocking", "nervous", "no comment", "oh no", "serious", "stunned"),
    *("whatever", "wtf"),
)
"""One model serves them all."""


@dataclass(frozen=True)
class PaperWeights:
    """How much each loss counts; 0 leaves it out."""

    perceptual: float = 1.0  # LPIPS-like distance of x_0 and of x_{T−1} to the picture: the paper's identity loss
    l1: float = 0.0  # the same two frames, pixel by pixel
    l2: float = 0.0
    identity: float = 0.0  # 1 − cosine of identity features of the same two frames (ArcFace on photographs)
    language: float = 0.5  # last frame
    path_length: float = 1.0  # second differences of Δ
    first_last: float = 1.0
    latent: float = 1.0  # how far every w_k is from ws
    adversarial: float = 0.0  # an MLP on single rows of w_{T−1}


@dataclass(frozen=True)
class PaperRecipe:
    """The published motion generator and its training."""

    name: str = "paper"
    h_dim: int = 384
    hidden: int = 1024
    frames: int = 4  # T in training
    decay: str = "const"  # of the recurrence's steps in training
    inference_frames: int = 16
    inference_decay: str = "linear"
    h_noise: float = 0.01
    contrastive: bool = True  # False: each picture's own sentence alone, 1 − cosine
    temperature: float = 0.07
    weights: PaperWeights = field(default_factory=PaperWeights)
    template: str = "The person is {}."
    prompts: tuple[str, ...] = PAPER_PROMPTS
    sampled: bool = False  # True: faces of mapping(z) instead of pictures; z_0 = τ and no δ_v
    steps: int = 5000
    batch: int = 16  # 4 on each of 4 GPUs
    lr: float = 1e-3  # recurrence and mapper
    lr_towers: float = 1e-5  # the towers that τ and v come from; 0 leaves them as they are
    lr_adversary: float = 1e-4
    betas: tuple[float, float] = (0.0, 0.999)
    seed: int = 6

    def sentences(self) -> tuple[str, ...]:
        """Give the prompts as whole sentences."""
        return tuple(self.template.format(prompt) for prompt in self.prompts)


def ablate(recipe: PaperRecipe) -> dict[str, PaperRecipe]:
    """Give the paper's four ablations of a recipe.

    Without the contrastive loss the language loss stays, as a plain 1 − cosine to each picture's own sentence: the
    published code's switch; without any language loss nothing would move.
    """

    def without(what: str) -> PaperRecipe:
        short = what.replace("_", "-")
        weights = replace(recipe.weights, **{"perceptual" if what == "identity" else what: 0.0})
        if what == "identity":
            weights = replace(weights, identity=0.0, l1=0.0, l2=0.0)
        return replace(recipe, name=f"{recipe.name}-no-{short}", weights=weights)

    found = [
        replace(recipe, name=f"{recipe.name}-no-contrastive", contrastive=False),
        *(without(what) for what in ("path_length", "first_last", "identity")),
    ]
    return {ablation.name: ablation for ablation in found}


PAPER = PaperRecipe()
"""Real checkpoints: StyleGAN2, e4e and CLIP as published."""

PAPER_RENDERED = PaperRecipe(
    name="paper-rendered",
    hidden=256,
    h_dim=192,
    steps=500,
    batch=4,
    lr_towers=0.0,
    weights=PaperWeights(path_length=0.02, first_last=0.02, latent=0.02),
)
"""Minutes on one core, on a rendered domain's parts. The losses are the paper's, with two numbers fitted to the place:
an expression's mean square in a rendered W is about 1.4, so that weights of 1 on squares in W would forbid every motion
(0.02 lets a whole expression cost a tenth of what the language loss gains by it); and the towers stay as they are, so
that all models of a comparison see with the same eyes."""

PAPER_SMOKE = replace(
    PAPER_RENDERED, name="paper-smoke", hidden=16, h_dim=12, steps=4, batch=2, lr_towers=1e-5, prompts=PAPER_PROMPTS[:5]
)

PAPER_RECIPES: dict[str, PaperRecipe] = {
    recipe.name: recipe
    for recipe in (
        PAPER,
        *ablate(PAPER).values(),
        PAPER_RENDERED,
        *ablate(PAPER_RENDERED).values(),
        PAPER_SMOKE,
    )
}


def read_paper_recipe(options: Mapping[str, Any]) -> PaperRecipe:
    """Give the recipe that a run folder's options.json tells of."""
    fields = dict(options)
    fields["weights"] = PaperWeights(**fields["weights"])
    fields["prompts"], fields["betas"] = tuple(fields["prompts"]), tuple(fields["betas"])
    return PaperRecipe(**fields)
