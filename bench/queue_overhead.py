"""What losing nothing costs: jobs a second of our workers against plain Celery that does the same work.

The work is trivial on purpose (a bundle that draws within a millisecond, four frames), so that the queue is what is
measured. A round: some jobs are handed in at once, timed until the last film is there. Ours: picture stored and synced,
accepted into SQLite as the API does it (those that come together in one transaction) and synced, claimed, made in the
inference child, stored and synced, ended in SQL. Plain: ``bench.plain_celery``. Both stay up and take turns, so that
other load on the machine hits both.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from celery import Celery
from PIL import Image

from bench.plain_celery import BROKER, BUNDLE, FOLDER
from bench.report import Figure
from services.jobs.contract import AnimationOptions, InputFacts, make_job_id
from services.jobs.dispatch import Dispatcher
from services.jobs.intake import NewJob
from services.jobs.store import JobStore
from services.launcher import child_environment
from services.parentage import start_child
from services.queue import HintQueue
from services.queue_server import plan_queue_server, wait_for_answer
from services.settings import Settings
from services.storage import ObjectStore, input_key
from tests.model.tiny_bundle import build_tiny_bundle

WORKERS = (1, 2, 4)
ROUNDS = 3
JOBS = 120
PATIENCE_S = 300.0
LOOK_EVERY_S = 0.03
# Counting takes processor time from those who are measured: with many jobs to go it can wait, with one it is exact.
LOOK_EVERY_S_A_JOB = 0.008
OPTIONS: dict[str, Any] = {"prompt": "smiling", "frames": 4}

HandIn = Callable[[int], None]
"""Hands in so many jobs and returns when all of them are done."""


def measure_queue_overhead() -> list[Figure]:
    """Return jobs a second for each number of workers, against plain Celery with as many."""
    figures = []
    for workers in WORKERS:
        with tempfile.TemporaryDirectory(prefix="animato-bench-") as name, ExitStack() as stack:
            folder = Path(name)
            bundle = build_tiny_bundle(folder / "bundles" / "tiny")
            picture = folder / "picture.png"
            Image.effect_noise((64, 64), 40).convert("RGB").save(picture)
            ours = stack.enter_context(our_workers(folder, picture, workers))
            plain = stack.enter_context(_plain_workers(folder, bundle, picture, workers))
            rates: dict[HandIn, list[float]] = {ours: [], plain: []}
            for number in range(ROUNDS + 1):
                for hand_in, kept in rates.items():
                    begun_s = time.perf_counter()
                    hand_in(JOBS if number else 2 * workers)
                    if number:  # the first round warms up
                        kept.append(JOBS / (time.perf_counter() - begun_s))
        name = f"jobs a second with trivial work, {workers} {'worker' if workers == 1 else 'workers'}"
        rate, baseline = statistics.median(rates[ours]), statistics.median(rates[plain])
        figures.append(Figure(name, rate, "/s", baseline, "plain Celery", "≥ 0.85"))
    return figures


@contextmanager
def our_workers(folder: Path, picture: Path, workers: int) -> Iterator[HandIn]:
    """Run workers on ``folder / "bundles"`` and yield what gives them jobs."""
    with _queue_server(folder / "ours") as url:
        settings = Settings(
            data_dir=folder / "ours", bundles_dir=folder / "bundles", redis_url=url, threads=1, log_level="warning"
        )
        store, storage = JobStore.from_settings(settings), ObjectStore.from_settings(settings)
        store.migrate()
        dispatcher = Dispatcher(HintQueue(settings))
        data = picture.read_bytes()
        stored: SimpleQueue[NewJob] = SimpleQueue()

        def keep_picture(_number: int) -> None:
            job_id = make_job_id()
            key = input_key(job_id, "0" * 64)
            storage.put(key, data, "image/png")
            facts = InputFacts(key=key, width=64, height=64)
            stored.put(NewJob(job_id, "bench", AnimationOptions(**OPTIONS), facts, seed=7, model_id="tiny"))

        def hand_in(jobs: int) -> None:
            before = store.counts()["succeeded"]
            with ThreadPoolExecutor(16) as clients:
                keeping = clients.map(keep_picture, range(jobs))
                left = jobs
                while left:  # as services.api.desk does: one thread for all that have come together
                    newcomers = [stored.get(timeout=PATIENCE_S)]
                    newcomers += [stored.get() for _ in range(stored.qsize())]
                    for taken in store.accept_all(newcomers):
                        if isinstance(taken, Exception):
                            raise taken
                        dispatcher.hint(taken.record.id)
                    left -= len(newcomers)
                list(keeping)
            deadline_s = time.monotonic() + PATIENCE_S
            while left := before + jobs - store.counts()["succeeded"]:
                if time.monotonic() > deadline_s:
                    raise RuntimeError(f"{left} of our jobs have not succeeded within {PATIENCE_S:.0f} s")
                time.sleep(LOOK_EVERY_S_A_JOB * left)

        environment = child_environment(settings)
        with _children([[sys.executable, "-m", "worker.app"]] * workers, environment, folder / "ours.log"):
            _wait_until(lambda: _warm(store) == workers, "our workers are warm")
            yield hand_in
        dispatcher.close()
        store.close()


def _warm(store: JobStore) -> int:
    return sum(bool(worker.facts.get("models")) for worker in store.live_workers(60.0))


@contextmanager
def _plain_workers(folder: Path, bundle: Path, picture: Path, workers: int) -> Iterator[HandIn]:
    films = folder / "plain"
    films.mkdir()
    with _queue_server(films) as url:
        environment = dict(os.environ) | {BUNDLE: str(bundle), FOLDER: str(films), BROKER: url}
        sender = Celery("bench", broker=url, backend=url, set_as_current=False)

        def hand_in(jobs: int) -> None:
            results = [sender.send_task("plain.animate", (make_job_id(), str(picture), OPTIONS)) for _ in range(jobs)]
            for result in results:
                result.get(timeout=PATIENCE_S)

        command = [sys.executable, "-m", "celery", "-A", "bench.plain_celery", "worker", "-c", str(workers)]
        with _children([[*command, "--loglevel", "WARNING"]], environment, folder / "plain.log"):
            yield hand_in
        sender.close()


@contextmanager
def _queue_server(folder: Path) -> Iterator[str]:
    plan = plan_queue_server(folder)
    with _children([list(plan.command)], dict(os.environ), folder / "queue.log"):
        wait_for_answer(plan.port, PATIENCE_S)
        yield plan.url


@contextmanager
def _children(commands: list[list[str]], environment: dict[str, str], log: Path) -> Iterator[None]:
    log.parent.mkdir(parents=True, exist_ok=True)
    ended = [threading.Event() for _ in commands]
    with log.open("ab") as output:
        children = [
            start_child(
                command,
                on_exit=lambda _code, event=event: event.set(),  # type: ignore[misc]
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
            for command, event in zip(commands, ended, strict=True)
        ]
    try:
        yield
    finally:
        for child in children:
            child.terminate()
        for child, event in zip(children, ended, strict=True):
            if not event.wait(30.0):
                child.kill()


def _wait_until(done: Callable[[], bool], what: str) -> None:
    deadline_s = time.monotonic() + PATIENCE_S
    while not done():
        if time.monotonic() > deadline_s:
            raise RuntimeError(f"{what}: not within {PATIENCE_S:.0f} s")
        time.sleep(LOOK_EVERY_S)
