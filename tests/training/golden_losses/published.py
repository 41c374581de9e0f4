"""The published methods' loops: the paper's motion, StyleCLIP's two ways, MoCoGAN-HD."""

import dataclasses
from typing import Any
from unittest import mock

import numpy as np
import torch

from tests.training.golden_losses.data import STEPS, ColourTowers, make_clips, tell_colours
from tests.training.paper.small_parts import build_small_parts, draw_pictures
from training.baselines.interpolation import MapperStage, optimise_latent
from training.baselines.mocogan_hd import MocoganHdStage
from training.paper.parts import FrozenParts
from training.paper.stage import PaperStage
from training.recipes.baselines import LATENT_RENDERED, MAPPER_SMOKE, MOCOGAN_HD_SMOKE
from training.recipes.paper import PAPER_SMOKE, PaperWeights


def build_paper_loop() -> Any:
    """The published motion."""
    recipe = dataclasses.replace(PAPER_SMOKE, steps=STEPS, batch=2, lr=5e-5, lr_towers=0.0)
    return PaperStage(recipe, build_small_parts(), draw_pictures, draw_pictures(np.random.default_rng(0), 2))


def build_paper_adversary_loop() -> Any:
    """The published motion with its towers trained along, the optional losses, and the adversary."""
    weights = PaperWeights(
        perceptual=0.0, l1=0.1, l2=0.02, identity=0.5, path_length=0.1, first_last=0.1, latent=0.1, adversarial=0.5
    )
    recipe = dataclasses.replace(PAPER_SMOKE, steps=STEPS, batch=2, lr=5e-5, lr_towers=1e-5, weights=weights)
    return PaperStage(recipe, build_lively_parts(), draw_pictures, draw_pictures(np.random.default_rng(0), 2))


def build_mapper_loop() -> Any:
    """StyleCLIP's latent mapper."""
    recipe = dataclasses.replace(MAPPER_SMOKE, steps=STEPS, lr=0.01, identity=2.0, l2=0.2)
    return MapperStage(recipe, build_lively_parts(), draw_pictures, draw_pictures(np.random.default_rng(0), 2))


def optimise_latents() -> None:
    """StyleCLIP's latent optimisation of two faces."""
    parts = build_lively_parts()
    with torch.no_grad():
        ws = parts.encode(draw_pictures(np.random.default_rng(1), 2))
        text_embed = parts.judges.embed_texts(["smiling", "angry"])
    recipe = dataclasses.replace(LATENT_RENDERED, steps=STEPS, lr=0.05, l2=1e-3)
    optimise_latent(parts, ws, text_embed, recipe)


def build_mocogan_hd_loop() -> Any:
    """MoCoGAN-HD, told the sentence."""
    recipe = dataclasses.replace(
        MOCOGAN_HD_SMOKE, conditioned=True, steps=STEPS, draw_px=16, size_px=16, lr=3e-5, lr_motion=1e-4, motion_steps=1
    )
    parts = build_small_parts()
    clips = make_clips(recipe.videos, recipe.video_frames, recipe.size_px, parts.towers.embed_dim)
    with mock.patch("training.baselines.mocogan_hd.PCA_SAMPLES", 400):
        return MocoganHdStage(recipe, parts, clips)


def build_lively_parts() -> FrozenParts:
    """Small parts whose judges tell one picture from another, as untrained networks hardly do."""
    parts = build_small_parts()
    return dataclasses.replace(parts, identity=tell_colours, judge=ColourTowers(parts.towers.embed_dim))
