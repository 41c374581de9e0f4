"""Recipes of inversion: the e4e-style encoder, its losses, and the refinement of single pictures.

Source: Tov et al. 2021 (arXiv 2102.02766) and the options published with it for faces; small forms for
small generators.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class PyramidRecipe:
    """The encoder's network. The default is IR-SE-50 at 256 px, as published."""

    input_size: int = 256
    widths: tuple[int, int, int, int] = (64, 128, 256, 512)
    units: tuple[int, int, int, int] = (3, 4, 14, 3)
    coarse_rows: int = 3
    middle_rows: int = 7


@dataclass(frozen=True)
class InversionWeights:
    """How much each loss counts; 0 leaves it out."""

    l2: float = 1.0
    features: float = 0.8  # LPIPS-like, on the features that are at hand
    identity: float = 0.1  # where the domain has an identity network
    delta: float = 2e-4  # sum of the lengths of the deltas from row 0
    w_norm: float = 0.0  # mean square of w − w_avg, in units of the mapping's own spread
    latent: float = 0.1  # the latent discriminator's say


@dataclass(frozen=True)
class RefinementRecipe:
    """Optimisation of one picture's ws, at evaluation time."""

    steps: int = 200
    lr: float = 0.1  # in units of the mapping's spread of w
    warmup: float = 0.05  # share of the steps in which the rate rises
    l2: float = 1.0
    features: float = 0.8
    identity: float = 0.0
    w_norm: float = 0.01  # mean square of the way from the start, in units of the mapping's spread


@dataclass(frozen=True)
class EncoderTraining:
    """Training of the encoder. The default is e4e's for faces, with Adam in place of Ranger."""

    name: str = "e4e"
    network: PyramidRecipe = field(default_factory=PyramidRecipe)
    weights: InversionWeights = field(default_factory=InversionWeights)
    refinement: RefinementRecipe = field(default_factory=RefinementRecipe)
    steps: int = 200_000
    batch: int = 8
    lr: float = 1e-4
    flat: float = 1.0  # share of the steps before the rate falls
    warmup: int = 100
    unlock_from: int = 20_000  # steps with row 0 alone
    unlock_every: int = 2000  # steps to the next row's delta
    latent_from: int = 0  # first step of the latent discriminator
    latent_lr: float = 2e-5
    r1_gamma: float = 10.0
    r1_every: int = 16
    mirrored: bool = True  # every picture also as its mirror image
    half: bool = True  # bfloat16 in encoder and synthesis
    ema_decay: float = 0.999
    seed: int = 7
    log_every: int = 50
    evaluate_every: int = 1000
    held_out: int = 64  # pictures that figures are measured on


SMALL = EncoderTraining(
    name="e4e-small",
    network=PyramidRecipe(128, (32, 64, 96, 128), (2, 2, 3, 2)),
    steps=12_000,
    lr=1e-3,
    flat=0.6,
    unlock_from=2000,
    unlock_every=300,
    latent_lr=1e-4,
    ema_decay=0.998,
    evaluate_every=500,
)
"""For generators as small as the rendered domains': hours on one CPU core."""

TINY = EncoderTraining(
    name="e4e-tiny",
    network=PyramidRecipe(32, (8, 8, 12, 16), (1, 1, 1, 1), coarse_rows=1, middle_rows=2),
    refinement=RefinementRecipe(steps=30),
    steps=8,
    batch=4,
    lr=2e-3,
    warmup=2,
    unlock_from=2,
    unlock_every=2,
    latent_lr=1e-3,
    r1_every=2,
    half=False,
    ema_decay=0.9,
    log_every=2,
    evaluate_every=4,
    held_out=4,
)
"""Seconds, to test the way."""


def read_encoder_recipe(options: Mapping[str, Any]) -> EncoderTraining:
    """Give the recipe that a run folder's options.json tells of."""
    fields = dict(options)
    network: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in fields["network"].items()}
    fields["network"] = PyramidRecipe(**network)
    fields["weights"] = InversionWeights(**fields["weights"])
    fields["refinement"] = RefinementRecipe(**fields["refinement"])
    return EncoderTraining(**fields)


ENCODER_TRAININGS = {recipe.name: recipe for recipe in (EncoderTraining(), SMALL, TINY)}
