"""Random histories of clients, workers, sweepers and time, against a model of what may happen to a job."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import timedelta

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, settings, strategies
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from services.errors import JobCanceled, RequestError
from services.jobs.contract import (
    TERMINAL_STATES,
    AnimationOptions,
    InputFacts,
    JobError,
    JobRecord,
    JobState,
    Lease,
    OutputFacts,
    VideoFormat,
    WebhookOptions,
)
from services.jobs.store import JobStore, LeaseLost
from services.jobs.tables import metadata, webhook_deliveries
from tests.services.jobs.conftest import Clock

LEASE_S = 30
WEBHOOK = WebhookOptions(url="https://example.com/hook")
REASON = JobError(code="internal", message="It failed.")
OUTPUT = OutputFacts(key="k", format=VideoFormat.GIF, width=1, height=1, fps=1, frames=1, bytes=1, sha256="s")
ALLOWED = {
    JobState.QUEUED: {JobState.RUNNING, JobState.CANCELED, JobState.EXPIRED},
    JobState.RUNNING: {JobState.QUEUED, JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELED},
}
# No subnormal numbers: onnxruntime, once loaded for other tests, has the processor flush them to zero.
SHARE = strategies.floats(0, 1, allow_subnormal=False)
PICK = strategies.integers(0, 1000)


@dataclass
class Held:
    """A lease as its worker sees it, and until when it must be honoured."""

    lease: Lease
    until_s: float
    over: bool = False


class Histories(RuleBasedStateMachine):
    """After every step: legal transitions only, terminal records frozen, at most one living lease a job."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self.url = url

    @initialize()
    def begin(self) -> None:
        self.clock = Clock()
        self.store = JobStore(self.url, max_crashes=2, max_retries=1, clock=self.clock)
        with self.store._write() as connection:
            for table in metadata.sorted_tables:
                connection.execute(sa.delete(table))
        self.known: dict[str, JobRecord] = {}
        self.held: list[Held] = []
        self.passed_s = 0.0
        self.accepted = 0

    def teardown(self) -> None:
        if hasattr(self, "store"):
            self.store.close()

    @rule(
        deadline_s=strategies.sampled_from([None, 20, 60]),
        priority=strategies.integers(-1, 1),
        owner=strategies.sampled_from(["me", "you", "they"]),
        told=strategies.booleans(),
    )
    def accept(self, deadline_s: int | None, priority: int, owner: str, told: bool) -> None:
        self.accepted += 1
        record, created = self.store.accept(
            job_id=f"anm_{self.accepted:032x}",  # replays must be alike
            owner=owner,
            options=AnimationOptions(prompt="smiling", deadline_s=deadline_s, webhook=WEBHOOK if told else None),
            input=InputFacts(),
            seed=1,
            model_id="human",
            priority=priority,
        )
        assert created
        self.known[record.id] = record

    @rule()
    def claim(self) -> None:
        lease = self.store.claim("w", LEASE_S)
        if lease is None:
            return
        assert self.known[lease.record.id].state is JobState.QUEUED
        self.held.append(Held(lease, self.passed_s + LEASE_S))

    @rule(seconds=strategies.sampled_from([1, 9, 15, 31, -20]))
    def wait(self, seconds: int) -> None:
        """Let time pass; a host's clock is set back now and then."""
        self.clock.advance(seconds)
        self.passed_s += seconds

    @rule(pick=PICK)
    def heartbeat(self, pick: int) -> None:
        held = self._pick(pick)
        if held and self._write(held, lambda: self.store.heartbeat(held.lease, LEASE_S)):
            held.until_s = self.passed_s + LEASE_S

    @rule(pick=PICK, progress=SHARE)
    def report(self, pick: int, progress: float) -> None:
        held = self._pick(pick)
        if held:
            self._write(held, lambda: self.store.report(held.lease, progress=progress))

    @rule(pick=PICK, end=strategies.sampled_from(["succeed", "fail", "finish_canceled", "release", "drain", "crash"]))
    def finish(self, pick: int, end: str) -> None:
        held = self._pick(pick)
        if held is None:
            return
        expires_at = self.clock.now + timedelta(days=1)
        acts = {
            "succeed": lambda: self.store.succeed(held.lease, OUTPUT, None, {}, expires_at),
            "fail": lambda: self.store.fail(held.lease, REASON),
            "finish_canceled": lambda: self.store.finish_canceled(held.lease),
            "release": lambda: self.store.release(held.lease, 5, REASON),
            "drain": lambda: self.store.drain(held.lease),
            "crash": lambda: self.store.crash(held.lease, REASON),
        }
        try:
            if self._write(held, acts[end]):
                held.over = True
        except JobCanceled:
            assert self.known[held.lease.record.id].cancel_requested
            assert end == "succeed"

    @rule(pick=PICK)
    def cancel(self, pick: int) -> None:
        if not self.known:
            return
        job_id = list(self.known)[pick % len(self.known)]
        if self.known[job_id].state in TERMINAL_STATES:
            with pytest.raises(RequestError):
                self.store.request_cancel(job_id, self.known[job_id].owner)
            return
        after = self.store.request_cancel(job_id, self.known[job_id].owner)
        assert after.cancel_requested or after.state is JobState.CANCELED

    @rule(pick=PICK)
    def delete(self, pick: int) -> None:
        if not self.known:
            return
        job_id = list(self.known)[pick % len(self.known)]
        if self.known[job_id].state in TERMINAL_STATES:
            self.store.delete(job_id, self.known.pop(job_id).owner)
            assert self.store.get(job_id) is None
        else:
            with pytest.raises(RequestError):
                self.store.delete(job_id, self.known[job_id].owner)

    @rule()
    def sweep(self) -> None:
        report = self.store.sweep()
        for job_id in report.requeued + report.failed:
            assert self.known[job_id].state is JobState.RUNNING
            assert all(h.over or h.until_s <= self.passed_s for h in self.held if h.lease.record.id == job_id)
        for held in self.held:  # also for a worker whose clock is set back afterwards
            held.over |= held.lease.record.id in report.requeued + report.failed + report.canceled

    @invariant()
    def nothing_impossible_happened(self) -> None:
        for job_id, before in self.known.items():
            after = self.store.get(job_id)
            assert after is not None
            if before.state in TERMINAL_STATES:
                assert after == before, "a terminal record changed"
            if after.state is not before.state:
                assert after.state in ALLOWED[before.state]
            assert (after.revision == before.revision) == (after == before)
            assert after.crashes <= 2
            assert (after.output is not None) == (after.state is JobState.SUCCEEDED)
            assert (after.completed_at is not None) == after.terminal
            assert (after.error is not None) == (after.state in {JobState.FAILED, JobState.EXPIRED})
            self.known[job_id] = after
        assert sum(self.store.counts().values()) == len(self.known), "a deleted job is counted, or one is lost"
        self._check_ends_are_told_once()
        self._check_places()

    def _check_ends_are_told_once(self) -> None:
        with self.store._read() as connection:
            told = list(connection.execute(sa.select(webhook_deliveries.c.job_id)).scalars())
        ended = {job_id for job_id, job in self.known.items() if job.terminal and job.options.webhook is not None}
        assert Counter(told) == Counter(dict.fromkeys(ended, 1))

    def _check_places(self) -> None:
        queued = [job_id for job_id, job in self.known.items() if job.state is JobState.QUEUED]
        places = sorted(self.store.queue_position(job_id) or 0 for job_id in queued)
        assert places == list(range(1, len(queued) + 1))

    def _pick(self, pick: int) -> Held | None:
        return self.held[pick % len(self.held)] if self.held else None

    def _write(self, held: Held, act: object) -> bool:
        """Do it; refused if and only if the lease is over."""
        assert callable(act)
        try:
            act()
        except LeaseLost:
            assert held.over or held.until_s <= self.passed_s or self._is_succeeded_by_another(held)
            held.over = True
            return False
        assert not held.over
        assert held.until_s > self.passed_s
        return True

    def _is_succeeded_by_another(self, held: Held) -> bool:
        return any(other is not held and other.lease.record.id == held.lease.record.id for other in self.held)


@pytest.mark.timeout(2000)
def test_histories(migrated_url: str) -> None:
    few = settings(max_examples=25, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck))
    run_state_machine_as_test(lambda: Histories(migrated_url), settings=few)  # type: ignore[arg-type]  # any factory
