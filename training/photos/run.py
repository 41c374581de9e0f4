"""A picture set's run folder and its stages in order: each resumes where it stopped and is skipped when finished.

RUN/gan, text, embedding, inversion, motion: one folder a stage. With CLIP there is neither text nor embedding: its
towers are used as they are.
"""

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from training.adversarial.pictures import FilePictures, Fit, PictureSet
from training.adversarial.stage import build_networks
from training.devices import CPU
from training.errors import DataError
from training.inversion.parts import InversionParts
from training.inversion.run import load_encoder, train_encoder
from training.loop import CHECKPOINT, Report, is_finished, load_ema, match_weights, read_checkpoint, train
from training.networks.discriminator import Discriminator
from training.networks.irse import PyramidEncoder
from training.networks.stylegan2 import ZGenerator
from training.paper.animation import PaperAnimation, load
from training.paper.parts import FrozenParts
from training.paper.stage import PaperStage
from training.paper.towers import RenderedTowers, Towers
from training.photos.captions import Captions, read_captions
from training.photos.parts import build_frozen_parts, build_inversion_parts, draw_batches, take_held_out
from training.photos.pictures import Subset, open_set, split_set
from training.photos.tower import CaptionStage, build_tower
from training.ranks import join_ranks
from training.recipes.paper import PaperRecipe
from training.recipes.photos import PhotoRecipe
from training.stages import MissingStageError, take_part

if TYPE_CHECKING:
    from training.adversarial.run import FeatureChoice

TEXT_FILES = ("tower.safetensors", "tokenizer.json")
NO_WORDS = (
    "says nothing about its pictures: give --clip FOLDER (a CLIP model), or name its folders by expression "
    "(smiling/a.png …), or write captions.json into it"
)


class PhotoRun:
    """One photo recipe in one folder."""

    def __init__(
        self,
        recipe: PhotoRecipe,
        folder: Path,
        data: Path | None,
        report: Report = print,
        device: torch.device = CPU,
        *,
        clip: Path | None = None,
        text: Path | None = None,
        fit: Fit = "refuse",
        features: "FeatureChoice | None" = None,
    ) -> None:
        """Name the run's inputs.

        `clip`: a CLIP model, a folder of Hugging Face's or a file of OpenAI's; `text`: a finished text stage to take
        over instead of training one; `features`: opens what FID and KID are measured with.
        """
        self.recipe, self.folder, self.data, self.report, self.device = recipe, folder, data, report, device
        self.clip, self.text, self.fit, self.features = clip, text, fit, features
        self._pictures: PictureSet | None = None

    # --- stages, in order -----------------------------------------------------------------------------------

    @property
    def stages(self) -> dict[str, Callable[[], None]]:
        """Every stage's name and what runs it, in order."""
        words = {} if self.clip else {"language": self.language, "embedding": self.embedding}
        return {"gan": self.gan, **words, "inversion": self.inversion, "motion": self.motion}

    def gan(self) -> None:
        """Train generator and discriminator."""
        from training.adversarial.run import train_gan

        recipe = self.recipe.gan
        if self._is_done("gan", recipe.steps):
            return
        train_gan(recipe, self.pictures(), self.folder, device=self.device, features=self.features, report=self.report)

    @property
    def wants_teacher(self) -> bool:
        """Say whether there is a language stage to do and it learns from the sentence encoder."""
        done = all((self.folder / "text" / name).exists() for name in TEXT_FILES)
        return not (done or self.clip or self.text) and self.recipe.language == "full"

    def language(self) -> None:
        """Train the text tower, or take over one that is finished."""
        from training import language, lessons

        folder = self.folder / "text"
        if self.text is not None:
            missing = [name for name in TEXT_FILES if not (self.text / name).exists()]
            if missing:
                raise MissingStageError(f"{self.text} has no {missing[0]}: it is no finished text stage")
            folder.mkdir(parents=True, exist_ok=True)
            for name in TEXT_FILES:
                shutil.copyfile(self.text / name, folder / name)
            self.report(f"language: taken from {self.text}")
            return
        if all((folder / name).exists() for name in TEXT_FILES):
            self.report("language: finished before")
            return
        language.run(
            folder, lessons.SMOKE if self.recipe.language == "smoke" else lessons.LanguageSettings(), self.report
        )

    def embedding(self) -> None:
        """Teach the image tower what the captions say."""
        recipe = self.recipe.embedding
        if self._is_done("embedding", recipe.steps):
            return
        captions = self.captions()
        stage = CaptionStage(recipe, *self.split(), captions, self.load_text().embed_texts, self.device)
        self._train(stage, recipe)

    def inversion(self) -> None:
        """Train the encoder through the frozen generator."""
        recipe = self.recipe.inversion
        if self._is_done("inversion", recipe.steps):
            return
        pictures, held_out = self.split()
        with join_ranks(self.device):
            train_encoder(recipe, self.inversion_parts(), pictures, held_out, self.folder / "inversion", self.report)

    def motion(self) -> None:
        """Train the paper's motion."""
        recipe = self.motion_recipe
        if self._is_done("motion", recipe.steps):
            return
        pictures, held_out = self.split()
        stage = PaperStage(recipe, self.frozen_parts(), draw_batches(pictures), take_held_out(held_out))
        stage.name = "motion"
        self._train(stage, recipe)

    def export(self, directory: Path, share_text: bool = False) -> Path:
        """Write the bundle."""
        from training.photos.bundle import export_photo_bundle

        path = export_photo_bundle(self, directory, share_text=share_text)
        self.report(f"export: {path} ({sum(file.stat().st_size for file in path.iterdir()) / 1e6:.1f} MB)")
        return path

    def all(self, directory: Path, share_text: bool = False) -> Path:
        """Run every stage that is not finished, then export."""
        if not self.clip:
            self.captions()  # said before the long stages, not after them
        for stage in self.stages.values():
            stage()
        return self.export(directory, share_text)

    # --- data -----------------------------------------------------------------------------------------------

    def pictures(self) -> PictureSet:
        """Open the pictures, once.

        Raises: DataError with what is wrong and where.
        """
        if self.data is None:
            raise DataError("which pictures? give --data FOLDER or --data FILE.zip")
        if self._pictures is None:
            self._pictures = open_set(self.data, self.recipe.gan.resolution, self.fit)
        return self._pictures

    def split(self) -> tuple[Subset, Subset]:
        """Give what encoder, tower and motion learn from, and what they are measured on."""
        return split_set(self.pictures(), self.recipe.held_out)

    def captions(self) -> Captions:
        """Read what the set says about its pictures.

        Raises: DataError where it says nothing.
        """
        pictures = self.pictures()
        found = read_captions(pictures) if isinstance(pictures, FilePictures) else None
        if found is None:
            raise DataError(f"{pictures.name} {NO_WORDS}")
        return found

    # --- what stages left behind ----------------------------------------------------------------------------

    def load_gan(self) -> tuple[ZGenerator, Discriminator]:
        """Load the averaged generator and the discriminator.

        Raises: MissingStageError, CheckpointMismatchError.
        """
        folder = self.folder / "gan"
        path = folder / CHECKPOINT
        try:
            state = read_checkpoint(folder)
        except FileNotFoundError as error:
            raise MissingStageError(f"{folder} has no checkpoint: run the gan stage first") from error
        generator, judge = build_networks(self.recipe.gan)
        match_weights(generator, take_part(state["ema"], "generator"), path)
        match_weights(judge, take_part(state["modules"], "discriminator"), path)
        return generator.eval().requires_grad_(False), judge.eval().requires_grad_(False)

    def inversion_parts(self) -> InversionParts:
        """Give what inversion needs of the trained generator."""
        return build_inversion_parts(*self.load_gan(), self.device)

    def load_encoder(self, parts: InversionParts) -> PyramidEncoder:
        """Load the averaged encoder."""
        try:
            return load_encoder(self.recipe.inversion, parts, self.folder / "inversion")
        except FileNotFoundError as error:
            raise MissingStageError(f"{self.folder / 'inversion'} has no checkpoint: run inversion first") from error

    def load_text(self) -> RenderedTowers:
        """Load the text tower beside an image tower that is not trained yet."""
        from training import language

        try:
            tower, tokenizer = language.load_text_tower(self.folder / "text")
        except FileNotFoundError as error:
            raise MissingStageError(f"{self.folder / 'text'} is not finished: run the language stage first") from error
        image = build_tower(self.recipe.embedding, int(tower.dims["embed_dim"]))
        return RenderedTowers(tower, tokenizer, image).eval().requires_grad_(False)

    def load_towers(self) -> Towers:
        """Load CLIP, or the text tower with the image tower that captions taught."""
        if self.clip is not None:
            from training.checkpoints.clip_files import read_clip

            return read_clip(self.clip)
        towers = self.load_text()
        folder = self.folder / "embedding"
        try:
            match_weights(towers.image, take_part(load_ema(folder), "tower"), folder / CHECKPOINT)
        except FileNotFoundError as error:
            raise MissingStageError(f"{folder} has no checkpoint: run the embedding stage first") from error
        return towers

    @property
    def motion_recipe(self) -> PaperRecipe:
        """The motion's recipe; our own towers are left as they are, because bundles share the text tower."""
        return self.recipe.motion if self.clip else dataclasses.replace(self.recipe.motion, lr_towers=0.0)

    def frozen_parts(self) -> FrozenParts:
        """Give what the motion stands on."""
        generator, judge = self.load_gan()
        inversion = build_inversion_parts(generator, judge, self.device)
        return build_frozen_parts(generator, inversion, self.load_encoder(inversion), self.load_towers(), self.device)

    def load_motion(self, parts: FrozenParts) -> PaperAnimation:
        """Load the trained motion.

        Raises: MissingStageError; CheckpointMismatchError's sentence where it was trained for other parts.
        """
        try:
            return load(self.folder / "motion", parts)
        except FileNotFoundError as error:
            raise MissingStageError(
                f"{self.folder / 'motion'} has no checkpoint: run the motion stage first"
            ) from error
        except RuntimeError as error:
            raise MissingStageError(
                f"{self.folder / 'motion'} was trained for other parts ({str(error).splitlines()[0]}): remove it and "
                "run the motion stage again"
            ) from error

    def count_steps(self) -> dict[str, int]:
        """Give the steps that each stage has done."""
        names = [name for name in self.stages if (self.folder / name / CHECKPOINT).exists()]
        return {name: int(read_checkpoint(self.folder / name)["step"]) for name in names}

    def read_figures(self) -> dict[str, float]:
        """Give each stage's last held-out figures."""
        figures: dict[str, float] = {}
        for name in self.stages:
            path = self.folder / name / "stats.jsonl"
            lines = path.read_text().splitlines() if path.exists() else []
            held = [record for record in map(json.loads, lines) if any(key.startswith("held_") for key in record)]
            if held:
                figures |= {f"{name}.{key[5:]}": float(v) for key, v in held[-1].items() if key.startswith("held_")}
        return figures

    # --- inside ---------------------------------------------------------------------------------------------

    def _is_done(self, name: str, steps: int) -> bool:
        done = is_finished(self.folder / name, steps)
        if done:
            self.report(f"{name}: finished before")
        return done

    def _train(self, stage: Any, recipe: Any) -> None:
        train(
            stage,
            self.folder / stage.name,
            dataclasses.asdict(recipe),
            report=self.report,
            log_every=self.recipe.log_every,
            evaluate_every=self.recipe.evaluate_every,
        )
