"""What a motion stands on: a frozen generator, an encoder, towers, an identity function, a distance of pictures.

Any generator, encoder and towers will do; `load_rendered_parts` takes a rendered domain's from a run folder. The motion
stage and the baselines use nothing else.
"""

import copy
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from training.devices import autocast
from training.encoder import Inversion, build_wplus_encoder
from training.export.graphs import IdentityGraph, MappingGraph
from training.faces.parameters import Z_DIM
from training.loop import load_ema
from training.paper.distance import Distance, trunk_distance
from training.paper.towers import TOWER_RESOLUTION, RenderedTowers, Towers, resize
from training.stages import Run, take_part

Identity = Callable[[Tensor], Tensor]
"""Pictures [N,3,R,R] in [-1,1] → [N,k] unit norm, differentiable."""


class DrawsFaces(Protocol):
    """What is asked of a generator; `training.networks.stylegan2.Generator` is one."""

    mapping: Any
    synthesis: Any


@dataclass(frozen=True)
class FrozenParts:
    """The parts of one domain. They are given, never trained here; all lie on one device."""

    generator: DrawsFaces
    encode: Callable[[Tensor], Tensor]  # pictures [N,3,R,R] in [-1,1] → ws [N,num_ws,w_dim]
    towers: Towers
    identity: Identity
    distance: Distance
    sample_ws: Callable[[Tensor], Tensor]  # z [N,z_dim] normal → ws [N,num_ws,w_dim] of faces that exist nowhere
    z_dim: int
    device: torch.device
    half: bool = False  # draw in bfloat16 where gradients are wanted: faster training of small parts
    judge: Towers | None = None  # towers of the language loss where they are others (the paper: ViT-B/32 beside RN50)

    @property
    def num_ws(self) -> int:
        """Rows of ws."""
        return int(self.generator.synthesis.num_ws)

    @property
    def w_dim(self) -> int:
        """Length of a row."""
        return int(self.generator.synthesis.w_dim)

    @property
    def resolution(self) -> int:
        """Edge length of the frames, px."""
        return int(self.generator.synthesis.resolution)

    @property
    def judges(self) -> Towers:
        """The towers that the language loss sees with."""
        return self.judge or self.towers

    def draw(self, ws: Tensor, resolution: int | None = None) -> Tensor:
        """Draw pictures; the noise is constant, so all frames share it.

        Shapes: ws [N,num_ws,w_dim] → [N,3,R,R]. A lower `resolution` stops early, at a skip generator's RGB.
        """
        with autocast(self.device) if self.half and torch.is_grad_enabled() else nullcontext():
            picture: Tensor = self.generator.synthesis(ws, resolution=resolution)
        return picture.float()


def freeze(*parts: object) -> None:
    """Set modules to evaluation mode without gradients."""
    for part in parts:
        if isinstance(part, nn.Module):
            part.eval().requires_grad_(False)


def load_rendered_parts(run: Run, device: torch.device | None = None) -> FrozenParts:
    """Load the parts of a rendered domain from its run folder.

    Raises: MissingStageError when one of them is not trained yet.
    """
    trunk, head = run.load_trunk()
    generator = run.load_generator()
    text, tokenizer = run.load_text()
    encoder = build_wplus_encoder(Inversion(copy.deepcopy(trunk), copy.deepcopy(head), generator))
    encoder.load_state_dict(take_part(load_ema(run.folder / "inversion"), "encoder"))
    towers = RenderedTowers(text, tokenizer, run.load_tower(trunk))
    reader, sampler = IdentityGraph(trunk, head), MappingGraph(generator)
    freeze(generator, encoder, towers, reader, sampler)

    def encode(pictures: Tensor) -> Tensor:
        ws: Tensor = encoder(resize(pictures, TOWER_RESOLUTION))
        return ws

    def identify(pictures: Tensor) -> Tensor:
        identity: Tensor = reader(resize(pictures, TOWER_RESOLUTION))
        return identity

    def sample_ws(z: Tensor) -> Tensor:
        ws: Tensor = sampler(z, torch.ones(1, device=z.device))
        return ws

    where = device or torch.device("cpu")
    for part in (generator, encoder, towers, reader, sampler):
        part.to(where)
    return FrozenParts(generator, encode, towers, identify, trunk_distance(trunk), sample_ws, Z_DIM, where)


def read_picture(picture: npt.NDArray[np.uint8], parts: FrozenParts) -> Tensor:
    """Turn a picture into what the parts take.

    Shapes: [S,S,3] uint8 RGB → [1,3,R,R] in [-1,1].
    """
    if picture.ndim != 3 or picture.shape[2] != 3 or picture.shape[0] != picture.shape[1]:
        raise ValueError(f"a square RGB picture [S,S,3] is wanted, not {list(picture.shape)}")
    x = torch.tensor(picture, device=parts.device).permute(2, 0, 1)[None].float() / 127.5 - 1
    return resize(x, parts.resolution)


def write_frames(pictures: Tensor) -> npt.NDArray[np.uint8]:
    """Turn drawn pictures into frames.

    Shapes: [T,3,R,R] about [-1,1] → [T,R,R,3] uint8 RGB.
    """
    pixels = ((pictures.clamp(-1, 1) + 1) * 127.5).round().permute(0, 2, 3, 1)
    return pixels.to(torch.uint8).cpu().numpy()


@torch.no_grad()
def draw_frames(
    parts: FrozenParts, picture: npt.NDArray[np.uint8], delta_ws: npt.NDArray[np.float32], batch: int = 8
) -> npt.NDArray[np.uint8]:
    """Draw the frames of one face's motion.

    Shapes: picture [S,S,3], delta_ws [T,num_ws,w_dim] → [T,R,R,3] uint8 RGB.
    """
    ws = parts.encode(read_picture(picture, parts)) + torch.from_numpy(delta_ws).to(parts.device)
    return np.concatenate([write_frames(parts.draw(part)) for part in ws.split(batch)])
