"""Damages ONNX graphs where bytes alone seldom do: still a graph, but with other operations, shapes and numbers."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping

import onnx

from tests.fuzz.mutants import SEED, Mutant

_SIZES = (-1, 0, 1, 3, 2**31 - 1, 2**40, -(2**63))
_OPERATIONS = ("Relu", "Reshape", "Concat", "Gather", "MatMul", "Cast", "Conv", "If", "Loop", "NoSuchThing")


def make_graph_mutants(corpus: Mapping[str, bytes], count: int) -> Iterator[Mutant]:
    """Yield ``count`` mutants of the graphs in ``corpus`` (name → ONNX bytes)."""
    names = sorted(corpus)
    for index in range(count):
        name = names[index % len(names)]
        draw = random.Random(f"graph {SEED}/{name}/{index}")
        model = onnx.load_from_string(corpus[name])
        for _ in range(draw.choice((1, 1, 2, 4))):
            draw.choice(_DAMAGES)(draw, model.graph)
        yield Mutant(f"{name}, FUZZ_SEED={SEED}, graph number {index}", model.SerializeToString())


def _change_operation(draw: random.Random, graph: onnx.GraphProto) -> None:
    draw.choice(graph.node).op_type = draw.choice(_OPERATIONS)


def _drop_node(draw: random.Random, graph: onnx.GraphProto) -> None:
    if len(graph.node) > 1:
        del graph.node[draw.randrange(len(graph.node))]


def _rewire(draw: random.Random, graph: onnx.GraphProto) -> None:
    """Give a node another node's output, a later one's too: a circle."""
    node, source = draw.choice(graph.node), draw.choice(graph.node)
    if node.input and source.output:
        node.input[draw.randrange(len(node.input))] = draw.choice(list(source.output))


def _change_attribute(draw: random.Random, graph: onnx.GraphProto) -> None:
    attributes = [attribute for node in graph.node for attribute in node.attribute]
    if attributes:
        attribute = draw.choice(attributes)
        if attribute.ints:
            attribute.ints[draw.randrange(len(attribute.ints))] = draw.choice(_SIZES)
        else:
            attribute.i = draw.choice(_SIZES)


def _change_shape(draw: random.Random, graph: onnx.GraphProto) -> None:
    tensor = draw.choice(graph.initializer) if graph.initializer else None
    if tensor is not None and tensor.dims:
        tensor.dims[draw.randrange(len(tensor.dims))] = draw.choice(_SIZES)


def _change_numbers(draw: random.Random, graph: onnx.GraphProto) -> None:
    """Overwrite weights, and with them the shapes and indices that a graph keeps as constants."""
    filled = [tensor for tensor in graph.initializer if tensor.raw_data]
    if filled:
        tensor = draw.choice(filled)
        data = bytearray(tensor.raw_data)
        at = draw.randrange(len(data))
        data[at : at + 8] = draw.choice((b"\xff" * 8, b"\x7f" * 8, b"\x00" * 8, draw.randbytes(8)))[: len(data) - at]
        tensor.raw_data = bytes(data)


def _change_type(draw: random.Random, graph: onnx.GraphProto) -> None:
    if graph.initializer:
        draw.choice(graph.initializer).data_type = draw.choice((1, 2, 6, 7, 9, 10, 16, 99))


def _rename_output(draw: random.Random, graph: onnx.GraphProto) -> None:
    draw.choice([*graph.input, *graph.output]).name = draw.choice(("", "x", "ws", "../ws", "frames"))


def _point_outside(draw: random.Random, graph: onnx.GraphProto) -> None:
    """Keep weights in a file beside the graph, which a bundle's graphs never do."""
    if graph.initializer:
        tensor = draw.choice(graph.initializer)
        tensor.ClearField("raw_data")
        tensor.data_location = onnx.TensorProto.EXTERNAL
        entry = tensor.external_data.add()
        entry.key, entry.value = "location", draw.choice(("/etc/passwd", "../../../../etc/passwd", "weights.bin"))


_DAMAGES: tuple[Callable[[random.Random, onnx.GraphProto], None], ...] = (
    _change_operation,
    _drop_node,
    _rewire,
    _change_attribute,
    _change_shape,
    _change_numbers,
    _change_type,
    _rename_output,
    _point_outside,
)
