"""The inference child as a real process: its protocol, its death, its end with its parent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.jobs.contract import AnimationOptions, Stage
from tests.pace import FFMPEG_VARIABLE, pace_ffmpeg
from tests.worker.workplace import LONG, PATIENCE_S, parents, wait_until
from worker import inference
from worker.events import ChildOptions, Died, Done, Event, Failed, FramesDrawn, Order, Preview, Ready, StageStarted
from worker.inference import InferenceChild, describe_death

pytestmark = pytest.mark.timeout(2000)


@pytest.fixture
def child(tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[InferenceChild]:
    """A child that writes films at viewing speed, and that nobody loses patience with."""
    monkeypatch.setenv(FFMPEG_VARIABLE, str(pace_ffmpeg(tmp_path)))
    monkeypatch.setattr(inference, "CANCEL_PATIENCE_S", PATIENCE_S)
    child = InferenceChild(ChildOptions(providers=("cpu",), threads=1, warm=(tiny_bundle,)))
    child.start()
    ready = child.wait_ready(PATIENCE_S)
    assert isinstance(ready, Ready), ready
    assert set(ready.bundles) == {"tiny"}
    assert ready.bundles["tiny"].providers["synthesis"] == "cpu"
    yield child
    child.close()


def make_order(bundle: Path, scratch: Path, **options: object) -> Order:
    scratch.mkdir(exist_ok=True)
    asked = AnimationOptions.model_validate({"prompt": "smiling", "source": "sampled", **options})
    return Order("anm_1", bundle, None, asked, 7, scratch)


def listen(child: InferenceChild) -> list[Event]:
    events: list[Event] = []
    while not events or not isinstance(events[-1], Done | Failed | Died):
        event = child.poll(PATIENCE_S)
        assert event is not None, events
        events.append(event)
    return events


def test_a_jobs_events_come_in_order(child: InferenceChild, tiny_bundle: Path, tmp_path: Path):
    child.begin(make_order(tiny_bundle, tmp_path / "job", frames=20))
    events = listen(child)
    assert [event.stage for event in events if isinstance(event, StageStarted)] == [
        Stage.ALIGN,
        Stage.INVERT,
        Stage.MOVE,
        Stage.RENDER,
        Stage.ENCODE,
    ]
    drawn = [event.done for event in events if isinstance(event, FramesDrawn)]
    assert drawn == [8, 16, 20]
    assert any(isinstance(event, Preview) for event in events)
    done = events[-1]
    assert isinstance(done, Done)
    assert done.video.path.stat().st_size == done.video.bytes
    assert done.poster is not None
    assert done.poster.exists()


def test_a_failing_job_leaves_the_child_and_its_bundles_alive(child: InferenceChild, tiny_bundle: Path, tmp_path: Path):
    (tmp_path / "picture").write_bytes(b"no picture")
    order = make_order(tiny_bundle, tmp_path / "bad")
    child.begin(Order(order.job_id, order.bundle, tmp_path / "picture", order.options, 7, order.scratch))
    failed = listen(child)[-1]
    assert isinstance(failed, Failed)
    assert failed.code == "image-corrupt"
    child.begin(make_order(tiny_bundle, tmp_path / "good", frames=2))
    assert isinstance(listen(child)[-1], Done)


def test_a_canceled_job_stops_and_leaves_no_file(child: InferenceChild, tiny_bundle: Path, tmp_path: Path):
    child.begin(make_order(tiny_bundle, tmp_path / "job", **LONG))
    while not isinstance(child.poll(PATIENCE_S), FramesDrawn):
        pass
    child.stop_job("anm_1")
    assert child.alive
    assert list((tmp_path / "job").iterdir()) == []


def test_stopping_a_job_that_the_child_does_not_have_leaves_it_alone(
    child: InferenceChild, tiny_bundle: Path, tmp_path: Path
):
    """A job may fail before it is handed over (its picture is gone) or after its film is drawn (the store is away)."""
    child.stop_job("anm_1")
    assert child.alive
    child.begin(make_order(tiny_bundle, tmp_path / "job", frames=2))
    assert isinstance(listen(child)[-1], Done)
    child.stop_job("anm_1")
    child.begin(make_order(tiny_bundle, tmp_path / "next", frames=2))
    assert isinstance(listen(child)[-1], Done), "it was killed because it had nothing to answer"


def test_a_death_is_told_in_words(child: InferenceChild):
    assert child.pid is not None
    os.kill(child.pid, signal.SIGKILL)
    event = child.poll(PATIENCE_S)
    assert isinstance(event, Died)
    assert event.exit_code == -signal.SIGKILL
    assert "SIGKILL" in event.sentence
    assert "memory" in event.sentence
    assert not child.alive


def test_a_damaged_bundle_is_refused_in_words_and_the_child_lives(tiny_bundle: Path, tmp_path: Path):
    import shutil

    damaged = Path(shutil.copytree(tiny_bundle, tmp_path / "damaged"))
    graph = damaged / "synthesis.onnx"
    graph.write_bytes(graph.read_bytes()[:-1] + b"x")
    child = InferenceChild(ChildOptions(providers=("cpu",), threads=1, warm=(damaged,)))
    child.start()
    ready = child.wait_ready(PATIENCE_S)
    assert isinstance(ready, Ready), ready
    assert ready.bundles == {}
    assert "synthesis.onnx" in ready.broken[str(damaged)]
    child.begin(make_order(damaged, tmp_path / "job"))
    failed = listen(child)[-1]
    assert isinstance(failed, Failed)
    assert failed.message
    child.close()


def test_the_child_dies_with_its_parent(tiny_bundle: Path):
    script = (
        "import sys; from pathlib import Path; from worker.inference import InferenceChild; "
        "from worker.events import ChildOptions; c = InferenceChild(ChildOptions(('cpu',), 1, ())); c.start(); "
        "c.wait_ready(300); print(c.pid, flush=True); sys.stdin.read()"
    )
    parent = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    os.kill(pid, signal.SIGSTOP)  # even one that can't see its socket close
    parent.kill()
    parent.wait()
    wait_until(lambda: pid not in parents(), "the kernel ends the child")


@pytest.mark.parametrize(
    ("exit_code", "words"),
    [(-9, "memory"), (-11, "SIGSEGV"), (-15, "SIGTERM"), (1, "exit code 1"), (-64, "SIGRTMAX")],
)
def test_deaths_have_sentences(exit_code: int, words: str):
    assert words in describe_death(exit_code)
