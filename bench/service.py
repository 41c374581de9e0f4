"""The embedded service under a real client: latency, overhead over the bare model, memory.

The baseline of a job is the same job done in this process by ``worker.animation.make_video``: picture in, encoded video
out, with no API, database, queue or store around it.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from bench.processes import find_roles, read_peak_mb, reset_peak
from bench.report import Figure
from model.animator import Animator
from services.jobs.contract import AnimationOptions
from services.launcher import embedded_service
from services.settings import Settings

JOBS = 9
PROMPT = "smiling"
LENGTHS = (16, 120, 480)
MODEL_STAGES = ("align_s", "invert_s", "move_s", "render_s", "paste_s", "judge_s", "encode_s")


@dataclass(frozen=True)
class Timing:
    """One job as its client saw it, in seconds from the first byte sent."""

    finished_s: float
    first_byte_s: float
    metrics: dict[str, float]


@contextmanager
def running_service(settings: Settings) -> Iterator[tuple[httpx.Client, float]]:
    """Yield a client of a service of its own, and the seconds that it took to be ready."""
    with tempfile.TemporaryDirectory(prefix="animato-bench-") as folder:
        own = settings.model_copy(update={"data_dir": Path(folder), "host": "127.0.0.1", "port": 0})
        begun = time.perf_counter()
        with embedded_service(own) as base_url, httpx.Client(base_url=base_url, timeout=600.0) as client:
            yield client, time.perf_counter() - begun


def run_job(client: httpx.Client, sample: Path, frames: int | None = None) -> Timing:
    """Post a job, wait for it, fetch the video; return when what happened.

    Raises: RuntimeError when the job did not succeed.
    """
    fields = {"prompt": PROMPT, "seed": "7"} | ({} if frames is None else {"frames": str(frames)})
    picture = sample.read_bytes()
    begun = time.perf_counter()
    answer = client.post(
        "/v1/animations", data=fields, files={"image": (sample.name, picture)}, headers={"Prefer": "wait=60"}
    )
    job: dict[str, Any] = answer.json()
    while job.get("status") in {"queued", "running"}:
        job = client.get(job["urls"]["self"], headers={"Prefer": "wait=60"}).json()
    finished_s = time.perf_counter() - begun
    if job.get("status") != "succeeded":
        raise RuntimeError(f"the job did not succeed: {job}")
    with client.stream("GET", job["output"]["url"], follow_redirects=True) as video:
        next(video.iter_raw())
        first_byte_s = time.perf_counter() - begun
    return Timing(finished_s, first_byte_s, job["metrics"])


def run_bare(animator: Animator, sample: Path, folder: Path) -> float:
    """Do the same job in this process and return its seconds."""
    from worker.animation import make_video
    from worker.events import Order

    order = Order(
        job_id="bench",
        options=AnimationOptions(prompt=PROMPT),
        seed=7,
        picture=sample,
        bundle=folder,
        scratch=folder,
    )
    begun = time.perf_counter()
    make_video(animator, order, lambda event: None, lambda: None)
    return time.perf_counter() - begun


def measure_service(settings: Settings, animator: Animator, sample: Path) -> list[Figure]:
    """Return latency, overhead and memory figures of one service.

    Jobs through the service and in this process alternate, so that a change of the machine's load hits both.
    """
    with running_service(settings) as (client, ready_s), tempfile.TemporaryDirectory() as scratch:
        run_job(client, sample)
        run_bare(animator, sample, Path(scratch))
        timings, bare_s = [], []
        for _ in range(JOBS):
            timings.append(run_job(client, sample))
            bare_s.append(run_bare(animator, sample, Path(scratch)))
        memory = [*measure_lengths(client, sample), *measure_peaks()]
    bare = statistics.median(bare_s)
    served = statistics.median(timing.finished_s for timing in timings)
    inside = statistics.median(timing.finished_s - model_seconds(timing.metrics) for timing in timings)
    first_byte = statistics.median(timing.first_byte_s for timing in timings)
    job = "48 frames, mp4"
    return [
        Figure("start of the embedded service until it is ready", ready_s, "s"),
        Figure(
            f"POST to first byte of the video ({job})", first_byte, "s", bare, "the bare model: same job in one process"
        ),
        Figure(f"POST to finished job ({job})", served, "s", bare, "the bare model", "≤ 1.05, or 50 ms more"),
        Figure(
            f"overhead of the service over the bare model ({job})", (served - bare) * 1e3, "ms", goal="≤ 50 ms or 5%"
        ),
        Figure("of a job's time, not spent in the model or the encoder", inside * 1e3, "ms", goal="≤ 50 ms or 5%"),
        *memory,
    ]


def model_seconds(metrics: dict[str, float]) -> float:
    """Return the seconds of a job that its model and encoder took, as the job itself tells them."""
    return sum(metrics.get(name, 0.0) for name in MODEL_STAGES)


def measure_lengths(client: httpx.Client, sample: Path) -> list[Figure]:
    """Return the inference child's peak memory for jobs of growing length, each against the shortest."""
    (child,) = find_roles()["inference"]
    peaks = []
    for frames in LENGTHS:
        reset_peak(child)
        run_job(client, sample, frames)
        peaks.append(read_peak_mb(child))
    return [
        Figure(
            f"peak memory of the inference child, {frames} frames",
            peak,
            "MB",
            None if frames == LENGTHS[0] else peaks[0],
            "" if frames == LENGTHS[0] else f"{LENGTHS[0]} frames",
            "" if frames == LENGTHS[0] else "flat",
        )
        for frames, peak in zip(LENGTHS, peaks, strict=True)
    ]


def measure_peaks() -> list[Figure]:
    """Return the peak memory of the service's processes by role, after all the jobs above.

    Raises: LookupError where a role has no process: then processes are told apart by the wrong words.
    """
    roles = find_roles()
    if missing := [role for role, pids in roles.items() if not pids]:
        raise LookupError(f"no process of the service is {' or '.join(missing)}")
    peaks = {role: sum(read_peak_mb(pid) for pid in pids) for role, pids in roles.items()}
    return [
        Figure("peak memory of the API", peaks["api"], "MB"),
        Figure("peak memory of the worker with its inference child", peaks["worker"] + peaks["inference"], "MB"),
        Figure("peak memory of the embedded queue server", peaks["queue"], "MB"),
    ]
