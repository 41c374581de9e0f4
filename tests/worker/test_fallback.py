"""A provider that fails in the middle of a job: the film is made, and the worker is told what runs the model now."""

from __future__ import annotations

import socket
import threading
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from model.runtime import onnx_runtime
from services.jobs.contract import AnimationOptions
from tests.model.test_sessions import FakeRuntime
from worker.child import Child
from worker.events import ChildOptions, Done, Event, Failed, Order, Ready


def test_a_failing_provider_costs_no_job_and_is_told(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import onnxruntime

    fake = FakeRuntime(onnxruntime, raises=None)
    monkeypatch.setattr(onnx_runtime, "import_runtime", lambda: fake)
    ours, theirs = (Connection(end.detach()) for end in socket.socketpair())
    options = ChildOptions(("cuda", "cpu"), 1, (tiny_bundle,), cache_dir=tmp_path / "cache")

    def live() -> None:
        with pytest.raises(EOFError):
            Child(theirs, options).run()

    thread = threading.Thread(target=live)
    thread.start()
    try:
        ready = ours.recv()
        assert isinstance(ready, Ready)
        assert ready.bundles["tiny"].providers["synthesis"] == "cuda"
        assert ready.bundles["tiny"].fallbacks == ()

        asked = AnimationOptions.model_validate({"prompt": "smiling", "frames": 24, "source": "sampled"})
        for number in range(3):
            if number == 1:  # the still face and its embedding, one batch, and then
                failure = RuntimeError("CUDA failure 719: unspecified launch failure")
                fake.breaks.extend([failure, None, None, None])
            scratch = tmp_path / str(number)
            scratch.mkdir()
            ours.send(Order(f"anim_{number}", tiny_bundle, None, asked, 7, scratch))
            events: list[Event] = []
            while not events or not isinstance(events[-1], Done):
                events.append(ours.recv())
                assert not isinstance(events[-1], Failed), events[-1]
            told = [event for event in events if isinstance(event, Ready)]
            assert events[-1].video.frames == 24
            if number == 1:
                assert [ready.bundles["tiny"].fallbacks for ready in told] == [
                    ("synthesis: cuda failed, cpu took over",)
                ]
                assert told[0].bundles["tiny"].providers["synthesis"] == "cpu"
            else:
                assert told == []
    finally:
        ours.close()
        thread.join(timeout=60)
    films = [(tmp_path / str(number) / "video.mp4").read_bytes() for number in range(3)]
    assert films[0] == films[2] == films[1]
