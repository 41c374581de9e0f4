"""An ONNX graph that draws, cut where pixels begin and end, for ncnn, which knows layers over one picture.

::

    before   an ONNX graph: all that has no pixels yet (styles, demodulation), for the whole batch
    layers   one picture's way from its values to its last maps
    after    an ONNX graph: from the last maps to what the file gives (rounding, bytes, channels last)

Understood is what our exporter writes (``training/export/synthesis_graph.py``); every other file is refused, and the
next provider runs it. Reads files with the package onnx; imports no runtime.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, numpy_helper

from model.runtime import ncnn_layers as layers
from model.runtime.ncnn_layers import Floats, Layer, Pads
from model.runtime.onnx_file import cut, infer_shapes, read_ints, read_slope, read_text

_CONVOLUTIONS = frozenset({"Conv", "ConvTranspose", "MatMul", "Gemm"})


class UntranslatableError(ValueError):
    """The graph has something that there is no word for; the message says what."""


@dataclass(frozen=True)
class Feed:
    """What the layers take of one picture.

    Args:
        value: the name of what ``before`` gives, [N,…].
        shape: one picture's share as the layers want it.
        kernel: multiplied with it; None: nothing is.
    """

    value: str
    shape: tuple[int, ...]
    kernel: Floats | None = None

    def share(self, value: Floats) -> Floats:
        """Return one picture's share, contiguous."""
        shaped = value.reshape(self.shape)
        return np.ascontiguousarray(shaped if self.kernel is None else shaped * self.kernel, np.float32)


@dataclass(frozen=True)
class Plan:
    """A graph in three parts.

    Args:
        before: an ONNX file: the graph's inputs → the values that ``feeds`` name.
        feeds: by the name that the layers have for them.
        layers: over one picture, in the order of running.
        results: what ``after`` takes: its name there → its name in the layers.
        after: an ONNX file: ``results``, [N,C,H,W] each → the graph's outputs.
        macs: multiply-accumulates of the convolutions over one picture, counted directly.
    """

    before: bytes
    feeds: Mapping[str, Feed]
    layers: Sequence[Layer]
    results: Mapping[str, str]
    after: bytes
    macs: int


def plan_graph(data: bytes) -> Plan:
    """Cut an ONNX file.

    Raises:
        UntranslatableError: it is no graph that draws, or has a layer that there is no word for.
    """
    model = onnx.load_model_from_string(data)
    return _Planner(model).plan()


class _Planner:
    """Walks over the nodes once; every name is a constant, a value without pixels, a map, or comes after the maps."""

    def __init__(self, model: ModelProto) -> None:
        self.model, self.graph = model, model.graph
        self.stored = {tensor.name: tensor for tensor in model.graph.initializer}
        self.shapes = infer_shapes(model)
        if unknown := {name for node in self.graph.node for name in node.output} - set(self.shapes):
            raise UntranslatableError(f"the shape of {min(unknown)!r} is not known")
        outputs = [output.name for output in self.graph.output]
        self.takers = Counter([name for node in self.graph.node for name in node.input] + outputs)
        self.taker = {name: node for node in self.graph.node for name in node.input}
        self.maker = {name: node for node in self.graph.node for name in node.output}
        self.constant = set(self.stored)
        self.values = {tensor.name for tensor in self.graph.input} - self.constant
        self.blobs: dict[str, str] = {}  # of every map: its name in the layers
        self.flat: set[str] = set()  # maps that the graph sees as [N,C,H·W]
        self.rest: dict[str, str] = {}  # what comes after the maps, and why it is not one
        self.done: set[str] = set()  # outputs of nodes that an earlier one took along
        self.feeds: dict[str, Feed] = {}
        self.layers: list[Layer] = []
        self.macs = 0

    def plan(self) -> Plan:
        pixels = [node for node in self.graph.node if not self._has_no_pixels(node)]
        for node in pixels:
            if node.output[0] not in self.done:
                self._place(node)
        results = [name for name in self.blobs if self._is_taken_by_the_rest(name)]
        outputs = [output.name for output in self.graph.output]
        if not self.macs or not results or any(name not in self.rest for name in outputs):
            raise UntranslatableError("it draws no frames by convolutions")
        if any(name in self.flat for name in results):
            raise UntranslatableError("it ends in a matrix product")
        wanted = sorted({feed.value for feed in self.feeds.values()})
        return Plan(
            cut(self.model, [tensor.name for tensor in self.graph.input], wanted, self.shapes),
            self.feeds,
            self.layers,
            {name: self.blobs[name] for name in results},
            cut(self.model, results, outputs, self.shapes),
            self.macs,
        )

    # -- what is what ---------------------------------------------------------------------------------------------

    def _has_no_pixels(self, node: NodeProto) -> bool:
        """Take a node that comes before every convolution."""
        if any(attribute.HasField("g") for attribute in node.attribute):
            raise UntranslatableError(f"it has the operator {node.op_type}, which holds a graph")
        inputs = {name for name in node.input if name}
        if node.op_type in ("Conv", "ConvTranspose") or not inputs <= self.constant | self.values:
            return False
        (self.constant if inputs <= self.constant else self.values).update(node.output)
        return True

    def _place(self, node: NodeProto) -> None:
        """Translate a node, or let it come after the maps."""
        reason = next((self.rest[name] for name in node.input if name in self.rest), None)
        if reason is None:
            try:
                self._translate(node)
            except UntranslatableError as objection:
                reason = str(objection)
        if reason is not None:
            if node.op_type in _CONVOLUTIONS:  # what costs something must be translated
                raise UntranslatableError(reason)
            self.rest.update(dict.fromkeys(node.output, reason))

    def _is_taken_by_the_rest(self, name: str) -> bool:
        return any(name in node.input for node in self.graph.node if node.output[0] in self.rest)

    # -- words ----------------------------------------------------------------------------------------------------

    def _translate(self, node: NodeProto) -> None:
        words = {
            "Conv": self._convolve,
            "ConvTranspose": self._spread,
            "Mul": self._multiply,
            "Add": self._add,
            "LeakyRelu": self._relu,
            "Clip": self._clip,
            "Reshape": self._reshape,
            "MatMul": self._project,
        }
        if node.op_type not in words:
            raise UntranslatableError(f"it has the operator {node.op_type} over pixels")
        words[node.op_type](node)

    def _convolve(self, node: NodeProto) -> None:
        weight, bias, groups, stride, pads = self._read_kernel(node)
        source, output = self._map(node.input[0]), node.output[0]
        self.macs += weight.size * self._area(output)
        if groups == 1:
            self.layers.append(layers.convolve(source, self._blob(output), weight, bias, stride, pads))
            return
        if bias is not None:
            raise UntranslatableError("it has a depthwise convolution with a bias")
        follower = self._follower(output)
        if stride == 1 and follower is not None and follower.op_type == "Mul" and self._factor(follower, output):
            self._scale(follower, source, output, weight, pads)
        else:
            self.layers.append(layers.convolve_each(source, self._blob(output), weight, stride, pads))

    def _spread(self, node: NodeProto) -> None:
        weight, bias, groups, stride, pads = self._read_kernel(node)
        if bias is not None or any(read_ints(node, "output_padding", (0, 0))):
            raise UntranslatableError("it has a transposed convolution with a bias or an output padding")
        source, output = self._map(node.input[0]), node.output[0]
        self.macs += weight.size * self._area(node.input[0])
        make = layers.spread if groups == 1 else layers.spread_each
        self.layers.append(make(source, self._blob(output), weight, stride, pads))

    def _multiply(self, node: NodeProto) -> None:
        source = next(name for name in node.input if name in self.blobs)
        factor = self._factor(node, source)
        if factor is None:
            raise UntranslatableError("it multiplies maps by something else than a factor a channel")
        follower = self._follower(node.output[0])
        if follower is not None and follower.op_type == "Add" and self._bias(follower, node.output[0]) is not None:
            self._scale(node, self.blobs[source], source, None, (0, 0, 0, 0))
            return
        fed = self._feed(Feed(factor, (self.shapes[factor][1], 1, 1)))
        self.layers.append(layers.multiply(self.blobs[source], fed, self._blob(node.output[0])))

    def _scale(self, node: NodeProto, source: str, before: str, kernel: Floats | None, pads: Pads) -> None:
        """Put factor, bias and leaky ReLU of a layer into one pass, and the blur before them too.

        ``node`` multiplies ``before`` by the factor; ``source`` is the map that the kernel is to be taken over.
        """
        factor = self._factor(node, before)
        assert factor is not None, "the caller has looked"
        channels, end, slope = self.shapes[factor][1], node.output[0], None
        bias = np.zeros(channels, np.float32)
        follower = self._follower(end)
        if follower is not None and follower.op_type == "Add" and (told := self._bias(follower, end)) is not None:
            self.done.add(end)
            bias, end = told, follower.output[0]
            follower = self._follower(end)
            if follower is not None and follower.op_type == "LeakyRelu":
                self.done.add(end)
                slope, end = read_slope(follower), follower.output[0]
        self.done.add(end)
        kernel = None if kernel is None else kernel[:, 0]
        shape = (channels, 1, 1) if kernel is None else (channels, *kernel.shape[1:])
        fed = self._feed(Feed(factor, (channels, 1, 1), kernel))
        held = self._hold(bias)
        self.layers.append(layers.scale_each(source, fed, held, self._blob(end), shape, pads, slope))

    def _add(self, node: NodeProto) -> None:
        one, other = node.input
        if one in self.blobs and other in self.blobs:
            if self.shapes[one] != self.shapes[other]:
                raise UntranslatableError("it adds maps of different sizes")
            self.layers.append(layers.add(self.blobs[one], self.blobs[other], self._blob(node.output[0])))
            return
        source, held = (one, other) if one in self.blobs else (other, one)
        shape = self.shapes[held]
        if held not in self.constant or len(shape) != 4 or shape[0] != 1 or shape[1:] == (1, 1, 1):
            raise UntranslatableError("it adds something else than maps and constant maps")
        values = self._hold(self._constant(held)[0])
        self.layers.append(layers.add(self.blobs[source], values, self._blob(node.output[0])))

    def _relu(self, node: NodeProto) -> None:
        self.layers.append(layers.leaky_relu(self._map(node.input[0]), self._blob(node.output[0]), read_slope(node)))

    def _clip(self, node: NodeProto) -> None:
        if len(node.input) != 3 or not all(name in self.constant for name in node.input[1:]):
            raise UntranslatableError("it clips by something else than two constants")
        lowest, highest = (float(self._constant(name).reshape(())) for name in node.input[1:])
        self.layers.append(layers.clip(self._map(node.input[0]), self._blob(node.output[0]), lowest, highest))

    def _reshape(self, node: NodeProto) -> None:
        """Flattening and unflattening are the graph's business: a map stays a map."""
        source, output = node.input[0], node.output[0]
        before, after = self.shapes[source], self.shapes[output]
        flatten = len(before) == 4 and len(after) == 3 and source not in self.flat
        if before[1] != after[1] or not (flatten or (source in self.flat and len(after) == 4)):
            raise UntranslatableError(f"it reshapes {before} to {after}")
        self.blobs[output] = self.blobs[source]
        if flatten:
            self.flat.add(output)

    def _project(self, node: NodeProto) -> None:
        matrix, source = node.input
        if source not in self.flat or matrix not in self.values or len(self.shapes[matrix]) != 3:
            raise UntranslatableError("it has a matrix product that is no toRGB")
        _, channels, before = self.shapes[matrix]
        self.macs += channels * before * self.shapes[source][2]
        fed = self._feed(Feed(matrix, (channels, before, 1, 1)))
        self.layers.append(layers.project(self.blobs[source], fed, self._blob(node.output[0]), channels))
        self.flat.add(node.output[0])

    # -- parts of words -------------------------------------------------------------------------------------------

    def _read_kernel(self, node: NodeProto) -> tuple[Floats, Floats | None, int, int, Pads]:
        if len(self.shapes[node.output[0]]) != 4 or any(name not in self.constant for name in node.input[1:]):
            raise UntranslatableError(f"it has a {node.op_type} whose weights are not constant")
        weight = self._constant(node.input[1])
        bias = self._constant(node.input[2]) if len(node.input) > 2 and node.input[2] else None
        groups = read_ints(node, "group", (1,))[0]
        strides, dilations = read_ints(node, "strides", (1, 1)), read_ints(node, "dilations", (1, 1))
        top, left, bottom, right = read_ints(node, "pads", (0, 0, 0, 0))
        square = strides[0] == strides[1] and dilations == (1, 1)
        each = groups == len(weight) == self.shapes[node.input[0]][1] and weight.shape[1] == 1
        if not square or not (groups == 1 or each) or read_text(node, "auto_pad", "NOTSET") != "NOTSET":
            raise UntranslatableError(f"it has a {node.op_type} of {groups} groups, strides {strides}")
        return weight, bias, groups, strides[0], (top, left, bottom, right)

    def _factor(self, node: NodeProto, source: str) -> str | None:
        """Return the name of what a map is multiplied by, if it is a value a channel."""
        other = next((name for name in node.input if name != source), source)
        shape = self.shapes[other]
        fits = other in self.values and len(shape) == 4 and shape[1:] == (self.shapes[source][1], 1, 1)
        return other if fits else None

    def _bias(self, node: NodeProto, source: str) -> Floats | None:
        """Return what is added to a map, if it is a constant a channel: [C]."""
        other = next((name for name in node.input if name != source), source)
        fits = other in self.constant and self.shapes[other] == (1, self.shapes[source][1], 1, 1)
        return self._constant(other).reshape(-1) if fits else None

    def _follower(self, name: str) -> NodeProto | None:
        """Return the node that takes a map, if nothing else does."""
        return self.taker.get(name) if self.takers[name] == 1 else None

    def _map(self, name: str) -> str:
        """Return a map's name in the layers; a value [N,C,H,W] becomes one here."""
        if name not in self.blobs:
            if name not in self.values or len(self.shapes[name]) != 4:
                raise UntranslatableError("it convolves something else than maps")
            self.blobs[name] = self._feed(Feed(name, self.shapes[name][1:]))
        if name in self.flat:
            raise UntranslatableError("it takes a flattened map")
        return self.blobs[name]

    def _blob(self, name: str) -> str:
        """Give a new map its name in the layers: numbered, so that no file writes into their text."""
        if len(self.shapes[name]) not in (3, 4) or not all(self.shapes[name][1:]):
            raise UntranslatableError(f"the size of {name!r} is not known")
        return self.blobs.setdefault(name, f"map{len(self.blobs)}")

    def _feed(self, feed: Feed) -> str:
        if not all(feed.shape):
            raise UntranslatableError(f"the size of {feed.value!r} is not known")
        name = f"feed{len(self.feeds)}"
        self.feeds[name] = feed
        return name

    def _hold(self, values: Floats) -> str:
        name = f"held{len(self.layers)}"
        self.layers.append(layers.hold(name, values))
        return name

    def _area(self, name: str) -> int:
        return int(np.prod(self.shapes[name][2:]))

    def _constant(self, name: str) -> Floats:
        """Return a constant as float32, whatever it is stored as."""
        if name in self.stored:
            return numpy_helper.to_array(self.stored[name]).astype(np.float32)
        node = self.maker[name]
        if node.op_type == "Constant" and node.attribute[0].HasField("t"):
            return numpy_helper.to_array(node.attribute[0].t).astype(np.float32)
        if node.op_type == "Cast" and read_ints(node, "to", (0,))[0] == TensorProto.FLOAT:
            return self._constant(node.input[0])
        raise UntranslatableError(f"it works a constant out by {node.op_type}")
