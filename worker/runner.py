"""Which job is next, and whose turn it is at the inference child: two lanes, each of which claims, draws and stores.

Whoever wants work done (a hint from the queue, the sweeper) wakes the runner; it claims until nothing is due. A lane
holds the child from its claim until its film is drawn; while it stores the film and writes the job's end, the other
lane has the child. So a worker holds two jobs at most, and one of them is drawn. What happens to a job is
``worker.attempt``. No Celery in here.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import structlog

from model.errors import ModelError
from services.ends import EndSpeaker
from services.errors import TemporaryError
from services.jobs.contract import Lease
from services.jobs.store import JobStore
from services.settings import Settings
from services.storage import ObjectStore
from worker.attempt import Attempt, Workshop
from worker.bundles import Bundles
from worker.childcare import ChildCare
from worker.events import ChildOptions, Ready
from worker.inference import InferenceChild
from worker.metrics import WorkerMetrics
from worker.scratch import Scratch
from worker.trail import trace_attempt

log = structlog.get_logger(__name__)

# One draws while the other one stores. More would take jobs from workers that could draw them now.
LANES = 2


class _Turn:
    """One lane's turn at the child; ``over`` ends it, and does nothing when it has ended."""

    def __init__(self, child_is_taken: threading.Lock) -> None:
        self._child_is_taken = child_is_taken
        self._child_is_taken.acquire()
        self.lasts = True

    def over(self) -> None:
        if self.lasts:
            self.lasts = False
            self._child_is_taken.release()


class Runner:
    """Runs jobs on threads of its own.

    Args:
        settings: leases, deadlines, providers.
        store: the job store, migrated.
        storage: the object store.
        child: the first inference child, already started (so that it loads while the rest of the worker starts).
        options: what later children are started with.
        metrics: what Prometheus reads.
        name: the worker's name in the job store.
        finish_s: after ``begin_shutdown`` a job may take this long to be drawn.
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
        self._metrics = metrics
        self._name = name
        self._finish_s = finish_s
        self._bundles = Bundles(settings.bundles_dir)
        self._care = ChildCare(child, options, metrics)
        self._scratch = Scratch()
        keepers = ThreadPoolExecutor(LANES, "lease-keeper")
        self._ends = EndSpeaker(settings.redis_url)
        self._workshop = Workshop(
            settings, store, storage, self._care, metrics, self._scratch, keepers, self._ends.tell, self._is_over
        )
        self._state = threading.Condition()
        self._wanted = 0  # looks asked for
        self._done = 0  # looks finished
        self._stop_at_s: float | None = None
        self._child_is_taken = threading.Lock()
        self._storing: Lease | None = None  # of the other lane, for the one whose turn it is
        self._lanes = [threading.Thread(target=self._go_on, name=f"lane-{n}", daemon=True) for n in range(LANES)]

    # -- what other threads may call ----------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to wait for the child's readiness and then for work."""
        for lane in self._lanes:
            lane.start()

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
        return self._care.ready

    def begin_shutdown(self) -> None:
        """Claim nothing more; let a job be drawn within ``finish_s``, else give it back. What is drawn is stored.

        Safe in a signal handler.
        """
        if self._stop_at_s is None:
            self._stop_at_s = time.monotonic() + self._finish_s

    def join(self) -> None:
        """Wait for the ends of the jobs in hand and close the child."""
        with self._state:
            self._state.notify_all()
        for lane in self._lanes:
            if lane.ident is not None:
                lane.join()
        self._care.child.close()
        self._scratch.close()
        self._ends.close()

    def _is_over(self) -> bool:
        return self._stop_at_s is not None and time.monotonic() >= self._stop_at_s

    # -- a lane -------------------------------------------------------------------------------------------------------

    def _go_on(self) -> None:
        try:
            while not self.stopping:
                with self._turn() as turn:
                    self._serve(turn)
        except Exception:  # a fault of ours: without its lanes the worker would live and do nothing, so it ends
            log.exception("runner_failed")
            self.begin_shutdown()
            os.kill(os.getpid(), signal.SIGTERM)
        finally:
            with self._state:
                self._state.notify_all()

    @contextmanager
    def _turn(self) -> Iterator[_Turn]:
        turn = _Turn(self._child_is_taken)
        try:
            yield turn
        finally:
            turn.over()

    def _serve(self, turn: _Turn) -> None:
        """Wait for a look that is wanted, and run one job; the look is finished when there is none."""
        if self.stopping or not self._care.look():  # after a death another child is loading; the queue waits with us
            return
        with self._state:
            # Woken often, because a signal handler may only set the time to stop.
            self._state.wait_for(lambda: self._wanted > self._done or self.stopping, timeout=0.2)
            wanted = self._wanted
        if wanted == self._done or self.stopping:
            return
        if not self._run_next(turn):
            with self._state:
                self._done = wanted
                self._state.notify_all()

    def _run_next(self, turn: _Turn) -> bool:
        """Claim and run one job; return False when there is none to run now."""
        folders = self._usable_bundles()
        if not folders:
            return False
        try:
            lease = self._store.claim(
                self._name, self._settings.lease_s, model_ids=list(folders), storing=self._storing
            )
        except TemporaryError as error:
            log.warning("claim_failed", code=error.code, reason=error.message)
            return False
        if lease is None:
            return False

        def drawn() -> None:
            with self._state:
                self._storing = lease
            turn.over()

        with trace_attempt(lease.record, self._name) as span, self._metrics.in_progress.track_inprogress():
            Attempt(self._workshop, lease, folders[lease.record.model_id]).run(span, drawn)
        with self._state:
            if self._storing is lease:
                self._storing = None
        return True

    def _usable_bundles(self) -> dict[str, Path]:
        """Return the folder of every bundle by its model; a worker with a damaged one leaves its jobs to others."""
        try:
            found = self._bundles.folders()
        except ModelError as error:
            log.warning("claim_failed", code=error.code, reason=error.message)
            return {}
        broken = self._care.ready.broken if self._care.ready is not None else {}
        usable = {model: folder for model, folder in found.items() if str(folder) not in broken}
        if not usable:
            log.error("no_usable_bundle", folder=str(self._settings.bundles_dir))
        return usable
