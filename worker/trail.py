"""The stages of one attempt, as the client sees them and as a trace shows them.

The spans are made here, in the worker, of what the child reports: a child that is killed takes nothing with it, and
needs no exporter of its own. No SQL, no queue, no models.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import structlog

from services.jobs.contract import JobRecord, Stage
from services.tracing import Span, open_span, start_span
from worker.lease import LeaseKeeper

# Where a stage begins on the way from 0 to 1; drawing is nearly all of it.
PROGRESS = {
    Stage.FETCH: 0.0,
    Stage.ALIGN: 0.02,
    Stage.INVERT: 0.04,
    Stage.MOVE: 0.07,
    Stage.RENDER: 0.1,
    Stage.ENCODE: 0.93,
    Stage.STORE: 0.97,
}


class Trail:
    """A context manager around the work on one job; the stage that is open when it is left ends with it."""

    def __init__(self, keeper: LeaseKeeper) -> None:
        self._keeper = keeper
        self._stage: Span | None = None

    def __enter__(self) -> Trail:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: object) -> None:
        if self._stage is not None:
            if kind is not None:
                self._stage.fail(kind.__name__)
            self._stage.end()

    def enter(self, stage: Stage) -> None:
        """Say that this stage begins, and that the one before it is over."""
        self._keeper.show(stage=stage, progress=PROGRESS[stage])
        if self._stage is not None:
            self._stage.end()
        self._stage = start_span(stage.value)


@contextmanager
def trace_attempt(record: JobRecord, worker: str) -> Iterator[Span]:
    """Record the block as one attempt at a job, in the trace of the request that posted it.

    Every line that is logged inside names the job.
    """
    parent = record.traceparent
    job: dict[str, str | int | float | bool] = {"animato.job.id": record.id}
    if record.attempt == 1:
        start_span("wait", parent=parent, attributes=job, since=record.created_at).end()
    attributes = {
        **job,
        "animato.attempt": record.attempt,
        "animato.model": record.model_id,
        "animato.worker": worker,
        "animato.frames": record.frames_total,
    }
    with open_span("run animation", "consumer", parent=parent, attributes=attributes) as span:
        trace = {} if span.trace_id is None else {"trace_id": span.trace_id}
        with structlog.contextvars.bound_contextvars(job_id=record.id, attempt=record.attempt, **trace):
            yield span
