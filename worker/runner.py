"""Claim, run, finish: one job after another, on one thread of the worker.

Whoever wants work done (a hint from the queue, the sweeper) wakes the runner; it claims until nothing is due. It owns
the inference child. Every way in which a job can end is in ``_run``. No Celery in here.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import assert_never

import structlog

from model.errors import ModelError
from services.errors import AnimatoError, JobCanceled, PermanentError, TemporaryError
from services.jobs.contract import JobError, JobRecord, Lease, Stage
from services.jobs.store import JobStore, LeaseLost
from services.settings import Settings
from services.storage import ObjectStore
from services.tracing import Span
from worker.events import ChildOptions, Died, Done, Failed, FramesDrawn, Order, Preview, Ready, StageStarted
from worker.inference import InferenceChild, bundle_folders
from worker.lease import LOADING_PATIENCE_S, LeaseKeeper, StageStalled
from worker.linger import is_next_due
from worker.metrics import WorkerMetrics
from worker.scratch import job_scratch
from worker.stages import fetch_picture, store_result
from worker.stopwatch import Stopwatch
from worker.trail import PROGRESS, Trail, trace_attempt

log = structlog.get_logger(__name__)

POLL_S = 0.1
MAX_RESPAWN_DELAY_S = 30.0


class Drained(Exception):  # noqa: N818 - it reads as what happened
    """The worker shuts down and the job did not end in time; it goes back and counts as nothing."""


class ChildLost(Exception):  # noqa: N818 - it reads as what happened
    """The inference child died under the job."""


class Runner:
    """Runs jobs on a thread of its own.

    Args:
        settings: leases, deadlines, providers.
        store: the job store, migrated.
        storage: the object store.
        child: the first inference child, already started (so that it loads while the rest of the worker starts).
        options: what later children are started with.
        metrics: what Prometheus reads.
        name: the worker's name in the job store.
        finish_s: after ``begin_shutdown`` a running job may take this long to end by itself.
    """

    def __init__(
        self,
        settings: Settings,
        store: JobStore,
        storage: ObjectStore,
        child: InferenceChild,
        options: ChildOptions,
        metrics: WorkerMetrics,
        *,
        name: str,
        finish_s: float,
    ) -> None:
        self._settings = settings
        self._store = store
        self._storage = storage
        self._child = child
        self._options = options
        self._metrics = metrics
        self._name = name
        self._finish_s = finish_s
        self._folders: dict[str, Path] = {}
        self._state = threading.Condition()
        self._wanted = 0  # looks asked for
        self._done = 0  # looks finished
        self._stop_at_s: float | None = None
        self._respawn_delay_s = 0.0
        self._respawn_at_s = 0.0
        self._buried: InferenceChild | None = None
        self.current_job: str | None = None
        self._ended_s = float("-inf")  # when the last job ended
        self._thread = threading.Thread(target=self._loop, name="runner", daemon=True)

    # -- what other threads may call ----------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to wait for the child's readiness and then for work."""
        self._thread.start()

    def wake(self) -> None:
        """Make the runner look for due jobs as soon as it is idle."""
        with self._state:
            self._wanted += 1
            self._state.notify_all()

    def look(self) -> None:
        """Wake the runner and return when nothing is due any more, or when the worker shuts down."""
        with self._state:
            self._wanted += 1
            mine = self._wanted
            self._state.notify_all()
            self._state.wait_for(lambda: self._done >= mine or self.stopping)

    @property
    def stopping(self) -> bool:
        """True once ``begin_shutdown`` was called."""
        return self._stop_at_s is not None

    @property
    def ready(self) -> Ready | None:
        """What the child last said of its bundles; None while it starts."""
        return self._child.ready if self._child.alive else None

    def begin_shutdown(self) -> None:
        """Claim nothing more; let the running job end within ``finish_s``, else give it back.

        Safe in a signal handler.
        """
        if self._stop_at_s is None:
            self._stop_at_s = time.monotonic() + self._finish_s

    def join(self) -> None:
        """Wait for the end of the running job and close the child."""
        with self._state:
            self._state.notify_all()
        if self._thread.ident is not None:
            self._thread.join()

    # -- the thread ---------------------------------------------------------------------------------------------------

    def _loop(self) -> None:
        try:
            while not self.stopping:
                if not self._keep_child():
                    continue
                with self._state:
                    # Woken often, because a signal handler may only set the time to stop.
                    self._state.wait_for(lambda: self._wanted > self._done or self.stopping, timeout=0.2)
                    wanted = self._wanted
                if wanted > self._done:
                    while not self.stopping and (
                        self._run_next() or is_next_due(self._store, self._ended_s, lambda: self.stopping)
                    ):
                        pass
                    with self._state:
                        self._done = wanted
                        self._state.notify_all()
        except Exception:  # a fault of ours: without this thread the worker would live and do nothing, so it ends
            log.exception("runner_failed")
            os.kill(os.getpid(), signal.SIGTERM)
        finally:
            self._child.close()
            with self._state:
                self._state.notify_all()

    def _keep_child(self) -> bool:
        """See to it that a child is alive and ready; return False while it is not."""
        event = self._child.poll(0) if self._child.pid is not None else None
        if isinstance(event, Died):
            self._bury(event)
        if not self._child.alive:
            if time.monotonic() < self._respawn_at_s:
                time.sleep(POLL_S)
                return False
            self._child.close()
            self._child = InferenceChild(self._options)
            self._child.start()
        if self._child.ready is None:
            event = self._child.wait_ready(POLL_S)
            if isinstance(event, Died):
                self._bury(event)
        if self._child.ready is not None:
            self._respawn_delay_s = 0.0
            return True
        return False

    def _bury(self, death: Died) -> None:
        """Log a death; a child that dies again before it was ever ready is started again more and more slowly."""
        if self._buried is self._child:
            return
        self._buried = self._child
        self._metrics.child_deaths.inc()
        if self._child.ready is None:
            self._respawn_delay_s = min(MAX_RESPAWN_DELAY_S, max(1.0, 2 * self._respawn_delay_s))
        self._respawn_at_s = time.monotonic() + self._respawn_delay_s
        log.error("child_died", exit_code=death.exit_code, reason=death.sentence, next_start_s=self._respawn_delay_s)

    def _run_next(self) -> bool:
        """Claim and run one job; return False when there is none to run now."""
        try:
            # A worker with a damaged bundle leaves its jobs to workers with a whole one.
            broken = self._child.ready.broken if self._child.ready is not None else {}
            found = bundle_folders(self._settings.bundles_dir)
            self._folders = {model: folder for model, folder in found.items() if str(folder) not in broken}
            if not self._folders:
                log.error("no_usable_bundle", folder=str(self._settings.bundles_dir))
                return False
            lease = self._store.claim(self._name, self._settings.lease_s, model_ids=list(self._folders))
        except (TemporaryError, ModelError) as error:
            log.warning("claim_failed", code=error.code, reason=error.message)
            return False
        if lease is None:
            return False
        with trace_attempt(lease.record, self._name) as span:
            self.current_job = lease.record.id
            with self._metrics.in_progress.track_inprogress():
                self._run(lease, span)
            self.current_job = None
        self._ended_s = time.monotonic()
        while not self.stopping:
            if self._keep_child():  # a new one is loading after a death; the queue waits with us
                return True
        return False

    def _run(self, lease: Lease, span: Span) -> None:
        record = lease.record
        if record.attempt == 1 and record.started_at is not None:
            self._metrics.queue_wait.observe(max(0.0, (record.started_at - record.created_at).total_seconds()))
        settings = self._settings
        keeper = LeaseKeeper(
            self._store,
            lease,
            lease_s=settings.lease_s,
            heartbeat_s=settings.heartbeat_s,
            deadline_s=settings.job_timeout_s,
        )
        log.info("job_started", model=record.model_id, frames=record.frames_total)
        began_s = time.monotonic()
        code = ""
        try:
            with job_scratch() as scratch, keeper, Trail(keeper) as trail:
                finish = self._work(lease, keeper, trail, scratch)
        except LeaseLost:
            self._stop_child_job(record.id)
            log.warning("lease_lost", consequence="nothing of this attempt is visible")
            span.fail("lease-lost")
            return
        except JobCanceled:
            self._stop_child_job(record.id)
            finish, code = (lambda: self._cancel(lease)), "canceled"
        except Drained:
            self._stop_child_job(record.id)
            finish, code = (lambda: str(self._store.drain(lease))), "drained"
        except (ChildLost, StageStalled) as error:
            self._child.kill()
            reason = JobError(
                code="worker-lost",
                message=str(error) if isinstance(error, ChildLost) else "The job made no progress for too long.",
                hint="Try a smaller job; if it happens again, look at the worker's log and memory.",
                retryable=True,
            )
            finish, code = (lambda: str(self._store.crash(lease, reason))), "worker-lost"
        except AnimatoError as error:
            self._stop_child_job(record.id)
            finish, code = self._finish_with_error(lease, error), error.code
        except (
            Exception
        ):  # the boundary of a job: a fault of ours must not end the worker or leave the job to its lease
            log.exception("job_failed_unexpectedly")
            self._stop_child_job(record.id)
            fault = PermanentError("internal", "Something went wrong inside the worker.", "Its log says what.")
            finish, code = self._finish_with_error(lease, fault), "internal"
        status = self._insist(finish)
        if status in {"succeeded", "failed", "canceled"}:
            self._metrics.jobs.labels(status, "" if status == "succeeded" else code, record.model_id).inc()
        span.note({"animato.status": status or "unknown"})
        if code not in {"", "canceled", "drained"}:
            span.fail(code)
        log.info("job_left", status=status or "unknown", code=code, seconds=round(time.monotonic() - began_s, 3))

    def _work(self, lease: Lease, keeper: LeaseKeeper, trail: Trail, scratch: Path) -> Callable[[], str]:
        """Do the job and return what makes its result visible."""
        record = lease.record
        watch = Stopwatch()
        trail.enter(Stage.FETCH)
        with watch.time("fetch_s"):
            picture = fetch_picture(self._storage, record, scratch)
        bundle = self._folders[record.model_id]
        face = record.input.selected_face
        landmarks = None if face is None else face.points
        self._child.begin(Order(record.id, bundle, picture, record.options, record.seed, scratch, landmarks))
        if self._child.ready is None or record.model_id not in self._child.ready.bundles:
            keeper.touch(LOADING_PATIENCE_S)
        done = self._listen(record, keeper, trail)
        trail.enter(Stage.STORE)
        with watch.time("store_s"):
            output = store_result(self._storage, record, done)
        metrics = {"queue_s": _queue_s(record), **watch.seconds, **done.metrics}
        for name, seconds in (watch.seconds | dict(done.metrics)).items():
            self._metrics.stage.labels(name.removesuffix("_s")).observe(seconds)
        ttl_s = record.options.ttl_s or self._settings.result_ttl_s

        def finish() -> str:
            try:
                expires_at = datetime.now(UTC) + timedelta(seconds=ttl_s)
                self._store.succeed(lease, output, done.quality, metrics, expires_at)
            except JobCanceled:
                self._storage.delete([key for key in (output.key, output.poster_key) if key])
                return self._cancel(lease)
            return "succeeded"

        return finish

    def _listen(self, record: JobRecord, keeper: LeaseKeeper, trail: Trail) -> Done:
        """Follow the child through the job. Raises whatever must end it."""
        share = PROGRESS[Stage.ENCODE] - PROGRESS[Stage.RENDER]
        drawn = 0
        while True:
            event = self._child.poll(POLL_S)
            keeper.check()
            if self._stop_at_s is not None and time.monotonic() >= self._stop_at_s:
                raise Drained
            match event:
                case None:
                    continue
                case Died():
                    self._bury(event)
                    raise ChildLost(event.sentence)
                case Ready():
                    keeper.touch()
                case Done() if event.job_id == record.id:
                    return event
                case Failed() if event.job_id == record.id:
                    raise event.to_error()
                case StageStarted():
                    trail.enter(event.stage)
                case FramesDrawn():
                    self._metrics.frames.inc(event.done - drawn)
                    drawn = event.done
                    progress = PROGRESS[Stage.RENDER] + share * event.done / event.total
                    keeper.show(progress=progress, frames_done=event.done)
                case Preview():
                    keeper.show(preview_jpeg=event.jpeg)
                case Done() | Failed():
                    log.debug("late_event", event_of=event.job_id)
                case _:
                    assert_never(event)

    # -- ends ---------------------------------------------------------------------------------------------------------

    def _finish_with_error(self, lease: Lease, error: AnimatoError) -> Callable[[], str]:
        reason = JobError(code=error.code, message=error.message, hint=error.hint, retryable=error.retryable)
        if isinstance(error, TemporaryError):
            delay_s = error.delay_s
            log.warning("job_released", code=error.code, reason=error.message, delay_s=delay_s)
            return lambda: str(self._store.release(lease, delay_s, reason))

        def fail() -> str:
            self._store.fail(lease, reason)
            return "failed"

        return fail

    def _cancel(self, lease: Lease) -> str:
        self._store.finish_canceled(lease)
        return "canceled"

    def _insist(self, finish: Callable[[], str]) -> str | None:
        """Write a job's end, again and again while the database is away.

        After a lease's time it is not ours any more.
        """
        give_up_s = time.monotonic() + self._settings.lease_s
        while True:
            try:
                return finish()
            except LeaseLost:
                log.warning("lease_lost", consequence="nothing of this attempt is visible")
                return None
            except TemporaryError as error:
                if time.monotonic() > give_up_s:
                    log.warning("end_not_written", code=error.code, consequence="the sweeper gives the job away")
                    return None
                time.sleep(0.5)

    def _stop_child_job(self, job_id: str) -> None:
        if self._child.alive:
            self._child.stop_job(job_id)


def _queue_s(record: JobRecord) -> float:
    """Return how long the job waited before its first start."""
    if record.started_at is None:
        return 0.0
    return round(max(0.0, (record.started_at - record.created_at).total_seconds()), 6)
