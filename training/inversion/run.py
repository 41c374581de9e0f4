"""Inversion put together: train an encoder for a generator, load it, and measure it with and without refinement."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from training.adversarial.pictures import PictureSet
from training.adversarial.run import STAGE, load_gan
from training.adversarial.stage import build_networks
from training.devices import CPU
from training.export.graphs import IdentityGraph
from training.files import write_atomically
from training.inversion.features import TRUNK_SIZE, describe_by_discriminator, describe_by_trunk
from training.inversion.figures import average_figures, join_figures, measure_reconstruction
from training.inversion.parts import Identity, InversionParts, parts_of_generator, parts_of_rendered
from training.inversion.refine import refine_ws
from training.inversion.stage import EncoderStage, build_encoder, to_pictures
from training.loop import CHECKPOINT, Report, load_ema, match_weights, read_checkpoint, train
from training.networks.irse import PyramidEncoder, fit_picture
from training.recipes.inversion import EncoderTraining, RefinementRecipe, read_encoder_recipe
from training.stages import Run, take_part

FIGURES, OPTIONS = "reconstruction.json", "options.json"
PEOPLE = 20_000


def parts_of_run(run: Run, device: torch.device = CPU) -> InversionParts:
    """Take a rendered domain's generator, trunk and factor head from its run folder.

    Raises: MissingStageError when one of them is not trained yet.
    """
    trunk, head = run.load_trunk()
    reader = IdentityGraph(trunk, head).eval().requires_grad_(False).to(device)

    def identify(pictures: Tensor) -> Tensor:
        identity: Tensor = reader(fit_picture(pictures, TRUNK_SIZE))
        return identity

    factors = np.asarray(run.pool().factors[:PEOPLE])
    return parts_of_rendered(run.load_generator(), factors, describe_by_trunk(trunk), identify, device)


def parts_of_gan(run: Path, device: torch.device = CPU, identity: Identity | None = None) -> InversionParts:
    """Take the averaged generator of an adversarial run, and its discriminator to compare pictures by.

    `identity`: for aligned photographs of faces, `read_identity` of training.checkpoints.irse on the same device.

    Raises: DataError when the folder holds no such run; CheckpointMismatchError, DamagedCheckpointError.
    """
    generator, recipe = load_gan(run, device)
    _, judge = build_networks(recipe, generator.mapping.c_dim)
    folder = run / STAGE
    match_weights(judge, take_part(read_checkpoint(folder)["modules"], "discriminator"), folder / CHECKPOINT)
    return parts_of_generator(generator, describe_by_discriminator(judge.to(device)), identity, device)


def train_encoder(
    recipe: EncoderTraining,
    parts: InversionParts,
    pictures: PictureSet,
    held_out: PictureSet,
    folder: Path,
    report: Report = print,
) -> PyramidEncoder:
    """Train, or go on training, in a run folder, and give the averaged encoder.

    Raises: TrainingError's kinds, with a sentence.
    """
    stage = EncoderStage(recipe, parts, pictures, held_out)
    options = dataclasses.asdict(recipe)
    ema = train(stage, folder, options, report=report, log_every=recipe.log_every, evaluate_every=recipe.evaluate_every)
    encoder = ema["encoder"]
    assert isinstance(encoder, PyramidEncoder)
    return encoder


def load_encoder(recipe: EncoderTraining, parts: InversionParts, folder: Path) -> PyramidEncoder:
    """Load a run's averaged encoder.

    Raises: FileNotFoundError when there is none; CheckpointMismatchError when it is another generator's.
    """
    encoder = build_encoder(recipe, parts)
    match_weights(encoder, take_part(load_ema(folder), "encoder"), folder / CHECKPOINT)
    return encoder.eval().requires_grad_(False)


def is_encoder_folder(path: Path) -> bool:
    """Say whether `EncoderStage` trained here."""
    return (path / OPTIONS).is_file() and (path / CHECKPOINT).is_file()


def read_encoder_folder(folder: Path) -> tuple[PyramidEncoder, EncoderTraining]:
    """Read the averaged encoder that a folder holds, of the sizes that its options and weights tell, and its recipe.

    Raises: FileNotFoundError when there is none; CheckpointMismatchError, DamagedCheckpointError.
    """
    recipe = read_encoder_recipe(json.loads((folder / OPTIONS).read_text()))
    weights, network = take_part(load_ema(folder), "encoder"), recipe.network
    encoder = PyramidEncoder(*weights["w_avg"].shape, **dataclasses.asdict(network))
    match_weights(encoder, weights, folder / CHECKPOINT)
    return encoder.eval().requires_grad_(False), recipe


def refine(parts: InversionParts, ws: Tensor, picture: Tensor, recipe: RefinementRecipe) -> Tensor:
    """Refine ws with a generator's own feature and identity networks and a recipe's weights.

    Shapes: ws [N,num_ws,w_dim], picture [N,3,R,R] in [-1,1] → [N,num_ws,w_dim].
    """
    return refine_ws(
        parts,
        ws,
        picture,
        recipe.steps,
        lr=recipe.lr,
        w_scale=parts.w_scale,
        describe=parts.describe,
        identity=parts.identity,
        l2_weight=recipe.l2,
        feature_weight=recipe.features,
        identity_weight=recipe.identity,
        w_norm_weight=recipe.w_norm,
        warmup=recipe.warmup,
    )


def measure_inversion(
    encoder: PyramidEncoder,
    parts: InversionParts,
    pictures: PictureSet,
    recipe: EncoderTraining,
    path: Path | None = None,
    batch: int = 8,
) -> dict[str, dict[str, float]]:
    """Reconstruct pictures that training never saw, before and after refinement.

    Gives figures (see measure_reconstruction) as "encoder" and "refined", and how they were "made";
    writes them as JSON to `path`.
    """
    before, after = [], []
    count = min(recipe.held_out, len(pictures))
    for first in range(0, count, batch):
        truth = to_pictures(np.stack([pictures.read(i) for i in range(first, min(first + batch, count))]), parts.device)
        with torch.no_grad():
            ws = encoder(truth)
            before.append(measure_reconstruction(parts.draw(ws), truth, parts.describe, parts.identity))
        ws = refine(parts, ws, truth, recipe.refinement)
        with torch.no_grad():
            after.append(measure_reconstruction(parts.draw(ws), truth, parts.describe, parts.identity))
    found = {
        "encoder": average_figures(join_figures(before)),
        "refined": average_figures(join_figures(after)),
        "made": {"refinement_steps": float(recipe.refinement.steps), "pictures": float(count)},
    }
    if path is not None:
        write_atomically(path, lambda target: target.write_text(json.dumps(found, indent=2) + "\n"))
    return found
