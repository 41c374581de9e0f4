"""What a picture set's motion stands on, loaded from its run folder: generator, encoder, towers.

Must not import: services, worker, cli.
"""

from collections.abc import Callable
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from training.adversarial.pictures import PictureSet
from training.errors import DataError
from training.generator import to_pictures
from training.inversion.features import compare_maps, describe_by_discriminator, normalize_maps
from training.inversion.parts import InversionParts, parts_of_generator
from training.networks.discriminator import Discriminator
from training.networks.irse import PictureEncoder, fit_picture
from training.networks.stylegan2 import ZGenerator
from training.paper.parts import FrozenParts, freeze
from training.paper.stage import Pictures
from training.paper.towers import Towers
from training.photos.pictures import stack

HELD_OUT = 32


def refuse_identity(pictures: Tensor) -> Tensor:
    """Stand where an identity network would: no network of these pictures tells who someone is.

    Raises: DataError always; the recipes of pictures give the identity loss no weight.
    """
    raise DataError(f"no identity network is at hand for {len(pictures)} pictures; set the identity weight to 0")


def build_inversion_parts(generator: ZGenerator, judge: Discriminator, device: torch.device) -> InversionParts:
    """Give what inversion needs; pictures are compared by the discriminator's features."""
    return parts_of_generator(generator, describe_by_discriminator(judge.to(device)), device=device)


def build_frozen_parts(
    generator: ZGenerator, inversion: InversionParts, encoder: PictureEncoder, towers: Towers, device: torch.device
) -> FrozenParts:
    """Give what the paper's motion needs."""
    freeze(generator, encoder, towers)
    encoder.to(device)
    cast("nn.Module", towers).to(device)
    encode: Callable[[Tensor], Tensor] = encoder

    def measure(first: Tensor, second: Tensor) -> Tensor:
        return compare_maps(inversion.describe(first), inversion.describe(second))

    def sample_ws(z: Tensor) -> Tensor:
        return generator.mapping(z)

    return FrozenParts(generator, encode, towers, refuse_identity, measure, sample_ws, generator.mapping.z_dim, device)


def draw_batches(pictures: PictureSet) -> Pictures:
    """Give what draws batches of a set for the motion stage."""

    def pick(rng: np.random.Generator, batch: int) -> Tensor:
        rows = rng.choice(len(pictures), batch, replace=len(pictures) < batch)
        return to_pictures(stack(pictures, np.sort(rows).tolist()))

    return pick


def take_held_out(pictures: PictureSet) -> Tensor:
    """Give the pictures that the motion is measured on: [N,3,R,R]."""
    return to_pictures(stack(pictures, range(min(HELD_OUT, len(pictures)))))


def build_imported_parts(
    generator: ZGenerator, encoder: PictureEncoder, towers: Towers, device: torch.device | None = None
) -> FrozenParts:
    """Give what the paper's motion needs of networks that were trained elsewhere.

    Pictures are compared by the encoder's own feature maps: an IR-SE body that began as a face recognition network, and
    no other network of these faces is at hand.
    """
    where = device or torch.device("cpu")
    freeze(generator, encoder, towers)
    for part in (generator, encoder, cast("nn.Module", towers)):
        part.to(where)

    def describe(pictures: Tensor) -> list[Tensor]:
        return normalize_maps(encoder.describe(fit_picture(pictures, encoder.input_size)))

    def measure(first: Tensor, second: Tensor) -> Tensor:
        return compare_maps(describe(first), describe(second))

    encode: Callable[[Tensor], Tensor] = encoder
    return FrozenParts(
        generator, encode, towers, refuse_identity, measure, generator.mapping, generator.mapping.z_dim, where
    )
