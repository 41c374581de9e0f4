"""Every training loop at a tiny scale, in float32, on data that no renderer and no grammar decides.

`python -m tests.training.golden_losses.loops` writes the curves anew; do it only where a loop is meant to change, and
say why in the commit. A curve holds means of 20 steps, for each loss that the loop logs.
"""

import dataclasses
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor

from tests.training.paper.small_parts import build_small_parts, draw_pictures
from training.adversarial.pictures import PoolPictures
from training.adversarial.stage import AdversarialStage, build_networks
from training.devices import autocast
from training.embedding import EmbeddingStage, Features
from training.encoder import FactorStage, Inversion, InversionStage, build_factor_head, build_trunk
from training.faces.captions import Caption
from training.faces.expressions import EXPRESSIONS
from training.faces.parameters import NUM_CONTINUOUS, Z_DIM
from training.generator import GeneratorStage, build_generator
from training.inversion.parts import parts_of_generator
from training.inversion.stage import EncoderStage
from training.loop import SteppedStage
from training.motion import MotionStage
from training.networks.encoder import ImageTower
from training.optimizers import set_learning_rate
from training.paper.stage import PaperStage
from training.recipes import (
    EmbeddingRecipe,
    EncoderRecipe,
    GeneratorPhase,
    GeneratorRecipe,
    InversionRecipe,
    MotionRecipe,
)
from training.recipes.adversarial import GAN_SMOKE
from training.recipes.inversion import TINY
from training.recipes.paper import PAPER_SMOKE
from training.renders import Pool

HERE = Path(__file__).parent
STEPS, WINDOW = 200, 20
LOGGED = ("loss", "generator", "discriminator", "r1", "path_length", "contrast", "kept", "l2", "features", "language")
ENCODER = EncoderRecipe(widths=(4, 4, 6, 6, 8), feature_dim=16, steps=STEPS, batch=4, lr=3e-4)
Curve = dict[str, list[float]]


def make_pool(count: int, size_px: int) -> Pool:
    """Pictures that are a fixed function of their factors: a few patches, weighted."""
    rng = np.random.default_rng(5)
    factors = rng.standard_normal((count, Z_DIM)).astype(np.float32)
    factors[:, NUM_CONTINUOUS:] = (factors[:, NUM_CONTINUOUS:] > 0.5).astype(np.float32)
    factors[1::2, NUM_CONTINUOUS // 2 :] = factors[::2, NUM_CONTINUOUS // 2 :]  # pairs share what is no expression
    patches = rng.standard_normal((Z_DIM, 4, 4, 3)) / Z_DIM**0.5
    coarse = np.clip(np.einsum("nf,fhwc->nhwc", factors, patches) * 60 + 128, 0, 255).astype(np.uint8)
    return Pool(coarse.repeat(size_px // 4, 1).repeat(size_px // 4, 2), factors)


def embed_by_place(texts: Any) -> Tensor:
    """Fixed unit vectors, whatever the sentences are: the grammar may change, the loop may not."""
    return torch.nn.functional.normalize(torch.randn(len(texts), 8, generator=torch.Generator().manual_seed(1)), dim=1)


def make_features(count: int, dim: int = 16) -> Features:
    """Features that tell the factors."""
    pool = make_pool(count, 4)
    rng = np.random.default_rng(6)
    mixed = pool.factors @ rng.standard_normal((Z_DIM, dim)).astype(np.float32) / Z_DIM**0.5
    return Features(torch.from_numpy(mixed), torch.from_numpy(pool.factors))


def small_generator(resolution: int) -> GeneratorRecipe:
    """A generator recipe of one phase."""
    channels = (8, 8, 8, 6, 4, 4)[: resolution.bit_length() - 2]
    return GeneratorRecipe(channels, 8, (GeneratorPhase(resolution, STEPS, batch=4, lr=4e-3, crop=0.0),))


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
    names = list(EXPRESSIONS)

    def caption(rng: np.random.Generator) -> Caption:
        return Caption("", ((names[int(rng.integers(len(names)))], float(rng.uniform(0.5, 1.0))),))

    generator, tower = build_generator(small_generator(32)), ImageTower(build_trunk(ENCODER), 8)
    recipe = MotionRecipe(h_dim=12, hidden=16, steps=STEPS, batch=8, captions=700, frames=(4, 7))
    with mock.patch("training.motion.sample_caption", caption):
        return MotionStage(recipe, generator.mapping, tower, embed_by_place, [make_features(240)], 8)


def build_gan_loop() -> Any:
    """StyleGAN2 with R1, path lengths and augmentation."""
    recipe = dataclasses.replace(
        GAN_SMOKE, kimg=STEPS * 4 / 1000, batch=4, micro_batch=4, precision="float32", augment="none", resolution=16,
        channels=(8, 8, 6), lr_generator=5e-4, lr_discriminator=5e-4, r1_interval=8, path_interval=8,
    )  # fmt: skip
    return AdversarialStage(recipe, PoolPictures(make_pool(24, 16).pictures), torch.device("cpu"), threads=0)


def build_pyramid_loop() -> Any:
    """The e4e encoder with its latent discriminator."""
    generator, judge = build_networks(dataclasses.replace(GAN_SMOKE, channels=(8, 8, 6, 6)))
    pictures = PoolPictures(make_pool(16, 32).pictures)
    recipe = dataclasses.replace(TINY, steps=STEPS, batch=2, lr=1e-4, latent_lr=1e-4, unlock_from=40, unlock_every=20)
    return EncoderStage(recipe, parts_of_generator(generator, judge), pictures, pictures)


def build_paper_loop() -> Any:
    """The published motion."""
    recipe = dataclasses.replace(PAPER_SMOKE, steps=STEPS, batch=2, lr=5e-5, lr_towers=0.0)
    return PaperStage(recipe, build_small_parts(), draw_pictures, draw_pictures(np.random.default_rng(0), 2))


LOOPS: dict[str, Callable[[], Any]] = {
    "generator": build_generator_loop,
    "encoder": build_encoder_loop,
    "inversion": build_inversion_loop,
    "embedding": build_embedding_loop,
    "motion": build_motion_loop,
    "gan": build_gan_loop,
    "pyramid": build_pyramid_loop,
    "paper": build_paper_loop,
}


@contextmanager
def in_float32() -> Iterator[None]:
    """Leave the lower precision out: bfloat16 differs from CPU to CPU."""
    rooms = [room for name, room in sys.modules.items() if name.startswith("training.") and hasattr(room, "autocast")]
    kept = [room for room in rooms if room.autocast is autocast]
    for room in kept:
        room.autocast = lambda device: nullcontext()  # type: ignore[attr-defined]
    try:
        yield
    finally:
        for room in kept:
            room.autocast = autocast  # type: ignore[attr-defined]


def run(build: Callable[[], Any], steps: int = STEPS) -> Curve:
    """Take a loop's steps and give its curve."""
    records: list[dict[str, float]] = []
    with in_float32():
        stage = build()
        for step in range(steps):
            if isinstance(stage, SteppedStage):
                records.append(stage.advance(step))
                continue
            set_learning_rate(stage.optimizers, stage.learning_rate(step))
            loss, figures = stage.loss(step)
            for optimizer in stage.optimizers:
                optimizer.zero_grad(set_to_none=True)
            loss.backward()
            for optimizer in stage.optimizers:
                optimizer.step()
            records.append({"loss": float(loss.detach()), **figures})
    names = [name for name in LOGGED if name in records[-1]]
    return {
        name: [
            float(np.mean([record.get(name, 0.0) for record in records[first : first + WINDOW]]))
            for first in range(0, steps, WINDOW)
        ]
        for name in names
    }


def read(name: str) -> Curve:
    """Read a committed curve."""
    found: Curve = json.loads((HERE / f"{name}.json").read_text())
    return found


if __name__ == "__main__":
    torch.set_num_threads(1)
    for chosen in sys.argv[1:] or LOOPS:
        curve = {name: [round(value, 6) for value in row] for name, row in run(LOOPS[chosen]).items()}
        (HERE / f"{chosen}.json").write_text(json.dumps(curve, indent=1) + "\n")
        sys.stdout.write(f"{chosen}: {curve['loss']}\n")
