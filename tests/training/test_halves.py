"""Large weights are stored as float16, small ones and large values as they are; the graph computes nearly the same."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from model.sessions import open_graph
from training.export.bundle import ParityError, compare, shrink
from training.export.halves import FEWEST, store_halves

SIZE = 64


def linear(weight: np.ndarray, bias: np.ndarray) -> onnx.ModelProto:
    """y = x·W + b."""
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["xw"]), helper.make_node("Add", ["xw", "b"], ["y"])],
        "linear",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", SIZE])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", SIZE])],
        [numpy_helper.from_array(weight, "w"), numpy_helper.from_array(bias, "b")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


@pytest.fixture
def model() -> onnx.ModelProto:
    rng = np.random.default_rng(0)
    return linear(rng.standard_normal((SIZE, SIZE), np.float32), rng.standard_normal(SIZE, np.float32))


def kinds(model: onnx.ModelProto) -> dict[str, int]:
    return {tensor.name: tensor.data_type for tensor in model.graph.initializer}


def test_large_weights_are_halves_and_the_result_is_near(model: onnx.ModelProto) -> None:
    small = store_halves(model)
    onnx.checker.check_model(small, full_check=True)
    assert kinds(small) == {"w.half": TensorProto.FLOAT16, "b": TensorProto.FLOAT}
    assert SIZE < FEWEST <= SIZE * SIZE
    assert small.ByteSize() < 0.6 * model.ByteSize()
    x = np.random.default_rng(1).standard_normal((3, SIZE)).astype(np.float32)
    before, after = (open_graph(m.SerializeToString()).run(x=x)["y"] for m in (model, small))
    assert 0 < np.abs(before - after).max() < 1e-2


def test_the_given_model_stays_as_it_was(model: onnx.ModelProto) -> None:
    before = model.SerializeToString()
    store_halves(model)
    assert model.SerializeToString() == before


def test_values_beyond_float16_stay_float32() -> None:
    weight = np.ones((SIZE, SIZE), np.float32)
    weight[3, 3] = 1e6
    assert kinds(store_halves(linear(weight, np.zeros(SIZE, np.float32))))["w"] == TensorProto.FLOAT


def test_weights_of_a_subgraph_are_stored_too(model: onnx.ModelProto) -> None:
    branch = helper.make_graph(
        [helper.make_node("Identity", ["inner"], ["out"])],
        "branch",
        [],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, [SIZE, SIZE])],
        [numpy_helper.from_array(np.full((SIZE, SIZE), 0.1, np.float32), "inner")],
    )
    graph = helper.make_graph(
        [helper.make_node("If", ["flag"], ["y"], then_branch=branch, else_branch=branch)],
        "choice",
        [helper.make_tensor_value_info("flag", TensorProto.BOOL, [])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [SIZE, SIZE])],
    )
    whole = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    small = store_halves(whole)
    onnx.checker.check_model(small)
    assert small.ByteSize() < 0.6 * whole.ByteSize()
    assert open_graph(small.SerializeToString()).run(flag=np.array(True))["y"][0, 0] == np.float32(np.float16(0.1))


def test_too_large_a_change_is_refused(model: onnx.ModelProto) -> None:
    import torch

    x = np.random.default_rng(1).standard_normal((3, SIZE)).astype(np.float32)
    wanted = torch.from_numpy(open_graph(model.SerializeToString()).run(x=x)["y"])
    data, differences = shrink(model, {"x": x}, {"y": wanted}, 4e-3)
    assert 0 < differences["y"] < 4e-3 * float(wanted.abs().max())
    assert open_graph(data).run(x=x)["y"].shape == (3, SIZE)
    with pytest.raises(ParityError, match="float16"):
        shrink(model, {"x": x}, {"y": wanted}, 1e-7)


def test_compare_measures_and_refuses() -> None:
    given = np.array([1.0, 2.0], np.float32)
    assert compare("it", given, given + np.float32(0.5), 0.5) == 0.5
    for wrong in (given + np.float32(0.6), np.full(2, np.nan, np.float32), given[:1]):
        with pytest.raises(ParityError, match="it"):
            compare("it", given, wrong, 0.5)
