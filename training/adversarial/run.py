"""An adversarial run from a path with pictures to a trained generator: on one process, or one of many under torchrun.

RUN/gan/: options.json, stats.jsonl, checkpoint.pt, snapshots/, tensorboard/.
"""

import json
import os
from collections.abc import Callable
from dataclasses import asdict, fields
from pathlib import Path

import torch

from training.adversarial.pictures import Fit, PictureSet, describe_set, open_pictures, require_enough
from training.adversarial.snapshots import Gallery
from training.adversarial.stage import AdversarialStage, build_networks, check_recipe
from training.errors import DataError
from training.loop import CHECKPOINT, Report, load_ema, match_weights, read_checkpoint, train
from training.metrics.features import FeatureNetwork
from training.networks.stylegan2 import ZGenerator
from training.ranks import Ranks, join_ranks
from training.recipes.adversarial import AdversarialRecipe
from training.tensorboard import EventFile

STAGE = "gan"
FeatureChoice = Callable[[torch.device], FeatureNetwork]
"""Opens the network that FID and KID are measured with, on the run's device."""


def place_on_rank(device: torch.device) -> torch.device:
    """Give this process's own GPU where torchrun started several on one machine."""
    local = os.environ.get("LOCAL_RANK")
    return torch.device("cuda", int(local)) if device.type == "cuda" and local is not None else device


def describe_run(recipe: AdversarialRecipe, pictures: PictureSet, ranks: Ranks) -> str:
    """Say in a few lines what a run would do."""
    generator, judge = build_networks(recipe, pictures.label_dim if recipe.labels else 0)
    millions = [sum(p.numel() for p in module.parameters()) / 1e6 for module in (generator, judge)]
    rounds = recipe.batch // (ranks.world * recipe.micro_batch)
    return "\n".join(
        (
            describe_set(pictures, recipe.mirrored),
            f"generator {millions[0]:.2f} M and discriminator {millions[1]:.2f} M parameters, {recipe.precision}",
            f"{recipe.steps} steps of {recipe.batch} pictures ({recipe.kimg:g} kimg): {ranks.world} process(es), "
            f"{rounds} micro-batch(es) of {recipe.micro_batch} each",
        )
    )


def train_gan(
    recipe: AdversarialRecipe,
    data: Path | PictureSet,
    run: Path,
    *,
    device: torch.device,
    fit: Fit = "refuse",
    features: FeatureChoice | None = None,
    start: Path | None = None,  # another run's folder, to go on from its weights
    threads: int = 2,  # that decode pictures
    log_every: int = 10,
    save_every_s: float = 300.0,
    dry_run: bool = False,
    report: Report = print,
) -> ZGenerator | None:
    """Train, resuming what RUN/gan holds, and give the averaged generator; None from a dry run.

    Raises: DataError about the pictures; ValueError about the recipe; and what training.loop.train raises.
    """
    device = place_on_rank(device)
    with join_ranks(device) as ranks:
        check_recipe(recipe, ranks.world)
        pictures = data if not isinstance(data, Path) else open_pictures(data, recipe.resolution, fit, recipe.labels)
        require_enough(pictures, recipe.batch)
        if ranks.is_main:
            report(describe_run(recipe, pictures, ranks))
        if dry_run:
            return None
        folder = run / STAGE
        label_dim = pictures.label_dim if recipe.labels else 0
        chosen = features(device) if features is not None else None
        if chosen is None and recipe.measured and ranks.is_main:
            report("FID and KID: not measured, because no feature network was chosen")
        gallery = Gallery(recipe, pictures, folder / "snapshots", device, chosen, label_dim)
        stage = AdversarialStage(recipe, pictures, device, gallery, threads)
        if start is not None and not (folder / CHECKPOINT).exists():
            match_weights(stage.modules, read_checkpoint(start / STAGE)["modules"], start / STAGE / CHECKPOINT)
        options = {
            "recipe": asdict(recipe),
            "label_dim": label_dim,
            "pictures": len(pictures),
            "data": pictures.name,
            "processes": ranks.world,
            "features": None if chosen is None else chosen.name,
        }
        watch = EventFile(folder / "tensorboard").add if ranks.is_main else None
        try:
            ema = train(
                stage,
                folder,
                options,
                report=report,
                log_every=log_every,
                evaluate_every=recipe.steps_per_snapshot,
                save_every_s=save_every_s,
                watch=watch,
            )
        finally:
            stage.reader.close()
        generator = ema["generator"]
        assert isinstance(generator, ZGenerator)
        return generator


def load_gan(run: Path, device: torch.device | None = None) -> tuple[ZGenerator, AdversarialRecipe]:
    """Load a run's averaged generator and its recipe.

    Raises: DataError when the folder holds no such run; CheckpointMismatchError, DamagedCheckpointError.
    """
    folder = run / STAGE
    if not (folder / CHECKPOINT).exists():
        raise DataError(f"{folder} holds no trained generator: run the gan stage first")
    options = json.loads((folder / "options.json").read_text())
    known = {field.name for field in fields(AdversarialRecipe)}
    values = {name: value for name, value in options["recipe"].items() if name in known}
    if values.get("channels"):
        values["channels"] = tuple(values["channels"])
    recipe = AdversarialRecipe(**values)
    generator, _ = build_networks(recipe, int(options["label_dim"]))
    prefix = "generator."
    weights = {name.removeprefix(prefix): value for name, value in load_ema(folder).items() if name.startswith(prefix)}
    match_weights(generator, weights, folder / CHECKPOINT)
    return generator.eval().requires_grad_(False).to(device or torch.device("cpu")), recipe
