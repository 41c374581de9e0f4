"""What a worker does every few seconds besides jobs: mend what others left, wake for what is due, say that it lives.

Any number of workers may do so at once. It also makes the queue server dispensable: whatever became of the hints, due
jobs are found here.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from typing import Any

import structlog

from services.errors import AnimatoError
from services.jobs.store import JobStore
from services.settings import Settings
from worker.events import Ready
from worker.metrics import WorkerMetrics

log = structlog.get_logger(__name__)


class Sweeper:
    """A thread that sweeps and beats every ``settings.sweep_s``.

    Args:
        ready: what the inference child last said, None while it starts.
        wake: called when jobs are due.
        name: the worker's name in the job store.
    """

    def __init__(
        self,
        settings: Settings,
        store: JobStore,
        metrics: WorkerMetrics,
        *,
        ready: Callable[[], Ready | None],
        wake: Callable[[], None],
        name: str,
    ) -> None:
        self._settings = settings
        self._store = store
        self._metrics = metrics
        self._ready = ready
        self._wake = wake
        self._name = name
        self._told: Ready | None = None
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="sweeper", daemon=True)

    def start(self) -> None:
        """Begin to sweep."""
        self._thread.start()

    def close(self) -> None:
        """Stop, and take the worker's name off the list of the living."""
        self._closing.set()
        if self._thread.ident is None:
            return
        self._thread.join()
        try:
            self._store.retire_worker(self._name)
        except AnimatoError as error:
            log.warning("retire_failed", code=error.code)

    def _loop(self) -> None:
        swept_s = beaten_s = -self._settings.sweep_s
        while not self._closing.is_set():
            now_s = time.monotonic()
            ready = self._ready()
            # Readiness is told at once: a service that starts should not wait for the next round.
            if ready is not self._told or now_s - beaten_s >= self._settings.sweep_s:
                beaten_s = now_s
                self._trying(lambda: self._beat(ready))  # noqa: B023 - called at once
            if now_s - swept_s >= self._settings.sweep_s:
                swept_s = now_s
                self._trying(self._sweep)
            self._closing.wait(0.05 if self._told is None else 0.25)

    def _trying(self, action: Callable[[], None]) -> None:
        try:
            action()
        except AnimatoError as error:
            log.warning("sweep_failed", code=error.code, reason=error.message)
        except Exception:  # the thread must not end while its worker lives
            log.exception("sweep_failed_unexpectedly")

    def _beat(self, ready: Ready | None) -> None:
        models: dict[str, Any] = {}
        if ready is not None:
            models = {
                model: {
                    "sha256": facts.sha256,
                    "providers": dict(facts.providers),
                    "fallbacks": list(facts.fallbacks),
                    "warm": True,
                }
                for model, facts in ready.bundles.items()
            }
        facts = {
            "pid": os.getpid(),
            "child_pid": None if ready is None else ready.pid,
            "models": models,
            "broken": {} if ready is None else dict(ready.broken),
        }
        self._store.beat_worker(self._name, facts)
        self._metrics.heartbeat.set_to_current_time()
        if ready is not self._told and ready is not None:
            self._metrics.model_info.clear()
            self._metrics.provider_fallbacks.clear()
            for model, loaded in ready.bundles.items():
                provider = loaded.providers.get("synthesis", "unknown")
                self._metrics.model_info.labels(model, loaded.sha256, provider).set(1)
                self._metrics.provider_fallbacks.labels(model).set(len(loaded.fallbacks))
        self._told = ready

    def _sweep(self) -> None:
        report = self._store.sweep()
        swept = {
            "requeued": report.requeued,
            "failed": report.failed,
            "canceled": report.canceled,
            "expired": report.expired,
        }
        for outcome, job_ids in swept.items():
            for job_id in job_ids:  # a line each: whoever asks what became of a job looks for its id
                log.warning("job_swept", job_id=job_id, outcome=outcome)
        if report.due:
            self._wake()
