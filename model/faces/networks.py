"""The three networks of the face detector, run by numpy. They know pictures and numbers, no boxes.

Source: Zhang et al. 2016, "Joint Face Detection and Alignment Using Multitask Cascaded Convolutional Networks". The
weights are a port of the authors' (see NOTICE); ``training/checkpoints/mtcnn.py`` has translated them to the layout
that is read here.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from model.errors import ModelError

Values = NDArray[np.float32]

# What the file must hold: name → shape of a kernel as [kernel_h,kernel_w,in,out] or of a dense layer as [in,out].
# Each has a ``.bias`` [out] and, but for the last layers (heads), a ``.slope`` [out] of its PReLU.
LAYERS: Mapping[str, tuple[int, ...]] = {
    "proposal.0": (3, 3, 3, 10),
    "proposal.1": (3, 3, 10, 16),
    "proposal.2": (3, 3, 16, 32),
    "refine.0": (3, 3, 3, 28),
    "refine.1": (3, 3, 28, 48),
    "refine.2": (2, 2, 48, 64),
    "refine.dense": (576, 128),
    "output.0": (3, 3, 3, 32),
    "output.1": (3, 3, 32, 64),
    "output.2": (3, 3, 64, 64),
    "output.3": (2, 2, 64, 128),
    "output.dense": (1152, 256),
}
HEADS: Mapping[str, tuple[int, int]] = {
    "proposal.face": (32, 2),
    "proposal.shift": (32, 4),
    "refine.face": (128, 2),
    "refine.shift": (128, 4),
    "output.face": (256, 2),
    "output.shift": (256, 4),
    "output.points": (256, 10),
}
REFINE_PX = 24
OUTPUT_PX = 48
# A hundred and more windows at once would fill the cache and then some.
_MOST_WINDOWS = 64
_STRIP = 1 << 20


class Judgement(NamedTuple):
    """What a network says of each window.

    Shapes: score [...], shift [...,4] (left, top, right, bottom as shares of the window's edge), points [N,5,2] as
    shares of the window's edge (None from the first two).
    """

    score: Values
    shift: Values
    points: Values | None = None


class Networks:
    """Proposal, refine and output network.

    Args:
        data: the detector's file, an ``.npz`` of float16 or float32 arrays.

    Raises:
        ModelError: detector-invalid.
    """

    def __init__(self, data: bytes) -> None:
        self._weights = _read_weights(data)

    def propose(self, picture: Values) -> Judgement:
        """Judge every 12 × 12 px window of a picture, every second pixel.

        Shapes: picture [H,W,3], H and W ≥ 12 → score [h,w], shift [h,w,4]; the window of [i,j] begins at [2i,2j].
        Range: [-1, 1], RGB.
        """
        x = _pool(self._layer("proposal.0", picture[None]), 2, whole_windows=False)
        x = self._layer("proposal.2", self._layer("proposal.1", x))
        return Judgement(self._faces("proposal.face", x)[0], self._dense("proposal.shift", x)[0])

    def refine(self, windows: Values) -> Judgement:
        """Judge windows of 24 px: shapes [N,24,24,3] → score [N], shift [N,4]."""
        judged = [self._refine(windows[i : i + _MOST_WINDOWS]) for i in range(0, len(windows), _MOST_WINDOWS)]
        return Judgement(np.concatenate([j.score for j in judged]), np.concatenate([j.shift for j in judged]))

    def _refine(self, windows: Values) -> Judgement:
        x = _pool(self._layer("refine.0", windows), 3, whole_windows=False)
        x = _pool(self._layer("refine.1", x), 3, whole_windows=True)
        x = self._layer("refine.2", x)
        x = self._bent("refine.dense", x.reshape(len(x), -1))
        return Judgement(self._faces("refine.face", x), self._dense("refine.shift", x))

    def finish(self, windows: Values) -> Judgement:
        """Judge windows of 48 px: shapes [N,48,48,3] → score [N], shift [N,4], points [N,5,2].

        The points are the viewer's left eye and right eye, the nose, the left and the right corner of the mouth.
        """
        x = _pool(self._layer("output.0", windows), 3, whole_windows=False)
        x = _pool(self._layer("output.1", x), 3, whole_windows=True)
        x = _pool(self._layer("output.2", x), 2, whole_windows=False)
        x = self._layer("output.3", x)
        x = self._bent("output.dense", x.reshape(len(x), -1))
        # The file has the five x first, then the five y.
        points = self._dense("output.points", x).reshape(-1, 2, 5).transpose(0, 2, 1)
        return Judgement(self._faces("output.face", x), self._dense("output.shift", x), points)

    def _layer(self, name: str, x: Values) -> Values:
        kernel = self._weights[name]
        columns = np.lib.stride_tricks.sliding_window_view(x, kernel.shape[:2], axis=(1, 2))  # [N,h,w,in,kh,kw]
        columns = columns.transpose(0, 1, 2, 4, 5, 3)
        n, h, w = columns.shape[:3]
        matrix = kernel.reshape(-1, kernel.shape[-1])
        out = np.empty((n, h, w, matrix.shape[1]), np.float32)
        # Laid out for a matrix product a picture takes nine times its memory, so it is done in strips.
        strip = max(1, _STRIP // (n * w * len(matrix)))
        for top in range(0, h, strip):
            part = columns[:, top : top + strip]
            out[:, top : top + strip] = (part.reshape(-1, len(matrix)) @ matrix).reshape(*part.shape[:3], -1)
        return self._bend(name, out)

    def _bent(self, name: str, x: Values) -> Values:
        return self._bend(name, x @ self._weights[name])

    def _bend(self, name: str, x: Values) -> Values:
        x += self._weights[f"{name}.bias"]
        negative = np.minimum(x, 0)
        negative *= self._weights[f"{name}.slope"]
        np.maximum(x, 0, out=x)
        x += negative
        return x

    def _dense(self, name: str, x: Values) -> Values:
        return np.asarray(x @ self._weights[name] + self._weights[f"{name}.bias"], np.float32)

    def _faces(self, name: str, x: Values) -> Values:
        """Return the share of "face" in a softmax of two."""
        logits = self._dense(name, x)
        return np.asarray(1.0 / (1.0 + np.exp(np.clip(logits[..., 0] - logits[..., 1], -60, 60))), np.float32)


def _pool(x: Values, window: int, *, whole_windows: bool) -> Values:
    """Take the largest of each ``window`` × ``window``, every second pixel.

    Where not only whole windows count, the edge is filled up as TensorFlow's "same" does: to ⌈size/2⌉ results, the
    odd filling below and to the right.
    """
    if not whole_windows:
        fill = [max(0, (-(-size // 2) - 1) * 2 + window - size) for size in x.shape[1:3]]
        sides = [(f // 2, f - f // 2) for f in fill]
        x = np.pad(x, ((0, 0), *sides, (0, 0)), constant_values=-np.inf)
    ends = [(size - window) // 2 * 2 + 1 for size in x.shape[1:3]]
    largest: Values | None = None
    for top in range(window):
        for left in range(window):
            part = x[:, top : top + ends[0] : 2, left : left + ends[1] : 2]
            largest = part.copy() if largest is None else np.maximum(largest, part, out=largest)
    assert largest is not None
    return largest


def _read_weights(data: bytes) -> dict[str, Values]:
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as file:
            weights = {name: np.asarray(file[name], np.float32) for name in file.files}
    except (ValueError, OSError, EOFError, KeyError, zipfile.BadZipFile) as error:
        raise _invalid("it is no .npz file of plain arrays") from error
    for name, shape in {**LAYERS, **HEADS}.items():
        wanted = {name: shape, f"{name}.bias": shape[-1:]} | ({f"{name}.slope": shape[-1:]} if name in LAYERS else {})
        for key, size in wanted.items():
            if key not in weights or weights[key].shape != size:
                raise _invalid(f"its array {key} is missing or not of the shape {list(size)}")
    return weights


def _invalid(reason: str) -> ModelError:
    return ModelError(
        "detector-invalid",
        f"The face detector's file can't be used: {reason}.",
        "Take the one that comes with animato (model/faces/mtcnn.npz), or leave `detector` out of the manifest.",
    )
