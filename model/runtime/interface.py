"""Is this file the graph that the manifest promises? Names, types and shapes, compared when it is opened."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from model.bundle.graphs import GraphSpec, TensorSpec
from model.errors import BundleError
from model.runtime.contract import Engine, Tensor


def check_interface(graph: str, spec: GraphSpec, engine: Engine) -> None:
    """Compare an opened file with what one graph must take and give.

    Raises:
        BundleError: bundle-mismatch.
    """
    _check_tensors(graph, "input", spec.inputs, engine.inputs)
    # A file may serve several graphs: outputs that belong to another one are its business.
    known = [tensor for tensor in engine.outputs if tensor.name in spec.outputs]
    if len(known) < len(spec.outputs):
        names = sorted(tensor.name for tensor in engine.outputs)
        raise _mismatch(graph, f"has the outputs {names} where {sorted(spec.outputs)} are expected")
    _check_tensors(graph, "output", spec.outputs, known)


def _check_tensors(graph: str, kind: str, expected: Mapping[str, TensorSpec], actual: Sequence[Tensor]) -> None:
    names = {tensor.name for tensor in actual}
    if names != set(expected):
        raise _mismatch(graph, f"has the {kind}s {sorted(names)} where {sorted(expected)} are expected")
    for tensor in actual:
        objection = expected[tensor.name].objection(tensor.dtype, tensor.shape)
        if objection:
            raise _mismatch(graph, f"does not fit the manifest: its {kind} {tensor.name} {objection}")


def _mismatch(graph: str, reason: str) -> BundleError:
    return BundleError(
        "bundle-mismatch",
        f"The bundle's {graph} graph {reason}.",
        "Export the bundle again with the animato that reads it; docs/bundle.md lists every graph's inputs.",
    )
