"""The keeper of a lease, against a real SQLite job store."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from services.errors import JobCanceled, PermanentError
from services.jobs.contract import AnimationOptions, InputFacts, Lease, Stage, make_job_id
from services.jobs.store import JobStore, LeaseLost
from services.jobs.tables import jobs
from tests.worker.workplace import wait_until
from worker.lease import REPORT_EVERY_S, LeaseKeeper, StageStalled

# Far longer than any test: a lease lapses where a test looks at a later moment, not where a machine is slow.
LEASE_S = 600.0
HEARTBEAT_S = 0.1
THREADS = ThreadPoolExecutor(1)  # one: a keeper leaves nothing behind that could keep the next one waiting


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


def keep(store: JobStore, lease: Lease, *, deadline_s: float = 600.0, patience_s: float = 600.0) -> LeaseKeeper:
    return LeaseKeeper(
        store, THREADS, lease, lease_s=LEASE_S, heartbeat_s=HEARTBEAT_S, deadline_s=deadline_s, patience_s=patience_s
    )


def lapses_at(store: JobStore, lease: Lease) -> datetime:
    """Return when the lease will lapse, as it is written."""
    with store._read() as connection:
        query = sa.select(jobs.c.lease_expires_at).where(jobs.c.id == lease.record.id)
        moment = connection.execute(query).scalar_one()
    assert isinstance(moment, datetime)
    return moment


def test_the_lease_is_renewed_while_there_is_progress(store: JobStore):
    lease = claim(store)
    with keep(store, lease) as keeper:
        for _ in range(3):  # again and again, not once
            before = lapses_at(store, lease)

            def renewed(before: datetime = before) -> bool:
                keeper.touch()
                keeper.check()
                return lapses_at(store, lease) > before

            wait_until(renewed, "the lease is renewed")
    assert store.sweep(now=lease.expires_at).requeued == [], "it outlives its first end"


def test_without_progress_it_lapses_and_the_job_goes_to_another(store: JobStore, monkeypatch: pytest.MonkeyPatch):
    lease = claim(store)
    beats: list[object] = []
    heartbeat = store.heartbeat
    monkeypatch.setattr(store, "heartbeat", lambda *args: (beats.append(args), heartbeat(*args))[1])
    with keep(store, lease, patience_s=2 * HEARTBEAT_S) as keeper:

        def stalled() -> bool:
            try:
                keeper.check()
            except StageStalled:
                return True
            return False

        wait_until(stalled, "the silence is noticed")
        time.sleep(1.0)  # a beat that was under way
        before = len(beats)
        time.sleep(5 * HEARTBEAT_S)
        assert len(beats) == before, "a job that stands still is not kept"
    end = lapses_at(store, lease)
    assert store.sweep(now=end - timedelta(milliseconds=1)).requeued == []
    assert store.sweep(now=end).requeued == [lease.record.id]
    again = store.claim("other", LEASE_S)
    assert again is not None
    assert again.record.attempt == 2


def test_progress_is_written_newest_values_only(store: JobStore, monkeypatch: pytest.MonkeyPatch):
    lease = claim(store)
    written_s: list[float] = []
    report = store.report

    def count(*args: Any, **news: Any) -> None:
        written_s.append(time.monotonic())
        report(*args, **news)

    monkeypatch.setattr(store, "report", count)
    began_s = time.monotonic()
    with keep(store, lease) as keeper:
        for done in range(1, 200):
            keeper.show(stage=Stage.RENDER, progress=done / 400, frames_done=done, preview_jpeg=b"jpeg")
            time.sleep(0.005)
        wait_until(lambda: store.get(lease.record.id).frames_done == 199, "the newest")  # type: ignore[union-attr]
    record = store.get(lease.record.id)
    assert record is not None
    assert (record.stage, record.progress, record.preview_jpeg) == (Stage.RENDER, 199 / 400, b"jpeg")
    # A rate, which holds on a slow machine too: it only has more time for as many reports.
    assert len(written_s) <= 2 + (written_s[-1] - began_s) / REPORT_EVERY_S, "199 reports are a few transactions"


def test_a_cancel_is_heard_between_heartbeats(store: JobStore):
    lease = claim(store)
    keeper = LeaseKeeper(store, THREADS, lease, lease_s=20_000, heartbeat_s=10_000, deadline_s=20_000)
    with keeper:
        store.request_cancel(lease.record.id)

        with pytest.raises(JobCanceled):
            wait_until(keeper.check, "the cancel is heard")


def test_a_lost_lease_is_noticed(store: JobStore):
    lease = claim(store)
    with keep(store, lease) as keeper:
        store.drain(lease)
        other = store.claim("other", LEASE_S)
        assert other is not None

        def work() -> None:
            keeper.show(progress=0.5)
            keeper.check()

        with pytest.raises(LeaseLost):
            wait_until(work, "the loss is noticed")
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
