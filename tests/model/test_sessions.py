"""Providers fall back aloud, graphs are compared with the manifest, failures come in sentences."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from structlog.testing import capture_logs

from model import sessions
from model.animator import Animator
from model.bundle.reader import read_bundle, read_manifest
from model.bundle.writer import write_bundle
from model.errors import BundleError, ModelError
from model.sessions import choose_providers, list_providers, open_sessions

CPU = "CPUExecutionProvider"
CUDA = "CUDAExecutionProvider"


def remake(bundle: Path, directory: Path, name: str, data: bytes) -> Path:
    """Write the bundle again with one other file, and honest hashes."""
    manifest = read_manifest(bundle)
    files: dict[str, Path | bytes] = {n: bundle / n for n in manifest.files}
    return write_bundle(directory, manifest.to_dict(), files | {name: data})


def test_every_graph_of_the_tiny_bundle_opens(tiny_bundle: Path) -> None:
    opened = open_sessions(read_bundle(tiny_bundle), ("cpu",), threads=1)
    assert set(opened) == {"text", "image", "encoder", "motion", "mapping", "synthesis", "quality"}
    assert {s.provider for s in opened.values()} == {"cpu"}


def test_missing_providers_fall_back_aloud() -> None:
    with capture_logs() as logs:
        assert choose_providers(("tensorrt", "cuda", "cpu"), [CPU]) == ("cpu",)
    assert [(entry["event"], entry["log_level"]) for entry in logs] == [("providers.fallback", "warning")]
    assert logs[0]["missing"] == ["tensorrt", "cuda"]
    with capture_logs() as logs:
        assert choose_providers(("cuda", "cpu"), [CUDA, CPU]) == ("cuda", "cpu")
    assert logs == []


def test_what_is_installed_is_listed_by_our_names(monkeypatch: pytest.MonkeyPatch) -> None:
    import onnxruntime

    assert "cpu" in list_providers()
    monkeypatch.setattr(sessions, "_import_runtime", lambda: FakeRuntime(onnxruntime, raises=False))
    assert list_providers() == ("cuda", "cpu")


def test_order_is_the_settings_order() -> None:
    with capture_logs() as logs:
        assert choose_providers(("cpu", "cuda"), [CUDA, CPU]) == ("cpu", "cuda")
    assert logs == []


def test_without_cpu_in_the_list_nothing_runs_there_silently(tiny_bundle: Path) -> None:
    with pytest.raises(ModelError) as caught:
        choose_providers(("tensorrt", "cuda"), [CPU])
    assert caught.value.code == "provider-unavailable"
    assert "gpu extra" in caught.value.hint


@pytest.mark.parametrize("wanted", [(), ("rocm",), ("cpu", "CPUExecutionProvider")])
def test_unknown_providers(wanted: tuple[str, ...]) -> None:
    with pytest.raises(ModelError) as caught:
        choose_providers(wanted, [CPU])
    assert caught.value.code == "provider-unknown"


class FakeRuntime:
    """onnxruntime with a CUDA provider whose libraries are broken in one of the two ways that occur."""

    def __init__(self, real: Any, raises: bool) -> None:
        self._real, self._raises = real, raises
        self.asked: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def get_available_providers(self) -> list[str]:
        return [CUDA, CPU]

    def preload_dlls(self) -> None:
        pass

    def InferenceSession(self, data: bytes, sess_options: Any, providers: list[str], enable_fallback: int) -> Any:  # noqa: N802
        assert enable_fallback == 0
        self.asked.append(providers[0])
        if self._raises and CUDA in providers:
            raise RuntimeError("libcublasLt.so.13: cannot open shared object file\nand more")
        return self._real.InferenceSession(data, sess_options=sess_options, providers=[CPU])


@pytest.mark.parametrize("raises", [True, False])
def test_a_provider_that_does_not_start_falls_back_aloud(
    tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch, raises: bool
) -> None:
    import onnxruntime

    fake = FakeRuntime(onnxruntime, raises)
    monkeypatch.setattr(sessions, "_import_runtime", lambda: fake)
    with capture_logs() as logs:
        animator = Animator.from_bundle(tiny_bundle, providers=("cuda", "cpu"), threads=1)
    assert set(animator.providers_in_use.values()) == {"cpu"}
    warnings = [entry for entry in logs if entry["log_level"] == "warning"]
    assert any(entry["event"] == "providers.fallback" for entry in warnings)
    if raises:
        assert any("libcublasLt" in entry.get("reason", "") for entry in warnings)
        assert fake.asked.count(CUDA) == 1  # not tried again for every graph
    with capture_logs(), pytest.raises(ModelError) as caught:
        Animator.from_bundle(tiny_bundle, providers=("cuda",), threads=1)
    assert caught.value.code == "provider-unavailable"


def test_runtime_that_is_not_installed(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ModelError) as caught:
        open_sessions(read_bundle(tiny_bundle))
    assert caught.value.code == "runtime-missing"
    assert "cpu extra" in caught.value.hint


def test_threads_reach_the_runtime(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "count_processors", lambda: 3)
    asked: list[int] = []
    real = sessions._make_options
    monkeypatch.setattr(sessions, "_make_options", lambda runtime, n: (asked.append(n), real(runtime, n))[1])
    open_sessions(read_bundle(tiny_bundle), ("cpu",))
    assert sorted(set(asked)) == [1, 3]
    asked.clear()
    open_sessions(read_bundle(tiny_bundle), ("cpu",), threads=2)
    assert sorted(set(asked)) == [1, 2]


def test_graph_with_another_input_name(tiny_bundle: Path, tmp_path: Path) -> None:
    graph = onnx.load(tiny_bundle / "synthesis.onnx")
    graph.graph.input[0].name = "latents"
    for node in graph.graph.node:
        node.input[:] = ["latents" if name == "ws" else name for name in node.input]
    bundle = remake(tiny_bundle, tmp_path / "b", "synthesis.onnx", graph.SerializeToString())
    with pytest.raises(BundleError) as caught:
        Animator.from_bundle(bundle, providers=("cpu",))
    assert caught.value.code == "bundle-mismatch"
    assert "synthesis graph has the inputs ['latents'] where ['ws'] are expected" in caught.value.message


def test_graph_of_another_size(tiny_bundle: Path, tmp_path: Path) -> None:
    from tests.model.tiny_bundle import make_synthesis

    other = make_synthesis(np.random.default_rng(0), 32)
    bundle = remake(tiny_bundle, tmp_path / "b", "synthesis.onnx", other.SerializeToString())
    with pytest.raises(BundleError, match=r"frames has the shape \[N,32,32,3\] where \[N,64,64,3\] is expected"):
        Animator.from_bundle(bundle, providers=("cpu",))


def test_graph_with_a_baked_in_batch(tiny_bundle: Path, tmp_path: Path) -> None:
    graph = onnx.load(tiny_bundle / "synthesis.onnx")
    for tensor in (*graph.graph.input, *graph.graph.output):
        tensor.type.tensor_type.shape.dim[0].ClearField("dim_param")
        tensor.type.tensor_type.shape.dim[0].dim_value = 4
    bundle = remake(tiny_bundle, tmp_path / "b", "synthesis.onnx", graph.SerializeToString())
    with pytest.raises(BundleError, match="fixed size where"):
        Animator.from_bundle(bundle, providers=("cpu",))


def test_graph_of_another_type(tiny_bundle: Path, tmp_path: Path) -> None:
    graph = onnx.load(tiny_bundle / "text.onnx")
    graph.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.INT32
    bundle = remake(tiny_bundle, tmp_path / "b", "text.onnx", graph.SerializeToString())
    with pytest.raises(BundleError, match=r"input_ids is tensor\(int32\) where int64 is expected"):
        Animator.from_bundle(bundle, providers=("cpu",))


def test_file_that_is_no_graph(tiny_bundle: Path, tmp_path: Path) -> None:
    bundle = remake(tiny_bundle, tmp_path / "b", "text.onnx", b"not a graph")
    with pytest.raises(BundleError, match="can't open the text graph"):
        Animator.from_bundle(bundle, providers=("cpu",))


def test_failures_while_running_come_in_sentences(tiny_bundle: Path) -> None:
    session = open_sessions(read_bundle(tiny_bundle), ("cpu",), threads=1)["synthesis"]
    with pytest.raises(ModelError) as caught:
        session.run(ws=np.zeros((1, 4, 7), np.float32))
    assert caught.value.code == "internal"
    assert "synthesis graph failed" in caught.value.message
    assert caught.value.hint


def test_running_out_of_memory_has_its_own_code() -> None:
    error = sessions._translate("synthesis", RuntimeError("Failed to allocate memory for requested buffer of size 1"))
    assert error.code == "out-of-memory"
    assert sessions._translate("synthesis", MemoryError()).code == "out-of-memory"


def test_bundle_without_quality_opens(tmp_path: Path) -> None:
    from tests.model.tiny_bundle import build_tiny_bundle

    bundle = build_tiny_bundle(tmp_path / "plain", quality=False)
    assert json.loads((bundle / "manifest.json").read_text())["graphs"]["quality"] is None
    animator = Animator.from_bundle(bundle, providers=("cpu",), threads=1)
    picture = animator.sample_face(0).crop
    assert animator.measure_identity(picture, picture) is None
