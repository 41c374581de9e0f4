"""Wide convolutions by Winograd, in bands by ncnn and inside OpenVINO's graph; toRGB as a convolution there."""

from __future__ import annotations

import threading
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from model.runtime import ncnn_engine, open_vino
from model.runtime.contract import ProviderFailedError
from model.runtime.onnx_runtime import import_runtime, open_engine
from model.runtime.source import GraphSource
from model.runtime.tuning import Tuning

BUNDLE = Path(__file__).parents[2] / "bundles" / "human"
NUMBERS = np.random.default_rng(9)
WIDE, SIDE = 256, 64

needs_ncnn = pytest.mark.skipif(
    find_spec("ncnn") is None, reason="NOT RUN: ncnn is not installed here (pip install -e '.[ncnn]')"
)
needs_openvino = pytest.mark.skipif(
    find_spec("openvino") is None, reason="NOT RUN: openvino is not installed here (pip install -e '.[openvino]')"
)
needs_both = pytest.mark.skipif(
    find_spec("ncnn") is None or find_spec("openvino") is None,
    reason="NOT RUN: ncnn and openvino are not both installed here (pip install -e '.[ncnn,openvino]')",
)


def make_weight(outputs: int, inputs: int) -> np.ndarray:
    return NUMBERS.normal(0, 1 / (3 * inputs**0.5), (outputs, inputs, 3, 3)).astype(np.float32)


def make_graph(weight: np.ndarray, side: int = SIDE, **attributes: list[int]) -> GraphSource:
    """x [N,in,side,side] and matrix [N,3,out] → maps, its convolution, and rgb [N,3,…], their product."""
    attributes = {"kernel_shape": list(weight.shape[2:]), "pads": [1, 1, 1, 1]} | attributes
    outputs, inputs, *_ = weight.shape
    stored = weight.dtype == np.float16
    nodes = [helper.make_node("Cast", ["w"], ["wide"], to=TensorProto.FLOAT)] if stored else []
    nodes += [
        helper.make_node("Conv", ["x", "wide" if stored else "w"], ["maps"], **attributes),  # type: ignore[arg-type]
        helper.make_node("Reshape", ["maps", "flat"], ["rows"]),
        helper.make_node("MatMul", ["matrix", "rows"], ["rgb"]),
    ]
    given = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", inputs, side, side]),
        helper.make_tensor_value_info("matrix", TensorProto.FLOAT, ["N", 3, outputs]),
    ]
    made = [
        helper.make_tensor_value_info("maps", TensorProto.FLOAT, ["N", outputs, None, None]),
        helper.make_tensor_value_info("rgb", TensorProto.FLOAT, ["N", 3, None]),
    ]
    held = [
        numpy_helper.from_array(weight, "w"),
        numpy_helper.from_array(np.array([0, outputs, -1]), "flat"),
    ]
    graph = helper.make_graph(nodes, "wide", given, made, held)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model)
    return GraphSource("synthesis", model.SerializeToString())


def make_inputs(source: GraphSource, batch: int = 1) -> dict[str, np.ndarray]:
    x, matrix = onnx.load_model_from_string(source.data).graph.input
    shapes = {one.name: [size.dim_value for size in one.type.tensor_type.shape.dim][1:] for one in (x, matrix)}
    return {name: NUMBERS.standard_normal((batch, *shape)).astype(np.float32) for name, shape in shapes.items()}


def run_plainly(source: GraphSource, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return open_engine(import_runtime(), source, ("cpu",), 1, Tuning()).run(["maps", "rgb"], inputs)


def distance(found: np.ndarray, wanted: np.ndarray) -> float:
    """Return the largest difference, as a share of the usual size."""
    return float(np.abs(found - wanted).max() / wanted.std())


@pytest.fixture
def handed_over(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """Return a list that fills with the shapes of weights that ncnn gets."""
    shapes: list[tuple[int, ...]] = []

    class Watched(ncnn_engine.WinogradConvolution):
        def __init__(self, weight: np.ndarray, threads: int) -> None:
            shapes.append(weight.shape)
            super().__init__(weight, threads)

    monkeypatch.setattr(ncnn_engine, "WinogradConvolution", Watched)
    return shapes


@needs_ncnn
@pytest.mark.parametrize("size", [(1, 7), (31, 20), (32, 9), (33, 16), (70, 40)])
def test_bands_meet_without_a_seam(size: tuple[int, int]) -> None:
    weight = make_weight(24, 48)
    x = NUMBERS.standard_normal((48, *size)).astype(np.float32)
    around = np.pad(x, ((0, 0), (1, 1), (1, 1)))
    wanted = sum(
        np.einsum("oi,ihw->ohw", weight[:, :, i, j], around[:, i : i + size[0], j : j + size[1]])
        for i in range(3)
        for j in range(3)
    )
    found = np.full_like(wanted, np.nan)
    ncnn_engine.WinogradConvolution(weight, 1)(x, found)
    assert distance(found, wanted) < 1e-3


@needs_both
@pytest.mark.parametrize(("precision", "allowed"), [("full", 1e-3), ("half", 0.05)])
def test_openvino_draws_the_same_with_layers_handed_over(
    precision: str, allowed: float, handed_over: list[tuple[int, ...]], tmp_path: Path
) -> None:
    source = make_graph(make_weight(WIDE, WIDE))
    inputs = make_inputs(source, batch=2)
    wanted = run_plainly(source, inputs)
    for _ in range(2):  # a folder for compiled files is no hindrance, at the second start neither
        engine = open_vino.OpenVinoEngine(source, 2, Tuning(precision, cache_dir=tmp_path))  # type: ignore[arg-type]
        found = engine.run(["maps", "rgb"], inputs)
        for name, values in wanted.items():
            assert found[name].shape == values.shape
            assert distance(found[name], values) < allowed
    assert handed_over == [(WIDE, WIDE, 3, 3)] * 2


@needs_both
def test_weights_stored_as_halves_are_handed_over(handed_over: list[tuple[int, ...]]) -> None:
    source = make_graph(make_weight(WIDE, WIDE).astype(np.float16))
    inputs = make_inputs(source)
    found = open_vino.OpenVinoEngine(source, 1, Tuning()).run(["maps"], inputs)["maps"]
    assert distance(found, run_plainly(source, inputs)["maps"]) < 1e-3
    assert handed_over == [(WIDE, WIDE, 3, 3)]


@needs_both
@pytest.mark.parametrize(
    ("weight", "side", "attributes"),
    [
        (make_weight(2 * WIDE, WIDE // 4), 2 * SIDE, {}),
        (make_weight(WIDE // 4, 2 * WIDE), 2 * SIDE, {}),
        (make_weight(WIDE, WIDE), SIDE // 2, {}),
        (make_weight(WIDE, WIDE), 2 * SIDE, {"strides": [2, 2]}),
        (make_weight(WIDE, WIDE), SIDE, {"dilations": [2, 2], "pads": [2, 2, 2, 2]}),
        (make_weight(WIDE, WIDE), SIDE + 8, {"pads": [0, 0, 0, 0]}),
        (np.ascontiguousarray(make_weight(3 * WIDE, 3 * WIDE)[:, :, :1, :1]), SIDE, {"pads": [0, 0, 0, 0]}),
    ],
    ids=["narrow in", "narrow out", "little to do", "strides", "dilations", "no zeros around", "1×1"],
)
def test_other_convolutions_stay(
    weight: np.ndarray, side: int, attributes: dict[str, list[int]], handed_over: list[tuple[int, ...]]
) -> None:
    source = make_graph(weight, side, **attributes)
    inputs = make_inputs(source)
    found = open_vino.OpenVinoEngine(source, 1, Tuning()).run(["maps", "rgb"], inputs)
    assert all(distance(found[name], values) < 1e-3 for name, values in run_plainly(source, inputs).items())
    assert handed_over == []


@needs_both
def test_bfloat16_keeps_layers_that_full_precision_hands_over(
    handed_over: list[tuple[int, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    source = make_graph(make_weight(WIDE, WIDE // 2), 2 * SIDE)
    open_vino.OpenVinoEngine(source, 1, Tuning("full"))
    assert handed_over == [(WIDE, WIDE // 2, 3, 3)]
    monkeypatch.setattr(open_vino, "_choose_precision", lambda *_: "bf16")
    open_vino.OpenVinoEngine(source, 1, Tuning("half"))
    assert len(handed_over) == 1


@needs_openvino
def test_all_products_over_pixels_of_a_shipped_bundle_become_convolutions() -> None:
    import openvino

    from model.runtime.open_vino_forms import project_by_convolution

    model = openvino.Core().read_model(BUNDLE / "synthesis.onnx")
    model.reshape([1, 14, 128])
    assert project_by_convolution(model) == 7
    products = [node for node in model.get_ordered_ops() if node.get_type_name() == "MatMul"]
    assert products, "styles and demodulation stay products"
    assert all(len(node.get_output_shape(0)) == 2 for node in products)


@needs_both
def test_all_stay_without_ncnn_and_where_bfloat16_has_units_of_its_own(
    handed_over: list[tuple[int, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    source = make_graph(make_weight(WIDE, WIDE))
    with monkeypatch.context() as patch:
        patch.setattr(ncnn_engine, "is_installed", lambda: False)
        open_vino.OpenVinoEngine(source, 1, Tuning())
    assert handed_over == []
    monkeypatch.setattr(open_vino, "describe_processor", lambda: "x86_64 avx512f amx_bf16 amx_tile")
    monkeypatch.setattr(open_vino, "_choose_precision", lambda *_: "bf16")
    open_vino.OpenVinoEngine(source, 1, Tuning("half"))
    assert handed_over == []


@needs_both
def test_a_layer_that_fails_is_the_providers_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    source = make_graph(make_weight(WIDE, WIDE))
    engine = open_vino.OpenVinoEngine(source, 1, Tuning())
    inputs = make_inputs(source)
    wanted = engine.run(["maps"], inputs)["maps"]

    def fail(*_: object) -> None:
        raise MemoryError("ncnn: out of memory")

    with monkeypatch.context() as patch:
        patch.setattr(ncnn_engine.WinogradConvolution, "__call__", fail)
        with pytest.raises(ProviderFailedError, match="out of memory"):
            engine.run(["maps"], inputs)
    assert np.array_equal(engine.run(["maps"], inputs)["maps"], wanted)


@needs_both
def test_several_threads_may_run_it_at_once() -> None:
    source = make_graph(make_weight(WIDE, WIDE))
    engine = open_vino.OpenVinoEngine(source, 1, Tuning())
    inputs = [make_inputs(source) for _ in range(3)]
    wanted = [engine.run(["maps"], one)["maps"] for one in inputs]
    found: dict[int, np.ndarray] = {}
    threads = [
        threading.Thread(target=lambda i=i: found.update({i: engine.run(["maps"], inputs[i])["maps"]}))
        for i in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert all(np.array_equal(found[i], wanted[i]) for i in range(3))
