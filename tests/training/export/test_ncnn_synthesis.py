"""Every synthesis graph that the exporter writes, drawn by ncnn as onnxruntime draws it, or refused."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from model.runtime.contract import ProviderFailedError
from model.runtime.ncnn_engine import NcnnEngine
from model.runtime.source import GraphSource
from training.export.bundle import run_graph
from training.export.graphs import export_module
from training.export.halves import store_halves
from training.export.synthesis_graph import SynthesisGraph
from training.networks.stylegan2 import ZGenerator, build_z_generator

if find_spec("ncnn") is None:
    pytest.skip("NOT RUN: ncnn is not installed here (pip install -e '.[ncnn]')", allow_module_level=True)

NUMBER = np.random.default_rng(4)


def build(architecture: Any, noise: bool, clamp: float | None, channels: tuple[int, ...]) -> ZGenerator:
    torch.manual_seed(1)
    generator = build_z_generator(
        2 ** (len(channels) + 1), channels, 16, 12, architecture=architecture, noise=noise, clamp=clamp
    ).requires_grad_(False)
    for name, parameter in generator.named_parameters():
        if name.endswith(("noise_strength", "bias")):
            parameter.add_(0.3 * torch.randn_like(parameter))
    return generator.eval()


def export(generator: ZGenerator, precision: Any = "fp32", frames: bool = True) -> onnx.ModelProto:
    example = torch.randn(2, generator.synthesis.num_ws, 12)
    graph = SynthesisGraph(generator.synthesis, precision, frames=frames)
    return export_module(graph, (example,), ["ws"], ["frames"])


def draw_ws(generator: ZGenerator, count: int) -> np.ndarray:
    return NUMBER.normal(size=(count, generator.synthesis.num_ws, 12)).astype(np.float32)


def open_by_ncnn(model: onnx.ModelProto, threads: int = 1) -> NcnnEngine:
    return NcnnEngine(GraphSource("synthesis", model.SerializeToString()), threads)


@pytest.fixture(scope="module")
def plain() -> tuple[ZGenerator, onnx.ModelProto]:
    """A generator with skips and noise, and its graph. Exports are the dear part of these tests."""
    generator = build("skip", True, None, (16, 8))
    return generator, export(generator)


@pytest.mark.parametrize(
    ("architecture", "noise", "clamp", "channels"),
    [
        ("skip", True, 0.5, (12, 10, 8, 5)),  # widths that fill no vector, one of four, one of eight
        ("resnet", True, 0.5, (12, 10, 8, 5)),
        ("resnet", False, None, (32, 32, 16)),
        ("orig", True, None, (32, 16)),
        ("skip", False, None, (16,)),  # nothing but the constant's layer
    ],
)
def test_it_draws_what_onnxruntime_draws(architecture: str, noise: bool, clamp: float | None, channels: Any) -> None:
    generator = build(architecture, noise, clamp, channels)
    model = export(generator)
    ws = draw_ws(generator, 3)
    wanted = run_graph(model, ws=ws)["frames"]
    assert wanted.std() > 20, "a picture, not a blank"
    for threads in (1, 2):
        frames = open_by_ncnn(model, threads).run(["frames"], {"ws": ws})["frames"]
        assert frames.dtype == np.uint8
        assert frames.shape == wanted.shape
        assert np.abs(frames.astype(int) - wanted).max() <= 1


def test_weights_stored_as_halves_are_the_same_weights(plain: tuple[ZGenerator, onnx.ModelProto]) -> None:
    generator, model = plain[0], store_halves(plain[1])
    assert any(node.op_type == "Cast" for node in model.graph.node)
    ws = draw_ws(generator, 2)
    frames = open_by_ncnn(model).run(["frames"], {"ws": ws})["frames"]
    assert np.abs(frames.astype(int) - run_graph(model, ws=ws)["frames"]).max() <= 1


def test_styles_of_either_sign_are_kept() -> None:
    generator = build("skip", False, None, (16, 16))
    for name, parameter in generator.named_parameters():
        if name.endswith("affine.bias"):
            parameter.zero_()  # styles about 0: half of them negative
    model, ws = export(generator), draw_ws(generator, 2)
    frames = open_by_ncnn(model).run(["frames"], {"ws": ws})["frames"]
    assert np.abs(frames.astype(int) - run_graph(model, ws=ws)["frames"]).max() <= 1


def test_a_graph_that_computes_in_halves_is_refused() -> None:
    with pytest.raises(ProviderFailedError, match="Cast"):
        open_by_ncnn(export(build("skip", True, None, (8, 8)), "fp16"))


def test_a_graph_that_gives_no_frames_is_refused() -> None:
    with pytest.raises(ProviderFailedError, match="draws no frames"):
        open_by_ncnn(export(build("skip", True, None, (8, 8)), frames=False))


def change(kind: str, model: onnx.ModelProto) -> None:
    """Make of a graph one that our exporter does not write, and that onnxruntime takes."""
    graph = model.graph
    first = next(node for node in graph.node if node.op_type == kind)
    if kind == "Conv":
        next(a for a in first.attribute if a.name == "pads").ints[:] = [2, 2, 2, 2]
        next(a for a in first.attribute if a.name == "dilations").ints[:] = [2, 2]
    elif kind == "LeakyRelu":
        first.op_type = "Sigmoid"
        del first.attribute[:]
    elif kind == "Add":
        where = next(i for i, node in enumerate(graph.node) if node.op_type == "LeakyRelu")
        inner = graph.node[where].input[0]
        graph.initializer.append(numpy_helper.from_array(np.float32(0.25).reshape(()), "quarter"))
        graph.node.insert(where, helper.make_node("Add", [inner, "quarter"], ["lifted"]))
        graph.node[where + 1].input[0] = "lifted"


@pytest.mark.parametrize("kind", ["Conv", "LeakyRelu", "Add"])
def test_what_there_is_no_word_for_is_refused_and_not_drawn_wrong(
    kind: str, plain: tuple[ZGenerator, onnx.ModelProto]
) -> None:
    generator, model = plain[0], onnx.ModelProto()
    model.CopyFrom(plain[1])
    change(kind, model)
    run_graph(model, ws=draw_ws(generator, 1))
    with pytest.raises(ProviderFailedError):
        open_by_ncnn(model)


def test_other_files_are_refused_in_words() -> None:
    product = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 4])],
        [numpy_helper.from_array(np.eye(4, dtype=np.float32), "w")],
    )
    for data in (helper.make_model(product).SerializeToString(), b"no graph at all"):
        with pytest.raises(ProviderFailedError) as caught:
            NcnnEngine(GraphSource("synthesis", data), 1)
        assert caught.value.reason
