"""Opens a bundle's graphs on the best runtime that works, behind one small Session protocol.

Everything else in ``model`` asks for a Session and knows no runtime; ``model.runtime`` holds those. No torch in here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import structlog

from model.bundle.graphs import list_graph_specs
from model.bundle.reader import Bundle
from model.quota import count_processors
from model.runtime import ncnn_engine, onnx_runtime, open_vino
from model.runtime.chain import ChainedEngine
from model.runtime.contract import Array, Engine, Fallback, as_float32
from model.runtime.interface import check_interface
from model.runtime.source import GraphSource
from model.runtime.tuning import (
    DEFAULT_PROVIDERS,
    GPU_PROVIDERS,
    PROVIDERS,
    SMALL_GRAPHS,
    WIDE_BYTES,
    Precision,
    Tuning,
    choose_providers,
    providers_of,
)

__all__ = [
    "DEFAULT_PROVIDERS",
    "GPU_PROVIDERS",
    "PROVIDERS",
    "Fallback",
    "Precision",
    "Session",
    "Tuning",
    "as_float32",
    "choose_providers",
    "list_providers",
    "open_graph",
    "open_sessions",
]

logger = structlog.get_logger(__name__)


class Session(Protocol):
    """One opened graph."""

    @property
    def provider(self) -> str:
        """The provider that really runs it, one of PROVIDERS; another one after it has failed."""
        ...

    @property
    def fallbacks(self) -> Sequence[Fallback]:
        """The providers that gave up on it, and why."""
        ...

    def run(self, **inputs: Array) -> dict[str, Array]:
        """Return the graph's outputs by name."""
        ...


class GraphSession:
    """One graph of an opened file; safe to call from several threads."""

    def __init__(self, engine: ChainedEngine, outputs: Sequence[str]) -> None:
        """``outputs``: what ``run`` shall compute of what the file gives."""
        self._engine, self._outputs = engine, list(outputs)

    @property
    def provider(self) -> str:
        """The provider that really runs it."""
        return self._engine.provider

    @property
    def fallbacks(self) -> Sequence[Fallback]:
        """The providers that gave up on the file."""
        return tuple(self._engine.fallbacks)

    def run(self, **inputs: Array) -> dict[str, Array]:
        """Run the graph once.

        Raises:
            ModelError: out-of-memory, or internal for every other failure of the last provider.
        """
        return self._engine.run(self._outputs, inputs)


def open_sessions(
    bundle: Bundle,
    providers: Sequence[str] = DEFAULT_PROVIDERS,
    threads: int | None = None,
    tuning: Tuning | None = None,
) -> dict[str, Session]:
    """Open every graph of a bundle, each from bytes whose hash was checked a moment before.

    Graphs that name the same file share one opened engine, and each computes only its own outputs.
    Providers are tried in the given order. One that is not there, or that can't open or run a graph, is told aloud in
    a warning and the next is taken; where none is left, nothing is silently run elsewhere. Small graphs are run by the
    CPU wherever it is allowed. In the default list ncnn draws wide networks only; a list of your own is followed as it
    stands.

    Args:
        bundle: what ``read_bundle`` returned.
        providers: names of PROVIDERS, best first.
        threads: threads of one graph; None or 0: what the container may really use.
        tuning: precision and caches; None: full precision, nothing kept.

    Raises:
        ModelError: provider-unknown, provider-unavailable, runtime-missing.
        BundleError: bundle-damaged or bundle-mismatch.
    """
    runtime, tuning = onnx_runtime.import_runtime(), tuning or Tuning()
    usable, default = choose_providers(providers, list_providers()), tuple(providers) == DEFAULT_PROVIDERS
    if GPU_PROVIDERS & set(usable):
        onnx_runtime.load_gpu_libraries(runtime, tuning)
    threads = threads or count_processors()
    specs = list_graph_specs(bundle.manifest)
    graphs = {graph: name for graph, name in bundle.manifest.graphs.items() if name is not None}
    opened: dict[str, ChainedEngine] = {}
    dead: set[str] = set()
    # The dearest graph first: a provider that fails is not tried for the others, so it fails with the one that matters.
    for graph in sorted(graphs, key=lambda graph: (graph != "synthesis", graph in SMALL_GRAPHS)):
        if graphs[graph] not in opened:
            shapes = {name: tensor.shape for name, tensor in specs[graph].inputs.items()}
            source = GraphSource(graph, bundle.read_graph(graph), shapes)
            wanted = providers_of(graph, usable)
            if default and len(source.data) < WIDE_BYTES:
                wanted = tuple(name for name in wanted if name != "ncnn") or wanted
            chain = [name for name in wanted if name not in dead] or wanted
            engine = _chain(source, chain, 1 if graph in SMALL_GRAPHS else threads, tuning)
            dead |= {fallback.failed for fallback in engine.fallbacks}
            opened[graphs[graph]] = engine
        check_interface(graph, specs[graph], opened[graphs[graph]])
    return {graph: GraphSession(opened[name], list(specs[graph].outputs)) for graph, name in graphs.items()}


def list_providers() -> tuple[str, ...]:
    """Return our names of the installed providers, best first.

    Installed is not yet able to start: a GPU provider also needs its driver and libraries.

    Raises:
        ModelError: runtime-missing.
    """
    there = set(onnx_runtime.list_built_in(onnx_runtime.import_runtime()))
    if open_vino.is_installed():
        there.add("openvino")
    if ncnn_engine.is_installed():
        there.add("ncnn")
    return tuple(name for name in PROVIDERS if name in there)


def open_graph(data: bytes, graph: str = "graph", threads: int = 1) -> Session:
    """Open one graph that is in no bundle yet, on the processor: what an export compares with its original.

    Args:
        data: an ONNX file.
        graph: its name in error messages.
        threads: threads of the graph.

    Raises:
        ModelError: runtime-missing. BundleError: bundle-invalid.
    """
    engine = _chain(GraphSource(graph, data), ("cpu",), threads, Tuning())
    return GraphSession(engine, [output.name for output in engine.outputs])


def _chain(source: GraphSource, providers: Sequence[str], threads: int, tuning: Tuning) -> ChainedEngine:
    def open_on(rest: Sequence[str]) -> Engine:
        if rest[0] == "openvino":
            return open_vino.OpenVinoEngine(source, threads, tuning)
        if rest[0] == "ncnn":
            return ncnn_engine.NcnnEngine(source, threads)
        return onnx_runtime.open_engine(onnx_runtime.import_runtime(), source, rest, threads, tuning)

    return ChainedEngine(source.graph, providers, open_on)
