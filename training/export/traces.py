"""What an exporter writes into a graph about the machine it ran on, and how it is taken out again."""

from __future__ import annotations

from collections.abc import Iterable

import onnx


def strip_traces(model: onnx.ModelProto) -> onnx.ModelProto:
    """Remove comments and metadata (stack traces with the paths of the machine, scopes, rule names) in place.

    What the graph computes stays. Returns the model.
    """
    model.doc_string = ""
    del model.metadata_props[:]
    _strip_graph(model.graph)
    for function in model.functions:
        function.doc_string = ""
        del function.metadata_props[:]
        _strip_nodes(function.node)
    return model


def _strip_graph(graph: onnx.GraphProto) -> None:
    graph.doc_string = ""
    del graph.metadata_props[:]
    for value in (*graph.input, *graph.output, *graph.value_info, *graph.initializer):
        value.doc_string = ""
        del value.metadata_props[:]
    _strip_nodes(graph.node)


def _strip_nodes(nodes: Iterable[onnx.NodeProto]) -> None:
    for node in nodes:
        node.doc_string = ""
        del node.metadata_props[:]
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                _strip_graph(attribute.g)
