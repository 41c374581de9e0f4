"""The motion checkpoint of the published code: its recurrence and mapper, and the CLIP that was trained along.

Names there: `rnn.fc1` … `fc3` are our A, B, C; `mapper.t_mapper` and `v_mapper` the text and the visual mapper, whose
item 0, PixelNorm, has no weights; `encoder` is CLIP under OpenAI's names, RN50 as published.
Must not import: services, worker, model.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import torch
from torch import Tensor

from training.checkpoints.formats import expect, find_state, open_contents
from training.errors import CheckpointMismatchError
from training.networks.motion import PaperMotion
from training.networks.stylegan2 import FullyConnected
from training.recipes.paper import PAPER, PaperRecipe

CLIP = "encoder."
PARTS = {"cell.a": "rnn.fc1", "cell.b": "rnn.fc2", "cell.c": "rnn.fc3"} | {
    f"{ours}.layers.{i}": f"mapper.{theirs}.{i + 1}"
    for ours, theirs in (("text_mapper", "t_mapper"), ("visual_mapper", "v_mapper"))
    for i in range(3)
}
NAMES = {f"{ours}.{kind}": f"{theirs}.{kind}" for ours, theirs in PARTS.items() for kind in ("weight", "bias")}
"""Our names to theirs."""
W_DIM = 512
"""Of every published generator; the mapper's last layer tells no more than num_ws times it."""


@dataclass(frozen=True)
class MotionCheckpoint:
    """An imported motion."""

    network: PaperMotion  # frozen, in evaluation mode
    clip_state: dict[str, Tensor] | None  # under OpenAI's names: `clip_files.build_clip` makes towers of it

    @property
    def embed_dim(self) -> int:
        """Length of the embeddings that its CLIP must give."""
        return self.network.cell.a.in_features

    @property
    def h_dim(self) -> int:
        """Length of the recurrence's hidden state."""
        return self.network.h_dim

    @property
    def num_ws(self) -> int:
        """Rows of ws that its generator must have."""
        return self.network.text_mapper.num_ws

    @property
    def w_dim(self) -> int:
        """Length of a row."""
        return self.network.text_mapper.w_dim

    @property
    def sampled(self) -> bool:
        """Whether it was trained on sampled faces and sentences alone (`USE_VISUAL: False`, as for MetFaces).

        No file says so, but then the visual mapper was never trained, and its biases are the zeros they began as.
        """
        layers = (cast(FullyConnected, layer) for layer in self.network.visual_mapper.layers)
        return not any(layer.bias.any() for layer in layers)

    @property
    def recipe(self) -> PaperRecipe:
        """The published recipe at this network's sizes, as `training.paper.graph.export_paper_motion` wants it."""
        first = cast(FullyConnected, self.network.text_mapper.layers[0])
        return replace(PAPER, h_dim=self.h_dim, hidden=first.weight.shape[0], sampled=self.sampled)


def read_motion(path: Path, w_dim: int = W_DIM) -> MotionCheckpoint:
    """Read a motion checkpoint of any size, for ws with rows of w_dim.

    Raises: DataError where the file is none, with what it is instead; DamagedCheckpointError; CheckpointMismatchError
    that names the tensor which is missing, of another shape or not known.
    """
    contents = open_contents(path)
    expect(contents, {"motion-official"}, "a motion checkpoint")
    state = find_state(contents.value, "state_dict")
    clip_state = {name.removeprefix(CLIP): value for name, value in state.items() if name.startswith(CLIP)}
    motion = {name: value for name, value in state.items() if not name.startswith(CLIP)}
    network = _build(motion, path, w_dim)
    _load(network, motion, path)
    return MotionCheckpoint(network.eval().requires_grad_(False), clip_state or None)


def _build(state: Mapping[str, Tensor], path: Path, w_dim: int) -> PaperMotion:
    """Build the network in the sizes that the shapes tell, without weights."""
    h_dim, embed_dim = _shape(state, "rnn.fc1.weight", path)
    rows, hidden = _shape(state, "mapper.t_mapper.3.weight", path)
    if rows % w_dim:
        raise CheckpointMismatchError(
            f"{path}: tensor mapper.t_mapper.3.weight gives {rows} numbers a frame, no whole rows of w_dim {w_dim}: "
            "it was trained for a generator with another w_dim"
        )
    with torch.device("meta"):
        return PaperMotion(embed_dim, rows // w_dim, w_dim, h_dim, hidden)


def _shape(state: Mapping[str, Tensor], name: str, path: Path) -> tuple[int, int]:
    value = _need(state, name, path)
    if value.ndim != 2 or not value.numel():
        raise CheckpointMismatchError(f"{path}: tensor {name} is {list(value.shape)}; a matrix is wanted")
    return value.shape[0], value.shape[1]


def _need(state: Mapping[str, Tensor], name: str, path: Path) -> Tensor:
    if name not in state:
        raise CheckpointMismatchError(f"{path} lacks the tensor {name}: it is no whole motion checkpoint")
    return state[name]


def _load(network: PaperMotion, state: Mapping[str, Tensor], path: Path) -> None:
    loaded = {}
    for ours, wanted in network.state_dict().items():
        value = _need(state, NAMES[ours], path)
        if value.shape != wanted.shape:
            raise CheckpointMismatchError(
                f"{path}: tensor {NAMES[ours]} is {list(value.shape)}; "
                f"{list(wanted.shape)} is what the other tensors ask for"
            )
        loaded[ours] = value.float()
    for name, value in state.items():
        if name not in NAMES.values():
            raise CheckpointMismatchError(
                f"{path} holds a tensor {name} {list(value.shape)} that the published motion has no place for"
            )
    network.load_state_dict(loaded, assign=True)
