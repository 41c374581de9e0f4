"""Weights of a shipped bundle, read back out of its graphs, so that a training can start from it.

A bundle's graphs hold folded weights (gains, √2, batch norms); here they are unfolded into the networks they came
from. Large ones were stored as float16: a start, not an exact copy of the run. For: `training.stages`.
Must not import: services, worker.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import cast

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from tokenizers import Tokenizer
from torch import Tensor

from model.bundle.reader import read_bundle
from training.errors import CheckpointMismatchError
from training.networks.encoder import ConvBlock, FactorHead, ImageTower, Trunk, WPlusEncoder
from training.networks.motion import MotionNetwork
from training.networks.stylegan2 import SQRT2, FullyConnected, Generator, SynthesisBlock, SynthesisLayer, ToRGB
from training.networks.text import TextTower

HALF = ".half"
MOTION_LAYERS = ("start", "read0", "read1", "fc0", "fc1", "fc2")
"""The motion network's layers in the order in which the hand-built graph names their constants."""
MAPPING_LAYERS = ("fc0", "fc1", "skip")


def read_constants(bundle: Path, name: str) -> dict[str, Tensor]:
    """Give a graph's named float constants as float32, whether they are stored as float16 or not.

    Raises: BundleError.
    """
    graph = read_graph(bundle, name)
    found = {}
    for tensor in graph.initializer:
        if tensor.data_type in (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16):
            values = numpy_helper.to_array(tensor).astype(np.float32)
            found[tensor.name.removesuffix(HALF)] = torch.from_numpy(values)
    return found


def read_graph(bundle: Path, name: str) -> onnx.GraphProto:
    """Give a bundle's graph by the manifest's name.

    Raises: BundleError.
    """
    return onnx.load_from_string(read_bundle(bundle).read_graph(name)).graph


def load_generator(bundle: Path, generator: Generator) -> None:
    """Load mapping and synthesis of a rendered bundle into an untrained generator, which may have more channels.

    Raises: BundleError; CheckpointMismatchError where the bundle's generator has another form, size or more channels.
    """
    drawing, state = read_constants(bundle, "synthesis"), generator.state_dict()
    # the motion speaks through the generator's mapping, and its graph keeps every layer of it
    for name, (weight, bias) in zip(
        MAPPING_LAYERS, _gemms(read_graph(bundle, "motion"))[len(MOTION_LAYERS) :], strict=True
    ):
        layer = getattr(generator.mapping, name)
        state |= {f"mapping.{name}.weight": weight / layer.gain, f"mapping.{name}.bias": bias / layer.bias_gain}
    synthesis = generator.synthesis
    state["synthesis.const"] = take(drawing, "const", bundle)
    layers: dict[str, SynthesisLayer | ToRGB] = {"conv1": synthesis.conv1, "torgb": synthesis.torgb}
    for i, block in enumerate(cast("list[SynthesisBlock]", synthesis.blocks)):
        names = (f"blocks.{i}.conv0", f"blocks.{i}.conv1", f"blocks.{i}.torgb")
        layers |= zip(names, (block.conv0, block.conv1, block.torgb), strict=True)
    for name, layer in layers.items():
        weight, bias = (take(drawing, f"{name}.{part}", bundle) for part in ("weight", "bias"))
        if isinstance(layer, SynthesisLayer):
            weight = weight.transpose(0, 1) if layer.up else weight
            bias = bias / SQRT2
        else:
            weight = weight[:, :, None, None]
        state[f"synthesis.{name}.weight"] = weight / layer.gain
        state[f"synthesis.{name}.bias"] = bias
        state |= unfold_linear(drawing, f"{name}.affine", f"synthesis.{name}.affine", layer.affine, bundle)
    fresh = generator.state_dict()
    for name in (name for name in state if name.startswith("synthesis.")):
        state[name] = widen(state[name], fresh[name])
    load(generator, state, bundle)


def widen(values: Tensor, fresh: Tensor) -> Tensor:
    """Put a narrow layer's weights into a wider one's fresh ones: all that came out before comes out unchanged.

    Old outputs take nothing from new inputs, whose weights begin at zero; new outputs begin untrained, so that
    gradients reach both. Weights must be the effective ones over the wide layer's gain.

    Shapes: values [out,in,…], [1,C,…] or [C] → fresh's; values come back as they are where they do not fit in.
    Source: after Chen et al. 2016, "Net2Net" (arXiv 1511.05641), which copies channels where we begin anew.
    """
    fits = values.ndim == fresh.ndim and all(a <= b for a, b in zip(values.shape, fresh.shape, strict=True))
    if values.shape == fresh.shape or not fits:
        return values
    wide = fresh.clone()
    if values.shape[0] > 1:
        wide[: values.shape[0]] = 0
    wide[tuple(slice(size) for size in values.shape)] = values
    return wide


def load_reader(bundle: Path, trunk: Trunk, head: FactorHead) -> None:
    """Load the trunk that looks at pictures and the factor head behind the identity features.

    Raises: BundleError; CheckpointMismatchError.
    """
    constants = read_constants(bundle, "encoder")
    load(trunk, _unfold_trunk(constants, "identity.trunk", trunk, bundle), bundle)
    load(head, {name: take(constants, f"identity.head.{name}", bundle) for name in head.state_dict()}, bundle)


def load_tower(bundle: Path, tower: ImageTower) -> None:
    """Load the image tower's own layers; its trunk is `load_reader`'s.

    Raises: BundleError; CheckpointMismatchError.
    """
    constants = read_constants(bundle, "image")
    for name in ("hidden", "out"):
        layer = getattr(tower, name)
        load(layer, {part: take(constants, f"tower.{name}.{part}", bundle) for part in ("weight", "bias")}, bundle)


def load_inversion(bundle: Path, encoder: WPlusEncoder) -> None:
    """Load the W+ encoder: trunk, its own factor head, hues and residual; the mapping is the generator's.

    Raises: BundleError; CheckpointMismatchError.
    """
    constants = read_constants(bundle, "encoder")
    state = encoder.state_dict()
    trunk = _unfold_trunk(constants, "identity.trunk", encoder.trunk, bundle)
    state |= {f"trunk.{name}": value for name, value in trunk.items()}
    for name in state:
        if name.split(".")[0] in ("head", "hue_hidden", "hue_middle", "hue_out", "residual_hidden", "residual_out"):
            stored = f"identity.{name}" if name.startswith("head.") else f"encoder.{name}"
            state[name] = take(constants, stored, bundle)
    load(encoder, state, bundle)


def load_motion(bundle: Path, network: MotionNetwork) -> None:
    """Load the motion network; the mapping that it speaks through is the generator's.

    Raises: BundleError; CheckpointMismatchError.
    """
    graph = read_graph(bundle, "motion")
    cell = next((attribute.g for node in graph.node for attribute in node.attribute if attribute.name == "body"), None)
    if cell is None:
        raise CheckpointMismatchError(f"{bundle}: its motion graph has no recurrence: no rendered run made it")
    state = network.state_dict()
    found = _gemms(graph)
    wanted = [getattr(network, name) for name in MOTION_LAYERS]
    named = list(zip(MOTION_LAYERS, wanted, strict=True))
    inner = list(zip("abc", (network.a, network.b, network.c), strict=True))
    for layers, pairs in ((named, found), (inner, _gemms(cell))):
        if len(pairs) < len(layers):
            raise CheckpointMismatchError(f"{bundle}: its motion graph has {len(pairs)} layers, not {len(layers)}")
        for (name, layer), (weight, bias) in zip(layers, pairs, strict=False):
            state |= {f"{name}.weight": weight / layer.gain, f"{name}.bias": bias / layer.bias_gain}
    load(network, state, bundle)


def load_text(bundle: Path) -> tuple[TextTower, Tokenizer]:
    """Give the text tower, exactly as the bundle computes it, and its tokenizer.

    Raises: BundleError; CheckpointMismatchError.
    """
    graph = read_graph(bundle, "text")
    values = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    state = {name.removeprefix("tower."): torch.tensor(v) for name, v in values.items() if name.startswith("tower.")}
    table, scale = values.get("table"), values.get("scale")
    if table is None or scale is None:
        raise CheckpointMismatchError(f"{bundle}: its text graph is not our text tower (CLIP's has no int8 table)")
    state["table.weight"] = torch.from_numpy(table.astype(np.float32) * scale)
    products = {node.output[0]: node for node in graph.node if node.op_type == "MatMul"}
    for node in graph.node:
        # the exporter turns the weights of sums of products round and renames them; the biases keep their names
        bias = next((name for name in node.input if name.startswith("tower.") and name.endswith(".bias")), None)
        product = next((products[name] for name in node.input if name in products), None)
        if node.op_type == "Add" and bias is not None and product is not None:
            weight = values[product.input[1]].T.copy()
            state[bias.removeprefix("tower.").removesuffix("bias") + "weight"] = torch.from_numpy(weight)
    layers = len({name.split(".")[1] for name in state if name.startswith("layers.")})
    tower = TextTower(
        vocabulary_size=table.shape[0],
        table_dim=table.shape[1],
        width=state["positions"].shape[1],
        layers=layers,
        inner=len(state["layers.0.up.bias"]),
        embed_dim=len(state["head.2.bias"]),
        dropout=0.0,
        memory_rows=len(state.get("memory", ())),
    )
    missing = set(tower.state_dict()) - set(state)
    if missing:
        raise CheckpointMismatchError(f"{bundle}: its text graph lacks {sorted(missing)[0]}: it is not our text tower")
    load(tower, {name: state[name] for name in tower.state_dict()}, bundle)
    opened = read_bundle(bundle)
    tokenizer = Tokenizer.from_str(opened.read(opened.manifest.tokenizer).decode())
    return tower.eval().requires_grad_(False), tokenizer


def _gemms(graph: onnx.GraphProto) -> list[tuple[Tensor, Tensor]]:
    """Give weight and bias of a hand-built graph's linear layers, in the order in which they were added."""
    values = {t.name.removesuffix(HALF): numpy_helper.to_array(t).astype(np.float32) for t in graph.initializer}
    nodes = [node for node in graph.node if node.op_type == "Gemm"]
    nodes.sort(key=lambda node: int(node.input[1].rpartition("c")[2]))
    return [(torch.from_numpy(values[node.input[1]]), torch.from_numpy(values[node.input[2]])) for node in nodes]


def _unfold_trunk(constants: Mapping[str, Tensor], stored: str, trunk: Trunk, bundle: Path) -> dict[str, Tensor]:
    """Give the trunk's weights; its batch norms were folded away and come back as plain shifts."""
    state = {
        name: take(constants, f"{stored}.{name}", bundle)
        for name in trunk.state_dict()
        if ".norm." not in name and not name.endswith("num_batches_tracked")
    }
    for name, module in trunk.named_modules():
        if isinstance(module, ConvBlock):
            width = module.norm.num_features
            state[f"{name}.norm.weight"] = torch.ones(width)
            state[f"{name}.norm.bias"] = take(constants, f"{stored}.{name}.conv.weight_bias", bundle)
            state[f"{name}.norm.running_mean"] = torch.zeros(width)
            state[f"{name}.norm.running_var"] = torch.full((width,), 1 - module.norm.eps)
            state[f"{name}.norm.num_batches_tracked"] = torch.tensor(0)
    return state


def unfold_linear(
    constants: Mapping[str, Tensor], stored: str, name: str, layer: FullyConnected, bundle: Path
) -> dict[str, Tensor]:
    """Give an equalised layer's weight and bias from the plain ones that its export keeps."""
    weight, bias = (take(constants, f"{stored}.{part}", bundle) for part in ("weight", "bias"))
    return {f"{name}.weight": weight / layer.gain, f"{name}.bias": bias / layer.bias_gain}


def take(constants: Mapping[str, Tensor], name: str, bundle: Path) -> Tensor:
    """Give a constant by name.

    Raises: CheckpointMismatchError where the graph has none of this name.
    """
    if name not in constants:
        raise CheckpointMismatchError(
            f"{bundle} holds no weight {name}: it was not exported from a rendered run of this program, "
            "so no training can start from it"
        )
    return constants[name]


def load(module: torch.nn.Module, state: Mapping[str, Tensor], bundle: Path) -> None:
    """Load weights that may be of another shape.

    Raises: CheckpointMismatchError that names the first that differs.
    """
    for name, wanted in module.state_dict().items():
        if state[name].shape != wanted.shape:
            raise CheckpointMismatchError(
                f"{bundle}: weight {name} is {list(state[name].shape)}, here it is {list(wanted.shape)}: "
                "start from a bundle of the same recipe's size"
            )
    module.load_state_dict(state)
