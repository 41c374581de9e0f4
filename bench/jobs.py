"""Whole jobs: what share of one is spent in the graphs, and how workers on their own cores add up.

How workers add up is also compared with how the machine itself does: as many processes that multiply matrices, against
one. Cores that are halves of one, or that others use, do not add up for anybody.
"""

from __future__ import annotations

import multiprocessing
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from numpy.typing import NDArray

from bench.machine import held_to_one_core
from bench.report import Figure
from bench.service import run_bare, run_job
from model.animator import Animator
from model.bundle.reader import read_bundle
from model.quota import count_processors
from model.sessions import Session, open_sessions
from services.launcher import embedded_service
from services.settings import Settings

SHARE_JOBS = 7
JOBS_A_WORKER = 8
SIDE = 640
PRODUCT_S = 4.0


class TimedSession:
    """A session that adds up its seconds; otherwise the one that it wraps."""

    def __init__(self, inner: Session, spent: list[float]) -> None:
        self._inner, self._spent = inner, spent

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def run(self, **inputs: NDArray[Any]) -> dict[str, NDArray[Any]]:
        """Run the graph and note how long it took."""
        begun = time.perf_counter()
        try:
            return self._inner.run(**inputs)
        finally:
            self._spent.append(time.perf_counter() - begun)


def measure_jobs(settings: Settings, bundle: Path, sample: Path) -> list[Figure]:
    """Return the share of a 48-frame job in the graphs, and the rate of as many workers as there are cores."""
    return [measure_share(bundle, sample), *measure_workers(settings, sample)]


def measure_share(bundle: Path, sample: Path) -> Figure:
    """Return the median share; the job is done from picture to encoded video, as the inference child does it."""
    spent: list[float] = []
    opened = read_bundle(bundle)
    sessions = {name: TimedSession(session, spent) for name, session in open_sessions(opened, ("cpu",), 1).items()}
    animator = Animator(opened, sessions)
    shares = []
    with tempfile.TemporaryDirectory() as scratch:
        run_bare(animator, sample, Path(scratch))
        for _ in range(SHARE_JOBS):
            spent.clear()
            whole_s = run_bare(animator, sample, Path(scratch))
            shares.append(100 * sum(spent) / whole_s)
    return Figure(
        "of a 48-frame 256 px job, spent in the graphs (one thread)", float(np.median(shares)), "%", goal="≥ 90 %"
    )


def measure_workers(settings: Settings, sample: Path) -> list[Figure]:
    """Return jobs/s of one worker on one core and of one a core on all of them, and how the machine itself scales.

    Each worker has one thread. With the first go its API, its ffmpeg and its clients, all held to that one core: what
    they do on a core beside it would be counted as the worker's.
    """
    cores = count_processors()
    with held_to_one_core():
        one = rate_of_workers(settings, sample, 1)
    if cores == 1:
        return [Figure("jobs a second of one worker on one core", one, "jobs/s")]
    many = rate_of_workers(settings, sample, cores)
    own = rate_of_products(cores) / rate_of_products(1)
    return [
        Figure(
            f"jobs a second of {cores} workers on {cores} cores, one thread each",
            many,
            "jobs/s",
            one,
            "one worker on one core",
            f"≥ {0.9 * cores:.1f}",
        ),
        Figure(
            f"the same, as a share of what {cores} cores of this machine do for plain matrix products",
            100 * many / one / own,
            "%",
            goal="≥ 90 %",
        ),
    ]


def rate_of_workers(settings: Settings, sample: Path, workers: int) -> float:
    """Return jobs/s of a service of its own with so many workers; as many clients keep it busy."""
    with tempfile.TemporaryDirectory(prefix="animato-bench-") as folder:
        own = settings.model_copy(update={"data_dir": Path(folder), "host": "127.0.0.1", "port": 0, "threads": 1})
        with embedded_service(own, workers) as url, ThreadPoolExecutor(workers * 2) as clients:
            connections = threading.local()

            def ask(_: int) -> None:
                if not hasattr(connections, "client"):
                    connections.client = httpx.Client(base_url=url, timeout=600.0)
                run_job(connections.client, sample)

            list(clients.map(ask, range(workers * 2)))  # every worker has drawn
            begun = time.perf_counter()
            list(clients.map(ask, range(JOBS_A_WORKER * workers)))
            return JOBS_A_WORKER * workers / (time.perf_counter() - begun)


def rate_of_products(processes: int) -> float:
    """Return matrix products a second of so many processes with one thread each."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(processes) as pool:
        return sum(pool.map(_multiply, [PRODUCT_S] * processes, chunksize=1))


def _multiply(seconds: float) -> float:
    import cv2  # its products run on one thread where it is told so; numpy's listen to the environment alone

    cv2.setNumThreads(1)
    a = np.random.default_rng(0).standard_normal((SIDE, SIDE), dtype=np.float32)
    cv2.gemm(a, a, 1.0, a, 0.0)
    begun, products = time.perf_counter(), 0
    while time.perf_counter() - begun < seconds:
        cv2.gemm(a, a, 1.0, a, 0.0)
        products += 1
    return products / (time.perf_counter() - begun)
