"""One door to everything that our motion is compared with: opens what a comparison's folder holds.

`interpolation` is StyleCLIP's latent optimisation, which needs no training and is always there.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from training.baselines import interpolation, mocogan_hd
from training.baselines.interpolation import Interpolation
from training.baselines.runs import BASE, RIVALS, open_base
from training.errors import CheckpointMismatchError, DataError
from training.loop import CHECKPOINT
from training.paper import animation
from training.paper.parts import FrozenParts, load_rendered_parts
from training.recipes.baselines import MapperRecipe, MocoganHdRecipe

OPTIMISED = "interpolation"

Move = Callable[[npt.NDArray[np.uint8], str, int, int], npt.NDArray[np.float32]]
"""Picture [S,S,3] uint8 RGB, sentence, frames, seed → delta_ws [T,num_ws,w_dim]."""

TITLES = {
    "interpolation": "StyleCLIP interpolation",
    "interpolation-mapper": "StyleCLIP interpolation, by a mapper",
    "mocogan-hd": "MoCoGAN-HD",
    "paper": "The paper's motion",
    "paper-no-contrastive": "The paper, without the contrastive loss",
    "paper-no-path": "The paper, without the path-length loss",
    "paper-no-first-last": "The paper, without the first–last regulariser",
    "paper-no-identity": "The paper, without the identity loss",
    "mocogan-hd-text": "MoCoGAN-HD, told the sentence",
}


@dataclass(frozen=True)
class Rival:
    """Something that moves a face by a sentence."""

    name: str
    title: str
    move: Move


def open_rivals(run: Path, device: torch.device | None = None) -> list[Rival]:
    """Open every rival that was trained in a comparison's folder, in the order of `TITLES`.

    Raises: DataError when the folder is no comparison's; MissingStageError when the run that they build on is not
    there; CheckpointMismatchError when one was trained for parts of other sizes.
    """
    if not (run / BASE).exists():
        raise DataError(f"{run} is no folder of rivals (it has no {BASE}): run python -m training.baselines first")
    parts = replace(load_rendered_parts(open_base(run), device), half=True)
    found = [Rival(OPTIMISED, TITLES[OPTIMISED], partial(interpolation.move, Interpolation(), parts))]
    names = [name for name in TITLES if (run / name / CHECKPOINT).exists()]
    return found + [Rival(name, TITLES[name], _open(name, run / name, parts)) for name in names]


def _open(name: str, folder: Path, parts: FrozenParts) -> Move:
    try:
        if isinstance(RIVALS[name], MapperRecipe):
            return partial(interpolation.move, interpolation.load(folder, parts), parts)
        if isinstance(RIVALS[name], MocoganHdRecipe):
            return partial(mocogan_hd.move, mocogan_hd.load(folder, parts), parts)
        return partial(animation.move, animation.load(folder, parts), parts)
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1].strip()
        raise CheckpointMismatchError(f"{folder} does not fit the run that it is compared on: {reason}") from error
