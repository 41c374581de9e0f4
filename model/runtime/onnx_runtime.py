"""TensorRT, CUDA and the CPU, by onnxruntime, of which this is the sole importer.

Options were read from the documentation of onnxruntime's execution providers and from the libraries themselves; a name
that a provider does not know makes it refuse to start, which a fallback would then hide on machines without a GPU.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import structlog

from model.errors import BundleError, ModelError
from model.runtime.contract import (
    Array,
    Engine,
    ProviderFailedError,
    Tensor,
    check_call,
    failed_run,
    first_line,
    run_in_pieces,
)
from model.runtime.prepared import prepare
from model.runtime.source import GraphSource
from model.runtime.tuning import GPU_PROVIDERS, Tuning

ORT_NAMES = {
    "tensorrt": "TensorrtExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "cpu": "CPUExecutionProvider",
}
# The largest batch that a TensorRT engine is built for, and the one it is tuned for.
TENSORRT_BATCH, TENSORRT_USUAL_BATCH = 16, 8
_DTYPES = {"tensor(float)": "float32", "tensor(int64)": "int64", "tensor(uint8)": "uint8"}
# A call that is wrong in itself; no other provider would do better.
_WRONG_CALLS = frozenset({"InvalidArgument", "ValueError", "TypeError"})

logger = structlog.get_logger(__name__)


def import_runtime() -> Any:
    """Return the onnxruntime module, silent about its users.

    Raises:
        ModelError: runtime-missing.
    """
    # What people animate on their machine is nobody else's business: official wheels since 1.29 report usage to their
    # maker unless told not to, and begin with the import.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    try:
        import onnxruntime
    except ImportError as error:
        raise ModelError(
            "runtime-missing",
            "onnxruntime is not installed.",
            "Install animato with the cpu extra, or with the gpu extra on a machine with an NVIDIA GPU.",
        ) from error
    if hasattr(onnxruntime, "disable_telemetry_events"):
        onnxruntime.disable_telemetry_events()
    return onnxruntime


def list_built_in(runtime: Any) -> tuple[str, ...]:
    """Return the providers that this onnxruntime was built with; a GPU's also needs its driver and libraries."""
    available = runtime.get_available_providers()
    return tuple(name for name, ort_name in ORT_NAMES.items() if ort_name in available)


def load_gpu_libraries(runtime: Any, tuning: Tuning) -> None:
    """Load what came as wheels and the linker does not search: CUDA, cuDNN, TensorRT."""
    if tuning.precision == "full":
        # TensorFloat-32 is the libraries' default and keeps ten bits of a product; TensorRT has no other switch for it.
        os.environ.setdefault("NVIDIA_TF32_OVERRIDE", "0")
    if hasattr(runtime, "preload_dlls"):
        runtime.preload_dlls()
    wheel = importlib.util.find_spec("tensorrt_libs")
    for folder in (wheel.submodule_search_locations or ()) if wheel else ():
        for library in ("libnvinfer.so.10", "libnvonnxparser.so.10"):
            if (path := Path(folder) / library).is_file():
                ctypes.CDLL(str(path), mode=ctypes.RTLD_GLOBAL)


class OrtEngine:
    """A file opened by onnxruntime.

    Args:
        graph: its name in messages.
        session: onnxruntime's.
        provider: our name of the provider that was asked for and started.
    """

    def __init__(self, graph: str, session: Any, provider: str) -> None:
        self._graph, self._session, self._provider = graph, session, provider
        self.inputs: Sequence[Tensor] = [_describe(value) for value in session.get_inputs()]
        self.outputs: Sequence[Tensor] = [_describe(value) for value in session.get_outputs()]

    @property
    def provider(self) -> str:
        """The provider that really runs it."""
        return self._provider

    def run(self, outputs: Sequence[str], inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Return the named outputs. Raises: as Engine says."""
        if self._provider == "tensorrt":
            return run_in_pieces(lambda piece: self._run(outputs, piece), inputs, TENSORRT_BATCH)
        return self._run(outputs, inputs)

    def _run(self, outputs: Sequence[str], inputs: Mapping[str, Array]) -> dict[str, Array]:
        try:
            arrays = self._session.run(list(outputs), dict(inputs))
        except Exception as error:  # onnxruntime's classes share no base of their own; this is the boundary to it
            raise _translate(self._graph, error) from error
        return dict(zip(outputs, arrays, strict=True))


class RecordedEngine(OrtEngine):
    """A file whose run is recorded once per batch size and replayed as a CUDA graph.

    A recording holds addresses, so inputs and outputs stay in the same buffers on the device, and one call runs at a
    time. onnxruntime records a batch size by itself when it comes again; sizes that come once only run.

    Args:
        runtime: the onnxruntime module.
        device: where the buffers lie; anything but "cuda" runs the same way without a recording.
    """

    def __init__(self, graph: str, session: Any, provider: str, runtime: Any, device: str = "cuda") -> None:
        super().__init__(graph, session, provider)
        self._runtime, self._device = runtime, device
        self._buffers: dict[int, tuple[Any, dict[str, Any], dict[str, Any]]] = {}
        self._lock = threading.Lock()

    def _run(self, outputs: Sequence[str], inputs: Mapping[str, Array]) -> dict[str, Array]:
        check_call(self._graph, self.inputs, inputs)
        batch = len(next(iter(inputs.values())))
        with self._lock:
            try:
                if batch not in self._buffers:
                    self._buffers[batch] = self._bind(inputs)
                binding, taken, given = self._buffers[batch]
                for name, value in taken.items():
                    value.update_inplace(inputs[name])
                options = self._runtime.RunOptions()
                if self._device == "cuda":
                    options.add_run_config_entry("gpu_graph_id", str(batch))
                self._session.run_with_iobinding(binding, options)
                # copies, also where the buffer is no device's: the next run writes into it
                return {name: np.array(given[name].numpy()) for name in outputs}
            except Exception as error:  # as in OrtEngine
                raise _translate(self._graph, error) from error

    def _bind(self, inputs: Mapping[str, Array]) -> tuple[Any, dict[str, Any], dict[str, Any]]:
        batch = len(next(iter(inputs.values())))
        binding, taken, given = self._session.io_binding(), {}, {}
        make = self._runtime.OrtValue
        for tensor in self.inputs:
            taken[tensor.name] = make.ortvalue_from_numpy(inputs[tensor.name], self._device, 0)
            binding.bind_ortvalue_input(tensor.name, taken[tensor.name])
        for tensor in self.outputs:
            shape = [batch, *tensor.shape[1:]]
            given[tensor.name] = make.ortvalue_from_shape_and_type(shape, tensor.dtype, self._device, 0)
            binding.bind_ortvalue_output(tensor.name, given[tensor.name])
        return binding, taken, given


def open_engine(runtime: Any, source: GraphSource, providers: Sequence[str], threads: int, tuning: Tuning) -> Engine:
    """Open a file on the first of the providers; the ones after it take the operators that it lacks.

    Raises:
        ProviderFailedError: it did not start, or can't run this file. ModelError: out-of-memory.
        BundleError: bundle-invalid for a file that not even the CPU can open.
    """
    provider = providers[0]
    try:
        if provider == "cpu":
            session = _open_on_cpu(runtime, source, threads, tuning.cache_dir)
        elif provider == "cuda" and tuning.cuda_graphs and source.graph == "synthesis":
            return _open_recorded(runtime, source, providers, threads, tuning)
        else:
            session = _open(runtime, source.data, threads, _configure(source, providers, tuning))
    except Exception as error:  # a provider fails to load in many ways
        failure = ProviderFailedError.from_error(error)
        if provider != "cpu":
            raise failure from error
        if failure.memory:
            raise failure.to_model_error(source.graph) from error
        raise BundleError(
            "bundle-invalid",
            f"onnxruntime {runtime.__version__} can't open the {source.graph} graph: {failure.reason}",
            "Update onnxruntime, or export the bundle again with an older opset.",
        ) from error
    _check_started(session, provider)
    return OrtEngine(source.graph, session, provider)


def _open_recorded(runtime: Any, source: GraphSource, providers: Sequence[str], threads: int, tuning: Tuning) -> Engine:
    """Open for recording; as usual where onnxruntime finds an operator that it can't record."""
    chain = _configure(source, providers, tuning)
    chain[0][1]["enable_cuda_graph"] = "1"
    try:
        session = _open(runtime, source.data, threads, chain)
        _check_started(session, "cuda")
        return RecordedEngine(source.graph, session, "cuda", runtime)
    except Exception as error:  # noqa: BLE001 - whatever it is, the same file may well run without a recording
        logger.warning("cuda_graphs.unused", graph=source.graph, reason=first_line(error))
    session = _open(runtime, source.data, threads, _configure(source, providers, tuning))
    _check_started(session, "cuda")
    return OrtEngine(source.graph, session, "cuda")


def _open_on_cpu(runtime: Any, source: GraphSource, threads: int, cache_dir: Path | None) -> Any:
    chain: list[tuple[str, dict[str, str]]] = [(ORT_NAMES["cpu"], {})]
    if cache_dir is None:
        return _open(runtime, source.data, threads, chain)

    def write(graph: Path, weights: str) -> None:
        options = make_options(runtime, threads)
        options.optimized_model_filepath = str(graph)
        options.add_session_config_entry("session.optimized_model_external_initializers_file_name", weights)
        options.add_session_config_entry("session.optimized_model_external_initializers_min_size_in_bytes", "1024")
        # also what the matrix products want in an order of their own, which is most of a large text tower
        options.add_session_config_entry("session.save_external_prepacked_constant_initializers", "1")
        runtime.InferenceSession(source.data, sess_options=options, providers=[ORT_NAMES["cpu"]], enable_fallback=0)

    try:
        path = prepare(cache_dir / "prepared", f"{source.sha256} onnxruntime {runtime.__version__}", write)
        options = make_options(runtime, threads)
        options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_DISABLE_ALL  # that was done
        return runtime.InferenceSession(str(path), sess_options=options, providers=chain, enable_fallback=0)
    except Exception as error:  # noqa: BLE001 - a full disk or a runtime that can't: the plain way needs neither
        logger.warning("prepared.unused", graph=source.graph, reason=first_line(error))
        return _open(runtime, source.data, threads, chain)


def make_options(runtime: Any, threads: int) -> Any:
    """Return how every session is run: deterministic, quiet, and idle where it has nothing to do."""
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = runtime.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.use_deterministic_compute = True  # the same seed must give the same frames
    options.log_severity_level = 3  # what matters is told by us; the rest is noise on the service's log
    options.add_session_config_entry("session.set_denormal_as_zero", "1")
    # Between two batches the video encoder wants the processors that idle runtime threads would spin on.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    return options


def _open(runtime: Any, data: bytes, threads: int, chain: Sequence[tuple[str, dict[str, str]]]) -> Any:
    # onnxruntime's own fallback prints and goes to the CPU even where the setting does not allow it
    return runtime.InferenceSession(
        data, sess_options=make_options(runtime, threads), providers=list(chain), enable_fallback=0
    )


def _check_started(session: Any, provider: str) -> None:
    """Raise where onnxruntime went on without the provider: some that lack a library only print so."""
    if session.get_providers()[0] != ORT_NAMES[provider]:
        raise ProviderFailedError("it did not start; onnxruntime's own message is on standard error")


def _configure(source: GraphSource, providers: Sequence[str], tuning: Tuning) -> list[tuple[str, dict[str, str]]]:
    makers = {"tensorrt": _configure_tensorrt, "cuda": _configure_cuda}
    return [
        (ORT_NAMES[name], makers[name](source, tuning) if name in GPU_PROVIDERS else {})
        for name in providers
        if name in ORT_NAMES
    ]


def _configure_cuda(_source: GraphSource, tuning: Tuning) -> dict[str, str]:
    return {
        # The default tries every algorithm anew for each batch size, seconds in the middle of a job.
        "cudnn_conv_algo_search": "HEURISTIC",
        "use_tf32": "0" if tuning.precision == "full" else "1",
    }


def _configure_tensorrt(source: GraphSource, tuning: Tuning) -> dict[str, str]:
    options = {"trt_fp16_enable": "1" if tuning.precision == "half" else "0"}
    for key, batch in (("min", 1), ("opt", TENSORRT_USUAL_BATCH), ("max", TENSORRT_BATCH)):
        # One engine for all batches, built at start; without this every new batch size would build another.
        options[f"trt_profile_{key}_shapes"] = ",".join(
            f"{name}:{'x'.join(str(size) if isinstance(size, int) else str(batch) for size in shape)}"
            for name, shape in source.shapes.items()
        )
    if tuning.cache_dir is not None:
        # A folder a file: TensorRT's own key is made of names and not of weights, and two bundles share all names.
        folder = tuning.cache_dir / "tensorrt" / source.sha256[:16]
        folder.mkdir(parents=True, exist_ok=True)
        options |= {"trt_engine_cache_enable": "1", "trt_engine_cache_path": str(folder)}
        options |= {"trt_timing_cache_enable": "1", "trt_timing_cache_path": str(folder)}
    return options


def _describe(value: Any) -> Tensor:
    return Tensor(value.name, _DTYPES.get(value.type, value.type), tuple(value.shape))


def _translate(graph: str, error: Exception) -> Exception:
    if type(error).__name__ in _WRONG_CALLS:
        return failed_run(graph, first_line(error))
    return ProviderFailedError.from_error(error)
