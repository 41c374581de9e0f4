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
from model.runtime import ncnn_engine, onnx_runtime, open_vino
from model.runtime.contract import ProviderFailedError
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
        assert choose_providers(("tensorrt", "cuda", "cpu"), ["cpu"]) == ("cpu",)
    assert [(entry["event"], entry["log_level"]) for entry in logs] == [("providers.fallback", "warning")]
    assert logs[0]["missing"] == ["tensorrt", "cuda"]
    with capture_logs() as logs:
        assert choose_providers(("cuda", "cpu"), ["cuda", "cpu"]) == ("cuda", "cpu")
    assert logs == []


def test_what_is_installed_is_listed_by_our_names(monkeypatch: pytest.MonkeyPatch) -> None:
    import onnxruntime

    assert "cpu" in list_providers()
    monkeypatch.setattr(onnx_runtime, "import_runtime", lambda: FakeRuntime(onnxruntime, raises=False))
    for there in (False, True):
        monkeypatch.setattr(open_vino, "is_installed", lambda there=there: there)
        monkeypatch.setattr(ncnn_engine, "is_installed", lambda there=there: there)
        assert list_providers() == (("cuda", "openvino", "ncnn", "cpu") if there else ("cuda", "cpu"))


def test_order_is_the_settings_order() -> None:
    with capture_logs() as logs:
        assert choose_providers(("cpu", "cuda"), ["cuda", "cpu"]) == ("cpu", "cuda")
    assert logs == []


def test_without_cpu_in_the_list_nothing_runs_there_silently(tiny_bundle: Path) -> None:
    with pytest.raises(ModelError) as caught:
        choose_providers(("tensorrt", "cuda"), ["cpu"])
    assert caught.value.code == "provider-unavailable"
    assert "gpu extra" in caught.value.hint


@pytest.mark.parametrize("wanted", [(), ("rocm",), ("cpu", "CPUExecutionProvider")])
def test_unknown_providers(wanted: tuple[str, ...]) -> None:
    with pytest.raises(ModelError) as caught:
        choose_providers(wanted, ["cpu"])
    assert caught.value.code == "provider-unknown"


class FakeSession:
    """onnxruntime's own session, which says that it runs on CUDA. Every run takes what comes last in ``breaks``: an
    error to raise, or None."""

    def __init__(self, real: Any, breaks: list[Exception | None]) -> None:
        self._real, self._breaks = real, breaks

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def get_providers(self) -> list[str]:
        return [CUDA, CPU]

    def run(self, outputs: list[str], inputs: dict[str, Any]) -> Any:
        error = self._breaks.pop() if self._breaks else None
        if error is not None:
            raise error
        return self._real.run(outputs, inputs)


class FakeRuntime:
    """onnxruntime with a CUDA provider; its libraries are broken in one of the two ways that occur, or it works."""

    def __init__(self, real: Any, raises: bool | None, breaks: list[Exception | None] | None = None) -> None:
        self._real, self._raises, self.breaks = real, raises, [] if breaks is None else breaks
        self.asked: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def get_available_providers(self) -> list[str]:
        return [CUDA, CPU]

    def preload_dlls(self) -> None:
        pass

    def InferenceSession(self, data: Any, sess_options: Any, providers: Any, enable_fallback: int) -> Any:  # noqa: N802
        assert enable_fallback == 0
        names = [provider if isinstance(provider, str) else provider[0] for provider in providers]
        self.asked.append(names[0])
        if self._raises and CUDA in names:
            raise RuntimeError("libcublasLt.so.13: cannot open shared object file\nand more")
        session = self._real.InferenceSession(data, sess_options=sess_options, providers=[CPU])
        return FakeSession(session, self.breaks) if CUDA in names and self._raises is None else session


@pytest.mark.parametrize("raises", [True, False])
def test_a_provider_that_does_not_start_falls_back_aloud(
    tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch, raises: bool
) -> None:
    import onnxruntime

    fake = FakeRuntime(onnxruntime, raises)
    monkeypatch.setattr(onnx_runtime, "import_runtime", lambda: fake)
    with capture_logs() as logs:
        animator = Animator.from_bundle(tiny_bundle, providers=("cuda", "cpu"), threads=1)
    assert set(animator.providers_in_use.values()) == {"cpu"}
    warnings = [entry for entry in logs if entry["event"] == "providers.fallback" and entry["log_level"] == "warning"]
    reason = "libcublasLt.so.13: cannot open shared object file" if raises else "did not start"
    assert reason in warnings[0]["reason"]
    assert (warnings[0]["graph"], warnings[0]["failed"], warnings[0]["using"]) == ("synthesis", "cuda", "cpu")
    assert fake.asked.count(CUDA) == 1  # not tried again for every graph
    assert [(f.graph, f.failed, f.using) for f in animator.fallbacks] == [("synthesis", "cuda", "cpu")]
    with capture_logs(), pytest.raises(ModelError) as caught:
        Animator.from_bundle(tiny_bundle, providers=("cuda",), threads=1)
    assert caught.value.code == "provider-unavailable"


def test_a_provider_that_fails_while_running_is_left_for_good(
    tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import onnxruntime

    fake = FakeRuntime(onnxruntime, raises=None)
    monkeypatch.setattr(onnx_runtime, "import_runtime", lambda: fake)
    animator = Animator.from_bundle(tiny_bundle, providers=("cuda", "cpu"), threads=1)
    assert animator.providers_in_use["synthesis"] == animator.providers_in_use["encoder"] == "cuda"
    assert animator.providers_in_use["text"] == animator.providers_in_use["motion"] == "cpu"  # small ones
    face = animator.sample_face(1)
    motion = animator.move(face, "smiling", frames=20, seed=1)
    expected = np.concatenate(list(animator.draw(face, motion, 8)))
    assert animator.fallbacks == ()

    fake.breaks.append(RuntimeError("CUDA failure 700: an illegal memory access was encountered"))
    with capture_logs() as logs:
        drawn = np.concatenate(list(animator.draw(face, motion, 8)))
    assert np.array_equal(drawn, expected)
    assert animator.providers_in_use["synthesis"] == "cpu"
    assert animator.providers_in_use["encoder"] == "cuda"  # it has not failed
    warning = next(entry for entry in logs if entry["event"] == "providers.fallback")
    assert (warning["graph"], warning["failed"], warning["when"]) == ("synthesis", "cuda", "while running")
    assert "illegal memory access" in animator.fallbacks[0].reason
    with capture_logs() as logs:
        list(animator.draw(face, motion, 8))
    assert logs == []  # told once


def test_a_wrong_call_dethrones_no_provider(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import onnxruntime

    monkeypatch.setattr(onnx_runtime, "import_runtime", lambda: FakeRuntime(onnxruntime, raises=None))
    session = open_sessions(read_bundle(tiny_bundle), ("cuda", "cpu"), threads=1)["synthesis"]
    for wrong in ({"ws": np.zeros((1, 4, 7), np.float32)}, {"latents": np.zeros((1, 4, 16), np.float32)}, {}):
        with pytest.raises(ModelError, match="synthesis graph failed"):
            session.run(**wrong)
    assert (session.provider, session.fallbacks) == ("cuda", ())


def test_without_another_provider_a_failure_is_an_error(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import onnxruntime

    breaks: list[Exception | None] = []
    monkeypatch.setattr(onnx_runtime, "import_runtime", lambda: FakeRuntime(onnxruntime, None, breaks))
    session = open_sessions(read_bundle(tiny_bundle), ("cuda",), threads=1)["synthesis"]
    breaks.append(RuntimeError("CUDA error: out of memory"))
    with pytest.raises(ModelError) as caught:
        session.run(ws=np.zeros((1, 4, 16), np.float32))
    assert caught.value.code == "out-of-memory"


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
    real = onnx_runtime.make_options
    monkeypatch.setattr(onnx_runtime, "make_options", lambda runtime, n: (asked.append(n), real(runtime, n))[1])
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
    for error in (RuntimeError("Failed to allocate memory for requested buffer of size 1"), MemoryError()):
        assert ProviderFailedError.from_error(error).to_model_error("synthesis").code == "out-of-memory"


def test_bundle_without_quality_opens(tmp_path: Path) -> None:
    from tests.model.tiny_bundle import build_tiny_bundle

    bundle = build_tiny_bundle(tmp_path / "plain", quality=False)
    assert json.loads((bundle / "manifest.json").read_text())["graphs"]["quality"] is None
    animator = Animator.from_bundle(bundle, providers=("cpu",), threads=1)
    picture = animator.sample_face(0).crop
    assert animator.measure_identity(picture, picture) is None
