"""What the paper compares with: StyleCLIP's interpolation and MoCoGAN-HD, with their published numbers and in small
forms that train on a rendered domain's parts within minutes.

Source: Patashnik et al. 2021 (arXiv 2103.17249); Tian et al. 2021 (arXiv 2104.15069), and the code published with each.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from training.recipes.paper import PAPER_PROMPTS, PAPER_RENDERED


@dataclass(frozen=True)
class LatentRecipe:
    """StyleCLIP's latent optimisation: one edited w* for each face and sentence."""

    steps: int = 300
    lr: float = 0.1
    rise: float = 0.05  # share of the steps in which the rate comes up
    fall: float = 0.25  # and goes down
    language: float = 1.0  # 1 − cosine
    identity: float = 0.005
    l2: float = 0.008  # of Σ (w* − ws)²


@dataclass(frozen=True)
class MapperRecipe:
    """StyleCLIP's latent mapper: three networks for coarse, medium and fine rows.

    The published one is trained for one sentence; this one is told τ too, so that one training serves all.
    """

    name: str = "interpolation-mapper"
    levels: tuple[int, int] = (4, 8)  # first medium row, first fine row
    hidden: int = 512
    scale: float = 0.1  # w* = ws + 0.1·M(ws, τ)
    language: float = 1.0
    identity: float = 0.1
    l2: float = 0.8  # of ‖w* − ws‖, each face's norm over all rows
    template: str = "The person is {}."
    prompts: tuple[str, ...] = PAPER_PROMPTS
    steps: int = 50_000
    batch: int = 2
    lr: float = 0.5
    lr_multiplier: float = 0.01
    seed: int = 7

    def sentences(self) -> tuple[str, ...]:
        """Give the prompts as whole sentences."""
        return tuple(self.template.format(prompt) for prompt in self.prompts)


@dataclass(frozen=True)
class MocoganHdRecipe:
    """MoCoGAN-HD's motion generator and its discriminators, in the form for videos of another domain than the
    pictures'."""

    name: str = "mocogan-hd"
    h_dim: int = 384
    n_pca: int = 384
    residual: float = 0.2  # how far one frame goes, in standard deviations of each principal component
    conditioned: bool = False  # True: τ goes into the LSTM and into the video discriminator. Not in the paper
    frames: int = 16  # of a clip
    video_frames: int = 16  # of a teacher's whole video, from which clips are cut
    draw_px: int | None = None  # where the generator stops while training, a skip generator's RGB; None: nowhere
    size_px: int = 128  # what the discriminators see
    video_width: int = 64
    scales: int = 2  # of the video discriminator
    image_width: int = 96
    projection: int = 256  # length of the features that are contrasted
    queue: int = 4096
    momentum: float = 0.999
    temperature: float = 0.07
    contrast: float = 2.0
    match: float = 1.0
    mutual: float = 1.0
    gradient_penalty: float = 10.0
    penalty_every: int = 1  # steps; the penalty counts as many times as much
    motion_steps: int = 5  # of the generator for one of the discriminators
    lr: float = 1e-4  # of the discriminators
    lr_motion: float = 1e-4
    motion_betas: tuple[float, float] = (0.5, 0.999)
    video_betas: tuple[float, float] = (0.5, 0.999)
    image_betas: tuple[float, float] = (0.0, 0.999)
    steps: int = 20_000
    batch: int = 16
    videos: int = 512  # teacher's videos drawn beforehand
    seed: int = 8


LATENT = LatentRecipe()
LATENT_RENDERED = LatentRecipe(steps=24, lr=0.15, identity=0.2, l2=3e-4)
"""Seconds a face. An expression's Σ(w* − ws)² is about 2000 in a rendered W: the published weight would forbid it."""

MAPPER = MapperRecipe()
MAPPER_RENDERED = MapperRecipe(hidden=128, scale=0.3, l2=0.004, steps=450, batch=4, lr=0.1, lr_multiplier=0.1)
MAPPER_SMOKE = replace(MAPPER_RENDERED, name="interpolation-mapper-smoke", hidden=12, steps=4, batch=2)

MOCOGAN_HD = MocoganHdRecipe()
MOCOGAN_HD_RENDERED = MocoganHdRecipe(
    h_dim=128,
    n_pca=32,
    frames=8,
    draw_px=64,
    size_px=64,
    video_width=24,
    image_width=16,
    projection=64,
    queue=512,
    momentum=0.99,
    motion_steps=1,
    penalty_every=4,
    lr=4e-4,
    lr_motion=2e-3,
    steps=240,
    batch=3,
    videos=128,
)
MOCOGAN_HD_TEXT_RENDERED = replace(MOCOGAN_HD_RENDERED, name="mocogan-hd-text", conditioned=True)
MOCOGAN_HD_SMOKE = replace(
    MOCOGAN_HD_RENDERED,
    name="mocogan-hd-smoke",
    h_dim=10,
    n_pca=6,
    frames=4,
    video_frames=6,
    draw_px=32,
    size_px=32,
    video_width=4,
    image_width=4,
    projection=6,
    queue=16,
    steps=3,
    batch=2,
    videos=4,
)

MAPPER_RECIPES = {recipe.name: recipe for recipe in (MAPPER_RENDERED, MAPPER_SMOKE)}
MOCOGAN_HD_RECIPES = {
    recipe.name: recipe for recipe in (MOCOGAN_HD_RENDERED, MOCOGAN_HD_TEXT_RENDERED, MOCOGAN_HD_SMOKE)
}

assert PAPER_RENDERED.prompts == MAPPER_RENDERED.prompts, "what is compared must be asked the same"


def read_mapper_recipe(options: Mapping[str, Any]) -> MapperRecipe:
    """Give the recipe that a run folder's options.json tells of."""
    fields = dict(options)
    fields["levels"], fields["prompts"] = tuple(fields["levels"]), tuple(fields["prompts"])
    return MapperRecipe(**fields)


def read_mocogan_hd_recipe(options: Mapping[str, Any]) -> MocoganHdRecipe:
    """Give the recipe that a run folder's options.json tells of."""
    fields: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in options.items()}
    return MocoganHdRecipe(**fields)
