"""The kinds of runs behind one command: which stages a recipe has, what each would do, and doing it.

rendered (training.stages.Run) · photos (training.photos.run.PhotoRun) · gan (adversarial training alone) · rival (what
our motion is compared with, on a rendered run's parts) · checkpoints (the motion on networks that were trained
elsewhere: training.convert.training). Must not import: services, worker, cli.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import torch

from training.adversarial.command import choose_features
from training.adversarial.pictures import Fit, describe_set, require_enough
from training.adversarial.run import train_gan
from training.adversarial.stage import check_recipe
from training.baselines.runs import RIVALS, AnyRecipe, Comparison
from training.checkpoints import minilm
from training.checkpoints.clip_files import read_clip
from training.choices import Choices, Job, count_processes, is_main_process, say_command
from training.convert.training import CheckpointJob
from training.devices import CPU
from training.errors import DataError, TrainingError
from training.loop import CHECKPOINT, Report
from training.photos.pictures import fingerprint, open_set
from training.photos.run import PhotoRun
from training.plan import StagePlan, count_gan, plan_photos, plan_rendered, plan_stage
from training.recipes import RECIPES
from training.recipes.adversarial import ADVERSARIAL_RECIPES, AdversarialRecipe
from training.recipes.baselines import MAPPER_RECIPES, MOCOGAN_HD_RECIPES, MapperRecipe
from training.recipes.checkpoints import CHECKPOINT_RECIPES
from training.recipes.paper import PAPER_RECIPES, PaperRecipe
from training.recipes.photos import PHOTO_RECIPES
from training.record import read_record, write_record
from training.stages import Run

RIVAL_RECIPES: dict[str, AnyRecipe] = {**PAPER_RECIPES, **MAPPER_RECIPES, **MOCOGAN_HD_RECIPES}
SHARED_STAGES = ("gan", "inversion")
"""What several processes of torchrun share."""


class RenderedJob:
    """A rendered domain: everything from the renderer."""

    kind = "rendered"
    stages: tuple[str, ...] = (
        *("renders", "generator", "encoder", "language", "embedding", "inversion", "motion", "export"),
    )

    def __init__(self, choices: Choices, report: Report, device: torch.device = CPU) -> None:
        if choices.data is not None:
            raise DataError(f"{choices.recipe} learns from the renderer: --data is for {', '.join(PHOTO_RECIPES)}")
        self.choices, self.folder, self.device = choices, choices.folder, device
        self._run = Run(RECIPES[choices.recipe], self.folder, report, device)

    def check(self, stage: str) -> list[str]:
        """Name domain and sizes."""
        recipe = self._run.recipe
        lines = [f"{recipe.name}: the rendered domain {recipe.domain} at {recipe.resolution} px"]
        return lines + _tell_teacher(self._run, stage)

    def plan(self) -> list[StagePlan]:
        """Give every stage's state."""
        return plan_rendered(self._run)

    def run(self, stage: str) -> None:
        """Run a stage, or all of them."""
        recipe = self._run.recipe
        _require_teacher(self._run, stage)
        write_record(self.folder, recipe, say_command(), self.device, _describe_renders(recipe))
        for name in self.stages if stage == "all" else (stage,):
            if name == "export":
                self._run.export(self.choices.bundle or self.folder / "bundle", self.choices.share_text)
            else:
                _speak_values(getattr(self._run, name))


def _describe_renders(recipe: Any) -> dict[str, Any]:
    renders = recipe.renders
    marks = (recipe.domain, renders.count, renders.seed, renders.expressed, renders.expressed_seed)
    return {"path": f"renderer: {recipe.domain}", "fingerprint": repr(marks), "pictures": renders.count}


def _wants_teacher(run: Run | PhotoRun, stage: str) -> bool:
    return stage in ("all", "language") and run.wants_teacher


def _tell_teacher(run: Run | PhotoRun, stage: str) -> list[str]:
    """Say that the text tower's teacher is wanted and not there."""
    return [minilm.MISSING] if _wants_teacher(run, stage) and minilm.find_folder() is None else []


def _require_teacher(run: Run | PhotoRun, stage: str) -> None:
    """Refuse before the long stages what would fail after them.

    Raises: DataError.
    """
    if _wants_teacher(run, stage):
        minilm.require_folder()


def _speak_values(act: Callable[[], object]) -> None:
    """Turn the one plain error of pools and recipes into a training error: its words are a sentence already."""
    try:
        act()
    except ValueError as error:
        raise DataError(str(error)) from error


class PhotoJob:
    """Somebody's own pictures: from a folder to a bundle."""

    kind = "photos"

    def __init__(self, choices: Choices, report: Report, device: torch.device = CPU) -> None:
        self.choices, self.folder, self.device, self.report = choices, choices.folder, device, report
        # what an earlier command chose need not be said again
        record = read_record(self.folder)
        known, options = record.get("data") or {}, record.get("options", {})
        self.options = {
            "clip": _say_path(choices.clip) or options.get("clip"),
            "text": _say_path(choices.text) or options.get("text"),
            "fit": choices.fit if choices.fit != "refuse" else options.get("fit", "refuse"),
        }
        data = choices.data or (Path(known["path"]) if known else None)
        clip, text = (Path(path) if path else None for path in (self.options["clip"], self.options["text"]))
        self._run = PhotoRun(
            PHOTO_RECIPES[choices.recipe],
            self.folder,
            data,
            report,
            device,
            clip=clip,
            text=text,
            fit=cast("Fit", self.options["fit"]),
            features=choose_features(choices.inception, None),
        )
        self.stages: tuple[str, ...] = (*self._run.stages, "export")  # with CLIP there is no tower to train

    def check(self, stage: str) -> list[str]:
        """Open the pictures and read what is said of them."""
        run, lines = self._run, []
        if stage == "export":
            return [f"{run.recipe.name}: the bundle of {self.folder}"]
        pictures = run.pictures()
        lines.append(describe_set(pictures, run.recipe.gan.mirrored))
        require_enough(pictures, run.recipe.gan.batch)
        _speak_values(lambda: check_recipe(run.recipe.gan, count_processes()))
        if run.clip is not None:
            read_clip(run.clip)  # refused now, not after the long stages
            lines.append(f"sentences and pictures meet in the CLIP of {run.clip}")
        elif stage in ("all", "embedding"):
            captions = run.captions()
            lines.append(f"captions: {len(captions.texts)} labels, an image tower of our own will learn them")
        return lines + _tell_teacher(run, stage)

    def plan(self) -> list[StagePlan]:
        """Give every stage's state."""
        return plan_photos(self._run)

    def run(self, stage: str) -> None:
        """Run a stage, or all of them."""
        run = self._run
        _require_teacher(run, stage)
        if stage != "export":
            pictures = run.pictures()
            require_enough(pictures, run.recipe.gan.batch)
            _speak_values(lambda: check_recipe(run.recipe.gan, count_processes()))
            assert run.data is not None
            self._record(str(run.data.resolve()), fingerprint(pictures), len(pictures))
        directory = self.choices.bundle or self.folder / "bundle"
        if stage == "all":
            run.all(directory, self.choices.share_text)
        elif stage == "export":
            run.export(directory, self.choices.share_text)
        else:
            run.stages[stage]()

    def _record(self, path: str, mark: str, count: int) -> None:
        if is_main_process():
            data = {"path": path, "fingerprint": mark, "pictures": count}
            write_record(self.folder, self._run.recipe, say_command(), self.device, data, self.options)


def _say_path(path: Path | None) -> str | None:
    return None if path is None else str(path.resolve())


class GanJob:
    """Adversarial training alone."""

    kind = "gan"
    stages: tuple[str, ...] = ("gan",)

    def __init__(self, choices: Choices, report: Report, device: torch.device = CPU) -> None:
        self.recipe: AdversarialRecipe = ADVERSARIAL_RECIPES[choices.recipe]
        self.choices, self.folder, self.device, self.report = choices, choices.folder, device, report

    def check(self, stage: str) -> list[str]:
        """Open the pictures."""
        if self.choices.data is None:
            raise DataError("which pictures? give --data FOLDER or --data FILE.zip")
        pictures = open_set(self.choices.data, self.recipe.resolution, self.choices.fit)
        require_enough(pictures, self.recipe.batch)
        _speak_values(lambda: check_recipe(self.recipe, count_processes()))
        return [describe_set(pictures, self.recipe.mirrored)]

    def plan(self) -> list[StagePlan]:
        """Give the stage's state."""
        return [plan_stage(self.folder / "gan", self.recipe.steps, count_gan(self.recipe))]

    def run(self, stage: str) -> None:
        """Train."""
        if self.choices.data is None:
            raise DataError("which pictures? give --data FOLDER or --data FILE.zip")
        pictures = open_set(self.choices.data, self.recipe.resolution, self.choices.fit)
        if is_main_process():
            data = {"path": pictures.name, "fingerprint": fingerprint(pictures), "pictures": len(pictures)}
            write_record(self.folder, self.recipe, say_command(), self.device, data)
        features = choose_features(self.choices.inception, None)
        _speak_values(
            lambda: train_gan(
                self.recipe, pictures, self.folder, device=self.device, features=features, report=self.report
            )
        )


class RivalJob:
    """A baseline or the paper's motion on a rendered run's parts."""

    kind = "rival"
    stages: tuple[str, ...] = ("motion",)

    def __init__(self, choices: Choices, report: Report, device: torch.device = CPU) -> None:
        self.recipe = RIVAL_RECIPES[choices.recipe]
        self.choices, self.device, self.report = choices, device, report
        self.folder = choices.out or Path("runs") / "rivals"
        self.name = next((name for name, recipe in RIVALS.items() if recipe is self.recipe), None) or (
            f"{choices.recipe}-published" if choices.recipe in RIVALS else choices.recipe
        )

    def check(self, stage: str) -> list[str]:
        """Name the run that the parts come from."""
        base = self._open_base()
        return [f"{self.name} on the parts of {base.folder} ({base.recipe.name})"]

    def plan(self) -> list[StagePlan]:
        """Give the rival's state."""
        return [plan_stage(self.folder / self.name, self.recipe.steps)]

    def run(self, stage: str) -> None:
        """Train the rival."""
        comparison = Comparison(self._open_base(), self.folder, self.device, self.report)
        comparison.train(self.name, self.recipe)

    def _open_base(self) -> Run:
        base = self.choices.base
        if base is None:
            raise DataError(f"{self.choices.recipe} stands on a rendered run's parts: give --base RUN")
        name = read_record(base).get("recipe", base.name)
        if name not in RECIPES:
            raise DataError(f"{base} is no rendered run: its run.json names no rendered recipe")
        return Run(RECIPES[name], base, self.report)


KINDS: tuple[tuple[Callable[..., Job], Any], ...] = (
    (RenderedJob, RECIPES),
    (PhotoJob, PHOTO_RECIPES),
    (GanJob, ADVERSARIAL_RECIPES),
    (RivalJob, RIVAL_RECIPES),
    (CheckpointJob, CHECKPOINT_RECIPES),
)
"""What runs a recipe; the first kind that knows its name."""


def open_job(choices: Choices, report: Report, device: torch.device) -> Job | None:
    """Give the job of a recipe; None where no kind knows it.

    Raises: DataError where choices don't fit together.
    """
    for build, recipes in KINDS:
        if choices.recipe in recipes:
            return build(choices, report, device)
    return None


def list_recipes() -> dict[str, str]:
    """Give every recipe's name and what it is for."""
    found = {
        name: f"the rendered domain {recipe.domain} at {recipe.resolution} px, from renders to a bundle"
        for name, recipe in RECIPES.items()
    }
    found["smoke"] = "every stage of a rendered domain for a few steps, in seconds; its faces are fog"
    found |= {name: recipe.about for name, recipe in PHOTO_RECIPES.items()}
    found |= {name: recipe.about for name, recipe in CHECKPOINT_RECIPES.items()}
    for name, gan in ADVERSARIAL_RECIPES.items():
        found.setdefault(name, f"adversarial training alone at {gan.resolution} px")
    for name, rival in RIVAL_RECIPES.items():
        found.setdefault(name, _describe_rival(name, rival))
    return found


def _describe_rival(name: str, recipe: AnyRecipe) -> str:
    if isinstance(recipe, PaperRecipe):
        without = name.partition("-no-")[2].replace("-", " ")
        return f"the paper's motion{f' without its {without} loss' if without else ''}, on the parts of --base RUN"
    what = "StyleCLIP's interpolation" if isinstance(recipe, MapperRecipe) else "MoCoGAN-HD"
    return f"{what}, on the parts of --base RUN"


def require_fresh(job: Job, stage: str) -> None:
    """Refuse to begin anew where something was trained already.

    Raises: DataError that names the folder.
    """
    folders = {"renders": "renders", "language": "text"}
    for name in job.stages if stage == "all" else (stage,):
        folder = job.folder / folders.get(name, name)
        if any((folder / mark).exists() for mark in (CHECKPOINT, "pool.json", "tower.safetensors")):
            raise TrainingError(
                f"{folder} holds what an earlier command made; --no-resume begins in an empty folder only: choose "
                "another --out, or move that folder away"
            )
