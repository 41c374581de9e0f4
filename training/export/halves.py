"""Stores a graph's large weights as float16 and computes in float32 as before: half the file, the same speed.

The runtime turns the casts of constants into float32 constants once, when it opens the graph.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

FEWEST = 512
"""Smaller constants (biases, factor ranges, kernels) stay exact: they would save nothing."""


def store_halves(model: onnx.ModelProto) -> onnx.ModelProto:
    """Give a copy of the model whose large float32 constants are float16 with a Cast behind each.

    Constants beyond float16's range stay as they are.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    _store(copy.graph)
    return copy


def _store(graph: onnx.GraphProto) -> None:
    casts = []
    for tensor in graph.initializer:
        if tensor.data_type != TensorProto.FLOAT or np.prod(tensor.dims, dtype=np.int64) < FEWEST:
            continue
        values = numpy_helper.to_array(tensor)
        if np.abs(values).max() > np.finfo(np.float16).max:
            continue
        name = tensor.name
        tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float16), f"{name}.half"))
        casts.append(helper.make_node("Cast", [f"{name}.half"], [name], name=f"{name}.cast", to=TensorProto.FLOAT))
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    stored = {cast.output[0] for cast in casts}
    kept = [value for value in graph.value_info if value.name not in stored]
    del graph.value_info[:]
    graph.value_info.extend(kept)
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                _store(attribute.g)
