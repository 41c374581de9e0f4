"""What a command would do, for --dry-run: stages, steps done, what is missing, time left, room on the disk.

Reads run folders, trains nothing. Must not import: services, worker, cli.
"""

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from training.adversarial.stage import build_networks
from training.encoder import build_factor_head, build_trunk
from training.faces.parameters import Z_DIM
from training.generator import build_generator, count_ws
from training.loop import CHECKPOINT, read_checkpoint
from training.networks.irse import PyramidEncoder
from training.networks.motion import PaperMotion
from training.photos.run import TEXT_FILES, PhotoRun
from training.photos.tower import build_tower
from training.recipes import Recipe
from training.recipes.adversarial import AdversarialRecipe
from training.recipes.inversion import EncoderTraining
from training.recipes.paper import PaperRecipe
from training.stages import Run, count_parameters

FLOAT_BYTES = 4
COPIES = 4
"""A checkpoint holds the weights, their average and an optimiser's two moments."""
TWICE = 2
"""The new checkpoint is written beside the old one."""

EMBED_DIM, CLIP_DIM = 128, 512
TEXT_BYTES = 120_000_000
"""What a text stage leaves: the teacher's embeddings, above all."""


@dataclass(frozen=True)
class StagePlan:
    """One stage of a run folder."""

    name: str
    done: int
    steps: int  # 0: not counted in steps
    seconds_left: float | None = None  # None: nothing was measured here yet
    seconds_spent: float = 0.0  # as logged here; what a bundle or another run brought is not counted
    bytes_needed: int = 0
    finished: bool = False

    def describe(self) -> str:
        """Say it in a line."""
        if self.finished:
            spent = f" in {format_time(self.seconds_spent)} of training" if self.seconds_spent else ""
            return f"  {self.name}: finished{spent}"
        where = f"at step {self.done} of {self.steps}" if self.done else f"{self.steps} steps to do"
        if not self.steps:
            where = "to do"
        parts = [where]
        if self.steps:
            parts.append(
                "time unknown until it has run"
                if self.seconds_left is None
                else f"about {format_time(self.seconds_left)} left"
            )
        if self.bytes_needed:
            parts.append(f"{format_bytes(self.bytes_needed)} of disk")
        return f"  {self.name}: {', '.join(parts)}"


def format_time(seconds: float) -> str:
    """Give a time in the unit that suits it."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def format_bytes(count: float) -> str:
    """Give a size in MB or GB."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{max(1, round(count / 1e6))} MB"


def plan_stage(folder: Path, steps: int, parameters: int = 0) -> StagePlan:
    """Look at one stage's folder.

    Raises: DamagedCheckpointError where its checkpoint can't be read.
    """
    done = int(read_checkpoint(folder)["step"]) if (folder / CHECKPOINT).exists() else 0
    rate, spent = _read_times(folder)
    left = None if rate is None else rate * max(0, steps - done)
    needed = parameters * FLOAT_BYTES * COPIES * (1 if done else TWICE)
    return StagePlan(folder.name, done, steps, left, spent, 0 if done >= steps else needed, done >= steps)


def _read_times(folder: Path) -> tuple[float | None, float]:
    """Give the last seconds a step, and the seconds of all steps that were logged here.

    A restored stage's first record has figures and no times: its steps were done elsewhere.
    """
    path = folder / "stats.jsonl"
    rate, spent, before = None, 0.0, 0
    for record in map(json.loads, path.read_text().splitlines() if path.exists() else []):
        if "s_per_step" in record:
            rate = float(record["s_per_step"])
            spent += rate * (record["step"] - before)
        before = record["step"]
    return rate, spent


def count_gan(recipe: AdversarialRecipe) -> int:
    """Count the parameters of an adversarial recipe's networks."""
    with torch.device("meta"):
        return sum(map(count_parameters, build_networks(recipe)))


def count_encoder(recipe: EncoderTraining, gan: AdversarialRecipe) -> int:
    """Count the parameters of an encoder for a recipe's generator."""
    network = recipe.network
    with torch.device("meta"):
        encoder = PyramidEncoder(count_ws(gan.resolution), gan.w_dim, network.input_size, network.widths, network.units)
        return count_parameters(encoder)


def count_motion(recipe: PaperRecipe, gan: AdversarialRecipe, embed_dim: int) -> int:
    """Count the parameters of a paper motion for a recipe's generator."""
    with torch.device("meta"):
        motion = PaperMotion(embed_dim, count_ws(gan.resolution), gan.w_dim, recipe.h_dim, recipe.hidden)
        return count_parameters(motion)


def plan_photos(run: PhotoRun) -> list[StagePlan]:
    """Look at every stage of a photo run."""
    recipe, folder = run.recipe, run.folder
    steps = {
        "gan": (recipe.gan.steps, count_gan(recipe.gan)),
        "embedding": (recipe.embedding.steps, count_parameters(build_tower(recipe.embedding, EMBED_DIM))),
        "inversion": (recipe.inversion.steps, count_encoder(recipe.inversion, recipe.gan)),
        "motion": (recipe.motion.steps, count_motion(recipe.motion, recipe.gan, CLIP_DIM if run.clip else EMBED_DIM)),
    }
    plans = []
    for name in run.stages:
        if name == "language":
            finished = all((folder / "text" / file).exists() for file in TEXT_FILES)
            plans.append(StagePlan("language", 0, 0, finished=finished, bytes_needed=0 if finished else TEXT_BYTES))
        else:
            plans.append(plan_stage(folder / name, *steps[name]))
    return plans


def plan_rendered(run: Run) -> list[StagePlan]:
    """Look at every stage of a rendered run."""
    recipe, folder = run.recipe, run.folder
    phases = sum(phase.steps for phase in recipe.generator.phases)
    trained: dict[str, tuple[int, Sequence[nn.Module]]] = {
        "generator": (phases, [build_generator(recipe.generator)]),
        "encoder": (recipe.encoder.steps, [build_trunk(recipe.encoder), build_factor_head(recipe.encoder)]),
        "embedding": (recipe.embedding.steps, []),
        "inversion": (recipe.inversion.steps, [build_trunk(recipe.encoder)]),
        "motion": (recipe.motion.steps, []),
    }
    plans = [_plan_renders(recipe, folder)]
    for name, (steps, modules) in trained.items():
        if name == "embedding":
            finished = all((folder / "text" / file).exists() for file in TEXT_FILES)
            plans.append(StagePlan("language", 0, 0, finished=finished, bytes_needed=0 if finished else TEXT_BYTES))
        plans.append(plan_stage(folder / name, steps, sum(map(count_parameters, modules))))
    return plans


def _plan_renders(recipe: Recipe, folder: Path) -> StagePlan:
    pools = {
        "renders-held": (recipe.renders.held_out, recipe.resolution),
        "renders": (recipe.renders.count, recipe.resolution),
        "renders-expressed": (recipe.renders.expressed, recipe.encoder_resolution),
    }
    done, total, needed = 0, 0, 0
    for name, (count, size_px) in pools.items():
        note = folder / name / "pool.json"
        drawn = int(json.loads(note.read_text())["done"]) if note.exists() else 0
        done, total = done + drawn, total + count
        needed += (count if drawn == 0 else 0) * (3 * size_px**2 + FLOAT_BYTES * Z_DIM)
    return StagePlan("renders (pictures)", done, total, bytes_needed=needed, finished=done >= total)


def describe_plan(plans: Sequence[StagePlan], folder: Path) -> list[str]:
    """Say all of it in lines, with what the disk has."""
    place = folder.resolve()
    while not place.exists():
        place = place.parent
    free, needed = shutil.disk_usage(place).free, sum(plan.bytes_needed for plan in plans)
    lines = [plan.describe() for plan in plans]
    lines.append(f"disk: {format_bytes(needed)} needed, {format_bytes(free)} free at {folder}")
    if needed > free:
        lines.append("  that is not enough: free some space, or choose another --out")
    return lines
