"""An encoder for a generator that was trained elsewhere: what `convert` advises where none was published for it.

e4e's training, with an ir_se50 doing what it does there: pictures are compared by its maps, faces by its features, and
the encoder's body begins as its body. What was trained is read back by `training.convert.sources`.
Must not import: services, worker, cli.
"""

import dataclasses
from pathlib import Path

import torch

from training.adversarial.pictures import PictureSet
from training.convert.sources import Found
from training.errors import DataError
from training.inversion.features import describe_by_identity
from training.inversion.parts import InversionParts, parts_of_generator
from training.inversion.stage import EncoderStage
from training.loop import Report, train
from training.networks.identity import IdentityNetwork
from training.networks.irse import IRSEBody, PyramidEncoder
from training.photos.pictures import split_set
from training.ranks import join_ranks
from training.recipes.inversion import EncoderTraining


def build_parts(found: Found, device: torch.device) -> InversionParts:
    """Give what inversion needs of a foreign generator and an identity network.

    Raises: DataError for a conditional generator.
    """
    assert found.generator is not None
    assert found.identity is not None
    identity = found.identity.to(device)
    try:
        return parts_of_generator(found.generator, describe_by_identity(identity), identity, device)
    except ValueError as error:
        raise DataError(f"{found.told['generator']}: {error}; choose one with --label") from error


def start_body(encoder: PyramidEncoder, identity: IdentityNetwork) -> bool:
    """Let the encoder begin with the identity network's body, as e4e's does, and say whether the two have one form.

    Source: Richardson et al. 2021 (arXiv 2008.00951), whose encoder starts from ir_se50.
    """
    shared = {name for name, _ in IRSEBody.named_children(encoder) if name in dict(identity.named_children())}
    given = {name: value for name, value in identity.state_dict().items() if name.split(".")[0] in shared}
    wanted = {name: value.shape for name, value in encoder.state_dict().items() if name.split(".")[0] in shared}
    if {name: value.shape for name, value in given.items()} != wanted:
        return False
    encoder.load_state_dict(given, strict=False)
    return True


def train_imported_encoder(
    recipe: EncoderTraining, found: Found, pictures: PictureSet, folder: Path, device: torch.device, report: Report
) -> None:
    """Train, or go on training, an encoder in a folder.

    Raises: TrainingError's kinds, with a sentence.
    """
    with join_ranks(device):
        stage = EncoderStage(recipe, build_parts(found, device), *split_set(pictures, recipe.held_out))
        stage.name = "inversion"
        assert found.identity is not None
        if not start_body(stage.encoder, found.identity):
            report(f"inversion: the body begins untrained: that of {recipe.name} has another form than ir_se50's")
        options = dataclasses.asdict(recipe)
        train(stage, folder, options, report=report, log_every=recipe.log_every, evaluate_every=recipe.evaluate_every)
