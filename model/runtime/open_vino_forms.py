"""Forms of a graph that OpenVINO runs faster, for one picture: put in place of the file's own when it is opened.

Files are written for a free batch and for onnxruntime; OpenVINO compiles them for one picture. Two layers have a better
form there (docs/decisions/0032-wide-layers-by-winograd.md has the figures):

``toRGB``              a matrix product over pixels wants them in rows, and every map before it is turned for that. A
                       1×1 convolution, whose weights come with the picture, takes it as it lies.
wide 3×3 convolutions  OpenVINO multiplies at nearly what the processor can; Winograd's form multiplies less. ncnn has
                       it, at full precision, and runs these layers inside OpenVINO's graph.

Imports openvino, so it is imported only where a file is opened with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import openvino
from openvino import opset13 as operators

from model.runtime.contract import Array

WINOGRAD_CHANNELS = {"f32": 128, "bf16": 256}
"""By precision: with fewer, Winograd's transforms cost what it saves against OpenVINO's own products."""
WINOGRAD_MACS = 2e9
"""With less to do, handing a layer over costs what it saves. Multiply-accumulates, counted directly."""

_PLAIN = {"strides": [1, 1], "dilations": [1, 1], "pads_begin": [1, 1], "pads_end": [1, 1], "auto_pad": "explicit"}


class Convolve(Protocol):
    """Write what a convolution of ``source`` [in,H,W] gives into ``target`` [out,H,W], both float32."""

    def __call__(self, source: Array, target: Array) -> None:
        """Do it."""
        ...


class MakeConvolve(Protocol):
    """Return what convolves with ``weight`` [out,in,3,3], float32, stride 1, zeros around the map."""

    def __call__(self, weight: Array) -> Convolve:
        """Do it."""
        ...


def project_by_convolution(model: Any) -> int:
    """Turn products of a matrix [1,out,in] with a flattened map [1,in,H·W] into 1×1 convolutions; return how many."""
    found = [node for node in model.get_ordered_ops() if _projects(node)]
    for node in found:
        matrix, source = node.input_value(0), node.input_value(1).get_node().input_value(0)
        _, outputs, inputs = matrix.get_shape()
        weight = operators.reshape(matrix, np.array([outputs, inputs, 1, 1]), special_zero=False)
        maps = operators.convolution(source, weight, [1, 1], [0, 0], [0, 0], [1, 1])
        flat = operators.reshape(maps, np.array(node.get_output_shape(0)), special_zero=False)
        _put_in_place_of(node, flat)
    return len(found)


def convolve_by_winograd(model: Any, channels: int, make: MakeConvolve) -> Ledger:
    """Hand every 3×3 convolution from so many channels on over to what ``make`` returns for its weights."""
    ledger = Ledger()
    for node in model.get_ordered_ops():
        weight = _read_wide(node, channels)
        if weight is not None:
            shape = node.get_output_shape(0)
            _put_in_place_of(node, _HandedOver(make(weight), ledger, [node.input_value(0)], shape))
            ledger.layers += 1
    return ledger


@dataclass
class Ledger:
    """Whether the layers that were handed over did their work in a run.

    OpenVINO does not tell: what an operator of ours raises is lost, and the maps are those of the run before.

    Args:
        layers: how many were handed over.
        done: how many have worked in this run.
        error: what the last one that failed has raised.
    """

    layers: int = 0
    done: int = 0
    error: Exception | None = None

    def begin(self) -> None:
        """Begin a run."""
        self.done, self.error = 0, None

    def check(self) -> None:
        """End a run. Raises: what a layer has raised; RuntimeError: one was left out."""
        if self.error is not None:
            raise self.error
        if self.done < self.layers:  # after a failure OpenVINO runs some of them twice
            raise RuntimeError(f"OpenVINO ran {self.done} of {self.layers} layers of ours")


class _HandedOver(openvino.Op):  # type: ignore[misc]  # the package has no types
    """An operator of one picture [1,in,H,W] → [1,out,H,W] that is worked out by a function of ours."""

    def __init__(self, convolve: Convolve, ledger: Ledger, inputs: Sequence[Any], shape: Sequence[int]) -> None:
        super().__init__(self)
        self._convolve, self._ledger, self._shape = convolve, ledger, list(shape)
        self.set_arguments(list(inputs))
        self.constructor_validate_and_infer_types()

    def validate_and_infer_types(self) -> None:
        self.set_output_type(0, openvino.Type.f32, openvino.PartialShape(self._shape))

    def clone_with_new_inputs(self, inputs: Sequence[Any]) -> _HandedOver:
        return _HandedOver(self._convolve, self._ledger, inputs, self._shape)

    def has_evaluate(self) -> bool:
        return True

    def evaluate(self, outputs: Sequence[Any], inputs: Sequence[Any]) -> bool:
        try:
            self._convolve(inputs[0].data[0], outputs[0].data[0])
        except Exception as error:  # noqa: BLE001 - whatever it is, the run has failed, and the ledger tells
            self._ledger.error = error
            return False
        self._ledger.done += 1
        return True


def _projects(node: Any) -> bool:
    if node.get_type_name() != "MatMul" or any(node.get_attributes().values()):  # a transposed side
        return False
    matrix, flat = node.input_value(0), node.input_value(1).get_node()
    if flat.get_type_name() != "Reshape" or len(matrix.get_shape()) != 3:
        return False
    before, after = flat.input_value(0).get_shape(), flat.get_output_shape(0)
    return len(before) == 4 and list(after) == [1, before[1], before[2] * before[3]]


def _read_wide(node: Any, channels: int) -> Array | None:
    """Return the weights of a convolution that is worth handing over, else None."""
    if node.get_type_name() != "Convolution" or node.get_output_element_type(0) != openvino.Type.f32:
        return None
    if any(node.get_attributes()[name] != value for name, value in _PLAIN.items()):
        return None
    held = node.input_value(1).get_node()
    if held.get_type_name() == "Convert":  # stored as halves
        held = held.input_value(0).get_node()
    if held.get_type_name() != "Constant":
        return None
    outputs, inputs, *kernel = held.get_output_shape(0)
    macs = outputs * inputs * 9 * np.prod(node.get_output_shape(0)[2:])
    if kernel != [3, 3] or min(outputs, inputs) < channels or macs < WINOGRAD_MACS:
        return None
    return np.array(held.data, np.float32)


def _put_in_place_of(node: Any, other: Any) -> None:
    other.set_friendly_name(node.get_friendly_name())
    node.output(0).replace(other.output(0))
