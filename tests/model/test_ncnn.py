"""ncnn on what ships: parity, which graphs it gets, when it is chosen by itself, its threads and its memory."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from structlog.testing import capture_logs

from model import sessions
from model.animator import Animator
from model.bundle.reader import read_bundle
from model.errors import ModelError
from model.runtime import ncnn_engine, open_vino
from model.runtime.contract import ProviderFailedError
from model.runtime.source import GraphSource
from model.runtime.tuning import DEFAULT_PROVIDERS, providers_of
from model.sessions import list_providers, open_sessions

ROOT = Path(__file__).parents[2]
BUNDLE = ROOT / "bundles" / "human"
NUMBERS = np.random.default_rng(6)

needs_ncnn = pytest.mark.skipif(
    find_spec("ncnn") is None, reason="NOT RUN: ncnn is not installed here (pip install -e '.[ncnn]')"
)


@pytest.fixture(scope="module")
def engine() -> ncnn_engine.NcnnEngine:
    return ncnn_engine.NcnnEngine(GraphSource("synthesis", (BUNDLE / "synthesis.onnx").read_bytes()), 2)


def draw_ws(count: int) -> np.ndarray:
    return NUMBERS.normal(size=(count, 14, 128)).astype(np.float32)


@needs_ncnn
def test_it_draws_a_shipped_bundle_as_the_cpu_draws_it() -> None:
    with capture_logs() as logs:
        animator = Animator.from_bundle(BUNDLE, ("ncnn", "cpu"), 1)
    assert not [entry for entry in logs if "fallback" in entry["event"]], "it must not fall back unseen"
    used = animator.providers_in_use
    assert used.pop("synthesis") == "ncnn"
    assert set(used.values()) == {"cpu"}
    reference = Animator.from_bundle(BUNDLE, ("cpu",), 1)
    face = reference.sample_face(3)
    motion = reference.move(face, "laughing out loud", frames=5, seed=3)
    expected = np.concatenate(list(reference.draw(face, motion, 4))).astype(float)
    drawn = np.concatenate(list(animator.draw(face, motion, 4)))  # 4 and 1 at once
    errors = np.square(drawn - expected).mean(axis=(1, 2, 3))
    assert (10 * np.log10(255**2 / errors.clip(1e-9))).min() > 60


@needs_ncnn
def test_several_threads_may_draw_at_once(engine: ncnn_engine.NcnnEngine) -> None:
    batches = [draw_ws(1) for _ in range(4)]
    alone = [engine.run(["frames"], {"ws": ws})["frames"] for ws in batches]
    together: dict[int, np.ndarray] = {}

    def draw(number: int) -> None:
        together[number] = engine.run(["frames"], {"ws": batches[number]})["frames"]

    threads = [threading.Thread(target=draw, args=(number,)) for number in range(len(batches))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({frames.tobytes() for frames in alone}) == len(batches)
    for number, frames in enumerate(alone):
        assert np.array_equal(together[number], frames)


@needs_ncnn
def test_memory_does_not_grow_with_frames(engine: ncnn_engine.NcnnEngine) -> None:
    def resident_mb() -> float:
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 1e6

    ws = draw_ws(1)
    for _ in range(10):
        engine.run(["frames"], {"ws": ws})
    before = resident_mb()
    for _ in range(40):
        engine.run(["frames"], {"ws": ws})
    # the largest map has 4 MB: one that were not given back a frame would be 160
    assert resident_mb() - before < 40


@needs_ncnn
def test_its_threads_wait_asleep() -> None:
    """Counting while another process has the core makes a frame a hundred times as long; OpenMP is told in time."""
    program = """
import os, sys
from pathlib import Path
from model.runtime.ncnn_engine import NcnnEngine
from model.runtime.source import GraphSource
assert "ncnn" not in sys.modules and "OMP_WAIT_POLICY" not in os.environ
NcnnEngine(GraphSource("synthesis", Path(sys.argv[1]).read_bytes()), 2)
print(os.environ["OMP_WAIT_POLICY"], "ncnn" in sys.modules)
"""
    told = subprocess.run(
        [sys.executable, "-c", program, str(BUNDLE / "synthesis.onnx")],
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert told.stdout.split() == ["PASSIVE", "True"]


@needs_ncnn
def test_a_wrong_call_is_the_callers_fault(engine: ncnn_engine.NcnnEngine) -> None:
    ws = draw_ws(1)
    for wrong in ({"ws": ws.astype(np.float64)}, {"ws": ws[:, :, :3]}, {"latents": ws}, {}):
        with pytest.raises(ModelError, match="synthesis graph failed"):
            engine.run(["frames"], wrong)


@needs_ncnn
def test_a_graph_that_it_can_not_draw_falls_back_aloud(tiny_bundle: Path) -> None:
    """The tests' own little bundle is no StyleGAN2."""
    with pytest.raises(ProviderFailedError):
        ncnn_engine.NcnnEngine(GraphSource("synthesis", (tiny_bundle / "synthesis.onnx").read_bytes()), 1)
    with capture_logs() as logs:
        opened = open_sessions(read_bundle(tiny_bundle), ("ncnn", "cpu"), 1)
    assert [(entry["failed"], entry["using"]) for entry in logs if entry["event"] == "providers.fallback"] == [
        ("ncnn", "cpu")
    ]
    assert opened["synthesis"].provider == "cpu"
    with pytest.raises(ModelError) as caught:
        open_sessions(read_bundle(tiny_bundle), ("ncnn",), 1)
    assert caught.value.code == "provider-unavailable"


@needs_ncnn
def test_by_default_it_draws_wide_networks_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(open_vino, "is_installed", lambda: False)  # else it is OpenVINO that draws narrow ones
    bundle = read_bundle(BUNDLE)
    assert open_sessions(bundle, DEFAULT_PROVIDERS, 1)["synthesis"].provider == "cpu"
    monkeypatch.setattr(sessions, "WIDE_BYTES", (BUNDLE / "synthesis.onnx").stat().st_size)
    opened = open_sessions(bundle, DEFAULT_PROVIDERS, 1)
    assert opened["synthesis"].provider == "ncnn"
    assert {session.provider for name, session in opened.items() if name != "synthesis"} == {"cpu"}


def test_what_is_not_installed_is_not_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    for there in (True, False):
        monkeypatch.setattr(ncnn_engine, "is_installed", lambda there=there: there)
        assert ("ncnn" in list_providers()) == there


def test_ncnn_gets_the_synthesis_alone() -> None:
    assert providers_of("synthesis", ("ncnn", "cpu")) == ("ncnn", "cpu")
    assert providers_of("encoder", ("ncnn", "openvino", "cpu")) == ("openvino", "cpu")
    assert providers_of("text", ("ncnn", "cuda", "cpu")) == ("cpu", "cuda")
    with pytest.raises(ModelError, match="can't run the encoder graph") as caught:
        providers_of("encoder", ("ncnn",))
    assert caught.value.code == "provider-unavailable"
