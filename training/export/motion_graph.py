"""The motion network as one ONNX graph for any number of frames: the recurrence is a Scan, built by hand.

PyTorch's exporter would unroll the loop to a fixed T. Imports onnx and the network only.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from training.networks.motion import CELL_SPEED, NUM_PHASES, PASSING_RISE, TOTAL_STEP, MotionNetwork
from training.networks.stylegan2 import FACTOR_GAIN, OPTION_GAIN, SQRT2, FactorMapping, FullyConnected

END = 2**31 - 1


class GraphBuilder:
    """Collects nodes and constants under fresh names."""

    def __init__(self, prefix: str = "") -> None:
        self.prefix = prefix
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def constant(self, value: np.ndarray | float, dtype: type = np.float32) -> str:
        """Add a constant and give its name."""
        name = f"{self.prefix}c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(value, dtype), name))
        return name

    def add(self, op: str, *inputs: str, output: str | None = None, **attributes: Any) -> str:
        """Add a node and give its output's name."""
        name = output or f"{self.prefix}n{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, list(inputs), [name], **attributes))
        return name

    def linear(self, layer: FullyConnected, x: str, output: str | None = None) -> str:
        """Add an equalised linear layer with its gain folded into the weights."""
        weight = (layer.weight.detach() * layer.gain).numpy()
        return self.add(
            "Gemm", x, self.constant(weight), self.constant(layer.bias.detach().numpy()), transB=1, output=output
        )

    def activate(self, x: str, slope: float, gain: float = 1.0) -> str:
        """Add a leaky ReLU, times a gain."""
        y = self.add("LeakyRelu", x, alpha=slope)
        return y if gain == 1.0 else self.add("Mul", y, self.constant(gain))

    def slice(self, x: str, start: int, stop: int, axis: int = 0) -> str:
        """Take start … stop of an axis."""
        bounds = (self.constant(np.array([start]), np.int64), self.constant(np.array([stop]), np.int64))
        return self.add("Slice", x, *bounds, self.constant(np.array([axis]), np.int64))

    def previous(self, x: str) -> str:
        """Give x moved one row on, with row 0 twice."""
        return self.add("Concat", self.slice(x, 0, 1), self.slice(x, 0, -1), axis=0)


def _describe(name: str, shape: Sequence[int | str]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, list(shape))


def _build_cell(network: MotionNetwork) -> onnx.GraphProto:
    body = GraphBuilder("cell_")
    # the layers take rows; a scanned slice has lost its first axis
    middle = body.add("Unsqueeze", "middle", body.constant(np.array([0]), np.int64))
    hidden = body.activate(body.linear(network.a, body.add("Concat", "z_in", middle, axis=1)), 0.01)
    u = body.add("Concat", hidden, "h_in", axis=1)
    for state, layer in (("z", network.b), ("h", network.c)):
        step = body.add("Mul", body.activate(body.linear(layer, u), 0.01), "rate")
        body.add("Add", f"{state}_in", step, output=f"{state}_out")
    body.add("Squeeze", "z_out", body.constant(np.array([0]), np.int64), output="z_row")
    embed_dim, h_dim = network.embed_dim, network.h_dim
    return helper.make_graph(
        body.nodes,
        "cell",
        [
            _describe("z_in", (1, embed_dim)),
            _describe("h_in", (1, h_dim)),
            _describe("rate", (1,)),
            _describe("middle", (NUM_PHASES,)),
        ],
        [_describe("z_out", (1, embed_dim)), _describe("h_out", (1, h_dim)), _describe("z_row", (embed_dim,))],
        body.constants,
    )


def _add_phases(graph: GraphBuilder, progress: str) -> str:
    square = graph.add("Mul", progress, progress)
    rise = graph.add("Mul", square, graph.add("Sub", graph.constant(3), graph.add("Mul", graph.constant(2), progress)))
    half = graph.add("Sin", graph.add("Mul", progress, graph.constant(np.pi)))
    half_square = graph.add("Mul", half, half)
    turn = graph.add("Sin", graph.add("Mul", progress, graph.constant(2 * np.pi)))
    parts = [progress, rise, half, half_square, turn, graph.add("Mul", half_square, half_square)]
    axis = graph.constant(np.array([1]), np.int64)
    return graph.add("Concat", *[graph.add("Unsqueeze", part, axis) for part in parts], axis=1)


def _add_smoothstep(graph: GraphBuilder, x: str) -> str:
    x = graph.add("Min", graph.add("Max", x, graph.constant(0)), graph.constant(1))
    slope = graph.add("Sub", graph.constant(3), graph.add("Mul", graph.constant(2), x))
    return graph.add("Mul", graph.add("Mul", x, x), slope)


def _add_envelopes(graph: GraphBuilder, progress: str) -> tuple[str, str]:
    nearest = graph.add("Min", progress, graph.add("Sub", graph.constant(1), progress))
    passing = _add_smoothstep(graph, graph.add("Div", nearest, graph.constant(PASSING_RISE)))
    return _add_smoothstep(graph, progress), passing


def _add_sway(graph: GraphBuilder, progress: str) -> str:
    swaying = graph.add("Sin", graph.add("Mul", _add_smoothstep(graph, progress), graph.constant(2 * np.pi)))
    return graph.add("Mul", swaying, graph.add("Sign", graph.slice("noise", 0, 1, axis=1)))


def _add_clip(graph: GraphBuilder, network: MotionNetwork, x: str) -> str:
    lows, highs = graph.constant(network.lows.numpy()), graph.constant(network.highs.numpy())
    return graph.add("Max", graph.add("Min", x, highs), lows)


def _add_reader(graph: GraphBuilder, network: MotionNetwork, face: str) -> str:
    x = graph.linear(network.read1, graph.activate(graph.linear(network.read0, face), 0.2, SQRT2))
    moved = _add_clip(graph, network, graph.slice(x, 0, network.num_moved, axis=1))
    return graph.add("Concat", moved, graph.slice(x, network.num_moved, END, axis=1), axis=1)


def _add_mapping(graph: GraphBuilder, mapping: FactorMapping, factors: str) -> str:
    """Add the generator's mapping, as `FactorMapping.forward`: factor vectors [T,factor_dim] → w [T,w_dim]."""
    features = mapping.features
    expressions, continuous = features.num_expression, features.num_continuous
    gain = graph.constant(FACTOR_GAIN)
    expression = graph.add("Mul", graph.slice(factors, 0, expressions, axis=1), gain)
    identity = graph.add("Mul", graph.slice(factors, expressions, continuous, axis=1), gain)
    options = graph.add("Mul", graph.slice(factors, continuous, END, axis=1), graph.constant(OPTION_GAIN))
    column = graph.add("Unsqueeze", expression, graph.constant(np.array([2]), np.int64))
    distance = graph.add("Sub", column, graph.constant(features.centers.numpy()))
    distance = graph.add("Mul", distance, graph.constant(features.inverse_widths.numpy()))
    bumps = graph.add("Exp", graph.add("Mul", graph.add("Mul", distance, distance), graph.constant(-0.5)))
    bumps = graph.add("Flatten", graph.add("Mul", bumps, graph.constant(2)), axis=1)
    angle = graph.add("Mul", identity, graph.constant(np.pi / FACTOR_GAIN))
    double = graph.add("Mul", angle, graph.constant(2))
    waves = [graph.add(op, x) for x in (angle, double) for op in ("Sin", "Cos")]
    x = graph.add("Concat", expression, identity, options, bumps, *waves, axis=1)
    deep = graph.linear(mapping.fc1, graph.activate(graph.linear(mapping.fc0, x), 0.2, SQRT2))
    return graph.add("Mul", graph.add("Add", deep, graph.linear(mapping.skip, x)), graph.constant(0.7))


def build_motion_graph(network: MotionNetwork, opset: int) -> onnx.ModelProto:
    """Build the graph `motion` of the bundle contract.

    Shapes: text_embed, image_embed [1,E], noise [1,h_dim], intensity [1], progress [T] → delta_ws [T,num_ws,w_dim],
    motion_codes [T,E]. Row 0 of delta_ws is exactly zero: it is subtracted from all rows.
    """
    graph = GraphBuilder()
    embed_dim, h_dim = network.embed_dim, network.h_dim
    unit = graph.constant(embed_dim**0.5)
    text, face = graph.add("Mul", "text_embed", unit), graph.add("Mul", "image_embed", unit)
    level = graph.add("Unsqueeze", "intensity", graph.constant(np.array([1]), np.int64))
    start = graph.linear(network.start, graph.add("Concat", text, face, level, axis=1))
    h_0 = graph.add("Add", start, graph.add("Mul", "noise", graph.constant(0.01)))
    z_0 = graph.add("Add", text, face)
    phases = _add_phases(graph, "progress")
    column = graph.add("Unsqueeze", "progress", graph.constant(np.array([1]), np.int64))
    rates = graph.add("Mul", graph.add("Sub", column, graph.previous(column)), graph.constant(TOTAL_STEP * CELL_SPEED))
    middles = graph.add("Mul", graph.add("Add", phases, graph.previous(phases)), graph.constant(0.5))
    scan = helper.make_node(
        "Scan", [z_0, h_0, rates, middles], ["z_last", "h_last", "z_rows"], body=_build_cell(network), num_scan_inputs=2
    )
    graph.nodes.append(scan)
    codes = graph.add("Sub", "z_rows", z_0, output="motion_codes")
    factors = _add_reader(graph, network, face)
    moved_dim = network.num_moved
    now = graph.slice(factors, 0, moved_dim, axis=1)
    fixed = graph.add("Concat", face, level, now, axis=1)
    times = graph.add("Concat", graph.add("Shape", "progress"), graph.constant(np.array([1]), np.int64), axis=0)
    tiled = graph.add("Tile", fixed, times)
    x = graph.add("Concat", graph.add("Mul", codes, graph.constant(network.code_scale)), phases, tiled, axis=1)
    x = graph.activate(graph.linear(network.fc0, x), 0.2, SQRT2)
    x = graph.activate(graph.linear(network.fc1, x), 0.2, SQRT2)
    x = graph.linear(network.fc2, x)
    rising, passing = _add_envelopes(graph, column)
    rises = graph.add("Mul", graph.slice(x, 0, moved_dim, axis=1), rising)
    passes = graph.add("Mul", graph.slice(x, moved_dim, 2 * moved_dim, axis=1), passing)
    sways = graph.add("Mul", graph.slice(x, 2 * moved_dim, END, axis=1), _add_sway(graph, column))
    moved = graph.add("Add", graph.add("Add", rises, passes), sways)
    reached = _add_clip(graph, network, graph.add("Add", now, moved))
    rest = graph.add("Tile", graph.slice(factors, moved_dim, END, axis=1), times)
    w = _add_mapping(graph, network.mapping, graph.add("Concat", reached, rest, axis=1))
    deltas = graph.add("Unsqueeze", graph.add("Sub", w, graph.slice(w, 0, 1)), graph.constant(np.array([1]), np.int64))
    gates = graph.constant(network.row_gates.detach().numpy()[:, None])
    graph.add("Mul", deltas, gates, output="delta_ws")
    inputs = [
        _describe("text_embed", (1, embed_dim)),
        _describe("image_embed", (1, embed_dim)),
        _describe("noise", (1, h_dim)),
        _describe("intensity", (1,)),
        _describe("progress", ("T",)),
    ]
    outputs = [
        _describe("delta_ws", ("T", network.num_ws, network.w_dim)),
        _describe("motion_codes", ("T", embed_dim)),
    ]
    built = helper.make_graph(graph.nodes, "motion", inputs, outputs, graph.constants)
    model = helper.make_model(built, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    onnx.checker.check_model(model)
    return model
