"""Trains what our motion is compared with on a rendered domain's parts: one folder a rival, each resumes where it
stopped.

    python -m training.baselines --base runs/human-128 --recipe human-128 --out runs/compare-human-128 [NAME …]

OUT/base.json names the run that the parts come from; OUT/<name> is a run folder of training.loop.
"""

import dataclasses
import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from training.baselines.interpolation import MapperStage
from training.baselines.mocogan_hd import MocoganHdStage
from training.baselines.videos import draw_teacher_videos
from training.generator import to_pictures
from training.loop import Report, Stage, SteppedStage, is_finished, train, write_atomically
from training.paper.parts import FrozenParts, load_rendered_parts
from training.paper.stage import PaperStage, Pictures
from training.recipes import RECIPES
from training.recipes.baselines import (
    MAPPER_RECIPES,
    MOCOGAN_HD_RECIPES,
    MapperRecipe,
    MocoganHdRecipe,
)
from training.recipes.paper import PAPER_RECIPES, PaperRecipe
from training.renders import Pool, open_pool
from training.stages import MissingStageError, Run

BASE = "base.json"
HELD_OUT = 56
AnyRecipe = PaperRecipe | MapperRecipe | MocoganHdRecipe

RIVALS: dict[str, AnyRecipe] = {
    "mocogan-hd": MOCOGAN_HD_RECIPES["mocogan-hd"],
    "paper": PAPER_RECIPES["paper-rendered"],
    "paper-no-contrastive": PAPER_RECIPES["paper-rendered-no-contrastive"],
    "paper-no-path": PAPER_RECIPES["paper-rendered-no-path-length"],
    "paper-no-first-last": PAPER_RECIPES["paper-rendered-no-first-last"],
    "paper-no-identity": PAPER_RECIPES["paper-rendered-no-identity"],
    "interpolation-mapper": MAPPER_RECIPES["interpolation-mapper"],
    "mocogan-hd-text": MOCOGAN_HD_RECIPES["mocogan-hd-text"],
}
"""Folder of a comparison → recipe."""


def calm_faces(pool: Pool) -> tuple[Pictures, Tensor]:
    """Give what draws batches of calm faces from a pool of expressed pairs, and the first ones, held out."""
    rows = np.arange(0, len(pool), 2)
    count = min(HELD_OUT, len(rows) // 2)
    held, rest = rows[:count], rows[count:]

    def pick(rng: np.random.Generator, batch: int) -> Tensor:
        return to_pictures(pool.pictures[np.sort(rng.choice(rest, batch, replace=False))])

    return pick, to_pictures(pool.pictures[held])


class Comparison:
    """The rivals of one run, in one folder."""

    def __init__(
        self,
        base: Run,
        folder: Path,
        device: torch.device | None = None,
        report: Report = print,
        *,
        log_every: int = 20,
    ) -> None:
        self.base, self.folder, self.report, self.log_every = base, folder, report, log_every
        self.device = device or torch.device("cpu")
        self._parts: FrozenParts | None = None
        folder.mkdir(parents=True, exist_ok=True)
        where = {"recipe": base.recipe.name, "folder": os.path.relpath(base.folder, folder)}
        write_atomically(folder / BASE, lambda path: path.write_text(json.dumps(where, indent=2)))

    @property
    def parts(self) -> FrozenParts:
        """The base run's parts, loaded once."""
        if self._parts is None:
            self._parts = dataclasses.replace(load_rendered_parts(self.base, self.device), half=True)
        return self._parts

    def train(self, name: str, recipe: AnyRecipe | None = None) -> None:
        """Train one rival, or skip it when it is finished.

        Raises: MissingStageError when the base run lacks what it needs; TrainingError as training.loop does.
        """
        recipe = recipe or RIVALS[name]
        folder = self.folder / name
        if is_finished(folder, recipe.steps):
            self.report(f"{name}: finished before")
            return
        stage = self._build(recipe)
        train(
            stage,
            folder,
            dataclasses.asdict(recipe),
            report=lambda line: self.report(f"[{name}] {line}"),
            log_every=self.log_every,
            evaluate_every=5 * self.log_every,
        )

    def _build(self, recipe: AnyRecipe) -> Stage | SteppedStage:
        if isinstance(recipe, MocoganHdRecipe):
            clips = draw_teacher_videos(
                self.parts, recipe.videos, recipe.video_frames, recipe.size_px, recipe.seed, draw_px=recipe.draw_px
            )
            return MocoganHdStage(recipe, self.parts, clips)
        try:
            pool = open_pool(self.base.folder / "renders-expressed")
        except FileNotFoundError as error:
            raise MissingStageError(f"{self.base.folder} has no pool of expressed faces: run renders first") from error
        pictures, held_out = calm_faces(pool)
        build: Callable[..., Stage | SteppedStage] = MapperStage if isinstance(recipe, MapperRecipe) else PaperStage
        return build(recipe, self.parts, pictures, held_out)


def open_base(folder: Path, report: Report = print) -> Run:
    """Open the run that a comparison's parts come from.

    Raises: MissingStageError when the folder is no comparison, or names a recipe that is not known.
    """
    try:
        where = json.loads((folder / BASE).read_text())
    except FileNotFoundError as error:
        raise MissingStageError(f"{folder} holds no {BASE}: train the rivals there first") from error
    if where["recipe"] not in RECIPES:
        raise MissingStageError(f"{folder / BASE} names a recipe that is not known: {where['recipe']!r}")
    return Run(RECIPES[where["recipe"]], Path(os.path.normpath(folder / where["folder"])), report)
