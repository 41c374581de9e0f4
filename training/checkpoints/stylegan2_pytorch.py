"""StyleGAN2 generators of rosinality/stylegan2-pytorch, the form that most of the field's code reads and writes.

`torch.save({"g_ema": state dict, "latent_avg": [w_dim]})`, the same with `g` alone, a state dict alone, either as
safetensors, or the `decoder.` part of an encoder's checkpoint. Sizes are read from the shapes. What this code calls
latent_avg is our w_avg.
Must not import: services, worker.
"""

import itertools
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from training.checkpoints.assembly import W_AVG, Layout, Weights, assemble
from training.checkpoints.formats import GENERATOR_KEYS, Contents, GeneratorCheckpoint, find_state
from training.errors import CheckpointMismatchError, DataError

FORMAT = "stylegan2-pytorch"
LATENT_AVG = "latent_avg"
DECODER = "decoder."
"""What the names of a generator's tensors begin with in an encoder's file."""


def read_contents(contents: Contents, label: int | None = None) -> GeneratorCheckpoint:
    """Read an opened file.

    Raises: DataError for a label, which no such generator has; CheckpointMismatchError.
    """
    if label is not None:
        raise DataError(f"{contents.path} is no conditional generator, so there is no label {label} to choose")
    held: Mapping[str, Any] = contents.value
    state = find_state(held, *GENERATOR_KEYS)
    latent_avg = held.get(LATENT_AVG)
    inner = {name.removeprefix(DECODER): value for name, value in state.items() if name.startswith(DECODER)}
    state = {name: value for name, value in (inner or state).items() if name != LATENT_AVG}
    return generator_from_state(state, latent_avg if isinstance(latent_avg, Tensor) else None, contents.path)


def generator_from_state(
    state: Mapping[str, Tensor], latent_avg: Tensor | None, path: Path | str = "the state dict"
) -> GeneratorCheckpoint:
    """Build a generator from its tensors by rosinality's names.

    Shapes: latent_avg [w_dim] or a row for each of ws; None: it is measured. Noise maps that are missing are drawn.
    Args: `path` is for messages.
    Raises: CheckpointMismatchError that names the tensor that does not fit.
    """
    tensors = dict(state)
    if latent_avg is not None:
        if not latent_avg.numel() or not latent_avg.ndim:
            raise CheckpointMismatchError(f"{path}: {LATENT_AVG} is {list(latent_avg.shape)}, where a w is wanted")
        rows = latent_avg.detach().float().reshape(-1, latent_avg.shape[-1])
        tensors[LATENT_AVG] = rows[0] if bool((rows == rows[0]).all()) else rows.mean(0)
    weights = Weights(path, tensors)
    weights.take_filters(".kernel")
    generator = assemble(read_layout(weights), weights, rename, _may_be_missing)
    return GeneratorCheckpoint(generator, FORMAT)


def read_layout(weights: Weights) -> Layout:
    """Read the sizes off the shapes.

    Raises: CheckpointMismatchError where one is missing.
    """
    layers = next(i for i in itertools.count(1) if f"style.{i}.weight" not in weights) - 1
    if layers == 0:
        raise CheckpointMismatchError(f"{weights.path} holds no style.1.weight: its mapping is missing")
    channels = [weights.shape("input.input", 4)[1]]
    while (name := f"convs.{2 * len(channels) - 1}.conv.weight") in weights:
        channels.append(weights.shape(name, 5)[1])
    return Layout(
        channels=tuple(channels),
        z_dim=weights.shape("style.1.weight", 2)[1],
        w_dim=weights.shape(f"style.{layers}.weight", 2)[0],
        mapping_layers=layers,
    )


def rename(name: str) -> str:
    """Give rosinality's name of a tensor of ours."""
    if name == W_AVG:
        return LATENT_AVG
    if name == "synthesis.const":
        return "input.input"
    if match := re.fullmatch(r"mapping\.layers\.(\d+)\.(weight|bias)", name):
        return f"style.{int(match[1]) + 1}.{match[2]}"  # style.0 is the pixel norm
    match = re.fullmatch(r"synthesis\.(?:blocks\.(\d+)\.)?(conv0|conv1|torgb)\.(.+)", name)
    assert match, name
    block, layer, part = match.groups()
    if layer == "torgb":
        prefix = "to_rgb1" if block is None else f"to_rgbs.{block}"
        return f"{prefix}.{part}" if part == "bias" else f"{prefix}.{_CONV_PARTS[part]}"
    index = 0 if block is None else 2 * int(block) + int(layer[-1]) + 1
    if part == "noise_const":
        return f"noises.noise_{index}"
    return f"{'conv1' if index == 0 else f'convs.{index - 1}'}.{_CONV_PARTS[part]}"


_CONV_PARTS = {
    "weight": "conv.weight",
    "affine.weight": "conv.modulation.weight",
    "affine.bias": "conv.modulation.bias",
    "noise_strength": "noise.weight",
    "bias": "activate.bias",
}


def _may_be_missing(name: str) -> bool:
    return name == W_AVG or name.endswith("noise_const")
