"""One attempt at one job, from its lease to its end: fetch and draw, then store, then say how it ended.

Drawing needs the inference child; what follows needs disks and the database only. So the child is handed on as soon as
the film is drawn, and draws the next job's while this one is stored. Every way in which a job can end is in ``run``.
No Celery in here.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import assert_never

import structlog

from services.errors import AnimatoError, JobCanceled, PermanentError, TemporaryError
from services.jobs.contract import JobError, JobRecord, Lease, Stage
from services.jobs.store import JobStore, LeaseLost
from services.settings import Settings
from services.storage import ObjectStore
from services.tracing import Span
from worker.childcare import ChildCare
from worker.events import Died, Done, Failed, FramesDrawn, Order, Preview, Ready, StageStarted
from worker.lease import LOADING_PATIENCE_S, LeaseKeeper, StageStalled
from worker.metrics import WorkerMetrics
from worker.scratch import Scratch
from worker.stages import fetch_picture, store_result
from worker.stopwatch import Stopwatch
from worker.trail import PROGRESS, Trail

log = structlog.get_logger(__name__)

POLL_S = 0.1
# Between two tries to write a job's end while the database is away.
INSIST_EVERY_S = 0.5


class Drained(Exception):  # noqa: N818 - it reads as what happened
    """The worker shuts down and the job was not drawn in time; it goes back and counts as nothing."""


class ChildLost(Exception):  # noqa: N818 - it reads as what happened
    """The inference child died under the job."""


@dataclass(frozen=True)
class Workshop:
    """What every attempt of a worker works with.

    ``keepers`` has a thread for the lease of every attempt that is under way; ``tell_end`` tells those who wait for a
    job that it has ended; ``is_over`` says that the time to finish after SIGTERM has passed.
    """

    settings: Settings
    store: JobStore
    storage: ObjectStore
    care: ChildCare
    metrics: WorkerMetrics
    scratch: Scratch
    keepers: Executor
    tell_end: Callable[[str], None]
    is_over: Callable[[], bool]


class Attempt:
    """A lease and what is done under it; used once, on one thread.

    Args:
        bundle: the folder of the job's model.
    """

    def __init__(self, workshop: Workshop, lease: Lease, bundle: Path) -> None:
        self._settings = workshop.settings
        self._store = workshop.store
        self._storage = workshop.storage
        self._care = workshop.care
        self._metrics = workshop.metrics
        self._scratch = workshop.scratch
        self._tell_end = workshop.tell_end
        self._is_over = workshop.is_over
        self._lease = lease
        self._record = lease.record
        self._bundle = bundle
        self._watch = Stopwatch()
        self._keeper = LeaseKeeper(
            self._store,
            workshop.keepers,
            lease,
            lease_s=self._settings.lease_s,
            heartbeat_s=self._settings.heartbeat_s,
            deadline_s=self._settings.job_timeout_s,
        )

    def run(self, span: Span, drawn: Callable[[], None]) -> None:
        """Do the job and write its end.

        Args:
            span: the attempt's.
            drawn: called when the child is free for another job while this one is stored; not called when the
                attempt ends before.
        """
        record = self._record
        if record.attempt == 1:
            self._metrics.queue_wait.observe(_queue_s(record))
        log.info("job_started", model=record.model_id, frames=record.frames_total)
        began_s = time.monotonic()
        code = ""
        try:
            with self._scratch.folder() as scratch, self._keeper, Trail(self._keeper) as trail:
                done = self._draw(trail, scratch)
                drawn()
                finish = self._keep(done, trail)
        except LeaseLost:
            log.warning("lease_lost", consequence="nothing of this attempt is visible")
            span.fail("lease-lost")
            return
        except JobCanceled:
            finish, code = self._cancel, "canceled"
        except Drained:
            finish, code = (lambda: str(self._store.drain(self._lease))), "drained"
        except (ChildLost, StageStalled) as error:
            finish, code = self._crashed(error), "worker-lost"
        except AnimatoError as error:
            finish, code = self._failed(error), error.code
        except (
            Exception
        ):  # the boundary of a job: a fault of ours must not end the worker or leave the job to its lease
            log.exception("job_failed_unexpectedly")
            fault = PermanentError("internal", "Something went wrong inside the worker.", "Its log says what.")
            finish, code = self._failed(fault), "internal"
        status = self._insist(finish)
        if status in {"succeeded", "failed", "canceled"}:
            self._tell_end(record.id)
            self._metrics.jobs.labels(status, "" if status == "succeeded" else code, record.model_id).inc()
        span.note({"animato.status": status or "unknown"})
        if code not in {"", "canceled", "drained"}:
            span.fail(code)
        log.info("job_left", status=status or "unknown", code=code, seconds=round(time.monotonic() - began_s, 3))

    # -- the work -----------------------------------------------------------------------------------------------------

    def _draw(self, trail: Trail, scratch: Path) -> Done:
        """Fetch and draw. Whatever ends it before, the child is idle, or dead, when this raises."""
        record, care = self._record, self._care
        trail.enter(Stage.FETCH)
        with self._watch.time("fetch_s"):
            picture = fetch_picture(self._storage, record, scratch)
        face = record.input.selected_face
        landmarks = None if face is None else face.points
        try:
            care.child.begin(Order(record.id, self._bundle, picture, record.options, record.seed, scratch, landmarks))
            if care.child.ready is None or record.model_id not in care.child.ready.bundles:
                self._keeper.touch(LOADING_PATIENCE_S)
            return self._listen(trail)
        except (ChildLost, StageStalled):
            care.child.kill()
            raise
        except BaseException:
            care.stop_job(record.id)
            raise

    def _listen(self, trail: Trail) -> Done:
        """Follow the child through the job. Raises whatever must end it."""
        job_id, keeper = self._record.id, self._keeper
        share = PROGRESS[Stage.ENCODE] - PROGRESS[Stage.RENDER]
        drawn = 0
        while True:
            event = self._care.child.poll(POLL_S)
            keeper.check()
            if self._is_over():
                raise Drained
            match event:
                case None:
                    continue
                case Died():
                    self._care.bury(event)
                    raise ChildLost(event.sentence)
                case Ready():
                    keeper.touch()
                case Done() if event.job_id == job_id:
                    return event
                case Failed() if event.job_id == job_id:
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

    def _keep(self, done: Done, trail: Trail) -> Callable[[], str]:
        """Store the film and return what makes it visible. The child is another job's by now."""
        record, watch = self._record, self._watch
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
                self._store.succeed(self._lease, output, done.quality, metrics, expires_at)
            except JobCanceled:
                self._storage.delete([key for key in (output.key, output.poster_key) if key])
                return self._cancel()
            return "succeeded"

        return finish

    # -- ends ---------------------------------------------------------------------------------------------------------

    def _cancel(self) -> str:
        self._store.finish_canceled(self._lease)
        return "canceled"

    def _crashed(self, error: ChildLost | StageStalled) -> Callable[[], str]:
        reason = JobError(
            code="worker-lost",
            message=str(error) if isinstance(error, ChildLost) else "The job made no progress for too long.",
            hint="Try a smaller job; if it happens again, look at the worker's log and memory.",
            retryable=True,
        )
        return lambda: str(self._store.crash(self._lease, reason))

    def _failed(self, error: AnimatoError) -> Callable[[], str]:
        reason = JobError(code=error.code, message=error.message, hint=error.hint, retryable=error.retryable)
        if isinstance(error, TemporaryError):
            delay_s = error.delay_s
            log.warning("job_released", code=error.code, reason=error.message, delay_s=delay_s)
            return lambda: str(self._store.release(self._lease, delay_s, reason))

        def fail() -> str:
            self._store.fail(self._lease, reason)
            return "failed"

        return fail

    def _insist(self, finish: Callable[[], str]) -> str | None:
        """Write the job's end, again and again while the database is away.

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
                time.sleep(INSIST_EVERY_S)


def _queue_s(record: JobRecord) -> float:
    """Return how long the job waited before its first start."""
    if record.started_at is None:
        return 0.0
    return round(max(0.0, (record.started_at - record.created_at).total_seconds()), 6)
