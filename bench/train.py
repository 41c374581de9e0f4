"""Training speed: images a second of every stage against the plain way of the same step, in the same run.

`python -m bench.train` writes ``out/bench-train.json`` and prints a table; ``--document`` puts it into
docs/benchmarks.md. Plain is: modulated convolutions one by one as the equations have them (training.networks.reference)
for what draws or judges pictures; float32 without channels-last for the rest. Needs torch; nothing here serves.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import itertools
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import nn

from bench.machine import describe_machine
from bench.report import Figure, to_json, to_markdown, write_between_marks
from training.adversarial.pictures import PoolPictures
from training.adversarial.stage import AdversarialStage, build_networks
from training.devices import autocast
from training.embedding import EmbeddingStage, Features
from training.encoder import FactorStage, Inversion, InversionStage, build_factor_head, build_trunk
from training.faces.expressions import EXPRESSIONS
from training.faces.parameters import NUM_CONTINUOUS, Z_DIM
from training.generator import GeneratorStage, build_generator
from training.inversion.stage import EncoderStage, build_encoder
from training.language import LanguageStage
from training.lessons import LanguageSettings, build_lessons
from training.loop import SteppedStage
from training.motion import MotionStage
from training.networks import reference
from training.networks.discriminator import Discriminator
from training.networks.encoder import ImageTower
from training.networks.synthesis import SynthesisNetwork
from training.networks.text import TextTower
from training.optimizers import set_learning_rate
from training.paper.stage import PaperStage
from training.paper.towers import RenderedTowers
from training.photos.captions import Captions
from training.photos.parts import build_frozen_parts, build_inversion_parts, draw_batches, take_held_out
from training.photos.pictures import Subset
from training.photos.tower import CaptionStage, build_tower
from training.recipes import (
    EmbeddingRecipe,
    EncoderRecipe,
    GeneratorPhase,
    GeneratorRecipe,
    InversionRecipe,
    MotionRecipe,
)
from training.recipes.adversarial import OWN_FACES_64
from training.recipes.photos import OWN_64
from training.renders import Pool
from training.vocabulary import build_tokenizer, collect_tokens, count_rows, select_tokens

ROOT = Path(__file__).resolve().parents[1]
SIZE_PX = 64
CHANNELS = (128, 128, 128, 96, 48)
ROUNDS = 3
Act = Callable[[], object]


@dataclasses.dataclass(frozen=True)
class Subject:
    """A stage's step to be timed, and how many pictures it handles."""

    name: str
    pictures: int
    stage: Any
    act: Act
    compared_with: str  # the plain way in words; empty: the step has no faster form than the plain one


def make_pool(count: int, size_px: int) -> Pool:
    """A pool of noise: what is drawn on it does not change the time."""
    rng = np.random.default_rng(0)
    factors = rng.standard_normal((count, Z_DIM)).astype(np.float32)
    factors[:, NUM_CONTINUOUS:] = 0
    return Pool(rng.integers(0, 256, (count, size_px, size_px, 3), dtype=np.uint8), factors)


def take_step(stage: Any, step: int = 1) -> None:
    """Do what the loop does in a step."""
    if isinstance(stage, SteppedStage):
        stage.advance(step)
        return
    set_learning_rate(stage.optimizers, stage.learning_rate(step))
    loss, _ = stage.loss(step)
    for optimizer in stage.optimizers:
        optimizer.zero_grad(set_to_none=True)
    loss.backward()
    for optimizer in stage.optimizers:
        optimizer.step()


@contextlib.contextmanager
def plainly(stage: Any) -> Iterator[None]:
    """Compute a stage's steps in the plain way: reference networks, float32, no channels-last."""
    rooms = [room for name, room in sys.modules.items() if name.startswith("training.") and hasattr(room, "autocast")]

    def draw(self: SynthesisNetwork, ws: torch.Tensor, *_: Any, noise_mode: Any = "const", **__: Any) -> torch.Tensor:
        return reference.synthesize(self, ws, noise_mode)

    def judge(self: Discriminator, image: torch.Tensor, c: torch.Tensor | None = None) -> torch.Tensor:
        return reference.judge(self, image, c)

    def describe(self: Discriminator, image: torch.Tensor) -> list[torch.Tensor]:
        return reference.describe(self, image)

    stage.modules.to(memory_format=torch.contiguous_format)
    with contextlib.ExitStack() as stack:
        for room in rooms:
            if room.autocast is autocast:
                stack.enter_context(mock.patch.object(room, "autocast", return_value=contextlib.nullcontext()))
        if hasattr(stage.recipe, "precision"):
            exact = dataclasses.replace(stage.recipe, precision="float32")
            stack.enter_context(mock.patch.object(stage, "recipe", exact))
        stack.enter_context(mock.patch.object(SynthesisNetwork, "forward", draw))
        stack.enter_context(mock.patch.object(Discriminator, "forward", judge))
        stack.enter_context(mock.patch.object(Discriminator, "describe", describe))
        yield
    stage.modules.to(memory_format=torch.channels_last)


def subject(name: str, pictures: int, stage: Any, act: Act | None = None, compared_with: str = "float32") -> Subject:
    """Give a stage's step to be timed."""
    return Subject(name, pictures, stage, act or (lambda: take_step(stage)), compared_with)


def build_subjects(device: torch.device) -> Iterator[Subject]:
    """Give one stage after the other, made when it is asked for."""
    one_by_one = "one modulated convolution a picture, float32"
    phase = GeneratorPhase(SIZE_PX, 100, batch=8, lr=1e-3, crop=0.0)
    recipe = GeneratorRecipe(CHANNELS, 128, (phase,))
    pool = make_pool(64, SIZE_PX)
    yield subject(f"generator, {SIZE_PX} px", 8, GeneratorStage(recipe, pool, pool, device), None, one_by_one)
    gan = dataclasses.replace(OWN_FACES_64, batch=8, micro_batch=8, augment="none")
    stage = AdversarialStage(gan, PoolPictures(pool.pictures), device, threads=0)
    real = [stage.reader.read(0, 0)]
    parts: dict[str, Act] = {
        "G": lambda: stage._train_generator(1),
        "D": lambda: stage._train_discriminator(1, real),
    }
    for part, act in parts.items():
        yield subject(f"adversarial {part} step, {SIZE_PX} px", 8, stage, act, one_by_one)
    faces = make_pool(32, 128)
    encoder = EncoderRecipe(batch=8)
    yield subject("encoder, 128 px", 8, FactorStage(encoder, faces, faces, 128, device))
    yield from _build_inversion(device, encoder, faces, one_by_one)
    yield from _build_own_faces(device, pool, one_by_one)
    if device.type == "cpu":  # stages on stored features take no device
        yield from _build_heads(encoder)


def _build_inversion(device: torch.device, encoder: EncoderRecipe, faces: Pool, words: str) -> Iterator[Subject]:
    phase = GeneratorPhase(128, 100, batch=4, lr=1e-3, crop=0.0)
    generator = build_generator(GeneratorRecipe((*CHANNELS, 24), 128, (phase,)))
    inversion = Inversion(build_trunk(encoder), build_factor_head(encoder), generator)
    stage = InversionStage(InversionRecipe(w_steps=0, batch=4), inversion, faces, faces, 128, device)
    yield subject("inversion, 128 px", 4, stage, None, words)


def _build_own_faces(device: torch.device, pool: Pool, words: str) -> Iterator[Subject]:
    """Give what an adversarial generator is followed by: captioned tower, e4e encoder, the paper's motion on both."""
    some = Subset(PoolPictures(pool.pictures), range(len(pool)))
    captions = Captions((("calm",), ("smiling",)), np.arange(len(pool)) % 2)

    def embed(texts: Any) -> torch.Tensor:
        return nn.functional.normalize(torch.randn(len(texts), 128), dim=1)

    told = CaptionStage(OWN_64.embedding, some, some, captions, embed, device)
    yield subject("image tower by captions, 128 px", OWN_64.embedding.batch, told)
    generator, judge = build_networks(OWN_64.gan)
    parts, pictures = build_inversion_parts(generator, judge, device), PoolPictures(pool.pictures)
    stage: Any = EncoderStage(OWN_64.inversion, parts, pictures, pictures)
    # half-way every row has its delta and the latent discriminator has its say
    steps = itertools.count(OWN_64.inversion.steps // 2)
    yield subject(
        f"e4e encoder, {SIZE_PX} px", OWN_64.inversion.batch, stage, lambda: stage.advance(next(steps)), words
    )
    motion = dataclasses.replace(OWN_64.motion, lr_towers=0.0)  # as a run without CLIP has it
    tokenizer = build_tokenizer(select_tokens(collect_tokens([*motion.sentences()] * 2)))
    text, image = TextTower(count_rows(tokenizer)), build_tower(OWN_64.embedding, 128)
    towers = RenderedTowers(text, tokenizer, image)
    encoder = build_encoder(OWN_64.inversion, parts)
    frozen = build_frozen_parts(generator, parts, encoder, towers, device)
    paper = PaperStage(motion, frozen, draw_batches(pictures), take_held_out(pictures))
    yield subject(f"the paper's motion, sequences, {SIZE_PX} px", motion.batch, paper, None, words)


def _build_heads(encoder: EncoderRecipe) -> Iterator[Subject]:
    def embed(texts: Any) -> torch.Tensor:
        return nn.functional.normalize(torch.randn(len(texts), 128), dim=1)

    def features(count: int) -> Features:
        return Features(torch.randn(count, encoder.feature_dim), torch.from_numpy(make_pool(count, 4).factors))

    tower = ImageTower(build_trunk(encoder), 128)
    pairs = 4 * len(EXPRESSIONS)
    stage: Any = EmbeddingStage(EmbeddingRecipe(captions=4), tower, embed, features(256), features(pairs), features(32))
    yield subject("embedding, stored features", 2 * EmbeddingRecipe().batch, stage, None, "")
    settings = LanguageSettings(teacher=False, captions=2000)
    with tempfile.TemporaryDirectory() as folder:
        lessons = build_lessons(settings, Path(folder))
    taught = nn.functional.normalize(torch.randn(len(lessons.rows), 384), dim=1)  # in the teacher's place
    words = LanguageStage(settings, dataclasses.replace(lessons, taught_rows=lessons.rows, taught=taught))
    yield subject("language, sentences", settings.batch + settings.words_batch, words, None, "")
    generator = build_generator(GeneratorRecipe(CHANNELS, 128, (GeneratorPhase(SIZE_PX, 1, 1, 1.0, 0.0),)))
    motion = MotionRecipe(captions=700, batch=32)
    stage = MotionStage(motion, generator.mapping, tower, embed, [features(400)], generator.synthesis.num_ws)
    yield subject("motion, sequences", motion.batch, stage, None, "")


def time_act(act: Act, device: torch.device, budget_s: float) -> float:
    """Give the seconds that an act takes: the median of rounds, in processor time on a CPU."""
    clock = time.perf_counter if device.type == "cuda" else time.process_time
    act()  # warm-up
    rounds = []
    for _ in range(ROUNDS):
        started, count = clock(), 0
        while count == 0 or clock() - started < budget_s / ROUNDS:
            act()
            count += 1
            if device.type == "cuda":
                torch.cuda.synchronize(device)
        rounds.append((clock() - started) / count)
    return statistics.median(rounds)


def measure_training(device: torch.device, budget_s: float = 3.0, only: str = "") -> list[Figure]:
    """Measure every stage on a device; `budget_s` is for each of the two ways of a stage.

    `only`: measure those whose name has it in it.
    """
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else "one core"
    figures = []
    for each in build_subjects(device):
        if only not in each.name:
            continue
        rate, plain = each.pictures / time_act(each.act, device, budget_s), None
        if each.compared_with:
            with plainly(each.stage):
                plain = each.pictures / time_act(each.act, device, budget_s)
        unit = next((f"{thing}/s" for thing in ("sequences", "sentences") if thing in each.name), "images/s")
        figure = Figure(f"training, {each.name}, {where}", rate, unit, plain, each.compared_with)
        figures.append(figure)
        ratio = "" if figure.ratio is None else f", {figure.ratio:.2f} times the plain way"
        sys.stderr.write(f"{figure.name}: {rate:.1f} {unit}{ratio}\n")
    return figures


def main() -> None:
    """Measure on one core, and on the first GPU where there is one."""
    parser = argparse.ArgumentParser(prog="python -m bench.train", description=__doc__)
    parser.add_argument("--budget", type=float, default=3.0, help="seconds a measurement (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=Path("out/bench-train.json"), help="default: %(default)s")
    parser.add_argument("--only", default="", metavar="WORDS", help="measure stages whose name has these words in it")
    parser.add_argument("--document", action="store_true", help="also put the table into docs/benchmarks.md")
    arguments = parser.parse_args()
    if arguments.only and arguments.document:
        parser.error("--document wants the whole table; leave --only out")
    torch.set_num_threads(1)
    torch.manual_seed(0)
    machine = describe_machine()
    figures = measure_training(torch.device("cpu"), arguments.budget, arguments.only)
    if torch.cuda.is_available():
        figures += measure_training(torch.device("cuda", 0), arguments.budget, arguments.only)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(to_json(figures, machine), encoding="utf-8")
    if arguments.document:
        write_between_marks(ROOT / "docs" / "benchmarks.md", "training", to_markdown(figures, machine))
    sys.stdout.write(to_markdown(figures, machine))


if __name__ == "__main__":
    main()
