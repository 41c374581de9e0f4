"""Prepared weights, batches in pieces, recorded runs, GPU providers' options; and the GPUs themselves where one is."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from structlog.testing import capture_logs

from model.animator import Animator
from model.bundle.reader import read_bundle
from model.errors import ModelError
from model.runtime import onnx_runtime, open_vino, prepared
from model.runtime.contract import ProviderFailedError, run_in_pieces
from model.runtime.prepared import prepare
from model.runtime.source import GraphSource
from model.sessions import Tuning, list_providers, open_sessions

ROOT = Path(__file__).parents[2]
WS = np.random.default_rng(0).standard_normal((5, 4, 16)).astype(np.float32)


def synthesis_of(bundle: Path) -> GraphSource:
    return GraphSource("synthesis", (bundle / "synthesis.onnx").read_bytes(), {"ws": ("N", 4, 16)})


# -- prepared weights -------------------------------------------------------------------------------------------------


def test_prepared_graphs_draw_the_same_frames(tiny_bundle: Path, tmp_path: Path) -> None:
    plain = open_sessions(read_bundle(tiny_bundle), ("cpu",), 1)["synthesis"].run(ws=WS)["frames"]
    for _ in range(2):  # written, then only mapped
        with capture_logs() as logs:
            opened = open_sessions(read_bundle(tiny_bundle), ("cpu",), 1, Tuning(cache_dir=tmp_path))
        assert logs == []
        assert np.array_equal(opened["synthesis"].run(ws=WS)["frames"], plain)
    places = list((tmp_path / "prepared").iterdir())
    assert len(places) == 7  # one a graph file
    assert all({p.name for p in place.iterdir()} >= {"graph.onnx", "checks.json"} for place in places)


def test_prepared_weights_are_mapped_and_not_owned(tmp_path: Path) -> None:
    """A graph of 32 MB: memory of its own when opened plainly, a mapped file when prepared."""
    program = """
import sys
from pathlib import Path
from model.runtime import onnx_runtime
from model.runtime.source import GraphSource
from model.runtime.tuning import Tuning
source = GraphSource("synthesis", Path(sys.argv[1]).read_bytes())
tuning = Tuning(cache_dir=Path(sys.argv[2]) if len(sys.argv) > 2 else None)
runtime = onnx_runtime.import_runtime()
engine = onnx_runtime.open_engine(runtime, source, ("cpu",), 1, tuning)
import numpy
engine.run(["y"], {"x": numpy.ones((1, 256), numpy.float32)})
fields = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
print(int(fields["RssAnon"].split()[0]) / 1024)
"""
    if not Path("/proc/self/status").exists():
        pytest.skip("NOT RUN: this system has no /proc to read the memory from")
    graph = tmp_path / "wide.onnx"
    graph.write_bytes(make_wide_graph())

    def own_megabytes(*cache: str) -> float:
        command = [sys.executable, "-c", program, str(graph), *cache]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=120)
        return float(done.stdout)

    own_megabytes(str(tmp_path / "cache"))  # the first one writes
    # 64 MB at least: the file as it was read, and the weights as the runtime keeps them
    assert own_megabytes() - own_megabytes(str(tmp_path / "cache")) > 24


def make_wide_graph() -> bytes:
    """y = relu(x · A) · B with 2 × 16 MB of weights."""
    from onnx import TensorProto, helper, numpy_helper

    random = np.random.default_rng(0)
    weights = [
        numpy_helper.from_array(random.standard_normal(shape, dtype=np.float32), name)
        for name, shape in (("a", (256, 16384)), ("b", (16384, 256)))
    ]
    nodes = [
        helper.make_node("MatMul", ["x", "a"], ["h"]),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("MatMul", ["r", "b"], ["y"]),
    ]
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 256]) for name in ("x", "y")]
    graph = helper.make_graph(nodes, "wide", ports[:1], ports[1:], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])
    model.ir_version = 10
    return bytes(model.SerializeToString())


def test_damaged_preparations_are_made_again(tiny_bundle: Path, tmp_path: Path) -> None:
    runtime, source = onnx_runtime.import_runtime(), synthesis_of(tiny_bundle)
    tuning = Tuning(cache_dir=tmp_path)
    expected = onnx_runtime.open_engine(runtime, source, ("cpu",), 1, tuning).run(["frames"], {"ws": WS})
    place = next((tmp_path / "prepared").iterdir())
    weights = bytearray((place / "weights.bin").read_bytes())
    weights[len(weights) // 2] ^= 0xFF
    (place / "weights.bin").unlink()  # the first engine has it mapped
    (place / "weights.bin").write_bytes(weights)
    again = onnx_runtime.open_engine(runtime, source, ("cpu",), 1, tuning).run(["frames"], {"ws": WS})
    assert np.array_equal(again["frames"], expected["frames"])
    (place / "graph.onnx").unlink()
    onnx_runtime.open_engine(runtime, source, ("cpu",), 1, tuning)
    assert (place / "graph.onnx").is_file()


def test_without_room_for_preparations_graphs_open_all_the_same(tiny_bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "prepared").write_text("a file where the folder should be")
    with capture_logs() as logs:
        opened = open_sessions(read_bundle(tiny_bundle), ("cpu",), 1, Tuning(cache_dir=tmp_path))
    assert {entry["event"] for entry in logs} == {"prepared.unused"}
    assert opened["synthesis"].run(ws=WS)["frames"].shape == (5, 64, 64, 3)


def test_another_runtime_or_processor_prepares_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[Path] = []

    def write(graph: Path, weights: str) -> None:
        graph.write_bytes(b"graph")
        (graph.parent / weights).write_bytes(b"weights")
        written.append(graph)

    first = prepare(tmp_path, "bundle runtime-1", write)
    assert first.read_bytes() == b"graph"
    assert prepare(tmp_path, "bundle runtime-1", write) == first
    assert prepare(tmp_path, "bundle runtime-2", write) != first
    monkeypatch.setattr(prepared, "describe_processor", lambda: "another one")
    assert prepare(tmp_path, "bundle runtime-1", write) != first
    assert len(written) == 3


def test_what_is_long_unused_is_removed(tmp_path: Path) -> None:
    def write(graph: Path, weights: str) -> None:
        graph.write_bytes(b"graph")

    old, kept = prepare(tmp_path, "old", write).parent, prepare(tmp_path, "kept", write).parent
    left_by_a_killed_process = tmp_path / ".draft"
    left_by_a_killed_process.mkdir()
    long_ago = old.stat().st_mtime - 40 * 86_400
    os.utime(old, (long_ago, long_ago))
    os.utime(left_by_a_killed_process, (long_ago, long_ago))
    prepare(tmp_path, "new", write)
    assert not old.exists()
    assert not left_by_a_killed_process.exists()
    assert kept.exists()


# -- batches and recordings ------------------------------------------------------------------------------------------


def test_batches_in_pieces_are_the_whole() -> None:
    seen: list[int] = []

    def double(inputs: Any) -> dict[str, Any]:
        seen.append(len(inputs["x"]))
        return {"y": inputs["x"] * 2}

    x = np.arange(7.0)
    assert np.array_equal(run_in_pieces(double, {"x": x}, 3)["y"], x * 2)
    assert seen == [3, 3, 1]


def test_recorded_runs_keep_their_buffers_and_their_results(tiny_bundle: Path) -> None:
    """The same code that records on a GPU, with its buffers in ordinary memory."""
    runtime, source = onnx_runtime.import_runtime(), synthesis_of(tiny_bundle)
    plain = onnx_runtime.open_engine(runtime, source, ("cpu",), 1, Tuning())
    session = runtime.InferenceSession(source.data, providers=["CPUExecutionProvider"])
    engine = onnx_runtime.RecordedEngine("synthesis", session, "cpu", runtime, device="cpu")
    for batch in (WS[:2], WS, WS[2:4], WS[:2] + 1):
        expected = plain.run(["frames"], {"ws": batch})["frames"]
        drawn = engine.run(["frames"], {"ws": batch})["frames"]
        assert np.array_equal(drawn, expected)
        kept = drawn.copy()
        engine.run(["frames"], {"ws": batch * 0})
        assert np.array_equal(drawn, kept), "what was handed out must not change with the next run"
    with pytest.raises(ModelError, match="synthesis graph failed"):
        engine.run(["frames"], {"ws": np.zeros((1, 4, 7), np.float32)})


def test_a_runtime_that_can_not_record_only_runs(tiny_bundle: Path) -> None:
    asked: list[dict[str, str]] = []

    class Unrecorded:
        def __getattr__(self, name: str) -> Any:
            return getattr(onnx_runtime.import_runtime(), name)

        def InferenceSession(self, data: Any, sess_options: Any, providers: Any, enable_fallback: int) -> Any:  # noqa: N802
            asked.append(providers[0][1])
            if providers[0][1].get("enable_cuda_graph") == "1":
                raise RuntimeError("This session cannot use the graph capture feature as requested by the user")
            real = onnx_runtime.import_runtime()
            session = real.InferenceSession(data, sess_options=sess_options, providers=["CPUExecutionProvider"])
            session.get_providers = lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"]
            return session

    with capture_logs() as logs:
        engine = onnx_runtime.open_engine(
            Unrecorded(), synthesis_of(tiny_bundle), ("cuda", "cpu"), 1, Tuning(cuda_graphs=True)
        )
    assert [entry["event"] for entry in logs] == ["cuda_graphs.unused"]
    assert engine.provider == "cuda"
    assert ["enable_cuda_graph" in options for options in asked] == [True, False]
    assert engine.run(["frames"], {"ws": WS})["frames"].shape == (5, 64, 64, 3)


# -- what GPU providers are told --------------------------------------------------------------------------------------


def test_tensorrt_gets_one_profile_for_all_batches_and_a_cache_a_file(tiny_bundle: Path, tmp_path: Path) -> None:
    source = synthesis_of(tiny_bundle)
    tuning = Tuning(precision="half", cache_dir=tmp_path)
    chain = onnx_runtime._configure(source, ("tensorrt", "cuda", "openvino", "cpu"), tuning)
    assert [name for name, _ in chain] == [onnx_runtime.ORT_NAMES[name] for name in ("tensorrt", "cuda", "cpu")]
    told, cuda = chain[0][1], chain[1][1]
    assert [told[f"trt_profile_{key}_shapes"] for key in ("min", "opt", "max")] == [
        "ws:1x4x16",
        "ws:8x4x16",
        "ws:16x4x16",
    ]
    assert (told["trt_fp16_enable"], cuda["use_tf32"]) == ("1", "1")
    folder = Path(told["trt_engine_cache_path"])
    assert folder.is_dir()
    other = GraphSource("synthesis", source.data + b" ", source.shapes)  # other weights under the same names
    assert onnx_runtime._configure(other, ("tensorrt",), tuning)[0][1]["trt_engine_cache_path"] != str(folder)
    full = onnx_runtime._configure(source, ("tensorrt", "cuda"), Tuning())
    assert (full[0][1]["trt_fp16_enable"], full[1][1]["use_tf32"]) == ("0", "0")
    assert "trt_engine_cache_enable" not in full[0][1]


# -- the real ones ----------------------------------------------------------------------------------------------------


def usable(provider: str) -> bool:
    """Is the provider installed, and is there something for it to run on?"""
    there = provider in list_providers()
    return there and (provider == "openvino" or Path("/dev/nvidiactl").exists())


@pytest.mark.parametrize("precision", ["full", "half"])
@pytest.mark.parametrize("provider", ["tensorrt", "cuda", "openvino"])
def test_other_providers_draw_what_the_cpu_draws(provider: str, precision: Any, tmp_path: Path) -> None:
    """On a shipped bundle, with real faces. Half precision must keep 40 dB, full precision a level of uint8."""
    if not usable(provider):
        pytest.skip(f"NOT RUN: {provider} is not installed here or has no device, so its parity was not tested")
    bundle = ROOT / "bundles" / "human"
    reference = Animator.from_bundle(bundle, ("cpu",), threads=1)
    with capture_logs() as logs:
        animator = Animator.from_bundle(
            bundle, (provider, "cpu"), 1, Tuning(precision, cache_dir=tmp_path, cuda_graphs=True)
        )
        animator.warm_up(3)
    assert not [entry for entry in logs if "fallback" in entry["event"]], "it must not fall back unseen"
    assert animator.providers_in_use["synthesis"] == animator.providers_in_use["encoder"] == provider
    assert animator.providers_in_use["motion"] == "cpu"
    face = reference.sample_face(3)
    motion = reference.move(face, "laughing out loud", frames=20, seed=3)
    expected = np.concatenate(list(reference.draw(face, motion, 8))).astype(float)
    drawn = np.concatenate(list(animator.draw(face, motion, 8)))  # 8, 8 and 4 at once
    errors = np.square(drawn - expected).mean(axis=(1, 2, 3))
    assert (10 * np.log10(255**2 / errors.clip(1e-9))).min() > (60 if precision == "full" else 40)
    inverted, own = animator.invert(face.crop), reference.invert(face.crop)
    assert np.abs(inverted.ws - own.ws).max() < (0.01 if precision == "full" else 0.2) * np.abs(own.ws).max()


def test_openvino_refuses_a_wrong_call_and_a_graph_of_free_sizes(tiny_bundle: Path) -> None:
    if not usable("openvino"):
        pytest.skip("NOT RUN: openvino is not installed here (pip install -e '.[openvino]')")
    engine = open_vino.OpenVinoEngine(synthesis_of(tiny_bundle), 1, Tuning())
    for wrong in ({"ws": WS.astype(np.float64)}, {"ws": WS[:, :, :3]}, {"latents": WS}, {}):
        with pytest.raises(ModelError, match="synthesis graph failed"):
            engine.run(["frames"], wrong)
    one = engine.run(["frames"], {"ws": WS[:1]})["frames"]
    kept = one.copy()
    assert np.array_equal(engine.run(["frames"], {"ws": WS})["frames"][0], kept[0])
    assert np.array_equal(one, kept)
    text = GraphSource("text", (tiny_bundle / "text.onnx").read_bytes())
    with pytest.raises(ProviderFailedError, match="free sizes"):
        open_vino.OpenVinoEngine(text, 1, Tuning())


def test_openvino_alone_can_not_run_the_small_graphs(tiny_bundle: Path) -> None:
    if not usable("openvino"):
        pytest.skip("NOT RUN: openvino is not installed here (pip install -e '.[openvino]')")
    with pytest.raises(ModelError, match="can't run the text graph") as caught:
        open_sessions(read_bundle(tiny_bundle), ("openvino",), 1)
    assert caught.value.code == "provider-unavailable"
