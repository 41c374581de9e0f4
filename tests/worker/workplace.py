"""A job store, an object store, a queue server and worker processes of one test, all real."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from services.jobs.contract import AnimationOptions, InputFacts, JobRecord, JobState, make_job_id
from services.jobs.store import JobStore
from services.launcher import child_environment
from services.settings import Settings
from services.storage import ObjectStore, input_key
from tests.pace import FFMPEG_VARIABLE, pace_ffmpeg

# Only ever waited for by a test that fails; generous, because continuous integration shares its processors.
PATIENCE_S = 300.0
# The workers' ffmpeg takes 24 frames a second on any machine, and drawing waits for it: 40 s to be interrupted in, and
# 10 s in which a job can be interrupted and is not long to wait for afterwards.
LONG = {"frames": 960}
MEDIUM = {"frames": 240}


class WorkerProcess:
    """``python -m worker.app`` in a process group of its own; its films are written at viewing speed."""

    def __init__(self, settings: Settings, log: Path, program: str = "worker.app") -> None:
        self.log = log
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", program],
                env=child_environment(settings) | {FFMPEG_VARIABLE: str(pace_ffmpeg(log.parent))},
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self.process.pid

    def kill_group(self) -> None:
        os.killpg(self.pid, signal.SIGKILL)
        self.process.wait()

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(PATIENCE_S)
            except subprocess.TimeoutExpired:
                self.kill_group()


class Workplace:
    """What the API would be: accepts jobs and looks at them."""

    def __init__(self, folder: Path, bundles_dir: Path, redis_url: str, **settings: object) -> None:
        # The lease is what tests of killed workers wait for; twenty heartbeats, so that a machine that is slow to give
        # a process its turn makes nobody lose a job.
        quick = {"lease_s": 20.0, "heartbeat_s": 1.0, "sweep_s": 1.0}
        self.settings = Settings(
            data_dir=folder / "data", bundles_dir=bundles_dir, redis_url=redis_url, **{**quick, **settings}
        )
        self.folder = folder
        self.store = JobStore.from_settings(self.settings)
        self.store.migrate()
        self.storage = ObjectStore.from_settings(self.settings)
        self.workers: list[WorkerProcess] = []

    def start_worker(self, program: str = "worker.app") -> WorkerProcess:
        worker = WorkerProcess(self.settings, self.folder / f"worker-{len(self.workers)}.log", program)
        self.workers.append(worker)
        wait_until(lambda: self.facts_of(worker).get("models"), f"worker {worker.log} is ready", worker)
        return worker

    def facts_of(self, worker: WorkerProcess) -> dict[str, object]:
        return next((w.facts for w in self.store.live_workers(3600) if w.facts.get("pid") == worker.pid), {})

    def post(
        self,
        prompt: str = "smiling",
        picture: bytes | None = None,
        *,
        stored: bool = True,
        job_id: str | None = None,
        **options: object,
    ) -> str:
        """Accept a job; with ``stored=False`` its picture is gone before any worker can look."""
        job_id = job_id or make_job_id()
        facts = InputFacts()
        if picture is not None:
            key = input_key(job_id, digest(picture))
            if stored:
                self.storage.put(key, picture, "image/png")
            facts = InputFacts(key=key, sha256=digest(picture), width=80, height=80)
        source = "sampled" if picture is None else "image"
        asked = AnimationOptions.model_validate({"prompt": prompt, "source": source, **options})
        self.store.accept(job_id=job_id, owner="test", options=asked, input=facts, seed=7, model_id="tiny")
        return job_id

    def get(self, job_id: str) -> JobRecord:
        record = self.store.get(job_id)
        assert record is not None
        return record

    def wait(self, job_id: str, patience_s: float = PATIENCE_S) -> JobRecord:
        """Wait until the job has ended."""
        wait_until(lambda: self.get(job_id).terminal, f"{job_id} ends", *self.workers, patience_s=patience_s)
        return self.get(job_id)

    def wait_drawing(self, job_id: str, attempt: int = 1) -> JobRecord:
        """Wait until frames are being drawn."""

        def drawing() -> bool:
            record = self.get(job_id)
            assert not record.terminal, f"ended before it could be interrupted: {record.state} {record.error}"
            return record.state is JobState.RUNNING and record.attempt >= attempt and record.frames_done > 0

        wait_until(drawing, f"{job_id} draws", *self.workers)
        return self.get(job_id)

    def close(self) -> None:
        for worker in self.workers:
            worker.stop()
        self.store.close()


def wait_until(
    condition: Callable[[], object], what: str, *workers: WorkerProcess, patience_s: float = PATIENCE_S
) -> None:
    deadline_s = time.monotonic() + patience_s
    while not condition():
        if time.monotonic() > deadline_s:
            logs = "\n".join(worker.log.read_text(errors="replace")[-3000:] for worker in workers)
            raise AssertionError(f"not within {patience_s:.0f} s: {what}\n{logs}")
        time.sleep(0.05)


def digest(data: bytes) -> str:
    import hashlib

    return hashlib.sha256(data).hexdigest()


def draw_picture(edge_px: int = 80) -> bytes:
    import io

    rows, columns = np.mgrid[0:edge_px, 0:edge_px]
    pixels = np.stack([rows * 3 % 256, columns * 3 % 256, (rows + columns) % 256], axis=-1).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return buffer.getvalue()


def parents() -> dict[int, int]:
    """Return the parent of every process that is not a zombie."""
    found: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                state, parent = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
            except OSError:
                continue
            if state != "Z":
                found[int(entry.name)] = int(parent)
    return found


def descendants(pid: int) -> set[int]:
    """Return all processes below ``pid``."""
    tree, below, fresh = parents(), set[int](), {pid}
    while fresh:
        fresh = {child for child, parent in tree.items() if parent in fresh} - below
        below |= fresh
    return below


def child_of(worker: WorkerProcess) -> int:
    """Return the process id of a worker's inference child."""
    for pid, parent in parents().items():
        if parent == worker.pid:
            try:
                command = (Path("/proc") / str(pid) / "cmdline").read_bytes()
            except OSError:
                continue  # it ended meanwhile
            if b"worker.child" in command:
                return pid
    raise AssertionError("the worker has no child")
