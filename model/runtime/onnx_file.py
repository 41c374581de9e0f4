"""Parts of ONNX files: shapes of everything in one, pieces of one as files of their own, attributes of nodes.

Needs the package onnx, which is not always there: only what has asked for it imports this.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, helper, shape_inference

_LARGE = 64
"""Constants of more elements say nothing about shapes."""


def infer_shapes(model: ModelProto) -> dict[str, tuple[int, ...]]:
    """Return the shape of every name that has a known one; a free size is 0."""
    light = ModelProto(ir_version=model.ir_version, opset_import=model.opset_import)
    light.graph.CopyFrom(onnx.GraphProto(name="g", input=model.graph.input, output=model.graph.output))
    light.graph.node.extend(model.graph.node)
    for tensor in model.graph.initializer:
        if np.prod(tensor.dims) > _LARGE:
            light.graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
        else:
            light.graph.initializer.append(tensor)
    graph = shape_inference.infer_shapes(light, data_prop=True).graph
    known: dict[str, tuple[int, ...]] = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    for info in [*graph.input, *graph.value_info, *graph.output]:
        known[info.name] = tuple(size.dim_value for size in info.type.tensor_type.shape.dim)
    return known


def cut(
    model: ModelProto, inputs: Collection[str], outputs: Sequence[str], shapes: Mapping[str, Sequence[int]]
) -> bytes:
    """Return what leads from some names of a graph to others, as a file of its own."""
    own = {tensor.name: tensor for tensor in [*model.graph.input, *model.graph.output]}
    missing, nodes = set(outputs) - set(inputs), []
    for node in reversed(model.graph.node):
        if missing & set(node.output):
            nodes.append(node)
            missing |= {name for name in node.input if name} - set(inputs)
    graph = onnx.GraphProto(name=model.graph.name, node=reversed(nodes))
    graph.initializer.extend(tensor for tensor in model.graph.initializer if tensor.name in missing)

    def describe(name: str) -> onnx.ValueInfoProto:
        sizes: list[str | int | None] = ["N", *shapes[name][1:]]
        return own.get(name) or helper.make_tensor_value_info(name, TensorProto.FLOAT, sizes)

    graph.input.extend(describe(name) for name in inputs)
    graph.output.extend(describe(name) for name in outputs)
    whole = ModelProto(ir_version=model.ir_version, opset_import=model.opset_import, graph=graph)
    return bytes(whole.SerializeToString())


def read_ints(node: NodeProto, name: str, otherwise: tuple[int, ...]) -> tuple[int, ...]:
    """Return an attribute of one or several whole numbers."""
    for attribute in node.attribute:
        if attribute.name == name:
            return tuple(attribute.ints) or (attribute.i,)
    return otherwise


def read_text(node: NodeProto, name: str, otherwise: str) -> str:
    """Return an attribute of text."""
    return next((attribute.s.decode() for attribute in node.attribute if attribute.name == name), otherwise)


def read_slope(node: NodeProto) -> float:
    """Return what a leaky ReLU multiplies negative values by."""
    return next((float(attribute.f) for attribute in node.attribute if attribute.name == "alpha"), 0.01)
