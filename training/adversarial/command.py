"""The command `gan`: adversarial training from the shell; `python -m training.adversarial` is the same by itself.

Several processes: `torchrun --nproc-per-node 8 -m training.adversarial --data … --out …`; on several machines the
same line on each, with torchrun's --nnodes and --rdzv-endpoint.
"""

import dataclasses
import json
from pathlib import Path
from typing import Annotated, cast

import torch
import typer

from training.adversarial.pictures import Fit
from training.adversarial.run import FeatureChoice, train_gan
from training.devices import pick_device
from training.errors import DataError, InterruptedRunError, TrainingError
from training.loop import load_ema
from training.metrics.features import FeatureNetwork, load_inception, use_trunk
from training.networks.encoder import Trunk
from training.recipes.adversarial import ADVERSARIAL_RECIPES


def load_trunk_features(run: Path, device: torch.device) -> FeatureNetwork:
    """Load the trunk that a rendered run's encoder stage trained.

    Raises: DataError when the folder holds none.
    """
    folder = run / "encoder"
    try:
        options, weights = json.loads((folder / "options.json").read_text()), load_ema(folder)
    except FileNotFoundError as error:
        raise DataError(f"{folder} holds no trained encoder; run that stage of a rendered recipe first") from error
    trunk = Trunk(tuple(options["widths"]), options["feature_dim"])
    trunk.load_state_dict({k.removeprefix("trunk."): v for k, v in weights.items() if k.startswith("trunk.")})
    return use_trunk(trunk.requires_grad_(False).to(device))


def choose_features(inception: Path | None, trunk: Path | None) -> FeatureChoice | None:
    """Give what opens the chosen feature network; None where none was chosen.

    Raises: DataError when both were.
    """
    if inception is not None and trunk is not None:
        raise DataError("choose one feature network: --inception for photographs, or --trunk for rendered faces")
    if inception is not None:
        return lambda device: load_inception(inception, device)
    return None if trunk is None else lambda device: load_trunk_features(trunk, device)


def gan(
    data: Annotated[Path, typer.Option(help="folder or zip of square pictures, or a rendered pool's folder")],
    recipe: Annotated[str, typer.Option(help=f"one of: {', '.join(ADVERSARIAL_RECIPES)}")] = "own-faces-256",
    out: Annotated[Path | None, typer.Option(help="run folder (default: runs/RECIPE)")] = None,
    fit: Annotated[
        str, typer.Option(help="pictures of other sizes: refuse, or crop (cut the middle, scale)")
    ] = "refuse",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 …")] = "auto",
    inception: Annotated[Path | None, typer.Option(help="your Inception weights, to measure FID and KID with")] = None,
    trunk: Annotated[Path | None, typer.Option(help="a rendered run's folder: its encoder measures instead")] = None,
    start: Annotated[Path | None, typer.Option(help="another gan run's folder, to begin with its weights")] = None,
    kimg: Annotated[float | None, typer.Option(help="thousand pictures to show, instead of the recipe's")] = None,
    micro_batch: Annotated[int | None, typer.Option(help="pictures at once on one process: less memory")] = None,
    gamma: Annotated[float | None, typer.Option(help="weight of R1, the number most worth trying")] = None,
    precision: Annotated[str | None, typer.Option(help="float32, bfloat16 or float16")] = None,
    seed: Annotated[int | None, typer.Option(help="another seed than the recipe's")] = None,
    workers: Annotated[int, typer.Option(help="threads that decode pictures")] = 2,
    threads: Annotated[int | None, typer.Option(help="CPU threads of the networks (default: PyTorch's choice)")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="check everything, say what would be done")] = False,
) -> None:
    """Train a StyleGAN2 on pictures; run the same command again to go on."""
    if recipe not in ADVERSARIAL_RECIPES:
        known = ", ".join(ADVERSARIAL_RECIPES)
        raise typer.BadParameter(f"no recipe {recipe!r}; there are: {known}", param_hint="--recipe")
    if fit not in ("refuse", "crop"):
        raise typer.BadParameter(f"{fit!r} is neither refuse nor crop", param_hint="--fit")
    if threads is not None:
        torch.set_num_threads(threads)
    asked = {"kimg": kimg, "micro_batch": micro_batch, "r1_gamma": gamma, "precision": precision, "seed": seed}
    changes = {name: value for name, value in asked.items() if value is not None}
    chosen = dataclasses.replace(ADVERSARIAL_RECIPES[recipe], **changes)  # type: ignore[arg-type]
    try:
        train_gan(
            chosen,
            data,
            out or Path("runs") / recipe,
            device=pick_device(device),
            fit=cast("Fit", fit),
            features=choose_features(inception, trunk),
            start=start,
            threads=workers,
            dry_run=dry_run,
            report=typer.echo,
        )
    except (TrainingError, ValueError) as error:
        typer.echo(f"animato-train: {error}", err=True)
        raise typer.Exit(130 if isinstance(error, InterruptedRunError) else 1) from error


app = typer.Typer(add_completion=False)
app.command()(gan)
