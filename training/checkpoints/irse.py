"""IR-SE 50 under its published names: the encoders of e4e and pSp; ir_se50, the ArcFace network, as a file.

Sizes are read off the tensors, so that narrow networks of the same form load as well.
Must not import: services, worker, model.
"""

import itertools
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from training.checkpoints.formats import expect, find_state, open_contents
from training.errors import CheckpointMismatchError, DataError
from training.networks.identity import IdentityNetwork
from training.networks.irse import UNITS, Four

PARTS = {
    "stem": "input_layer.0",
    "stem_norm": "input_layer.1",
    "stem_activate": "input_layer.2",
    "lateral_middle": "latlayer1",
    "lateral_fine": "latlayer2",
    "map_norm": "output_layer_2.0",
    "map_linear": "output_layer_2.3",
    "head_norm": "output_layer.0",
    "head_linear": "output_layer.3",
    "features_norm": "output_layer.4",
}
UNIT_PARTS = {
    "norm1": "res_layer.0",
    "conv1": "res_layer.1",
    "activate": "res_layer.2",
    "conv2": "res_layer.3",
    "norm2": "res_layer.4",
    "se": "res_layer.5",
    "shortcut_conv": "shortcut_layer.0",
    "shortcut_norm": "shortcut_layer.1",
}
COUNTER = "num_batches_tracked"
"""Of batch norms: nothing in a forward pass reads it, and old files have none."""


def publish_name(name: str) -> str:
    """Give the published name of a tensor of a PictureEncoder or IdentityNetwork."""
    if match := re.fullmatch(r"stages\.(\d+)\.(\d+)\.(\w+)\.(.+)", name):
        place = sum(UNITS[: int(match[1])]) + int(match[2])
        return f"body.{place}.{UNIT_PARTS[match[3]]}.{match[4]}"
    if match := re.fullmatch(r"styles\.(\d+)\.convs\.(\d+)\.(.+)", name):
        # every second one of theirs is an activation
        return f"styles.{match[1]}.convs.{2 * int(match[2])}.{match[3]}"
    part, _, rest = name.partition(".")
    return f"{PARTS.get(part, part)}.{rest}"


def measure_body(state: Mapping[str, Tensor], path: Path) -> Four:
    """Give the widths of the four stages of an IR-SE 50 body for colour pictures.

    Raises: DataError for another body, with what it is.
    """
    places = {int(name.split(".")[1]) for name in state if re.match(r"body\.\d+\.", name)}
    starts = [place for place in sorted(places) if place == 0 or f"body.{place}.shortcut_layer.0.weight" in state]
    units = tuple(end - start for start, end in itertools.pairwise([*starts, len(places)]))
    if units != UNITS:
        raise DataError(f"{path} has a body of {list(units)} residual units; IR-SE 50, {list(UNITS)}, is wanted")
    if "body.0.res_layer.5.fc1.weight" not in state:
        raise DataError(f"{path} has a body without squeeze-and-excitation, IR 50; IR-SE 50 is wanted")
    channels = measure(state, "input_layer.0.weight", 4, path)[1]
    if channels != 3:
        raise DataError(
            f"{path} is an encoder of {channels} channels (label maps, sketches, an age, or a picture beside "
            "its reconstruction, as ReStyle has it); one of colour pictures, 3 channels, is wanted"
        )
    return cast("Four", tuple(measure(state, f"body.{start}.res_layer.3.weight", 4, path)[0] for start in starts))


def need(state: Mapping[str, Tensor], name: str, path: Path) -> Tensor:
    """Give a tensor by its published name.

    Raises: CheckpointMismatchError.
    """
    if name not in state:
        raise CheckpointMismatchError(f"{path} lacks the tensor {name}: the file is not whole")
    return state[name]


def measure(state: Mapping[str, Tensor], name: str, axes: int, path: Path) -> tuple[int, ...]:
    """Give the shape of a tensor that sizes are read off.

    Raises: CheckpointMismatchError where it is missing or has another number of axes.
    """
    shape = tuple(need(state, name, path).shape)
    if len(shape) != axes or 0 in shape:
        raise CheckpointMismatchError(f"{path}: tensor {name} is {list(shape)}, where {axes} axes are wanted")
    return shape


def load_published(
    module: nn.Module, state: Mapping[str, Tensor], path: Path, ours: Mapping[str, Tensor] | None = None
) -> None:
    """Put weights by their published names, as float32, into a module that may be on the meta device.

    `ours`: tensors by our names that the files don't have.
    Raises: CheckpointMismatchError that names the first tensor that is missing, of another shape or not known.
    """
    loaded = dict(ours or {})
    known = {publish_name(name) for name in loaded}
    for name, wanted in module.state_dict().items():
        theirs = publish_name(name)
        known.add(theirs)
        if name in loaded:
            continue
        if name.endswith(COUNTER):
            loaded[name] = torch.zeros((), dtype=torch.int64)
            continue
        value = need(state, theirs, path)
        if value.shape != wanted.shape:
            raise CheckpointMismatchError(
                f"{path}: tensor {theirs} is {list(value.shape)}; {list(wanted.shape)} is what the others ask for"
            )
        # a copy, since what was read may still lie in the file
        loaded[name] = value.to(torch.float32, copy=True)
    for name, value in state.items():
        if name not in known:
            raise CheckpointMismatchError(
                f"{path} holds a tensor {name} {list(value.shape)} that a network of this form has no place for"
            )
    module.load_state_dict(loaded, assign=True)


def read_identity(path: Path) -> IdentityNetwork:
    """Read ir_se50 with its head as a network that tells who someone is, frozen and in evaluation mode.

    Give it as `identity` to `training.inversion.parts`: that is e4e's identity loss.
    Raises: DataError, CheckpointMismatchError, DamagedCheckpointError.
    """
    contents = open_contents(path)
    expect(contents, {"ir-se50"}, "the ir_se50 network that tells faces apart")
    state = find_state(contents.value, "state_dict")
    if {"styles.0.linear.weight", "linear.weight"} & state.keys():
        raise DataError(f"{path} is an encoder of ws, saved by itself; an identity network, ir_se50, is wanted")
    widths = measure_body(state, path)
    if "output_layer.3.weight" not in state:
        raise DataError(f"{path} is the body of ir_se50 without its head, so it can't tell who someone is")
    features, inputs = measure(state, "output_layer.3.weight", 2, path)
    edge = math.isqrt(inputs // widths[-1])
    if edge * edge * widths[-1] != inputs:
        raise CheckpointMismatchError(
            f"{path}: tensor output_layer.3.weight reads {inputs} numbers: no square map of {widths[-1]} channels"
        )
    with torch.device("meta"):
        network = IdentityNetwork(features, edge * 16, widths)
    # some variants of the network end in a norm without weights
    plain = {"features_norm.weight": torch.ones(features), "features_norm.bias": torch.zeros(features)}
    load_published(network, state, path, plain if "output_layer.4.weight" not in state else None)
    return network.eval().requires_grad_(False)
