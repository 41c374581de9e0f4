"""What workers do to jobs: claim, renew, report, finish, give back.

Every write of an attempt is one UPDATE guarded by id, state, token and a lease that still holds. No row changed means
that the attempt is over for its worker: ``LeaseLost``. No HTTP, no Celery, no storage in here.
"""

from __future__ import annotations

import secrets
from collections.abc import Collection, Mapping
from datetime import datetime, timedelta
from functools import cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection
from sqlalchemy.sql.dml import ReturningUpdate

from services.errors import JobCanceled, PermanentError
from services.jobs.commits import MOST_TOGETHER
from services.jobs.contract import (
    TERMINAL_STATES,
    JobError,
    JobState,
    Lease,
    OutputFacts,
    Stage,
    json_safe,
)
from services.jobs.database import Clock, Database
from services.jobs.fairness import CLAIM_ORDER
from services.jobs.figures import count_end
from services.jobs.outbox import announce
from services.jobs.tables import jobs, record_from_row

DEFAULT_RESULT_TTL_S = 7 * 86_400

# What a job that goes back to the queue forgets of the attempt.
_AT_REST: dict[str, Any] = {
    "stage": None,
    "progress": 0.0,
    "frames_done": 0,
    "preview_jpeg": None,
    "worker": None,
    "token": None,
    "lease_expires_at": None,
}

# Statements are built once: building one takes several times as long as SQLite takes to run it. The values of an
# UPDATE's columns, beside the computed ones, come with its parameters.
_NOW = sa.bindparam("at", type_=jobs.c.created_at.type)
_HELD = (
    jobs.c.id == sa.bindparam("of_job"),
    jobs.c.state == JobState.RUNNING,
    jobs.c.token == sa.bindparam("of_token"),
    jobs.c.lease_expires_at > _NOW,
)
_CHANGE = sa.update(jobs).where(*_HELD).values(revision=jobs.c.revision + 1)
_SUCCEED = _CHANGE.where(sa.not_(jobs.c.cancel_requested)).values(frames_done=jobs.c.frames_total)
_RENEW = sa.update(jobs).where(*_HELD).returning(jobs.c.cancel_requested)
_COUNTERS = sa.select(jobs.c.crashes, jobs.c.retries, jobs.c.cancel_requested).where(*_HELD).with_for_update()
_CANCEL_REQUESTED = sa.select(jobs.c.cancel_requested).where(jobs.c.id == sa.bindparam("of_job"))
_IS_DUE = (jobs.c.state == JobState.QUEUED, jobs.c.not_before <= _NOW)


def _make_claim(*only: sa.ColumnElement[bool]) -> ReturningUpdate[Any]:
    """Return the UPDATE that takes the next due job, whose parameters are those of its lease."""
    # A deadline is for the start: a job that lost its worker afterwards is not late.
    in_time = sa.or_(jobs.c.deadline_at.is_(None), jobs.c.deadline_at > _NOW, jobs.c.started_at.is_not(None))
    due = (
        sa.select(jobs.c.id)
        .where(*_IS_DUE, in_time, *only)
        .order_by(*CLAIM_ORDER)
        .limit(1)
        .with_for_update(skip_locked=True)  # SQLite has one writer and ignores it
    )
    return (
        sa.update(jobs)
        .where(jobs.c.id == due.scalar_subquery(), jobs.c.state == JobState.QUEUED)
        .values(
            attempt=jobs.c.attempt + 1,
            revision=jobs.c.revision + 1,
            started_at=sa.func.coalesce(jobs.c.started_at, _NOW),
        )
        .returning(*jobs.c)
    )


@cache
def _claim_of(models: int | None) -> ReturningUpdate[Any]:
    """Return the claim of a worker that carries so many models; None: any.

    Their ids are the parameters ``model0`` and so on: a list of any length is written out anew for each execution.
    """
    if models is None:
        return _make_claim()
    return _make_claim(sa.or_(sa.false(), *(jobs.c.model_id == sa.bindparam(f"model{n}") for n in range(models))))


def _models(model_ids: Collection[str] | None) -> dict[str, str]:
    return {f"model{n}": model_id for n, model_id in enumerate(model_ids or ())}


class LeaseLost(PermanentError):  # noqa: N818 - it reads as what happened
    """The job is no longer this worker's: its lease lapsed, or it was ended by somebody else. Stop, write nothing."""

    def __init__(self, job_id: str) -> None:
        super().__init__(
            "worker-lost",
            f"The lease of job {job_id} is no longer held by this worker.",
            "Nothing to do: the job was given to another worker or has ended.",
        )


class Attempts(Database):
    """The worker's half of the job store.

    Args:
        url: see ``Database``.
        max_crashes: so many lost workers fail a job with ``worker-lost``.
        max_retries: so many releases are allowed before the reason becomes the job's error.
        result_ttl_s: how long the stored input of a job without a result is kept.
        commit_batch, clock: see ``Database``.
    """

    def __init__(
        self,
        url: str,
        *,
        max_crashes: int = 3,
        max_retries: int = 8,
        result_ttl_s: float = DEFAULT_RESULT_TTL_S,
        commit_batch: int = MOST_TOGETHER,
        clock: Clock | None = None,
    ) -> None:
        super().__init__(url, commit_batch=commit_batch, clock=clock)
        self._max_crashes = max_crashes
        self._max_retries = max_retries
        self._ttl = timedelta(seconds=result_ttl_s)

    # -- an attempt ---------------------------------------------------------------------------------------------------

    def claim(
        self,
        worker: str,
        lease_s: float,
        *,
        model_ids: Collection[str] | None = None,
        storing: Lease | None = None,
    ) -> Lease | None:
        """Take the next due job, or return None when there is none; clients take turns (``fairness``).

        Args:
            worker: the name that ``beat_worker`` uses.
            lease_s: seconds until the job is given to another worker unless ``heartbeat`` renews the lease.
            model_ids: the bundles that this worker carries; None: any.
            storing: the job that this worker has drawn and goes on storing. Its row says so from then on, so that
                it is not blamed if the new one kills the worker (``sweeps``).
        """
        token = secrets.token_hex(16)
        with self._note() as connection:
            now = self._now(connection)
            expires_at = now + timedelta(seconds=lease_s)
            values = {"state": JobState.RUNNING, "worker": worker, "token": token, "lease_expires_at": expires_at}
            parameters = _AT_REST | values | {"at": now}
            claim = _claim_of(None if model_ids is None else len(model_ids))
            row = connection.execute(claim, parameters | _models(model_ids)).mappings().one_or_none()
            if row is None:
                return None
            if storing is not None:  # unless it has ended meanwhile
                connection.execute(_CHANGE, _held(storing, now) | {"stage": Stage.STORE})
            return Lease(record=record_from_row(row), token=token, expires_at=expires_at)

    def heartbeat(self, lease: Lease, lease_s: float) -> bool:
        """Renew the lease and return whether the client asked for the job to be canceled.

        The record does not change, so its revision stays. Raises: LeaseLost.
        """
        with self._note() as connection:
            now = self._now(connection)
            renewed = {"lease_expires_at": now + timedelta(seconds=lease_s)}
            row = connection.execute(_RENEW, _held(lease, now) | renewed).one_or_none()
            if row is None:
                raise LeaseLost(lease.record.id)
            return bool(row.cancel_requested)

    def is_cancel_requested(self, job_id: str) -> bool:
        """Return whether the client wants the job to end: one column, to be asked every second."""
        with self._read() as connection:
            return bool(connection.execute(_CANCEL_REQUESTED, {"of_job": job_id}).scalar_one_or_none())

    def report(
        self,
        lease: Lease,
        *,
        stage: Stage | None = None,
        progress: float | None = None,
        frames_done: int | None = None,
        preview_jpeg: bytes | None = None,
        metrics: Mapping[str, float] | None = None,
    ) -> None:
        """Make the attempt's progress visible; what is None stays as it is.

        Range: progress in [0, 1]. Raises: LeaseLost.
        """
        values: dict[str, Any] = {
            "stage": stage,
            "progress": None if progress is None else min(1.0, max(0.0, progress)),
            "frames_done": frames_done,
            "preview_jpeg": preview_jpeg,
            "metrics": None if metrics is None else dict(metrics),
        }
        known = {name: value for name, value in values.items() if value is not None}
        with self._note() as connection:
            self._change(connection, lease, self._now(connection), known)

    def succeed(
        self,
        lease: Lease,
        output: OutputFacts,
        quality: Mapping[str, float | str] | None,
        metrics: Mapping[str, float],
        expires_at: datetime,
    ) -> None:
        """Make the stored result visible: ``running → succeeded``.

        Raises: LeaseLost; JobCanceled when the client's cancel came first (then call ``finish_canceled``).
        """
        values = {
            "state": JobState.SUCCEEDED,
            "output": json_safe(output),
            "quality": None if quality is None else dict(quality),
            "metrics": dict(metrics),
            "progress": 1.0,
            "expires_at": expires_at,
        }
        with self._write() as connection:
            now = self._now(connection)
            try:
                self._change(connection, lease, now, values, _SUCCEED)
            except LeaseLost:
                # The guard decides, and only who was refused asks why.
                if connection.execute(_CANCEL_REQUESTED.where(*_HELD), _held(lease, now)).scalar_one_or_none():
                    raise JobCanceled from None
                raise

    def fail(self, lease: Lease, error: JobError) -> None:
        """End the job: ``running → failed``. Raises: LeaseLost."""
        with self._write() as connection:
            self._change(
                connection,
                lease,
                self._now(connection),
                {"state": JobState.FAILED, "error": json_safe(error)},
            )

    def finish_canceled(self, lease: Lease) -> None:
        """End the job because the client asked for it: ``running → canceled``. Raises: LeaseLost."""
        with self._write() as connection:
            self._change(connection, lease, self._now(connection), {"state": JobState.CANCELED})

    def release(self, lease: Lease, delay_s: float, reason: JobError) -> JobState:
        """Give the job back to be tried again after ``delay_s``; counted as a retry, not as an attempt.

        Too many retries fail it with ``reason``; a canceled one ends. Returns the new state. Raises: LeaseLost.
        """
        with self._write() as connection:
            now = self._now(connection)
            row = self._held_row(connection, lease, now)
            values: dict[str, Any] = {"retries": row.retries + 1}
            if row.retries + 1 > self._max_retries:
                values |= {"state": JobState.FAILED, "error": json_safe(reason)}
            else:
                values |= {
                    "state": JobState.QUEUED,
                    "attempt": lease.record.attempt - 1,
                    "not_before": now + timedelta(seconds=max(0.0, delay_s)),
                }
            return self._hand_back(connection, lease, now, row.cancel_requested, values)

    def drain(self, lease: Lease) -> JobState:
        """Give the job back because this worker is shutting down; counts as nothing. Raises: LeaseLost."""
        with self._write() as connection:
            now = self._now(connection)
            row = self._held_row(connection, lease, now)
            values = {"state": JobState.QUEUED, "attempt": lease.record.attempt - 1}
            return self._hand_back(connection, lease, now, row.cancel_requested, values)

    def crash(self, lease: Lease, reason: JobError) -> JobState:
        """Give the job back because the process that ran it died; too many crashes fail it with ``reason``.

        Returns the new state. Raises: LeaseLost.
        """
        with self._write() as connection:
            now = self._now(connection)
            row = self._held_row(connection, lease, now)
            values: dict[str, Any] = {"crashes": row.crashes + 1, "state": JobState.QUEUED}
            if row.crashes + 1 >= self._max_crashes:
                values |= {"state": JobState.FAILED, "error": json_safe(reason)}
            return self._hand_back(connection, lease, now, row.cancel_requested, values)

    # -- guards -------------------------------------------------------------------------------------------------------

    def _completed(self, values: dict[str, Any], now: datetime) -> dict[str, Any]:
        """Add what follows from the new state: a rest for a queued job, an end for a terminal one."""
        state = values.get("state")
        if state == JobState.QUEUED:
            return _AT_REST | values
        if state in TERMINAL_STATES:
            end = {"completed_at": now, "token": None, "lease_expires_at": None, "expires_at": now + self._ttl}
            return end | values
        return values

    def _change(
        self,
        connection: Connection,
        lease: Lease,
        now: datetime,
        values: dict[str, Any],
        statement: sa.Update = _CHANGE,
    ) -> None:
        if connection.execute(statement, _held(lease, now) | self._completed(values, now)).rowcount != 1:
            raise LeaseLost(lease.record.id)
        if values.get("state") in TERMINAL_STATES:
            code = (values.get("error") or {}).get("code", "")
            count_end(connection, values["state"], code, lease.record.model_id)
            if lease.record.options.webhook is not None:
                announce(connection, [lease.record.id], now)

    @staticmethod
    def _held_row(connection: Connection, lease: Lease, now: datetime) -> sa.Row[*tuple[Any, ...]]:
        """Lock and return the counters of a job that is still held. Raises: LeaseLost."""
        row = connection.execute(_COUNTERS, _held(lease, now)).one_or_none()
        if row is None:
            raise LeaseLost(lease.record.id)
        return row

    def _hand_back(
        self, connection: Connection, lease: Lease, now: datetime, cancel_requested: bool, values: dict[str, Any]
    ) -> JobState:
        if cancel_requested:  # what its client gave up must not run again
            values = {"state": JobState.CANCELED}
        self._change(connection, lease, now, values)
        return JobState(values["state"])


def _held(lease: Lease, now: datetime) -> dict[str, Any]:
    """Return the parameters that ask whether the lease still holds."""
    return {"of_job": lease.record.id, "of_token": lease.token, "at": now}
