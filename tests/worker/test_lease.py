"""The keeper of a lease, against a real SQLite job store."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.errors import JobCanceled, PermanentError
from services.jobs.contract import AnimationOptions, InputFacts, Lease, Stage, make_job_id
from services.jobs.store import JobStore, LeaseLost
from tests.worker.workplace import wait_until
from worker.lease import LeaseKeeper, StageStalled

LEASE_S = 3.0


@pytest.fixture
def store(tmp_path: Path) -> Iterator[JobStore]:
    store = JobStore(f"sqlite:///{tmp_path / 'jobs.sqlite3'}")
    store.migrate()
    yield store
    store.close()


def claim(store: JobStore) -> Lease:
    options = AnimationOptions(prompt="smiling", source="sampled")
    store.accept(job_id=make_job_id(), owner="t", options=options, input=InputFacts(), seed=1, model_id="tiny")
    lease = store.claim("worker", LEASE_S)
    assert lease is not None
    return lease


def keep(store: JobStore, lease: Lease, *, deadline_s: float = 60.0, patience_s: float = 60.0) -> LeaseKeeper:
    return LeaseKeeper(store, lease, lease_s=LEASE_S, heartbeat_s=0.5, deadline_s=deadline_s, patience_s=patience_s)


def test_the_lease_is_renewed_while_there_is_progress(store: JobStore):
    lease = claim(store)
    with keep(store, lease) as keeper:
        end_s = time.monotonic() + 2 * LEASE_S
        while time.monotonic() < end_s:
            keeper.touch()
            keeper.check()
            time.sleep(0.1)
    assert store.sweep().requeued == []


def test_without_progress_it_lapses_and_the_job_goes_to_another(store: JobStore):
    lease = claim(store)
    with keep(store, lease, patience_s=0.3) as keeper:
        time.sleep(0.8)
        with pytest.raises(StageStalled):
            keeper.check()
        wait_until(lambda: store.sweep().requeued == [lease.record.id], "the lease lapses", patience_s=3 * LEASE_S)
    again = store.claim("other", LEASE_S)
    assert again is not None
    assert again.record.attempt == 2


def test_progress_is_written_newest_values_only(store: JobStore):
    lease = claim(store)
    with keep(store, lease) as keeper:
        for done in range(1, 200):
            keeper.show(stage=Stage.RENDER, progress=done / 400, frames_done=done, preview_jpeg=b"jpeg")
            time.sleep(0.005)
        wait_until(lambda: store.get(lease.record.id).frames_done == 199, "the newest", patience_s=10)  # type: ignore[union-attr]
    record = store.get(lease.record.id)
    assert record is not None
    assert (record.stage, record.progress, record.preview_jpeg) == (Stage.RENDER, 199 / 400, b"jpeg")
    assert record.revision < 40, "200 reports are a few transactions"


def test_a_cancel_is_heard_between_heartbeats(store: JobStore):
    lease = claim(store)
    keeper = LeaseKeeper(store, lease, lease_s=60, heartbeat_s=30, deadline_s=60)
    with keeper:
        store.request_cancel(lease.record.id)

        def work() -> None:
            for _ in range(80):
                keeper.check()
                time.sleep(0.05)

        with pytest.raises(JobCanceled):
            work()


def test_a_lost_lease_is_noticed(store: JobStore):
    lease = claim(store)
    with keep(store, lease) as keeper:
        store.drain(lease)
        other = store.claim("other", LEASE_S)
        assert other is not None

        def work() -> None:
            for _ in range(100):
                keeper.show(progress=0.5)
                keeper.check()
                time.sleep(0.05)

        with pytest.raises(LeaseLost):
            work()
    record = store.get(lease.record.id)
    assert record is not None
    assert record.progress == 0.0, "nothing of the first one is visible"


def test_no_job_runs_past_its_hard_deadline(store: JobStore):
    lease = claim(store)
    with keep(store, lease, deadline_s=0.2) as keeper:
        time.sleep(0.3)
        keeper.touch()
        with pytest.raises(PermanentError) as caught:
            keeper.check()
    assert caught.value.code == "deadline-exceeded"
