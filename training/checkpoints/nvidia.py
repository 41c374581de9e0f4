"""StyleGAN2 generators of NVIDIA's stylegan2-ada-pytorch and stylegan3 repositories (`networks_stylegan2`).

A `.pkl` is a pickle of the networks with their source code; the weights and attributes are read, the code is not run.
A state dict of such a network (`.pt`, `.safetensors`) does as well, with the bounds of the repository's defaults.

Names and layouts are the same in both repositories. Doubling layers keep their weights as a transposed convolution
wants them, as rosinality's and ours do: nothing is turned around. Source: `conv2d_resample`, which hands
`flip_weight=False` of an upsampling layer on to `conv_transpose2d` as it is. Must not import: services, worker.
"""

import itertools
import re
from collections.abc import Iterator
from pathlib import Path

import torch

from training.checkpoints.assembly import W_AVG, Layout, Weights, assemble, fix_condition
from training.checkpoints.formats import Contents, GeneratorCheckpoint, find_network, find_state
from training.checkpoints.unpickle import Persistent
from training.errors import CheckpointMismatchError, DataError
from training.networks.stylegan2 import Architecture, ZGenerator

FORMAT = "nvidia-stylegan2"
DEFAULT_CLAMP, DEFAULT_LR_MULTIPLIER = 256.0, 0.01
"""What `networks_stylegan2` takes where a state dict, which has no attributes, does not say."""
MAX_DEPTH, MAX_PARTS = 8, 1000
"""Bounds of what a file may claim; a genuine generator of 1024 px has 70 parts, four deep."""
ACTIVATIONS = {"SynthesisLayer": "lrelu", "Conv2dLayer": "linear"}


def read_contents(contents: Contents, label: int | None = None) -> GeneratorCheckpoint:
    """Read an opened file, with a condition worked in where the generator is conditional.

    Raises: DataError where a label is missing or is none of the generator's; CheckpointMismatchError.
    """
    generator = read_conditional(contents)
    c_dim = generator.mapping.c_dim
    if not c_dim:
        if label is not None:
            raise DataError(f"{contents.path} is no conditional generator, so there is no label {label} to choose")
        return GeneratorCheckpoint(generator, FORMAT)
    if label is None or not 0 <= label < c_dim:
        wish = "choose one of them" if label is None else f"there is no label {label}"
        raise DataError(
            f"{contents.path} is a conditional generator with the labels 0 to {c_dim - 1}: {wish} (--label)"
        )
    c = torch.eye(c_dim)[label]
    return GeneratorCheckpoint(fix_condition(generator, c), FORMAT, c)


def read_conditional(contents: Contents) -> ZGenerator:
    """Read an opened file as it is: the mapping of a conditional generator wants c.

    Raises: CheckpointMismatchError where a tensor is missing, does not fit, or another kind of layer is in it.
    """
    network = find_network(contents.value)
    parts = {} if network is None else _list_parts(contents.path, network)
    if network is None:
        state = find_state(contents.value, "G_ema")
    else:
        state = {_join(prefix, name): value for prefix, part in parts.items() for name, value in part.tensors.items()}
    weights = Weights(contents.path, state)
    weights.take_filters("resample_filter")
    layout = read_layout(weights, parts)
    return assemble(layout, weights, rename, lambda name: name == W_AVG)


def _list_parts(path: Path, network: Persistent) -> dict[str, Persistent]:
    """Give a network and its parts by their full names.

    Raises: CheckpointMismatchError where there are more than any generator has, as when a part is in itself.
    """
    found = dict(itertools.islice(_walk(network), MAX_PARTS + 1))
    if len(found) > MAX_PARTS:
        raise CheckpointMismatchError(f"{path} holds a network of more than {MAX_PARTS} parts: no generator does")
    return found


def _walk(network: Persistent, prefix: str = "", depth: int = 0) -> Iterator[tuple[str, Persistent]]:
    yield prefix, network
    for name, part in network.modules.items() if depth < MAX_DEPTH else ():
        yield from _walk(part, _join(prefix, name), depth + 1)


def _join(prefix: str, name: str) -> str:
    return f"{prefix}.{name}" if prefix else name


def read_layout(weights: Weights, parts: dict[str, Persistent]) -> Layout:
    """Read the sizes off the shapes, and the bounds off the attributes.

    Raises: CheckpointMismatchError where one is missing, or where layers are of another kind than ours.
    """
    channels: list[int] = []
    while (name := f"synthesis.b{4 << len(channels)}.conv1.weight") in weights:
        channels.append(weights.shape(name, 4)[0])
    layers = 0
    while f"mapping.fc{layers}.weight" in weights:
        layers += 1
    if not channels or not layers:
        raise CheckpointMismatchError(f"{weights.path} holds no synthesis.b4 or no mapping.fc0: it is not whole")
    embedded, c_dim = weights.shape("mapping.embed.weight", 2) if "mapping.embed.weight" in weights else (0, 0)
    _check_attributes(weights, parts)
    first = parts.get("mapping.fc0")
    lr_multiplier = _read_number(weights, first, "bias_gain") if first else None
    return Layout(
        channels=tuple(channels),
        z_dim=weights.shape("mapping.fc0.weight", 2)[1] - embedded,
        w_dim=weights.shape(f"mapping.fc{layers - 1}.weight", 2)[0],
        mapping_layers=layers,
        c_dim=c_dim,
        hidden=weights.shape("mapping.fc0.weight", 2)[0] if layers > 1 else None,
        embed_dim=embedded or None,
        architecture=_find_architecture(weights),
        noise="synthesis.b4.conv1.noise_const" in weights,
        clamp=_find_clamp(weights, parts),
        lr_multiplier=DEFAULT_LR_MULTIPLIER if lr_multiplier is None else lr_multiplier,
    )


def _find_architecture(weights: Weights) -> Architecture:
    if "synthesis.b8.skip.weight" in weights:
        return "resnet"
    return "skip" if "synthesis.b4.torgb.weight" in weights else "orig"


def _find_clamp(weights: Weights, parts: dict[str, Persistent]) -> float | None:
    """Give the bound of all layers.

    Raises: CheckpointMismatchError where they have several.
    """
    layers = [part for part in parts.values() if part.class_name in {"SynthesisLayer", "ToRGBLayer"}]
    if not layers:
        return DEFAULT_CLAMP
    bounds = {_read_number(weights, part, "conv_clamp") for part in layers}
    if len(bounds) > 1:
        raise CheckpointMismatchError(f"{weights.path}: its layers have several bounds (conv_clamp), and ours have one")
    return bounds.pop()


def _read_number(weights: Weights, part: Persistent, name: str) -> float | None:
    """Give an attribute that is a number or None.

    Raises: CheckpointMismatchError where it is something else.
    """
    value = part.state.get(name)
    if value is not None and not isinstance(value, int | float):
        raise CheckpointMismatchError(f"{weights.path}: {name} of a {part.class_name} is no number")
    return None if value is None else float(value)


def _check_attributes(weights: Weights, parts: dict[str, Persistent]) -> None:
    """Make sure of what shapes do not tell.

    Raises: CheckpointMismatchError.
    """
    for name, part in parts.items():
        wanted = ACTIVATIONS.get(part.class_name)
        if part.class_name == "FullyConnectedLayer":
            wanted = "lrelu" if name.startswith("mapping.fc") else "linear"
        found = part.state.get("activation", wanted)
        if wanted and found != wanted:
            told = repr(found) if isinstance(found, str) else "of an unknown kind"
            raise CheckpointMismatchError(
                f"{weights.path}: {name} has the activation {told}, and only {wanted!r} is known"
            )


def rename(name: str) -> str:
    """Give NVIDIA's name of a tensor of ours."""
    if match := re.fullmatch(r"mapping\.layers\.(\d+)\.(.+)", name):
        return f"mapping.fc{match[1]}.{match[2]}"
    if match := re.fullmatch(r"synthesis\.blocks\.(\d+)\.(.+)", name):
        return f"synthesis.b{8 << int(match[1])}.{match[2]}"
    return re.sub(r"^synthesis\.", "synthesis.b4.", name)
