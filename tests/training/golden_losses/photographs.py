"""The loops of pictures whose factors nobody knows: StyleGAN2, e4e, the tower that captions teach, refinement."""

import dataclasses
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tests.training.golden_losses.data import ENCODER, STEPS, embed_by_place, make_pool, tell_colours
from training.adversarial.pictures import PoolPictures
from training.adversarial.stage import AdversarialStage, build_networks
from training.inversion.features import describe_by_discriminator
from training.inversion.parts import InversionParts, parts_of_generator
from training.inversion.refine import refine_ws
from training.inversion.stage import EncoderStage, to_pictures
from training.photos.captions import Captions
from training.photos.pictures import Subset
from training.photos.tower import CaptionStage
from training.recipes.adversarial import GAN_SMOKE
from training.recipes.inversion import TINY
from training.recipes.photos import TowerRecipe


def build_gan_loop() -> Any:
    """StyleGAN2 with R1, path lengths and augmentation."""
    recipe = dataclasses.replace(
        GAN_SMOKE, kimg=STEPS * 4 / 1000, batch=4, micro_batch=4, precision="float32", augment="none", resolution=16,
        channels=(8, 8, 6), lr_generator=5e-4, lr_discriminator=5e-4, r1_interval=8, path_interval=8,
    )  # fmt: skip
    return AdversarialStage(recipe, PoolPictures(make_pool(24, 16).pictures), torch.device("cpu"), threads=0)


def build_pyramid_loop() -> Any:
    """The e4e encoder with its latent discriminator."""
    pictures = PoolPictures(make_pool(16, 32).pictures)
    recipe = dataclasses.replace(TINY, steps=STEPS, batch=2, lr=1e-4, latent_lr=1e-4, unlock_from=40, unlock_every=20)
    return EncoderStage(recipe, build_parts(), pictures, pictures)


def build_tower_loop() -> Any:
    """The image tower that a picture set's captions teach."""
    rng, count, labels = np.random.default_rng(8), 24, 4
    captions = Captions(tuple((f"{i}", f"{i} again") for i in range(labels)), rng.integers(labels, size=count))
    every = embed_by_place(range(2 * labels))
    pictures = PoolPictures(make_pool(count, 64).pictures)
    recipe = TowerRecipe(ENCODER.widths, ENCODER.feature_dim, STEPS, batch=4, lr=1e-4)

    def embed(texts: Any) -> Tensor:
        return every[2 * int(texts[0]) : 2 * int(texts[0]) + 2]

    learnt, held_out = Subset(pictures, range(4, count)), Subset(pictures, range(4))
    return CaptionStage(recipe, learnt, held_out, captions, embed)


def refine_pictures() -> None:
    """Refinement of ws a picture, with every loss that it knows."""
    parts = build_parts()
    pictures = to_pictures(make_pool(2, 32).pictures, parts.device)
    start = parts.w_avg.expand(len(pictures), parts.synthesis.num_ws, -1)
    refine_ws(
        parts, start, pictures, STEPS, lr=0.02, w_scale=parts.w_scale, describe=parts.describe, identity=tell_colours,
        identity_weight=0.5,
    )  # fmt: skip


def build_parts() -> InversionParts:
    """An untrained generator, and its discriminator to compare pictures by."""
    generator, judge = build_networks(dataclasses.replace(GAN_SMOKE, channels=(8, 8, 6, 6)))
    return parts_of_generator(generator, describe_by_discriminator(judge))
