"""`animato-train`: one command a stage, and `all`; and `convert`, which makes a bundle of other people's checkpoints.

Training can be stopped and run again; it goes on where it stopped. What goes wrong is said in one sentence on stderr:
exit code 1, or 130 after Ctrl-C.
"""

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, cast

import torch
import typer
from typer.core import TyperGroup

from model.errors import ModelError
from training.adversarial.pictures import Fit
from training.adversarial.run import place_on_rank
from training.choices import Choices, Job, count_processes, is_main_process
from training.devices import pick_device
from training.errors import DataError, InterruptedRunError, TrainingError
from training.export.bundle import ParityError
from training.files import tell_full_disk
from training.jobs import SHARED_STAGES, list_recipes, open_job, require_fresh
from training.plan import describe_plan
from training.recipes import RECIPES
from training.record import describe_device
from training.stages import MissingStageError, Run

INTERRUPTED = 130


class StageName(StrEnum):
    """What can be run."""

    RECIPES = "recipes"
    RESTORE = "restore"
    RENDERS = "renders"
    GAN = "gan"
    GENERATOR = "generator"
    ENCODER = "encoder"
    LANGUAGE = "language"
    EMBEDDING = "embedding"
    INVERSION = "inversion"
    MOTION = "motion"
    EXPORT = "export"
    COMPARE = "compare"
    ALL = "all"


class StageFirst(TyperGroup):
    """A group in which `run` need not be said: `animato-train gan …` is `animato-train run gan …`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put `run` before whatever names no other command."""
        if args and args[0] not in {*self.commands, *self.get_help_option_names(ctx)}:
            args = ["run", *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=StageFirst,
    add_completion=False,
    no_args_is_help=True,
    help="Train a model from renders or from your own pictures, or convert checkpoints, into a bundle. `animato-train "
    "STAGE …` is short for `animato-train run STAGE …`.",
)


@contextmanager
def in_sentences(folder: Path) -> Iterator[None]:
    """Say what goes wrong in one sentence, and end with its exit code."""
    try:
        with tell_full_disk(folder):
            yield
    except (TrainingError, MissingStageError, ParityError, ModelError) as error:
        _fail(str(error), INTERRUPTED if isinstance(error, InterruptedRunError) else 1)
    except KeyboardInterrupt:
        _fail("stopped; run the same command to go on", INTERRUPTED)
    except torch.OutOfMemoryError as error:
        _fail(f"the GPU's memory is full ({str(error).splitlines()[0]}); choose a recipe with a smaller batch", 1)
    except OSError as error:
        _fail(f"{error.filename or folder}: {error.strerror or error}", 1)


@app.command()
def run(
    stage: Annotated[
        StageName, typer.Argument(help="the stage to run, all of them in order, or recipes to list those")
    ],
    recipe: Annotated[str, typer.Option(help="see `animato-train recipes`")] = "human-128",
    out: Annotated[Path | None, typer.Option(help="run folder (default: runs/RECIPE)")] = None,
    data: Annotated[Path | None, typer.Option(help="folder or zip of square pictures, for photo recipes")] = None,
    bundle: Annotated[Path | None, typer.Option(help="where export writes, or what compare judges")] = None,
    rivals: Annotated[Path | None, typer.Option(help="run folder of the rivals, for compare")] = None,
    base: Annotated[Path | None, typer.Option(help="rendered run that a rival's parts come from")] = None,
    clip: Annotated[Path | None, typer.Option(help="a CLIP model: checkpoints, photo recipes without captions")] = None,
    generator: Annotated[Path | None, typer.Option(help="a foreign generator, for checkpoints")] = None,
    encoder: Annotated[Path | None, typer.Option(help="its e4e or pSp encoder, for checkpoints")] = None,
    identity: Annotated[Path | None, typer.Option(help="ir_se50, to train an encoder for checkpoints")] = None,
    label: Annotated[int | None, typer.Option(help="class that a conditional generator shall draw", min=0)] = None,
    text: Annotated[Path | None, typer.Option(help="RUN/text of another run, instead of training a text tower")] = None,
    fit: Annotated[
        str, typer.Option(help="pictures of other sizes: refuse, or crop (cut the middle, scale)")
    ] = "refuse",
    inception: Annotated[Path | None, typer.Option(help="Inception weights, to measure a gan's FID and KID")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 …")] = "auto",
    threads: Annotated[int, typer.Option(help="CPU threads; more than one rarely helps small nets", min=1)] = 1,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="check the inputs and say what would be done")] = False,
    resume: Annotated[bool, typer.Option(help="go on where an earlier command stopped")] = True,
    share_text: Annotated[bool, typer.Option(help="export the text tower to `shared` beside the bundle")] = False,
    quick: Annotated[bool, typer.Option("--quick", help="compare on one person and two expressions")] = False,
) -> None:
    """Run one stage or all of them."""
    known = list_recipes()
    if stage is StageName.RECIPES:
        width = max(map(len, known))
        typer.echo("\n".join(f"{name:{width}}  {about}" for name, about in known.items()))
        return
    if recipe not in known:
        raise typer.BadParameter(f"no recipe {recipe!r}; there are: {', '.join(known)}", param_hint="--recipe")
    if fit not in ("refuse", "crop"):
        raise typer.BadParameter(f"{fit!r} is neither refuse nor crop", param_hint="--fit")
    torch.set_num_threads(threads)
    choices = Choices(
        recipe,
        out,
        data,
        bundle,
        base,
        clip,
        text,
        inception,
        generator,
        encoder,
        identity,
        label,
        cast("Fit", fit),
        share_text,
    )
    with in_sentences(choices.folder):
        if stage is StageName.COMPARE:
            _compare(choices, rivals, quick)
        elif stage is StageName.RESTORE:
            _restore(choices)
        else:
            _run(stage.value, choices, device, dry_run, resume)


def _conversion() -> Callable[..., None]:
    from training.convert.command import run_conversion

    @functools.wraps(run_conversion)
    def convert(**chosen: Any) -> None:
        with in_sentences(chosen["out"]):
            run_conversion(**chosen)

    return convert


app.command("convert")(_conversion())


def _fail(sentence: str, code: int) -> None:
    typer.echo(f"animato-train: {' '.join(sentence.split())}", err=True)
    raise typer.Exit(code)


def _report(line: str) -> None:
    if is_main_process():
        typer.echo(line)


def _compare(choices: Choices, rivals: Path | None, quick: bool) -> None:
    from training.compare.comparison import run as compare

    if choices.bundle is None:
        raise DataError("compare needs a bundle: give --bundle DIR")
    compare(choices.bundle, rivals, choices.out or Path("out") / "compare", quick=quick, report=_report)


def _restore(choices: Choices) -> None:
    from training.restore import restore_run

    if choices.bundle is None:
        raise DataError("restore needs a bundle: give --bundle DIR")
    if choices.recipe not in RECIPES:
        raise DataError(f"restore is for rendered recipes ({', '.join(RECIPES)}), and {choices.recipe} is none")
    restore_run(Run(RECIPES[choices.recipe], choices.folder, _report), choices.bundle)


def _run(stage: str, choices: Choices, device_name: str, dry_run: bool, resume: bool) -> None:
    try:
        device = place_on_rank(pick_device(device_name))
    except (ValueError, RuntimeError) as error:  # torch raises RuntimeError for a name that is no device
        raise DataError(str(error).splitlines()[0]) from error
    job = open_job(choices, _report, device)
    assert job is not None, choices.recipe
    _check_stage(job, stage, choices.recipe)
    if not resume:
        require_fresh(job, stage)
    if not dry_run:
        job.run(stage)
        return
    _report(f"{stage} of {choices.recipe} in {choices.folder} on {describe_device(device)}; nothing is trained now")
    for line in (*job.check(stage), "stages:", *describe_plan(job.plan(), job.folder)):
        _report(line)


def _check_stage(job: Job, stage: str, recipe: str) -> None:
    if stage != "all" and stage not in job.stages:
        raise DataError(f"{recipe} has no stage {stage}: its stages are {', '.join(job.stages)}")
    if count_processes() > 1 and (stage not in SHARED_STAGES or job.kind == "rendered"):
        raise DataError(
            f"torchrun shares {' and '.join(SHARED_STAGES)} of picture recipes among processes, and nothing else; run "
            f"{stage} without it"
        )


def main() -> None:
    """Run the command line."""
    app()


if __name__ == "__main__":
    main()
