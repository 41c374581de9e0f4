"""What the sweeper did to a job is told by the job's id, and one bad round does not end it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from services.jobs.contract import AnimationOptions, InputFacts, make_job_id
from services.jobs.store import JobStore
from services.settings import Settings
from tests.worker.workplace import wait_until
from worker.metrics import WorkerMetrics
from worker.sweeper import Sweeper


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(data_dir=tmp_path, sweep_s=0.05)


def make_sweeper(settings: Settings, store: JobStore, wake: Callable[[], None] = lambda: None) -> Sweeper:
    return Sweeper(settings, store, WorkerMetrics(), ready=lambda: None, wake=wake, name="sweeper")


def test_every_swept_job_has_a_line_of_its_own(settings: Settings) -> None:
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    store = JobStore(settings.resolved_database_url, max_crashes=2, clock=lambda: moment)
    store.migrate()

    def accept(**options: object) -> str:
        asked = AnimationOptions.model_validate({"prompt": "smiling", **options})
        job_id = make_job_id()
        store.accept(job_id=job_id, owner="me", options=asked, input=InputFacts(), seed=1, model_id="human")
        return job_id

    def claim() -> str:
        lease = store.claim("lost", 10)
        assert lease is not None
        return lease.record.id

    accept()
    lost = claim()
    canceled = accept()
    assert claim() == canceled
    store.request_cancel(canceled)
    late = accept(deadline_s=5)
    moment += timedelta(minutes=1)
    with capture_logs() as lines:
        make_sweeper(settings, store)._sweep()
    told = {line["job_id"]: line["outcome"] for line in lines if line["event"] == "job_swept"}
    assert told == {lost: "requeued", canceled: "canceled", late: "expired"}
    assert claim() == lost
    moment += timedelta(minutes=1)
    with capture_logs() as lines:
        make_sweeper(settings, store)._sweep()
    assert [(line["job_id"], line["outcome"]) for line in lines if line["event"] == "job_swept"] == [(lost, "failed")]
    store.close()


def test_a_fault_in_one_round_does_not_end_the_sweeper(settings: Settings) -> None:
    store = JobStore.from_settings(settings)
    store.migrate()
    rounds: list[int] = []

    def fail_first() -> None:
        rounds.append(len(rounds))
        if len(rounds) == 1:
            raise ZeroDivisionError

    sweeper = make_sweeper(settings, store)
    sweeper._sweep = fail_first  # type: ignore[method-assign]
    sweeper.start()
    wait_until(lambda: len(rounds) > 1, "the sweeper sweeps again")
    sweeper.close()
    store.close()
