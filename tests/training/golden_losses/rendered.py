"""A rendered domain's loops: generator, encoder, inversion, language, embedding, motion, and the evaluator's reader."""

import dataclasses
from contextlib import ExitStack
from functools import partial
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch.optim.lr_scheduler import OneCycleLR

from tests.training.golden_losses.data import (
    ENCODER,
    STEPS,
    embed_by_place,
    make_features,
    make_lessons,
    make_pool,
    small_generator,
    tell_colours,
)
from training.embedding import EmbeddingStage
from training.encoder import FactorStage, Inversion, InversionStage, build_factor_head, build_trunk
from training.evaluator import fit
from training.evaluator.network import FactorReader
from training.faces.captions import Caption
from training.faces.expressions import EXPRESSIONS
from training.generator import GeneratorStage, build_generator
from training.language import LanguageStage
from training.lessons import SMOKE
from training.motion import MotionStage
from training.motion_pictures import PictureLosses
from training.networks.encoder import ImageTower
from training.recipes import EmbeddingRecipe, InversionRecipe, MotionRecipe

MOTION = MotionRecipe(
    h_dim=12, hidden=16, steps=STEPS, batch=8, captions=700, frames=(4, 7), sway_yaw=0.1, sway_roll=0.2
)
READER_WIDTH = 8


def build_generator_loop() -> Any:
    """Renderer-supervised generator."""
    pool = make_pool(24, 32)
    return GeneratorStage(small_generator(32), pool, pool)


def build_encoder_loop() -> Any:
    """Trunk and factor head."""
    pool = make_pool(24, 128)
    return FactorStage(ENCODER, pool, pool)


def build_inversion_loop() -> Any:
    """W+ residual, through the generator from the start."""
    torch.manual_seed(2)
    pool = make_pool(12, 128)
    trunk, head, generator = build_trunk(ENCODER), build_factor_head(ENCODER), build_generator(small_generator(128))
    recipe = InversionRecipe(steps=STEPS, w_steps=100, batch=1, w_batch=2)
    return InversionStage(recipe, Inversion(trunk, head, generator), pool, pool)


def build_language_loop() -> Any:
    """The text tower: captions' meaning, and a teacher's neighbourhood of words."""
    settings = dataclasses.replace(
        SMOKE, steps=STEPS, batch=24, words_batch=12, table_dim=8, width=16, inner=16, embed_dim=12, lr=2e-3,
        word_noise=0.1, dropout=0.0,
    )  # fmt: skip
    return LanguageStage(settings, make_lessons())


def build_embedding_loop() -> Any:
    """The image tower's head."""
    torch.manual_seed(3)
    tower = ImageTower(build_trunk(ENCODER), 8)
    recipe = EmbeddingRecipe(steps=STEPS, batch=16, captions=6)
    return EmbeddingStage(
        recipe, tower, embed_by_place, make_features(64), make_features(2 * len(EXPRESSIONS) * 2), make_features(16)
    )


def build_motion_loop() -> Any:
    """Our motion against its teacher."""
    torch.manual_seed(4)
    generator, tower = build_generator(small_generator(32)), ImageTower(build_trunk(ENCODER), 8)
    with mock.patch("training.motion.sample_caption", draw_caption):
        return MotionStage(MOTION, generator.mapping, tower, embed_by_place, [make_features(240)], 8)


def build_motion_pictures_loop() -> Any:
    """Our motion with its light losses on drawn frames."""
    torch.manual_seed(4)
    recipe = dataclasses.replace(
        MOTION, batch=4, direction_weight=0.1, identity_weight=0.2, off_face_weight=0.3, picture_batch=2
    )
    generator, tower = build_generator(small_generator(32)), ImageTower(build_trunk(ENCODER), 8)
    pictures = PictureLosses(recipe, generator, tower, tell_colours, embed_by_place(["calm"])[0])
    with mock.patch("training.motion.sample_caption", draw_caption):
        return MotionStage(recipe, generator.mapping, tower, embed_by_place, [make_features(240)], 8, pictures)


def draw_caption(rng: np.random.Generator) -> Caption:
    """One expression, more or less of it, in no words."""
    names = list(EXPRESSIONS)
    return Caption("", ((names[int(rng.integers(len(names)))], float(rng.uniform(0.5, 1.0))),))


def fit_reader() -> None:
    """The evaluator's factor reader."""

    def rise_less(optimizer: Any, lr: float, steps: int, pct_start: float) -> Any:
        return OneCycleLR(optimizer, lr / 8, steps, pct_start=pct_start)

    with ExitStack() as stack:
        stack.enter_context(mock.patch.object(fit, "FactorReader", partial(FactorReader, READER_WIDTH)))
        stack.enter_context(mock.patch.object(fit, "render_pool", draw_pairs))
        # at its own rate so small a batch goes wild, and rounding with it
        stack.enter_context(mock.patch("torch.optim.lr_scheduler.OneCycleLR", rise_less))
        fit.fit(pairs=12, steps=STEPS, batch_pairs=2, drawn=None)


def fit_reader_identity() -> None:
    """The reader's identity head, on stored features of a trunk that stays as it is."""
    torch.manual_seed(5)
    reader = FactorReader(READER_WIDTH)
    with mock.patch.object(fit, "render_expressed", draw_pairs):
        fit.fit_identity(reader, "human", people=96, steps=STEPS)


def draw_pairs(pairs: int, seed: int, domain: str) -> tuple[np.ndarray, np.ndarray]:
    """Stand for the renderer: pairs of one person."""
    del seed, domain
    pool = make_pool(2 * min(pairs, 96), 128)  # few are enough to measure on
    return pool.pictures, pool.factors
