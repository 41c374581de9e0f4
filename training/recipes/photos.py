"""Recipes of pictures whose factors nobody knows, such as photographs: from an image folder to a bundle.

Each joins an adversarial run, an encoder for its generator, an image tower and the paper's motion.
"""

from dataclasses import dataclass, field, replace

from training.recipes.adversarial import (
    GAN_SMOKE,
    OWN_FACES_64,
    OWN_FACES_256,
    STYLEGAN2_256,
    STYLEGAN2_512,
    STYLEGAN2_1024,
    AdversarialRecipe,
)
from training.recipes.inversion import SMALL, TINY, EncoderTraining, PyramidRecipe
from training.recipes.paper import PAPER, PAPER_SMOKE, PaperRecipe


@dataclass(frozen=True)
class TowerRecipe:
    """The image tower that captions teach, beside a locked text tower. A run with CLIP needs none."""

    widths: tuple[int, ...] = (24, 48, 80, 112, 128)
    feature_dim: int = 256
    steps: int = 3000
    batch: int = 32
    lr: float = 1.5e-3
    temperature: float = 0.07
    ema_decay: float = 0.998
    seed: int = 9


@dataclass(frozen=True)
class PhotoRecipe:
    """Everything that one bundle of pictures is made from."""

    name: str
    about: str
    gan: AdversarialRecipe
    inversion: EncoderTraining
    motion: PaperRecipe = PAPER
    embedding: TowerRecipe = field(default_factory=TowerRecipe)
    language: str = "full"  # settings of the language stage: full or smoke
    held_out: int = 128  # pictures that encoder, tower and motion never learn from; at most a tenth of the set
    version: str = "2026.11.0"
    log_every: int = 50
    evaluate_every: int = 500


MOTION_ON_ONE_GPU = replace(PAPER, name="paper-one-gpu", batch=4, steps=5000)
MOTION_SMALL = replace(PAPER, name="paper-small", hidden=256, h_dim=192, steps=2000, batch=4, lr_towers=0.0)

OWN_256 = PhotoRecipe(
    name="own-faces-256",
    about="some hundreds to thousands of your own faces at 256 px; an afternoon on one GPU",
    gan=OWN_FACES_256,
    inversion=EncoderTraining(
        name="e4e-own-256",
        network=PyramidRecipe(128, (48, 96, 160, 256), (2, 3, 4, 2)),
        steps=30_000,
        lr=3e-4,
        flat=0.6,
        unlock_from=4000,
        unlock_every=500,
        latent_lr=5e-5,
    ),
    motion=MOTION_ON_ONE_GPU,
)
OWN_64 = PhotoRecipe(
    name="own-faces-64",
    about="small faces at 64 px on a CPU or a modest GPU: are my pictures any good?",
    gan=OWN_FACES_64,
    inversion=replace(
        SMALL,
        name="e4e-own-64",
        network=PyramidRecipe(64, (32, 64, 96, 128), (2, 2, 3, 2)),
        steps=6000,
        unlock_from=1000,
        unlock_every=200,
    ),
    motion=MOTION_SMALL,
)
SMOKE_32 = PhotoRecipe(
    name="own-faces-smoke",
    about="every stage on an image folder for a few steps, in seconds; its faces are fog",
    gan=GAN_SMOKE,
    inversion=TINY,
    motion=replace(PAPER_SMOKE, steps=3),
    embedding=TowerRecipe(widths=(4, 6, 6, 8, 8), feature_dim=16, steps=3, batch=4),
    language="smoke",
    held_out=8,
    log_every=2,
    evaluate_every=4,
)
PHOTO_RECIPES = {
    recipe.name: recipe
    for recipe in (
        OWN_256,
        OWN_64,
        PhotoRecipe(
            name="stylegan2-256",
            about="the StyleGAN2 paper's run at 256 px with e4e and the paper's motion; days on eight GPUs",
            gan=STYLEGAN2_256,
            inversion=EncoderTraining(),
        ),
        PhotoRecipe(
            name="stylegan2-512",
            about="the same at 512 px",
            gan=STYLEGAN2_512,
            inversion=EncoderTraining(),
        ),
        PhotoRecipe(
            name="stylegan2-1024",
            about="the same at 1024 px, as the published FFHQ models",
            gan=STYLEGAN2_1024,
            inversion=EncoderTraining(),
        ),
        SMOKE_32,
    )
}
