"""Childcare: sees to it that there is an inference child, and that a dead one is replaced; more and more slowly when
each dies before it was ever ready.

Whose turn it is at the child is the runner's affair. No SQL, no queue, no models in here.
"""

from __future__ import annotations

import time

import structlog

from worker.events import ChildOptions, Died, Ready
from worker.inference import InferenceChild
from worker.metrics import WorkerMetrics

log = structlog.get_logger(__name__)

LOOK_S = 0.1
MAX_RESPAWN_DELAY_S = 30.0


class ChildCare:
    """Owns the inference child of a worker. Not shared between threads, but for ``ready``.

    Args:
        child: the first one, already started.
        options: what later children are started with.
        metrics: counts deaths.
    """

    def __init__(self, child: InferenceChild, options: ChildOptions, metrics: WorkerMetrics) -> None:
        self.child = child
        self._options = options
        self._metrics = metrics
        self._respawn_delay_s = 0.0
        self._respawn_at_s = 0.0
        self._buried: InferenceChild | None = None

    @property
    def ready(self) -> Ready | None:
        """What the child last said of its bundles; None while it starts."""
        return self.child.ready if self.child.alive else None

    def look(self) -> bool:
        """Return whether there is a child to give work to; look after it for a moment while there is none."""
        event = self.child.poll(0) if self.child.pid is not None else None
        if isinstance(event, Died):
            self.bury(event)
        if not self.child.alive:
            if time.monotonic() < self._respawn_at_s:
                time.sleep(LOOK_S)
                return False
            self.child.close()
            self.child = InferenceChild(self._options)
            self.child.start()
        if self.child.ready is None:
            event = self.child.wait_ready(LOOK_S)
            if isinstance(event, Died):
                self.bury(event)
        if self.child.ready is not None:
            self._respawn_delay_s = 0.0
            return True
        return False

    def bury(self, death: Died) -> None:
        """Log a death and set the time of the next start."""
        if self._buried is self.child:
            return
        self._buried = self.child
        self._metrics.child_deaths.inc()
        if self.child.ready is None:
            self._respawn_delay_s = min(MAX_RESPAWN_DELAY_S, max(1.0, 2 * self._respawn_delay_s))
        self._respawn_at_s = time.monotonic() + self._respawn_delay_s
        log.error("child_died", exit_code=death.exit_code, reason=death.sentence, next_start_s=self._respawn_delay_s)

    def stop_job(self, job_id: str) -> None:
        """End the job that the child has in hand, if it is this one."""
        if self.child.alive:
            self.child.stop_job(job_id)
