"""Processors by OpenVINO, of which this is the importer: the way to bfloat16, which onnxruntime's CPU lacks.

A file is compiled for one picture at a time. Compiled for a free batch the same synthesis takes half as long again, and
for eight pictures at once it is no faster than for one (docs/decisions/0015-providers.md). What has a faster form for
one picture gets it here: `open_vino_forms`.
"""

from __future__ import annotations

import importlib.util
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import structlog

from model.runtime import ncnn_engine
from model.runtime.contract import Array, ProviderFailedError, Tensor, check_call, run_in_pieces
from model.runtime.prepared import describe_processor
from model.runtime.source import GraphSource
from model.runtime.tuning import Tuning

if TYPE_CHECKING:
    from model.runtime.open_vino_forms import Ledger

_DEVICE = "CPU"
_DTYPES = {"f32": "float32", "i64": "int64", "u8": "uint8"}

logger = structlog.get_logger(__name__)


def is_installed() -> bool:
    """Return whether the openvino extra is there; nothing is imported."""
    return importlib.util.find_spec("openvino") is not None


class OpenVinoEngine:
    """A file compiled by OpenVINO for this processor.

    Args:
        source: the file; the first axis of its inputs is the batch, and no other size may be free.
        threads: threads of one run.
        tuning: precision and where compiled files are kept.

    Raises:
        ProviderFailedError: OpenVINO can't compile it.
    """

    provider = "openvino"

    def __init__(self, source: GraphSource, threads: int, tuning: Tuning) -> None:
        self._graph = source.graph
        try:
            import openvino

            core = openvino.Core()
            model = core.read_model(source.data, b"")
            self.inputs: Sequence[Tensor] = [_describe(port) for port in model.inputs]
            self.outputs: Sequence[Tensor] = [_describe(port) for port in model.outputs]
            model.reshape({tensor.name: openvino.PartialShape(_one_of(tensor)) for tensor in self.inputs})
            precision = _choose_precision(core, source, tuning)
            self._ledger = _put_into_form(model, precision, threads)
            # A compiled file can't hold a function of ours; what has one is compiled at every start.
            cache_dir = None if self._ledger.layers else tuning.cache_dir
            compiled = core.compile_model(model, _DEVICE, _configure(source, precision, threads, cache_dir))
            self._request = compiled.create_infer_request()
        except Exception as error:  # OpenVINO raises RuntimeError for all it dislikes; this is the boundary to it
            raise ProviderFailedError.from_error(error) from error
        self._lock = threading.Lock()  # a request is not to be shared, and uses all its threads anyway

    def run(self, outputs: Sequence[str], inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Return the named outputs, worked out one picture after another. Raises: as Engine says."""
        check_call(self._graph, self.inputs, inputs)
        return run_in_pieces(lambda one: self._run(outputs, one), inputs, 1)

    def _run(self, outputs: Sequence[str], inputs: Mapping[str, Array]) -> dict[str, Array]:
        whole = {name: np.ascontiguousarray(array) for name, array in inputs.items()}
        with self._lock:
            try:
                self._ledger.begin()
                self._request.infer(whole, share_inputs=True)
                self._ledger.check()
                # copies: the request writes its next picture into the same memory
                return {name: self._request.get_tensor(name).data.copy() for name in outputs}
            except Exception as error:  # as above
                raise ProviderFailedError.from_error(error) from error


def _describe(port: Any) -> Tensor:
    shape = tuple(size.get_length() if size.is_static else None for size in port.get_partial_shape())
    name = port.get_element_type().get_type_name()
    return Tensor(port.get_any_name(), _DTYPES.get(name, name), shape)


def _one_of(tensor: Tensor) -> list[int]:
    first, *rest = tensor.shape
    if first is not None or not all(isinstance(size, int) for size in rest):
        raise ProviderFailedError(f"the input {tensor.name} has free sizes beside the batch: {tensor.shape}")
    return [1, *(size for size in rest if isinstance(size, int))]


def _choose_precision(core: Any, source: GraphSource, tuning: Tuning) -> str:
    """Return OpenVINO's name of the precision to compute in."""
    if tuning.precision != "half":
        return "f32"
    if "BF16" in core.get_property(_DEVICE, "OPTIMIZATION_CAPABILITIES"):
        return "bf16"
    logger.warning("precision.fallback", graph=source.graph, wanted="half", hint="this processor has no bfloat16")
    return "f32"


def _put_into_form(model: Any, precision: str, threads: int) -> Ledger:
    """Put layers into their faster forms; return the ledger of those that ncnn runs from now on."""
    from model.runtime import open_vino_forms

    open_vino_forms.project_by_convolution(model)
    # Where products of bfloat16 have units of their own, fewer multiplications at full precision are no gain.
    has_units = precision == "bf16" and "amx_bf16" in describe_processor()
    if has_units or not ncnn_engine.is_installed():
        return open_vino_forms.Ledger()
    channels = open_vino_forms.WINOGRAD_CHANNELS[precision]
    return open_vino_forms.convolve_by_winograd(
        model, channels, lambda weight: ncnn_engine.WinogradConvolution(weight, threads)
    )


def _configure(source: GraphSource, precision: str, threads: int, cache_dir: Path | None) -> dict[str, Any]:
    options: dict[str, Any] = {
        "INFERENCE_PRECISION_HINT": precision,
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
        "PERFORMANCE_HINT": "LATENCY",
        # It counts the machine's cores, not the container's; the number of threads was counted from the quota.
        "ENABLE_CPU_PINNING": False,
        "CPU_DENORMALS_OPTIMIZATION": True,
    }
    if cache_dir is not None:
        folder = cache_dir / "openvino" / source.sha256[:16]
        folder.mkdir(parents=True, exist_ok=True)
        options["CACHE_DIR"] = str(folder)
    return options
