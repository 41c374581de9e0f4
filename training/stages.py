"""A training run's folder and its stages in order: each resumes where it stopped and is skipped when finished.

RUN/renders… pools · RUN/generator, encoder, text, embedding, inversion, motion: one folder a stage · RUN/features.pt
stored features.
"""

import copy
import dataclasses
import hashlib
import json
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from training.checkpoints import shipped
from training.devices import CPU
from training.embedding import EmbeddingStage, Features, store_features
from training.encoder import (
    FactorStage,
    Inversion,
    InversionStage,
    build_factor_head,
    build_trunk,
    build_wplus_encoder,
)
from training.generator import GeneratorStage, build_generator, measure_w_avg
from training.loop import CHECKPOINT, Report, Stage, is_finished, load_ema, train, write_atomically
from training.networks.encoder import FactorHead, ImageTower, Trunk, spread_norms
from training.networks.motion import MotionNetwork
from training.networks.stylegan2 import Generator
from training.recipes import Recipe
from training.renders import Pool, open_pool, render_pool

BUNDLES = Path(__file__).resolve().parent.parent / "bundles"
HELD_OUT_FEATURES = 256
TEXT_TOWER = "tower.safetensors"
TEXT_MARK = "text.sha256"
JUDGED = ("progress", "off_target", "identity")
CARD_NOTE = "card-note.md"
"""In the run folder: what the model card shall say about this very run, by hand."""


class MissingStageError(RuntimeError):
    """A stage needs another one first."""


def take_part(weights: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Give the weights below a prefix, without it."""
    return {name[len(prefix) + 1 :]: value for name, value in weights.items() if name.startswith(prefix + ".")}


class Run:
    """One recipe in one folder."""

    def __init__(self, recipe: Recipe, folder: Path, report: Report = print, device: torch.device = CPU) -> None:
        self.recipe, self.folder, self.report, self.device = recipe, folder, report, device

    # --- stages, in order -----------------------------------------------------------------------------------

    def renders(self) -> None:
        """Render the three pools."""
        recipe, size, small = self.recipe.renders, self.recipe.resolution, self.recipe.encoder_resolution
        pools = (
            ("renders-held", size, recipe.held_out, recipe.held_out_seed, "varied"),
            ("renders", size, recipe.count, recipe.seed, "varied"),
            ("renders-expressed", small, recipe.expressed, recipe.expressed_seed, "expressed"),
        )
        for name, size_px, count, seed, kind in pools:

            def tell(done: int, total: int, name: str = name) -> None:
                if done == total or done % 5000 == 0:
                    self.report(f"{name}: {done}/{total} pictures")

            render_pool(
                self.folder / name,
                count=count,
                size_px=size_px,
                seed=seed,
                kind=kind,
                domain=self.recipe.domain,
                progress=tell,
            )

    def generator(self) -> None:
        """Train the generator."""
        recipe = self.recipe.generator
        steps = sum(phase.steps for phase in recipe.phases)

        def build() -> GeneratorStage:
            stage = GeneratorStage(recipe, self.pool(), self.held_out_pool(), self.device)
            if (start := self._start()) is not None:
                shipped.load_generator(start, stage.generator)
            return stage

        self._train("generator", steps, recipe, build)

    def encoder(self) -> None:
        """Train trunk and factor head."""
        recipe = self.recipe.encoder
        size_px = self.recipe.encoder_resolution

        def build() -> FactorStage:
            stage = FactorStage(recipe, self.pool(), self.held_out_pool(), size_px, self.device)
            if (start := self._start()) is not None:
                shipped.load_reader(start, stage.trunk, stage.head)
                spread_norms(stage.trunk, stage.held_pictures)
            return stage

        self._train("encoder", recipe.steps, recipe, build)

    @property
    def wants_teacher(self) -> bool:
        """Say whether the language stage is to do and learns from the sentence encoder."""
        done = (self.folder / "text" / TEXT_TOWER).exists()
        return not done and self._start() is None and self.recipe.language == "full"

    def language(self) -> None:
        """Train the text tower, or take the one of the bundle that the recipe starts from: all domains share it."""
        from training import language, lessons

        if (start := self._start()) is not None:
            if not (self.folder / "text" / language.TOWER).exists():
                language.save_text_tower(*shipped.load_text(start), self.folder / "text")
            self.report(f"language: the text tower of {start}")
            return
        settings = lessons.SMOKE if self.recipe.language == "smoke" else lessons.LanguageSettings()
        language.run(self.folder / "text", settings, self.report)

    def embedding(self) -> None:
        """Train the image tower's head beside the locked text tower."""
        recipe = self.recipe.embedding
        self._train("embedding", recipe.steps, recipe, self._build_embedding_stage)

    def inversion(self) -> None:
        """Train the W+ residual through the generator."""
        recipe = self.recipe.inversion
        self._train("inversion", recipe.steps, recipe, self._build_inversion_stage)

    def motion(self) -> None:
        """Train the motion network against the teacher."""
        recipe = self.recipe.motion
        self._train("motion", recipe.steps, recipe, self._build_motion_stage)
        # motion is made for one text tower: export refuses another
        (self.folder / "motion" / TEXT_MARK).write_text(self.hash_text())

    def export(self, directory: Path, share_text: bool = False) -> Path:
        """Write the bundle; with `share_text` its text tower goes to the folder `shared` beside it."""
        from training.export.bundle import Parts, export_bundle

        mark = self.folder / "motion" / TEXT_MARK
        if not mark.exists() or mark.read_text() != self.hash_text():
            raise MissingStageError(
                f"{self.folder / 'motion'} was not trained with the text tower in {self.folder / 'text'}: "
                "remove the embedding and motion folders and run those stages again"
            )
        trunk, head = self.load_trunk()
        generator = self.load_generator()
        encoder = build_wplus_encoder(Inversion(trunk, copy.deepcopy(head), generator))
        encoder.load_state_dict(self._load("inversion", "encoder"))
        text, tokenizer = self.load_text()
        parts = Parts(
            generator,
            encoder,
            self.load_tower(trunk),
            self.load_motion(generator),
            text,
            tokenizer,
            input_resolution=self.recipe.encoder_resolution,
        )
        made_by = {"recipe": self.recipe.name, "version": read_version(), "steps": self.count_steps()}
        path = export_bundle(
            parts,
            directory,
            bundle_id=self.recipe.domain,
            domain=self.recipe.domain,
            version=self.recipe.version,
            made_by=made_by,
            figures=self.read_figures(),
            share_text=share_text,
            note=note.read_text() if (note := self.folder / CARD_NOTE).exists() else "",
        )
        self.report(f"export: {path} ({sum(file.stat().st_size for file in path.iterdir()) / 1e6:.1f} MB)")
        return path

    def all(self, directory: Path) -> Path:
        """Run every stage that is not finished, then export."""
        for stage in (
            self.renders,
            self.generator,
            self.encoder,
            self.language,
            self.embedding,
            self.inversion,
            self.motion,
        ):
            stage()
        return self.export(directory)

    # --- what stages left behind ----------------------------------------------------------------------------

    def pool(self) -> Pool:
        """Open the training pool."""
        return self._open("renders")

    def held_out_pool(self) -> Pool:
        """Open the held-out pool."""
        return self._open("renders-held")

    def load_generator(self) -> Generator:
        """Load the averaged generator, with w_avg measured."""
        generator = build_generator(self.recipe.generator)
        generator.load_state_dict(self._load("generator", "generator"))
        measure_w_avg(generator, torch.tensor(self._open("renders-expressed").factors[0:2000:2]))
        return generator.eval()

    def load_trunk(self) -> tuple[Trunk, FactorHead]:
        """Load the averaged trunk and factor head."""
        trunk, head = build_trunk(self.recipe.encoder), build_factor_head(self.recipe.encoder)
        trunk.load_state_dict(self._load("encoder", "trunk"))
        head.load_state_dict(self._load("encoder", "head"))
        return trunk.eval(), head.eval()

    def load_tower(self, trunk: Trunk) -> ImageTower:
        """Load the image tower on a trained trunk."""
        tower = ImageTower(trunk, self.recipe.embed_dim)
        tower.hidden.load_state_dict(self._load("embedding", "hidden"))
        tower.out.load_state_dict(self._load("embedding", "out"))
        return tower.eval()

    def load_motion(self, generator: Generator) -> MotionNetwork:
        """Load the averaged motion network."""
        from training.motion import build_motion_network

        # the mapping is always the generator's, not the one that was saved along
        mapping, num_ws = copy.deepcopy(generator.mapping), generator.synthesis.num_ws
        network = build_motion_network(self.recipe.motion, mapping, self.recipe.embed_dim, num_ws)
        learnt = {
            name: value for name, value in self._load("motion", "motion").items() if not name.startswith("mapping.")
        }
        network.load_state_dict(network.state_dict() | learnt)
        return network.eval()

    def load_text(self) -> tuple[Any, Any]:
        """Load the text tower and its tokenizer."""
        from training import language

        try:
            return language.load_text_tower(self.folder / "text")
        except FileNotFoundError as error:
            raise MissingStageError(f"{error}") from error

    def hash_text(self) -> str:
        """Give the hash of the text tower that the run uses."""
        tower = self.folder / "text" / TEXT_TOWER
        if not tower.exists():
            raise MissingStageError(f"{tower} is missing: run the language stage first")
        return hashlib.sha256(tower.read_bytes()).hexdigest()

    def embed_texts(self) -> Callable[[Sequence[str]], Tensor]:
        """Give the locked text tower as a function from sentences to τ."""
        from training import language

        tower, tokenizer = self.load_text()
        return lambda texts: language.embed_texts(tower, tokenizer, texts)

    def features(self) -> dict[str, Features]:
        """Give stored features of the three pools, made anew when the trunk is younger than they are."""
        path, trunk_path = self.folder / "features.pt", self.folder / "encoder" / CHECKPOINT
        if not path.exists() or path.stat().st_mtime < trunk_path.stat().st_mtime:
            trunk, _ = self.load_trunk()
            limit = self.recipe.renders.features
            pool, expressed, held = self.pool(), self._open("renders-expressed"), self.held_out_pool()
            varied = Pool(pool.pictures[:limit], pool.factors[:limit])
            few = Pool(held.pictures[:HELD_OUT_FEATURES], held.factors[:HELD_OUT_FEATURES])
            size_px = self.recipe.encoder_resolution
            stored = {
                "varied": store_features(trunk, varied, size_px, spoilt=True),
                "expressed": store_features(trunk, expressed, size_px, spoilt=True),
                "held_out": store_features(trunk, few, size_px, spoilt=False),
            }
            plain = {name: tuple(part) for name, part in stored.items()}
            write_atomically(path, lambda target: torch.save(plain, target))
        loaded = torch.load(path, weights_only=True)
        return {name: Features(*part) for name, part in loaded.items()}

    def count_steps(self) -> dict[str, int]:
        """Give the steps that each stage has done."""
        names = ("generator", "encoder", "embedding", "inversion", "motion")
        return {name: self._steps_done(name) for name in names}

    def read_figures(self) -> dict[str, float]:
        """Give each stage's last held-out figures, and the judge's where RUN/evaluation.json holds them.

        The judge is `python -m training.evaluate --bundle RUN/bundle --json RUN/evaluation.json`; export again
        afterwards.
        """
        wanted = {
            "generator": ("explained", "psnr_db"),
            "encoder": ("r2_expression", "r2_identity", "options"),
            "embedding": ("top1",),
            "inversion": ("psnr_db",),
            "motion": ("error_moving", "error_still"),
        }
        figures: dict[str, float] = {}
        for stage, names in wanted.items():
            lines = (self.folder / stage / "stats.jsonl").read_text().splitlines()
            held = [record for record in map(json.loads, lines) if any(key.startswith("held_") for key in record)]
            figures |= {f"{stage}.{name}": float(held[-1][f"held_{name}"]) for name in names}
        judged = self.folder / "evaluation.json"
        if judged.exists():
            report = json.loads(judged.read_text())
            figures["judge.language_top1"] = float(report["language_top1"])
            for name, measured in report["expressions"].items():
                figures |= {f"judge.{name}.{key}": float(measured[key]) for key in JUDGED}
        return figures

    # --- inside ---------------------------------------------------------------------------------------------

    def _train(self, name: str, steps: int, recipe: Any, build: Callable[[], Stage]) -> None:
        folder = self.folder / name
        if is_finished(folder, steps):
            self.report(f"{name}: finished before")
            return
        options = dataclasses.asdict(recipe)
        train(
            build(),
            folder,
            options,
            report=self.report,
            log_every=self.recipe.log_every,
            evaluate_every=self.recipe.evaluate_every,
        )

    def _build_embedding_stage(self) -> EmbeddingStage:
        trunk, _ = self.load_trunk()
        stored = self.features()
        tower = ImageTower(trunk, self.recipe.embed_dim)
        return EmbeddingStage(self.recipe.embedding, tower, self.embed_texts(), **stored)

    def _build_inversion_stage(self) -> InversionStage:
        trunk, head = self.load_trunk()
        parts = Inversion(trunk, head, self.load_generator())
        size_px = self.recipe.encoder_resolution
        return InversionStage(self.recipe.inversion, parts, self.pool(), self.held_out_pool(), size_px, self.device)

    def _build_motion_stage(self) -> Stage:
        from training.export.graphs import IdentityGraph
        from training.motion import MotionStage
        from training.motion_pictures import NEUTRAL_SENTENCES, PictureLosses, wants_pictures

        trunk, head = self.load_trunk()
        generator, stored = self.load_generator(), self.features()
        faces = [stored["expressed"], stored["varied"]]
        tower, embed_texts, recipe = self.load_tower(trunk), self.embed_texts(), self.recipe.motion
        pictures = None
        if wants_pictures(recipe):
            neutral = nn.functional.normalize(embed_texts(NEUTRAL_SENTENCES).mean(0), dim=0)
            pictures = PictureLosses(recipe, generator, tower, IdentityGraph(trunk, head), neutral)
        num_ws = generator.synthesis.num_ws
        return MotionStage(recipe, generator.mapping, tower, embed_texts, faces, num_ws, pictures)

    def _start(self) -> Path | None:
        """Give the shipped bundle that training starts from, if the recipe names one."""
        return BUNDLES / self.recipe.starts_from if self.recipe.starts_from else None

    def _open(self, name: str) -> Pool:
        try:
            return open_pool(self.folder / name)
        except FileNotFoundError as error:
            raise MissingStageError(f"{self.folder / name} is missing: run the renders stage first") from error

    def _load(self, stage: str, part: str) -> dict[str, Tensor]:
        try:
            return take_part(load_ema(self.folder / stage), part)
        except FileNotFoundError as error:
            raise MissingStageError(f"{self.folder / stage} has no checkpoint: run the {stage} stage first") from error

    def _steps_done(self, stage: str) -> int:
        return int(torch.load(self.folder / stage / CHECKPOINT, map_location="cpu", weights_only=True)["step"])


def read_version() -> str:
    """Give the program's version, from the installation or the project file."""
    project = Path(__file__).resolve().parent.parent / "pyproject.toml"
    with project.open("rb") as file:
        return str(tomllib.load(file)["project"]["version"])


def count_parameters(module: nn.Module) -> int:
    """Count a module's parameters."""
    return sum(parameter.numel() for parameter in module.parameters())
