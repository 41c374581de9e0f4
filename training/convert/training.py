"""Encoder and motion on top of networks that were trained elsewhere: what `convert` advises where one is missing.

Generator and CLIP are read as `convert` reads them and never change (CLIP's towers are tuned along as the paper does,
in a copy). The encoder is trained where none is given. Must not import: services, worker, cli.
"""

import dataclasses
from functools import cached_property
from pathlib import Path
from typing import cast

import torch

from training.adversarial.pictures import Fit, PictureSet, describe_set, require_enough
from training.choices import Choices, is_main_process, say_command
from training.convert.fitting import REMEDIES, require_fit
from training.convert.inversion import train_imported_encoder
from training.convert.sources import Found, Sources, read_sources
from training.devices import CPU
from training.errors import DataError
from training.inversion.run import is_encoder_folder
from training.loop import Report, is_finished, train
from training.paper.parts import FrozenParts
from training.paper.stage import PaperStage
from training.photos.parts import build_imported_parts, draw_batches, take_held_out
from training.photos.pictures import fingerprint, open_set, split_set
from training.plan import StagePlan, plan_stage
from training.recipes.checkpoints import CHECKPOINT_RECIPES, CheckpointRecipe
from training.record import read_record, write_record

GIVEN = ("generator", "encoder", "clip", "identity")
NEEDED = {"inversion": ("generator", "identity"), "motion": ("generator", "encoder", "clip")}
"""Stage → the parts that it stands on."""


class CheckpointJob:
    """One recipe of `CHECKPOINT_RECIPES` in one folder."""

    kind = "checkpoints"
    stages: tuple[str, ...] = ("inversion", "motion")

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
        given = {part: recall(part) for part in GIVEN}
        if given["encoder"] in (self.folder.resolve(), self._encoder_folder.resolve()):
            given["encoder"] = None  # the one that is trained here
        self.given = Sources(**given, label=label)
        self.data = choices.data or (Path(known["path"]) if known else None)
        self.fit: Fit = choices.fit if choices.fit != "refuse" else cast("Fit", options.get("fit", "refuse"))

    # --- what a job is asked --------------------------------------------------------------------------------

    def check(self, stage: str) -> list[str]:
        """Read every file and open the pictures."""
        lines: list[str] = []
        for name in self._list_stages(stage):
            found, size_px = (self.found_so_far, self._input_px) if name == "motion" else (self.base, self._drawn_px)
            lines += [f"{part}: {words}" for part, words in found.told.items()] + found.remarks
            lines.append(describe_set(self._open(size_px, name), False))
        return list(dict.fromkeys(lines))

    def plan(self) -> list[StagePlan]:
        """Give every stage's state."""
        steps = {"inversion": self.recipe.inversion.steps, "motion": self.recipe.motion.steps}
        return [plan_stage(self.folder / name, steps[name]) for name in self._list_stages("all")]

    def run(self, stage: str) -> None:
        """Train an encoder, a motion, or both."""
        for name in self._list_stages(stage):
            (self._train_encoder if name == "inversion" else self._train_motion)()

    # --- the parts ------------------------------------------------------------------------------------------

    @cached_property
    def base(self) -> Found:
        """What the encoder is trained on.

        Raises: DataError for what is missing.
        """
        sources = Sources(self.given.generator, identity=self.given.identity, label=self.given.label)
        return _read(sources, NEEDED["inversion"], "an encoder is trained on a generator, with an ir_se50")

    @property
    def sources(self) -> Sources:
        """What the motion stands on: with the encoder that was given, or trained here as far as it has come."""
        own = self._encoder_folder if is_encoder_folder(self._encoder_folder) else None
        return dataclasses.replace(self.given, encoder=self.given.encoder or own)

    @cached_property
    def found(self) -> Found:
        """What the motion is trained on.

        Raises: DataError for what is missing or does not fit.
        """
        return _read(self.sources, NEEDED["motion"], "a motion needs a generator, its encoder and a CLIP to stand on")

    @cached_property
    def found_so_far(self) -> Found:
        """What the motion stands on as far as it is there: the encoder may be trained first."""
        if self.sources.encoder is not None or not self._trains_encoder:
            return self.found
        parts = tuple(part for part in NEEDED["motion"] if part != "encoder")
        return _read(self.given, parts, "a motion needs a generator and a CLIP to stand on")

    def parts(self) -> FrozenParts:
        """Give what the motion stands on, on the job's device."""
        found = self.found
        assert found.generator is not None
        assert found.encoder is not None
        assert found.towers is not None
        return build_imported_parts(found.generator, found.encoder, found.towers, self.device)

    # --- inside ---------------------------------------------------------------------------------------------

    @property
    def _encoder_folder(self) -> Path:
        return self.folder / "inversion"

    @property
    def _trains_encoder(self) -> bool:
        return self.given.encoder is None and self.given.identity is not None

    @property
    def _drawn_px(self) -> int:
        assert self.base.generator is not None
        return self.base.generator.synthesis.resolution

    @property
    def _input_px(self) -> int:
        encoder = self.found_so_far.encoder
        return self.recipe.inversion.network.input_size if encoder is None else encoder.input_size

    def _list_stages(self, stage: str) -> tuple[str, ...]:
        if stage == "inversion" and self.given.encoder is not None:
            raise DataError(f"{self.given.encoder} is given as --encoder: leave it out to train one")
        if stage != "all":
            return (stage,)
        return self.stages if self._trains_encoder else ("motion",)

    def _open(self, size_px: int, stage: str) -> PictureSet:
        """Open the pictures at a size.

        Raises: DataError.
        """
        if self.data is None:
            raise DataError("which pictures? give --data FOLDER or --data FILE.zip")
        pictures = open_set(self.data, size_px, self.fit)
        require_enough(pictures, self.recipe.motion.batch if stage == "motion" else self.recipe.inversion.batch)
        return pictures

    def _record(self, pictures: PictureSet) -> None:
        """Write run.json; pictures are told by what they are at the first stage's size."""
        if not is_main_process():
            return
        if self._trains_encoder and pictures.resolution != self._drawn_px:
            pictures = self._open(self._drawn_px, "inversion")
        data = {"path": pictures.name, "fingerprint": fingerprint(pictures), "pictures": len(pictures)}
        options = {part: str(path) for part in GIVEN if (path := getattr(self.given, part)) is not None}
        more = {"label": self.given.label, "fit": self.fit}
        write_record(self.folder, self.recipe, say_command(), self.device, data, {**options, **more})

    def _train_encoder(self) -> None:
        recipe, folder = self.recipe.inversion, self._encoder_folder
        pictures = self._open(self._drawn_px, "inversion")
        self._record(pictures)
        if is_finished(folder, recipe.steps):
            self.report("inversion: finished before")
            return
        train_imported_encoder(recipe, self.base, pictures, folder, self.device, self.report)
        self.report(f"an encoder for this generator: give it as --encoder {folder}")

    def _train_motion(self) -> None:
        recipe, folder = self.recipe, self.folder / "motion"
        assert self.found.encoder is not None
        pictures = self._open(self.found.encoder.input_size, "motion")
        self._record(pictures)
        if is_finished(folder, recipe.motion.steps):
            self.report("motion: finished before")
        else:
            kept, held_out = split_set(pictures, recipe.held_out)
            motion = PaperStage(recipe.motion, self.parts(), draw_batches(kept), take_held_out(held_out))
            motion.name = "motion"
            train(
                motion,
                folder,
                dataclasses.asdict(recipe.motion),
                report=self.report,
                log_every=recipe.log_every,
                evaluate_every=recipe.evaluate_every,
            )
        paths = {part: getattr(self.sources, part) for part in GIVEN}
        options = " ".join(f"--{part} {path}" for part, path in paths.items() if path is not None)
        options += "" if self.given.label is None else f" --label {self.given.label}"
        self.report(f"make a bundle of it: animato-train convert {options} --motion {folder} --out BUNDLE")


def _read(sources: Sources, needed: tuple[str, ...], why: str) -> Found:
    """Read files, of which some must be there.

    Raises: DataError with the remedy for each that is missing, or where they do not fit.
    """
    found = read_sources(sources)
    missing = [part for part in needed if part not in found.told]
    if missing:
        raise DataError(f"{why}. " + "; ".join(f"{part} is missing: {REMEDIES[part]}" for part in missing))
    require_fit(found)
    return found
