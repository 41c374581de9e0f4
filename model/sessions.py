"""The sole importer of onnxruntime: providers, threads and one small Session protocol.

Everything else in ``model`` asks for a Session and knows no runtime. No torch in here.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import structlog
from numpy.typing import NDArray

from model.bundle.graphs import GraphSpec, TensorSpec, list_graph_specs
from model.bundle.reader import Bundle
from model.errors import BundleError, ModelError
from model.quota import count_processors

Array = NDArray[Any]

DEFAULT_PROVIDERS = ("tensorrt", "cuda", "cpu")
PROVIDERS = {
    "tensorrt": "TensorrtExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "cpu": "CPUExecutionProvider",
}
# Graphs of a few small matrix products: handing them to other threads costs more than it saves.
_ONE_THREAD = frozenset({"text", "motion", "mapping"})
_DTYPES = {"tensor(float)": "float32", "tensor(int64)": "int64", "tensor(uint8)": "uint8"}

logger = structlog.get_logger(__name__)


class Session(Protocol):
    """One opened graph."""

    @property
    def provider(self) -> str:
        """The provider that really runs it: tensorrt, cuda or cpu."""
        ...

    def run(self, **inputs: Array) -> dict[str, Array]:
        """Return the graph's outputs by name."""
        ...


class OrtSession:
    """A graph opened by onnxruntime; safe to call from several threads."""

    def __init__(self, graph: str, session: Any, provider: str, outputs: Sequence[str] | None = None) -> None:
        """``outputs``: what ``run`` shall compute; everything that the file gives where None."""
        self._graph = graph
        self._session = session
        self._outputs = list(outputs or (output.name for output in session.get_outputs()))
        self._provider = provider

    @property
    def provider(self) -> str:
        """The provider that really runs it."""
        return self._provider

    def run(self, **inputs: Array) -> dict[str, Array]:
        """Run the graph once.

        Raises:
            ModelError: out-of-memory, or internal for every other failure of the runtime.
        """
        try:
            outputs = self._session.run(self._outputs, inputs)
        except Exception as error:  # onnxruntime's classes share no base of their own; this is the boundary to it
            raise _translate(self._graph, error) from error
        return dict(zip(self._outputs, outputs, strict=True))


def open_sessions(
    bundle: Bundle, providers: Sequence[str] = DEFAULT_PROVIDERS, threads: int | None = None
) -> dict[str, Session]:
    """Open every graph of a bundle, each from bytes whose hash was checked a moment before.

    Graphs that name the same file share one opened session, and each computes only its own outputs.
    Providers are tried in the given order. One that is not there, or that can't open a graph, is told aloud in a
    warning and the next is taken; where none is left, nothing is silently run elsewhere.

    Args:
        bundle: what ``read_bundle`` returned.
        providers: names of PROVIDERS, best first.
        threads: threads of one graph; None or 0: what the container may really use.

    Raises:
        ModelError: provider-unknown, provider-unavailable, runtime-missing.
        BundleError: bundle-damaged or bundle-mismatch.
    """
    runtime = _import_runtime()
    usable = choose_providers(providers, runtime.get_available_providers())
    if usable[0] in {"tensorrt", "cuda"} and hasattr(runtime, "preload_dlls"):
        runtime.preload_dlls()  # the CUDA libraries may have come as wheels, which the linker does not search
    threads = threads or count_processors()
    specs = list_graph_specs(bundle.manifest)
    sessions: dict[str, Session] = {}
    opened: dict[str, Any] = {}
    left = usable
    for graph, name in bundle.manifest.graphs.items():
        if name is None:
            continue
        if name not in opened:
            options = _make_options(runtime, 1 if graph in _ONE_THREAD else threads)
            opened[name], left = _open(runtime, graph, bundle.read_graph(graph), options, left)
        session = opened[name]
        _check_interface(graph, specs[graph], session)
        sessions[graph] = OrtSession(graph, session, _provider_of(session), list(specs[graph].outputs))
    _tell_fallbacks(usable, sessions)
    return sessions


def list_providers() -> tuple[str, ...]:
    """Return our names of the providers that the installed onnxruntime was built with, best first.

    Built with is not yet able to start: a GPU provider also needs its driver and libraries.

    Raises:
        ModelError: runtime-missing.
    """
    available = _import_runtime().get_available_providers()
    return tuple(name for name, ort_name in PROVIDERS.items() if ort_name in available)


def open_graph(data: bytes, graph: str = "graph", threads: int = 1) -> Session:
    """Open one graph that is in no bundle yet, on the processor: what an export compares with its original.

    Args:
        data: an ONNX file.
        graph: its name in error messages.
        threads: threads of the graph.

    Raises:
        ModelError: runtime-missing. BundleError: bundle-invalid.
    """
    runtime = _import_runtime()
    session, _ = _open(runtime, graph, data, _make_options(runtime, threads), ("cpu",))
    return OrtSession(graph, session, _provider_of(session))


def choose_providers(wanted: Sequence[str], available: Sequence[str]) -> tuple[str, ...]:
    """Return the wanted providers that this onnxruntime was built with, in the wanted order; warn of the others.

    Raises:
        ModelError: provider-unknown, provider-unavailable.
    """
    unknown = [name for name in wanted if name not in PROVIDERS]
    if unknown or not wanted:
        raise ModelError(
            "provider-unknown",
            f"Unknown execution provider: {', '.join(unknown) or '(none given)'}.",
            f"ANIMATO_PROVIDERS takes a list of {', '.join(PROVIDERS)}, best first.",
        )
    usable = tuple(name for name in wanted if PROVIDERS[name] in available)
    missing = [name for name in wanted if name not in usable]
    if not usable:
        raise ModelError(
            "provider-unavailable",
            f"None of the wanted execution providers ({', '.join(wanted)}) is in the installed onnxruntime.",
            "Install the gpu extra (onnxruntime-gpu) instead of the cpu extra, or add cpu to ANIMATO_PROVIDERS.",
        )
    if missing:
        logger.warning("providers.fallback", missing=missing, using=list(usable), hint="not in this onnxruntime build")
    return usable


def _import_runtime() -> Any:
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


def _make_options(runtime: Any, threads: int) -> Any:
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


def _open(
    runtime: Any, graph: str, data: bytes, options: Any, providers: tuple[str, ...]
) -> tuple[Any, tuple[str, ...]]:
    """Open a graph with the first provider that manages to; the ones after it take the operators it lacks.

    Returns the session and the providers that are left: one that failed once is not tried for the other graphs.
    """
    for rank, name in enumerate(providers):
        chain = [PROVIDERS[p] for p in providers[rank:]]
        try:
            # onnxruntime's own fallback prints and goes to the CPU even where the setting does not allow it
            session = runtime.InferenceSession(data, sess_options=options, providers=chain, enable_fallback=0)
        except Exception as error:  # a provider fails to load in many ways; the last one's failure is raised below
            if rank + 1 < len(providers):
                logger.warning("providers.failed", graph=graph, provider=name, reason=_first_line(error))
                continue
            if name != "cpu":
                raise _unavailable(name, _first_line(error)) from error
            raise BundleError(
                "bundle-invalid",
                f"onnxruntime {runtime.__version__} can't open the {graph} graph: {_first_line(error)}",
                "Update onnxruntime, or export the bundle again with an older opset.",
            ) from error
        if _provider_of(session) not in providers:
            raise _unavailable(name, "it did not start")
        return session, providers[rank:]
    raise AssertionError("choose_providers returns at least one")


def _unavailable(provider: str, reason: str) -> ModelError:
    return ModelError(
        "provider-unavailable",
        f"The execution provider {provider} can't be used on this machine ({reason}), and cpu is not allowed.",
        "Check the GPU driver (`animato doctor`), or add cpu to ANIMATO_PROVIDERS.",
    )


def _provider_of(session: Any) -> str:
    first = str(session.get_providers()[0])
    return next((name for name, ort_name in PROVIDERS.items() if ort_name == first), first)


def _tell_fallbacks(usable: tuple[str, ...], sessions: Mapping[str, Session]) -> None:
    """Warn where onnxruntime opened a graph with a lesser provider than the first one asked for."""
    fallen = {graph: s.provider for graph, s in sessions.items() if s.provider != usable[0]}
    if fallen:
        logger.warning("providers.fallback", wanted=usable[0], using=fallen, hint="the provider did not start")


def _check_interface(graph: str, spec: GraphSpec, session: Any) -> None:
    _check_tensors(graph, "input", spec.inputs, session.get_inputs())
    # A file may serve several graphs: outputs that belong to another one are its business.
    names = {tensor.name for tensor in session.get_outputs()}
    known = [tensor for tensor in session.get_outputs() if tensor.name in spec.outputs]
    if len(known) < len(spec.outputs):
        raise _mismatch(graph, f"has the outputs {sorted(names)} where {sorted(spec.outputs)} are expected")
    _check_tensors(graph, "output", spec.outputs, known)


def _check_tensors(graph: str, kind: str, expected: Mapping[str, TensorSpec], actual: Sequence[Any]) -> None:
    names = {tensor.name for tensor in actual}
    if names != set(expected):
        raise _mismatch(graph, f"has the {kind}s {sorted(names)} where {sorted(expected)} are expected")
    for tensor in actual:
        objection = expected[tensor.name].objection(_DTYPES.get(tensor.type, tensor.type), tensor.shape)
        if objection:
            raise _mismatch(graph, f"does not fit the manifest: its {kind} {tensor.name} {objection}")


def _mismatch(graph: str, reason: str) -> BundleError:
    return BundleError(
        "bundle-mismatch",
        f"The bundle's {graph} graph {reason}.",
        "Export the bundle again with the animato that reads it; docs/bundle.md lists every graph's inputs.",
    )


def _translate(graph: str, error: Exception) -> ModelError:
    text = str(error).lower()
    if isinstance(error, MemoryError) or "allocate memory" in text or "bad allocation" in text or "bad_alloc" in text:
        return ModelError(
            "out-of-memory", f"There was not enough memory to run the {graph} graph.", "Use a smaller batch."
        )
    return ModelError(
        "internal",
        f"The {graph} graph failed: {_first_line(error)}",
        "Try again; if it fails again, report it with the bundle's id and version.",
    )


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:300] if lines else type(error).__name__


def as_float32(array: Array) -> NDArray[np.float32]:
    """Return the array as contiguous float32, copying only where it is not."""
    return np.ascontiguousarray(array, dtype=np.float32)
