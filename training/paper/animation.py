"""A trained paper motion at work: from a face and a sentence to delta_ws and frames, as published.

What serving runs is the ONNX graph of training/paper/graph.py; this is the reference for comparisons.
"""

import copy
import json
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from training.loop import CHECKPOINT, load_ema
from training.networks.motion import PaperMotion
from training.paper.parts import FrozenParts, draw_frames, freeze, read_picture
from training.paper.stage import build_paper_motion
from training.paper.towers import Towers
from training.recipes.paper import PaperRecipe, read_paper_recipe
from training.stages import take_part

OPTIONS = "options.json"


@dataclass(frozen=True)
class PaperAnimation:
    """A trained network, its recipe, and the towers it was trained with."""

    network: PaperMotion
    recipe: PaperRecipe
    towers: Towers


def is_motion_folder(path: Path) -> bool:
    """Say whether `PaperStage` trained here."""
    return (path / OPTIONS).is_file() and (path / CHECKPOINT).is_file()


def load(folder: Path, parts: FrozenParts) -> PaperAnimation:
    """Load what `PaperStage` left in a folder.

    Raises: FileNotFoundError when it left nothing; RuntimeError when it was trained for parts of other sizes.
    """
    recipe = read_paper_recipe(json.loads((folder / OPTIONS).read_text()))
    weights = load_ema(folder)
    network = build_paper_motion(recipe, parts)
    network.load_state_dict(take_part(weights, "motion"))
    towers = parts.towers
    if recipe.lr_towers:
        tuned = copy.deepcopy(cast("nn.Module", parts.towers))
        tuned.load_state_dict(take_part(weights, "towers"))
        towers = cast("Towers", tuned)
    freeze(network, towers)
    return PaperAnimation(network, recipe, towers)


@torch.no_grad()
def move(
    model: PaperAnimation,
    parts: FrozenParts,
    picture: npt.NDArray[np.uint8],
    sentence: str,
    frames: int,
    seed: int,
    intensity: float = 1.0,
) -> npt.NDArray[np.float32]:
    """Give how far each frame's ws is from the inversion: δ_v + Δ_k, times the intensity.

    Frame 0 differs from the inversion by δ_v + Δ_0, as published. The seed decides h_0.

    Shapes: picture [S,S,3] uint8 RGB → [frames,num_ws,w_dim].
    """
    recipe, device = model.recipe, parts.device
    noise = torch.from_numpy(np.random.default_rng(seed).standard_normal((1, recipe.h_dim), dtype=np.float32))
    text_embed = model.towers.embed_texts([sentence]).to(device)
    image_embed = model.towers.embed_images(read_picture(picture, parts))
    z_0 = text_embed if recipe.sampled else text_embed + image_embed
    _, delta_ws = model.network(z_0, recipe.h_noise * noise.to(device), frames, recipe.inference_decay)
    if not recipe.sampled:
        delta_ws = delta_ws + model.network.residual(image_embed)[:, None]
    moved: npt.NDArray[np.float32] = (intensity * delta_ws[0]).cpu().numpy()
    return moved


def animate(
    model: PaperAnimation,
    parts: FrozenParts,
    picture: npt.NDArray[np.uint8],
    sentence: str,
    frames: int,
    seed: int,
    intensity: float = 1.0,
) -> npt.NDArray[np.uint8]:
    """Draw the frames of `move`.

    Shapes: picture [S,S,3] uint8 RGB → [frames,R,R,3] uint8 RGB.
    """
    return draw_frames(parts, picture, move(model, parts, picture, sentence, frames, seed, intensity))
