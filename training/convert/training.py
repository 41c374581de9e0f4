"""The motion on top of networks that were trained elsewhere: what `convert` advises where a motion is missing.

Generator, encoder and CLIP are read as `convert` reads them and never change (CLIP's towers are tuned along as the
paper does, in a copy). Pictures are needed at the encoder's size alone. Must not import: services, worker, cli.
"""

import dataclasses
from functools import cached_property
from pathlib import Path
from typing import cast

import torch

from training.adversarial.pictures import Fit, PictureSet, describe_set, require_enough
from training.choices import Choices, say_command
from training.convert.fitting import REMEDIES, require_fit
from training.convert.sources import Found, Sources, read_sources
from training.devices import CPU
from training.errors import DataError
from training.loop import Report, is_finished, train
from training.paper.parts import FrozenParts
from training.paper.stage import PaperStage
from training.photos.parts import build_imported_parts, draw_batches, take_held_out
from training.photos.pictures import fingerprint, open_set, split_set
from training.plan import StagePlan, plan_stage
from training.recipes.checkpoints import CHECKPOINT_RECIPES, CheckpointRecipe
from training.record import read_record, write_record

PARTS = ("generator", "encoder", "clip")


class CheckpointJob:
    """One recipe of `CHECKPOINT_RECIPES` in one folder."""

    kind = "checkpoints"
    stages: tuple[str, ...] = ("motion",)

    def __init__(self, choices: Choices, report: Report, device: torch.device = CPU) -> None:
        self.recipe: CheckpointRecipe = CHECKPOINT_RECIPES[choices.recipe]
        self.folder, self.device, self.report = choices.folder, device, report
        # what an earlier command chose need not be said again
        record = read_record(self.folder)
        known, options = record.get("data") or {}, record.get("options", {})

        def recall(name: str) -> Path | None:
            chosen: Path | None = getattr(choices, name)
            found = str(chosen.resolve()) if chosen is not None else options.get(name)
            return None if found is None else Path(found)

        label = choices.label if choices.label is not None else options.get("label")
        self.sources = Sources(recall("generator"), recall("encoder"), recall("clip"), label=label)
        self.data = choices.data or (Path(known["path"]) if known else None)
        self.fit: Fit = choices.fit if choices.fit != "refuse" else cast("Fit", options.get("fit", "refuse"))

    @cached_property
    def found(self) -> Found:
        """Give the networks, once.

        Raises: DataError for what is missing or does not fit.
        """
        found = read_sources(self.sources)
        missing = [part for part in PARTS if part in found.missing]
        if missing:
            advice = "; ".join(f"{part} is missing: {REMEDIES[part]}" for part in missing)
            raise DataError(f"a motion needs a generator, its encoder and a CLIP to stand on. {advice}")
        require_fit(found)
        return found

    def parts(self) -> FrozenParts:
        """Give what the motion stands on, on the job's device."""
        found = self.found
        assert found.generator is not None
        assert found.encoder is not None
        assert found.towers is not None
        return build_imported_parts(found.generator, found.encoder, found.towers, self.device)

    def pictures(self) -> PictureSet:
        """Open the pictures at the size that the encoder looks at.

        Raises: DataError.
        """
        if self.data is None:
            raise DataError("which pictures? give --data FOLDER or --data FILE.zip")
        assert self.found.encoder is not None
        pictures = open_set(self.data, self.found.encoder.input_size, self.fit)
        require_enough(pictures, self.recipe.motion.batch)
        return pictures

    def check(self, stage: str) -> list[str]:
        """Read every file and open the pictures."""
        told = [f"{part}: {words}" for part, words in self.found.told.items()]
        return [*told, *self.found.remarks, describe_set(self.pictures(), False)]

    def plan(self) -> list[StagePlan]:
        """Give the stage's state."""
        return [plan_stage(self.folder / "motion", self.recipe.motion.steps)]

    def run(self, stage: str) -> None:
        """Train the motion."""
        recipe, folder = self.recipe, self.folder / "motion"
        pictures = self.pictures()
        data = {"path": pictures.name, "fingerprint": fingerprint(pictures), "pictures": len(pictures)}
        options = {part: str(getattr(self.sources, part)) for part in PARTS if getattr(self.sources, part)}
        more = {"label": self.sources.label, "fit": self.fit}
        write_record(self.folder, recipe, say_command(), self.device, data, {**options, **more})
        if is_finished(folder, recipe.motion.steps):
            self.report("motion: finished before")
        else:
            kept, held_out = split_set(pictures, recipe.held_out)
            held = take_held_out(held_out)
            motion = PaperStage(recipe.motion, self.parts(), draw_batches(kept), held)
            motion.name = "motion"
            train(
                motion,
                folder,
                dataclasses.asdict(recipe.motion),
                report=self.report,
                log_every=recipe.log_every,
                evaluate_every=recipe.evaluate_every,
            )
        given = " ".join(f"--{part} {path}" for part, path in options.items())
        given += "" if self.sources.label is None else f" --label {self.sources.label}"
        self.report(f"make a bundle of it: animato-train convert {given} --motion {folder} --out BUNDLE")
