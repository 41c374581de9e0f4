"""Layers in ncnn's words: what a network is made of, its text and its weights. Numpy only; imports no runtime.

A map is one picture's [C,H,W]; ncnn has no batch. Parameters have numbers and no names there, so each constructor below
says once which number is what.
Source: ncnn's docs/developer-guide/operators.md and param-and-model-file-structure.md.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Pads = tuple[int, int, int, int]
"""top, left, bottom, right"""

_MAGIC = 7767517
_LEAKY, _DYNAMIC_WEIGHTS = 2, 19
_ADD, _MULTIPLY = 0, 2


@dataclass(frozen=True)
class Layer:
    """One layer: what it takes, what it makes, its parameters as text and its weights in the file's order."""

    kind: str
    inputs: tuple[str, ...]
    output: str
    parameters: str = ""
    weights: bytes = b""


def convolve(source: str, output: str, weight: Floats, bias: Floats | None, stride: int, pads: Pads) -> Layer:
    """Convolve: weight [out,in,kh,kw], bias [out]; by Winograd where ncnn has it for the kernel and finds it faster."""
    told = _describe_kernel(weight, len(weight), stride, pads, bias is not None)
    return Layer("Convolution", (source,), output, told, _tagged(weight) + _plain(bias))


def convolve_each(source: str, output: str, weight: Floats, stride: int, pads: Pads) -> Layer:
    """Convolve every channel by itself: weight [C,1,kh,kw]."""
    told = f"{_describe_kernel(weight, len(weight), stride, pads, False)} 7={len(weight)}"
    return Layer("ConvolutionDepthWise", (source,), output, told, _tagged(weight))


def spread(source: str, output: str, weight: Floats, stride: int, pads: Pads) -> Layer:
    """Convolve transposed: weight [in,out,kh,kw] as ONNX has it."""
    turned = weight.swapaxes(0, 1)
    told = _describe_kernel(turned, len(turned), stride, pads, False)
    return Layer("Deconvolution", (source,), output, told, _tagged(turned))


def spread_each(source: str, output: str, weight: Floats, stride: int, pads: Pads) -> Layer:
    """Convolve every channel transposed, by itself: weight [C,1,kh,kw]."""
    told = f"{_describe_kernel(weight, len(weight), stride, pads, False)} 7={len(weight)}"
    return Layer("DeconvolutionDepthWise", (source,), output, told, _tagged(weight))


def scale_each(
    source: str, kernel: str, bias: str, output: str, shape: tuple[int, int, int], pads: Pads, slope: float | None
) -> Layer:
    """Convolve every channel with a kernel that comes with the picture, add a bias, take leaky ReLU: one pass.

    Args:
        source: a map.
        kernel: of shape [C,kh,kw]. With 1×1 it is a factor a channel.
        bias: a constant [C].
        output: the map it makes.
        shape: C, kh, kw.
        pads: as always.
        slope: of the leaky ReLU; None: none.
    """
    channels, height, width = shape
    told = _describe_kernel(np.empty((channels, 1, height, width), np.float32), channels, 1, pads, True)
    told += f" 7={channels} {_DYNAMIC_WEIGHTS}=1"
    if slope is not None:
        told += f" 9={_LEAKY} -23310=1,{slope!r}"
    return Layer("ConvolutionDepthWise", (source, kernel, bias), output, told)


def project(source: str, weight: str, output: str, channels: int) -> Layer:
    """Multiply channels by a matrix that comes with the picture, of shape [out,in,1,1]."""
    return Layer("Convolution", (source, weight), output, f"0={channels} 1=1 5=0 {_DYNAMIC_WEIGHTS}=1")


def add(one: str, other: str, output: str) -> Layer:
    """Add maps; sizes of 1 stretch."""
    return Layer("BinaryOp", (one, other), output, f"0={_ADD}")


def multiply(one: str, other: str, output: str) -> Layer:
    """Multiply maps; sizes of 1 stretch."""
    return Layer("BinaryOp", (one, other), output, f"0={_MULTIPLY}")


def leaky_relu(source: str, output: str, slope: float) -> Layer:
    """Leaky ReLU."""
    return Layer("ReLU", (source,), output, f"0={slope!r}")


def clip(source: str, output: str, lowest: float, highest: float) -> Layer:
    """Keep values within bounds."""
    return Layer("Clip", (source,), output, f"0={lowest!r} 1={highest!r}")


def hold(output: str, values: Floats) -> Layer:
    """Hold a constant: [C], or a map [C,H,W]."""
    sizes = " ".join(f"{rank}={size}" for rank, size in enumerate(reversed(values.shape)))
    return Layer("MemoryData", (), output, sizes, _plain(values))


def write_network(inputs: Sequence[str], layers: Sequence[Layer], results: Sequence[str]) -> tuple[str, bytes]:
    """Return a network's text and weights. A map that several take is split for them, as ncnn wants it."""
    whole = [Layer("Input", (), name) for name in inputs] + list(layers)
    takers = Counter(name for layer in whole for name in layer.inputs) + Counter(results)
    served: Counter[str] = Counter()
    lines, blobs = [], 0

    def take(name: str) -> str:
        served[name] += 1
        # a result keeps its own name: it is the last to be served
        return name if takers[name] == 1 else f"{name}.{served[name]}"

    for number, layer in enumerate(whole):
        taken = [take(name) for name in layer.inputs]
        made = f"{layer.output}.0" if takers[layer.output] > 1 else layer.output
        head = f"{layer.kind} {number} {len(taken)} 1"
        lines.append(" ".join([head, *taken, made, layer.parameters]).rstrip())
        blobs += 1
        if (count := takers[layer.output]) > 1:
            ends = [f"{layer.output}.{rank}" for rank in range(1, count + 1)]
            if layer.output in results:
                ends[-1] = layer.output
            lines.append(" ".join([f"Split {number}.split 1 {count}", made, *ends]))
            blobs += count
    text = "\n".join([str(_MAGIC), f"{len(lines)} {blobs}", *lines]) + "\n"
    return text, b"".join(layer.weights for layer in layers)


def _describe_kernel(weight: Floats, outputs: int, stride: int, pads: Pads, biased: bool) -> str:
    height, width = weight.shape[2:]
    top, left, bottom, right = pads
    return (
        f"0={outputs} 1={width} 11={height} 3={stride} 4={left} 14={top} 15={right} 16={bottom}"
        f" 5={int(biased)} 6={weight.size}"
    )


def _tagged(weight: Floats) -> bytes:
    """Weights of a kernel begin with a word that says how they are stored; 0 is float32."""
    return bytes(4) + _plain(weight)


def _plain(values: Floats | None) -> bytes:
    return b"" if values is None else np.ascontiguousarray(values, dtype="<f4").tobytes()
