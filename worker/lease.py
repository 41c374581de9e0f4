"""Keeping one job's lease: renew it while there is progress, write progress, hear of a cancel. A thread for each job
that runs, which a later one has after it.

Everything that waits for the database while a job runs waits here, so that drawing never does. The rule of the lease:
it is renewed only while the job makes progress, and never past the job's hard deadline; a worker that hangs loses the
job, whatever hangs. No queue, no models.
"""

from __future__ import annotations

import threading
import time
from concurrent.futures import Executor, Future
from types import TracebackType
from typing import TYPE_CHECKING, Any

import structlog

from services.errors import AnimatoError, JobCanceled, PermanentError, TemporaryError
from services.jobs.contract import Lease, Stage

if TYPE_CHECKING:
    from services.jobs.store import JobStore

log = structlog.get_logger(__name__)

# Writes at most this often: a long video must not become a thousand transactions.
REPORT_EVERY_S = 0.4
# A job that is over sooner is not worth a report.
FIRST_REPORT_AFTER_S = 0.2
CANCEL_LOOK_EVERY_S = 1.0
# How long a stage may go without a sign of life before its lease is left to lapse.
PATIENCE_S = 120.0
# Opening a bundle may build an engine for the device, which takes minutes and says nothing meanwhile.
LOADING_PATIENCE_S = 600.0


class StageStalled(Exception):  # noqa: N818 - it reads as what happened
    """The job made no progress for too long; treated as a crash of what ran it."""


class LeaseKeeper:
    """A context manager around the work on one lease; ``check`` is called often and raises what must end the work.

    Args:
        store: the job store.
        threads: has a thread for every job that runs at the same time.
        lease: what ``claim`` returned.
        lease_s, heartbeat_s: as in the settings.
        deadline_s: the job may run this long in all.
        patience_s: a stage may be silent this long.
    """

    def __init__(
        self,
        store: JobStore,
        threads: Executor,
        lease: Lease,
        *,
        lease_s: float,
        heartbeat_s: float,
        deadline_s: float,
        patience_s: float = PATIENCE_S,
    ) -> None:
        self._store = store
        self._threads = threads
        self._lease = lease
        self._lease_s = lease_s
        self._heartbeat_s = heartbeat_s
        self._deadline_s = deadline_s
        self._default_patience_s = patience_s
        now_s = time.monotonic()
        self._began_s = now_s
        self._renewed_s = now_s
        self._report_at_s = now_s + FIRST_REPORT_AFTER_S
        self._progress_s = now_s
        self._patience_s = patience_s
        self._fault: AnimatoError | None = None
        self._pending: dict[str, Any] = {}
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._closing = False
        self._work: Future[None] | None = None

    def __enter__(self) -> LeaseKeeper:
        self._work = self._threads.submit(self._keep)
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Stop renewing and reporting; what was not yet written is left unwritten (a terminal write follows)."""
        self._closing = True
        self._wake.set()
        if self._work is not None and not self._work.cancel() and (fault := self._work.exception()) is not None:
            log.error("lease_keeper_failed", exc_info=fault)

    def touch(self, patience_s: float | None = None) -> None:
        """Say that the job lives; it may now be silent for ``patience_s``."""
        self._progress_s = time.monotonic()
        self._patience_s = self._default_patience_s if patience_s is None else patience_s

    def show(
        self,
        *,
        stage: Stage | None = None,
        progress: float | None = None,
        frames_done: int | None = None,
        preview_jpeg: bytes | None = None,
        metrics: dict[str, float] | None = None,
    ) -> None:
        """Say that the job lives and what is visible of it; written soon, newest values only."""
        news = {
            "stage": stage,
            "progress": progress,
            "frames_done": frames_done,
            "preview_jpeg": preview_jpeg,
            "metrics": metrics,
        }
        self.touch()
        with self._lock:
            first = not self._pending
            self._pending |= {name: value for name, value in news.items() if value is not None}
        if first and time.monotonic() >= self._report_at_s:  # else the thread wakes by itself when it may write
            self._wake.set()

    def check(self) -> None:
        """Return while the work may go on.

        Raises: LeaseLost; JobCanceled; PermanentError ``deadline-exceeded``; StageStalled.
        """
        if self._fault is not None:
            raise self._fault
        now_s = time.monotonic()
        if now_s - self._began_s > self._deadline_s:
            raise PermanentError(
                "deadline-exceeded",
                f"The job ran longer than the {self._deadline_s:.0f} s that this service allows.",
                "Ask for fewer frames or a smaller size.",
            )
        if self._stalled(now_s):
            raise StageStalled(f"no progress for {now_s - self._progress_s:.0f} s")

    def _stalled(self, now_s: float) -> bool:
        return now_s - self._progress_s > self._patience_s

    def _keep(self) -> None:
        with structlog.contextvars.bound_contextvars(job_id=self._lease.record.id):
            self._go_on()

    def _go_on(self) -> None:
        looked_s = self._began_s  # the claim has looked
        while not self._closing and self._fault is None:
            now_s = time.monotonic()
            # Renewal comes first: it must not wait behind a report.
            if now_s - self._renewed_s >= self._heartbeat_s and not self._stalled(now_s):
                self._trying(self._renew)
            if self._pending and now_s >= self._report_at_s:
                self._report_at_s = now_s + REPORT_EVERY_S
                self._trying(self._report)
            if now_s - looked_s >= CANCEL_LOOK_EVERY_S:
                looked_s = now_s
                self._trying(self._look_for_cancel)
            self._wait(looked_s)

    def _wait(self, looked_s: float) -> None:
        due_s = min(self._renewed_s + self._heartbeat_s, looked_s + CANCEL_LOOK_EVERY_S)
        now_s = time.monotonic()
        if now_s < self._report_at_s or self._pending:  # in this order: ``show`` looks at the clock after it has shown
            due_s = min(due_s, self._report_at_s)
        self._wake.wait(timeout=max(0.02, due_s - now_s))
        self._wake.clear()

    def _trying(self, action: Any) -> None:
        try:
            action()
        except TemporaryError as error:
            # The database is away: go on working, until the lease must have lapsed for everybody else.
            if time.monotonic() - self._renewed_s > self._lease_s:
                self._fault = error
        except AnimatoError as error:
            self._fault = error

    def _renew(self) -> None:
        began_s = time.monotonic()
        if self._store.heartbeat(self._lease, self._lease_s):
            self._fault = JobCanceled()
        self._renewed_s = began_s

    def _report(self) -> None:
        with self._lock:
            news, self._pending = self._pending, {}
        self._store.report(self._lease, **news)

    def _look_for_cancel(self) -> None:
        if self._store.is_cancel_requested(self._lease.record.id):
            self._fault = JobCanceled()
