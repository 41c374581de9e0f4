"""`animato-train`: one command a stage, and `all`. Every command can be stopped and run again; it goes on where it
stopped."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import torch
import typer

from training.loop import DivergedError, InterruptedRunError
from training.recipes import RECIPES
from training.stages import MissingStageError, Run


class StageName(StrEnum):
    """What can be run."""

    RENDERS = "renders"
    GENERATOR = "generator"
    ENCODER = "encoder"
    LANGUAGE = "language"
    EMBEDDING = "embedding"
    INVERSION = "inversion"
    MOTION = "motion"
    EXPORT = "export"
    ALL = "all"


app = typer.Typer(add_completion=False, help="Train a domain's models and export them as a bundle.")


@app.command()
def run(
    stage: Annotated[StageName, typer.Argument(help="the stage to run, or all of them in order")],
    recipe: Annotated[str, typer.Option(help=f"one of: {', '.join(RECIPES)}")] = "human-128",
    out: Annotated[Path | None, typer.Option(help="run folder (default: runs/RECIPE)")] = None,
    bundle: Annotated[Path | None, typer.Option(help="where export writes the bundle (default: OUT/bundle)")] = None,
    threads: Annotated[int, typer.Option(help="CPU threads; more than one rarely helps nets this small")] = 1,
) -> None:
    """Run one stage or all of them."""
    if recipe not in RECIPES:
        raise typer.BadParameter(f"no recipe {recipe!r}; there are: {', '.join(RECIPES)}", param_hint="--recipe")
    torch.set_num_threads(threads)
    folder = out or Path("runs") / recipe
    training = Run(RECIPES[recipe], folder, report=typer.echo)
    try:
        if stage in (StageName.EXPORT, StageName.ALL):
            getattr(training, stage.value)(bundle or folder / "bundle")
        else:
            getattr(training, stage.value)()
    except (DivergedError, InterruptedRunError, MissingStageError) as error:
        typer.echo(f"animato-train: {error}", err=True)
        raise typer.Exit(130 if isinstance(error, InterruptedRunError) else 1) from error


def main() -> None:
    """Run the command line."""
    app()


if __name__ == "__main__":
    main()
