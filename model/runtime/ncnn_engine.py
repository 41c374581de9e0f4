"""Processors by ncnn, of which this is the sole importer: Winograd convolutions, which onnxruntime's CPU lacks.

Wide networks spend their time in 3×3 convolutions, and Winograd's form of them takes a fraction of the multiplications
(docs/decisions/0028-winograd-by-ncnn.md). What has no pixels, and the rounding to bytes, is onnxruntime's as before.
"""

from __future__ import annotations

import importlib.util
import os
import tempfile
import threading
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from model.runtime.contract import Array, ProviderFailedError, Tensor, check_call
from model.runtime.ncnn_layers import Floats, Layer, convolve, write_network
from model.runtime.onnx_runtime import import_runtime, open_engine
from model.runtime.source import GraphSource
from model.runtime.tuning import Tuning

_NO_MEMORY = -100  # ncnn's code for it
_BAND_ROWS = 32
"""16 to 64 rows take about the same time; a whole map of 128 channels, 256 by 256, takes a fifth more."""


def is_installed() -> bool:
    """Return whether the ncnn extra is there; nothing is imported."""
    return all(importlib.util.find_spec(name) is not None for name in ("ncnn", "onnx"))


def _import_ncnn() -> Any:
    # Its threads wait for each other a few hundred times a frame, by OpenMP, which by itself waits by counting: where
    # another process has the core, the wait lasts that one's whole turn, and a frame took a hundred times as long.
    # Read when the library is loaded, so no later than here.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    import ncnn

    return ncnn


class NcnnEngine:
    """A graph that draws, its layers run by ncnn one picture after another, always at full precision.

    Args:
        source: the file.
        threads: threads of one run.

    Raises:
        ProviderFailedError: it is no graph that draws, or has a layer that is not translated.
    """

    provider = "ncnn"

    def __init__(self, source: GraphSource, threads: int) -> None:
        self._graph = source.graph
        try:
            from model.runtime.ncnn_plan import plan_graph

            plan = plan_graph(source.data)
            runtime = import_runtime()
            self._before, self._after = (
                open_engine(runtime, GraphSource(source.graph, part), ("cpu",), threads, Tuning())
                for part in (plan.before, plan.after)
            )
            self._feeds, self._results = plan.feeds, plan.results
            self._network = _load(plan.feeds, plan.layers, list(plan.results.values()), threads)
        except Exception as error:  # the packages onnx and ncnn raise what they like; this is the boundary to them
            raise ProviderFailedError.from_error(error) from error
        self._values = sorted({feed.value for feed in plan.feeds.values()})
        self.inputs: Sequence[Tensor] = self._before.inputs
        self.outputs: Sequence[Tensor] = self._after.outputs
        self._lock = threading.Lock()  # a network would run several pictures at once, with all its threads each

    def run(self, outputs: Sequence[str], inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Return the named outputs. Raises: as Engine says."""
        check_call(self._graph, self.inputs, inputs)
        values = self._before.run(self._values, inputs)
        batch = len(values[self._values[0]])
        try:
            with self._lock:
                drawn = [self._draw({name: value[i] for name, value in values.items()}) for i in range(batch)]
        except Exception as error:  # as above
            raise ProviderFailedError.from_error(error) from error
        return self._after.run(outputs, {name: np.stack([maps[name] for maps in drawn]) for name in self._results})

    def _draw(self, values: Mapping[str, Array]) -> dict[str, Array]:
        """Return one picture's last maps [C,H,W]."""
        extractor = self._network.create_extractor()
        for name, feed in self._feeds.items():
            extractor.input(name, _copy(feed.share(values[feed.value])))
        maps = {}
        for name, blob in self._results.items():
            maps[name] = np.array(_extract(extractor, blob))
        return maps


class WinogradConvolution:
    """A 3×3 convolution of one picture, stride 1, zeros around the map, at full precision.

    It goes over bands of rows, so that what Winograd's form keeps between its steps stays in the processor's caches.

    Args:
        weight: [out,in,3,3], float32.
        threads: threads of one run.

    Raises:
        RuntimeError: ncnn does not take it.
    """

    def __init__(self, weight: Floats, threads: int) -> None:
        # Rows above and below come with the band; zeros left and right are ncnn's to add.
        layer = convolve("band", "made", weight, None, 1, (0, 1, 0, 1))
        self._network = _load(["band"], [layer], ["made"], threads)

    def __call__(self, source: Array, target: Array) -> None:
        """Write the convolution of ``source`` [in,H,W] into ``target`` [out,H,W].

        Raises:
            MemoryError, RuntimeError: ncnn could not do it.
        """
        channels, height, width = source.shape
        ncnn = _import_ncnn()
        for top in range(0, height, _BAND_ROWS):
            end = min(top + _BAND_ROWS, height)
            first, last = max(top - 1, 0), min(end + 1, height)
            band = np.zeros((channels, end - top + 2, width), np.float32)
            band[:, first - top + 1 : last - top + 1] = source[:, first:last]
            extractor = self._network.create_extractor()
            # By its address: nothing writes into it, and the name keeps it alive until the end of the turn.
            extractor.input("band", ncnn.Mat(band))
            target[:, top:end] = np.asarray(_extract(extractor, "made"))


def _extract(extractor: Any, blob: str) -> Any:
    code, found = extractor.extract(blob)
    if code:
        raise MemoryError("ncnn: out of memory") if code == _NO_MEMORY else RuntimeError(f"ncnn failed: {code}")
    return found


def _copy(array: Array) -> Any:
    """Return an array as memory of ncnn's own.

    A plain Mat has the array's address only: it does not keep the array alive, and ncnn follows a null pointer where it
    wants to write into memory that is not its own (github.com/Tencent/ncnn/issues/1543).
    """
    return _import_ncnn().Mat(array).clone()  # the caller's name for the array keeps it alive until here


def _load(feeds: Collection[str], layers: Sequence[Layer], results: Sequence[str], threads: int) -> Any:
    ncnn = _import_ncnn()
    text, weights = write_network(list(feeds), layers, results)
    network = ncnn.Net()
    options = network.opt
    options.num_threads = threads
    # halves are for processors that compute in them; frames would differ, and are no faster on the others
    options.use_fp16_packed = options.use_fp16_storage = options.use_fp16_arithmetic = False
    options.use_bf16_packed = options.use_bf16_storage = options.use_vulkan_compute = False
    if network.load_param_mem(text):
        raise RuntimeError("ncnn does not take the layers")
    # By a file: given memory, ncnn keeps addresses in it instead of copying.
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "weights.bin"
        path.write_bytes(weights)
        if network.load_model(str(path)):
            raise RuntimeError("ncnn does not take the weights")
    return network
