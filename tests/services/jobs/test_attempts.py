"""The worker's half of the job store, and the sweeper, on SQLite and on PostgreSQL."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from services.errors import JobCanceled
from services.jobs.contract import JobError, JobState, Lease, Stage
from services.jobs.store import JobStore, LeaseLost

REASON = JobError(code="storage-failed", message="The store was away.", hint="Wait.", retryable=True)
CRASH = JobError(code="worker-lost", message="The renderer died.", hint="Try a smaller job.")


def _state(store: JobStore, job_id: str) -> JobState:
    record = store.get(job_id)
    assert record is not None
    return record.state


@pytest.fixture
def lease(store: JobStore, accept: Any) -> Lease:
    """A running job of worker "w" with 30 s of lease."""
    accept()
    lease = store.claim("w", 30)
    assert lease is not None
    return lease


LATE_WRITES: dict[str, Callable[[JobStore, Lease, Any], object]] = {
    "heartbeat": lambda store, lease, output: store.heartbeat(lease, 30),
    "report": lambda store, lease, output: store.report(lease, stage=Stage.RENDER, progress=0.9, preview_jpeg=b"x"),
    "succeed": lambda store, lease, output: store.succeed(
        lease, output, {"identity": 1.0}, {"render_s": 1.0}, lease.expires_at + timedelta(days=1)
    ),
    "fail": lambda store, lease, output: store.fail(lease, CRASH),
    "finish_canceled": lambda store, lease, output: store.finish_canceled(lease),
    "release": lambda store, lease, output: store.release(lease, 1, REASON),
    "drain": lambda store, lease, output: store.drain(lease),
    "crash": lambda store, lease, output: store.crash(lease, CRASH),
}


def test_claim_starts_the_attempt(store: JobStore, lease: Lease, clock: Any) -> None:
    record = store.get(lease.record.id)
    assert record == lease.record
    assert record is not None
    assert (record.state, record.attempt, record.worker, record.revision) == (JobState.RUNNING, 1, "w", 2)
    assert record.started_at == clock.now
    assert lease.expires_at == clock.now + timedelta(seconds=30)
    assert store.claim("v", 30) is None


def test_claims_come_by_priority_then_age(store: JobStore, accept: Any, clock: Any) -> None:
    made = []
    for priority in (0, 0, -1, 1):
        made.append(accept(priority=priority).id)
        clock.advance(1)
    claimed = [lease.record.id for lease in iter(lambda: store.claim("w", 30), None)]
    assert claimed == [made[2], made[0], made[1], made[3]]


def test_worker_claims_only_the_models_that_it_carries(store: JobStore, accept: Any) -> None:
    accept(model_id="anime")
    human = accept(model_id="human")
    assert store.claim("w", 30, model_ids=[]) is None
    lease = store.claim("w", 30, model_ids=["human", "dog"])
    assert lease is not None
    assert lease.record.id == human.id
    assert store.claim("w", 30, model_ids=["human"]) is None
    assert store.claim("w", 30) is not None


def test_report_shows_progress_and_keeps_what_it_does_not_name(store: JobStore, lease: Lease) -> None:
    store.report(lease, stage=Stage.RENDER, progress=0.5, frames_done=24, preview_jpeg=b"jpeg", metrics={"a_s": 1.5})
    store.report(lease, frames_done=25)
    record = store.get(lease.record.id)
    assert record is not None
    assert (record.stage, record.progress, record.frames_done) == (Stage.RENDER, 0.5, 25)
    assert (record.preview_jpeg, record.metrics) == (b"jpeg", {"a_s": 1.5})
    assert record.revision == lease.record.revision + 2
    assert store.list_page(None)[0][0].preview_jpeg is None


def test_heartbeat_keeps_a_job_three_leases_long(store: JobStore, lease: Lease, clock: Any) -> None:
    for _ in range(9):
        clock.advance(10)
        assert store.heartbeat(lease, 30) is False
        assert store.sweep().requeued == []
    record = store.get(lease.record.id)
    assert record == lease.record  # a heartbeat changes nothing that is visible


def test_success_is_final(store: JobStore, lease: Lease, output: Any, clock: Any) -> None:
    clock.advance(3)
    expires_at = clock.now + timedelta(days=7)
    store.succeed(lease, output, {"identity": 0.9}, {"render_s": 2.0}, expires_at)
    record = store.get(lease.record.id)
    assert record is not None
    assert (record.state, record.output, record.quality) == (JobState.SUCCEEDED, output, {"identity": 0.9})
    assert (record.progress, record.frames_done, record.metrics) == (1.0, record.frames_total, {"render_s": 2.0})
    assert (record.completed_at, record.expires_at) == (clock.now, expires_at)
    for write in LATE_WRITES.values():
        with pytest.raises(LeaseLost):
            write(store, lease, output)
    assert store.get(lease.record.id) == record


@pytest.mark.parametrize("name", LATE_WRITES)
def test_late_write_of_a_lapsed_lease_changes_nothing(
    store: JobStore, lease: Lease, output: Any, clock: Any, name: str
) -> None:
    clock.advance(30)  # frozen until the lease ran out; nobody has swept yet
    before = store.get(lease.record.id)
    with pytest.raises(LeaseLost):
        LATE_WRITES[name](store, lease, output)
    assert store.get(lease.record.id) == before


@pytest.mark.parametrize("name", LATE_WRITES)
def test_late_write_beside_the_next_worker_changes_nothing(
    store: JobStore, lease: Lease, output: Any, clock: Any, name: str
) -> None:
    clock.advance(30)
    assert store.sweep().requeued == [lease.record.id]
    second = store.claim("v", 30)
    assert second is not None
    with pytest.raises(LeaseLost):
        LATE_WRITES[name](store, lease, output)
    assert store.get(lease.record.id) == second.record
    store.succeed(second, output, None, {}, clock.now + timedelta(days=1))
    assert _state(store, lease.record.id) is JobState.SUCCEEDED


def test_release_waits_and_counts_no_attempt(store: JobStore, lease: Lease, clock: Any) -> None:
    store.report(lease, stage=Stage.STORE, progress=0.9, preview_jpeg=b"x")
    assert store.release(lease, 7, REASON) is JobState.QUEUED
    record = store.get(lease.record.id)
    assert record is not None
    assert (record.attempt, record.crashes, record.stage, record.progress) == (0, 0, None, 0.0)
    assert (record.worker, record.preview_jpeg, record.error) == (None, None, None)
    clock.advance(6.9)
    assert store.claim("w", 30) is None
    clock.advance(0.2)
    again = store.claim("w", 30)
    assert again is not None
    assert again.record.attempt == 1
    assert again.token != lease.token


def test_too_many_releases_fail_with_the_reason(store: JobStore, lease: Lease) -> None:
    for _ in range(2):
        assert store.release(lease, 0, REASON) is JobState.QUEUED
        lease = store.claim("w", 30) or lease
    assert store.release(lease, 0, REASON) is JobState.FAILED
    record = store.get(lease.record.id)
    assert record is not None
    assert (record.state, record.error, record.attempt) == (JobState.FAILED, REASON, 1)


def test_drain_costs_nothing_however_often(store: JobStore, lease: Lease) -> None:
    for _ in range(10):
        assert store.drain(lease) is JobState.QUEUED
        lease = store.claim("w", 30) or lease
    record = store.get(lease.record.id)
    assert record is not None
    assert (record.state, record.attempt, record.crashes) == (JobState.RUNNING, 1, 0)


def test_poison_fails_after_three_crashes_and_its_neighbour_runs(
    store: JobStore, lease: Lease, accept: Any, clock: Any
) -> None:
    clock.advance(1)
    neighbour = accept()
    poison = lease.record.id
    assert store.crash(lease, CRASH) is JobState.QUEUED
    second = store.claim("w", 30)
    assert second is not None
    assert (second.record.id, second.record.attempt, second.record.crashes) == (poison, 2, 1)
    assert store.crash(second, CRASH) is JobState.QUEUED
    third = store.claim("w", 30)
    assert third is not None
    assert store.crash(third, CRASH) is JobState.FAILED
    record = store.get(poison)
    assert record is not None
    assert (record.error, record.attempt, record.crashes) == (CRASH, 3, 3)
    last = store.claim("w", 30)
    assert last is not None
    assert (last.record.id, last.record.crashes) == (neighbour.id, 0)


def test_sweep_fails_what_lost_three_workers(store: JobStore, lease: Lease, clock: Any) -> None:
    job_id = lease.record.id
    for _ in range(2):
        clock.advance(31)
        report = store.sweep()
        assert (report.requeued, report.failed, report.due) == ([job_id], [], 1)
        assert store.claim("w", 30) is not None
    clock.advance(31)
    report = store.sweep()
    assert (report.requeued, report.failed, report.due) == ([], [job_id], 0)
    record = store.get(job_id)
    assert record is not None
    assert record.error is not None
    assert (record.error.code, record.crashes, record.attempt) == ("worker-lost", 3, 3)


@pytest.mark.parametrize("renewed", ["stored", "drawn"])
def test_sweep_blames_what_a_dead_worker_drew_and_not_what_it_stored(
    store: JobStore, lease: Lease, accept: Any, clock: Any, renewed: str
) -> None:
    accept()
    drawn = store.claim("w", 30, storing=lease)
    assert drawn is not None
    shown = store.get(lease.record.id)
    assert shown is not None
    assert shown.stage is Stage.STORE
    assert shown.revision == lease.record.revision + 1, "who watches it hears of it"
    clock.advance(10)
    assert not store.heartbeat(lease if renewed == "stored" else drawn, 30)
    for seconds in (21, 10):  # the two leases lapse in either order
        clock.advance(seconds)
        store.sweep()
    for job_id, crashes in ((lease.record.id, 0), (drawn.record.id, 1)):
        record = store.get(job_id)
        assert record is not None
        assert (record.state, record.attempt, record.crashes) == (JobState.QUEUED, 1, crashes)


def test_sweep_fails_what_is_lost_whenever_it_is_stored(store: JobStore, lease: Lease, clock: Any) -> None:
    for _ in range(7):
        store.report(lease, stage=Stage.STORE)
        clock.advance(31)
        assert store.sweep().failed == []
        lease = store.claim("w", 30) or lease
    store.report(lease, stage=Stage.STORE)
    clock.advance(31)
    assert store.sweep().failed == [lease.record.id], "it is excused for a while, not for ever"


def test_claim_beside_a_job_that_has_been_stored_leaves_that_alone(
    store: JobStore, lease: Lease, accept: Any, output: Any
) -> None:
    store.succeed(lease, output, None, {}, lease.expires_at)
    ended = store.get(lease.record.id)
    accept()
    assert store.claim("w", 30, storing=lease) is not None
    assert store.get(lease.record.id) == ended


def test_retries_and_crashes_are_counted_apart(store: JobStore, lease: Lease) -> None:
    for give_back in (store.release, store.release):
        give_back(lease, 0, REASON)
        lease = store.claim("w", 30) or lease
    for _ in range(2):
        assert store.crash(lease, CRASH) is JobState.QUEUED
        lease = store.claim("w", 30) or lease
    assert _state(store, lease.record.id) is JobState.RUNNING


def test_sweep_leaves_living_leases_alone(store: JobStore, lease: Lease, clock: Any) -> None:
    clock.advance(29.9)
    report = store.sweep()
    assert (report.requeued, report.failed, report.canceled, report.expired) == ([], [], [], [])


def test_cancel_before_success_wins(store: JobStore, lease: Lease, output: Any, clock: Any) -> None:
    store.request_cancel(lease.record.id)
    with pytest.raises(JobCanceled):
        store.succeed(lease, output, None, {}, clock.now + timedelta(days=1))
    store.finish_canceled(lease)
    record = store.get(lease.record.id)
    assert record is not None
    assert (record.state, record.output) == (JobState.CANCELED, None)


@pytest.mark.parametrize("name", ["release", "drain", "crash"])
def test_canceled_job_never_runs_again(store: JobStore, lease: Lease, output: Any, name: str) -> None:
    store.request_cancel(lease.record.id)
    assert LATE_WRITES[name](store, lease, output) is JobState.CANCELED
    assert store.claim("w", 30) is None


def test_canceled_job_of_a_dead_worker_ends_at_the_sweep(store: JobStore, lease: Lease, clock: Any) -> None:
    store.request_cancel(lease.record.id)
    clock.advance(31)
    report = store.sweep()
    assert (report.canceled, report.requeued) == ([lease.record.id], [])
    assert _state(store, lease.record.id) is JobState.CANCELED


def test_deadline_expires_a_queued_job_and_no_running_one(store: JobStore, accept: Any, clock: Any) -> None:
    started = accept(deadline_s=10)
    clock.advance(1)
    assert store.claim("w", 300) is not None
    clock.advance(0.5)
    waiting = accept(deadline_s=10)
    patient = accept()
    clock.advance(10)
    lease = store.claim("v", 3000)  # not past its deadline, even before a sweep
    assert lease is not None
    assert lease.record.id == patient.id
    assert store.sweep().expired == [waiting.id]
    record = store.get(waiting.id)
    assert record is not None
    assert record.error is not None
    assert (record.state, record.error.code) == (JobState.EXPIRED, "deadline-exceeded")
    assert _state(store, started.id) is JobState.RUNNING
    clock.advance(300)  # it started in time, so losing its worker does not make it late
    assert store.sweep().requeued == [started.id]
    again = store.claim("w", 30)
    assert again is not None
    assert again.record.id == started.id


def test_outdated_objects_are_named_until_they_are_gone(
    store: JobStore, lease: Lease, output: Any, accept: Any, clock: Any
) -> None:
    store.succeed(lease, output, None, {}, clock.now + timedelta(seconds=60))
    canceled = store.request_cancel(accept().id)
    assert store.outdated() == {}
    clock.advance(60)
    keys = {lease.record.id: ["inputs/x/y", "results/x/video.mp4", "results/x/poster.jpg"]}
    assert store.outdated() == keys
    assert store.outdated() == keys
    store.mark_swept(list(keys))
    assert store.outdated() == {}
    assert _state(store, lease.record.id) is JobState.SUCCEEDED
    clock.advance(1000)  # an input without a result is kept for the store's result_ttl_s
    assert store.outdated() == {canceled.id: ["inputs/x/y"]}


def test_every_visible_change_raises_the_revision(store: JobStore, lease: Lease) -> None:
    job_id = lease.record.id
    revisions = [1, store.revisions([job_id])[job_id]]
    store.report(lease, progress=0.1)
    revisions.append(store.revisions([job_id])[job_id])
    store.request_cancel(job_id)
    revisions.append(store.revisions([job_id])[job_id])
    store.finish_canceled(lease)
    revisions.append(store.revisions([job_id])[job_id])
    assert revisions == [1, 2, 3, 4, 5]
