"""One job is stored while the next one is drawn: what that changes for neither of them. Real worker processes."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from services.jobs.contract import JobState, Stage, make_job_id
from tests.servers import QueueServer
from tests.worker.slow_store import REFUSE, hold_of
from tests.worker.workplace import MEDIUM, PATIENCE_S, Workplace, child_of, wait_until

pytestmark = pytest.mark.timeout(2000)

PROGRAM = "tests.worker.slow_store"


@pytest.fixture(scope="module")
def place(
    tmp_path_factory: pytest.TempPathFactory, tiny_bundle: Path, queue_server: QueueServer
) -> Iterator[Workplace]:
    """One worker for all tests of this file that don't kill it."""
    redis_url = queue_server.url.removesuffix("/0") + "/1"
    place = Workplace(tmp_path_factory.mktemp("lanes"), tiny_bundle.parent, redis_url)
    place.start_worker(PROGRAM)
    yield place
    place.close()


def post_held(place: Workplace) -> tuple[str, Path]:
    """Post a job that will be drawn and then be stored for ever; return what holds it up as well."""
    job_id = make_job_id()
    hold = hold_of(place.settings.data_dir, job_id)
    hold.parent.mkdir(exist_ok=True)
    hold.touch()
    place.post(frames=2, job_id=job_id)
    wait_until(lambda: place.get(job_id).stage is Stage.STORE, f"{job_id} is being stored", *place.workers)
    return job_id, hold


@pytest.fixture
def held(place: Workplace) -> Iterator[tuple[str, Path]]:
    """A job that is being stored, and the file that keeps it so."""
    job_id, hold = post_held(place)
    yield job_id, hold
    hold.unlink(missing_ok=True)
    place.wait(job_id)


def test_the_next_job_is_drawn_and_ends_while_one_is_stored(place: Workplace, held: tuple[str, Path]):
    stored, hold = held
    assert place.wait(place.post(frames=2)).state is JobState.SUCCEEDED
    assert place.get(stored).state is JobState.RUNNING, "nothing is visible before it is stored"
    assert place.get(stored).output is None
    hold.unlink()
    record = place.wait(stored)
    assert (record.state, record.attempt, record.crashes) == (JobState.SUCCEEDED, 1, 0)


def test_a_worker_holds_two_jobs_and_no_third(place: Workplace, held: tuple[str, Path]):
    second, hold = post_held(place)
    third = place.post(frames=2)
    time.sleep(2 * place.settings.sweep_s)
    assert place.get(third).state is JobState.QUEUED
    hold.unlink()
    for job_id in (second, third):
        record = place.wait(job_id)
        assert (record.state, record.attempt) == (JobState.SUCCEEDED, 1)


def test_both_leases_are_renewed(place: Workplace, held: tuple[str, Path]):
    second, hold = post_held(place)
    deadline_s = time.monotonic() + 1.5 * place.settings.lease_s
    while time.monotonic() < deadline_s:
        place.store.sweep()
        assert {place.get(job_id).state for job_id in (held[0], second)} == {JobState.RUNNING}
        time.sleep(1.0)
    hold.unlink()
    assert place.wait(second).attempt == 1


def test_a_store_that_refuses_one_costs_it_a_retry_and_the_next_job_nothing(place: Workplace, held: tuple[str, Path]):
    stored, hold = held
    drawn = place.post(**MEDIUM)
    place.wait_drawing(drawn)
    hold.write_text(REFUSE)
    wait_until(lambda: not hold.exists(), "it was refused", *place.workers)
    records = [place.wait(job_id) for job_id in (stored, drawn)]
    assert [(r.state, r.attempt, r.crashes) for r in records] == [(JobState.SUCCEEDED, 1, 0)] * 2


def test_a_job_that_is_canceled_while_it_is_stored_ends_so_and_leaves_nothing(place: Workplace, held: tuple[str, Path]):
    stored, hold = held
    drawn = place.post(**MEDIUM)
    place.wait_drawing(drawn)
    child = child_of(place.workers[0])
    assert place.store.request_cancel(stored).cancel_requested
    hold.unlink()
    record = place.wait(stored)
    assert (record.state, record.output) == (JobState.CANCELED, None)
    assert list(place.storage.list_objects(f"results/{stored}")) == []
    assert place.wait(drawn).state is JobState.SUCCEEDED, "the other one's cancel is no affair of the child's"
    assert child_of(place.workers[0]) == child


def test_a_child_that_dies_costs_the_job_that_is_drawn_a_crash_and_the_stored_one_nothing(
    place: Workplace, held: tuple[str, Path]
):
    stored, hold = held
    drawn = place.post(**MEDIUM)
    place.wait_drawing(drawn)
    os.kill(child_of(place.workers[0]), signal.SIGKILL)
    wait_until(lambda: place.get(drawn).crashes == 1, "the crash is counted", *place.workers)
    hold.unlink()
    record = place.wait(stored)
    assert (record.state, record.attempt, record.crashes) == (JobState.SUCCEEDED, 1, 0)
    assert place.wait(drawn).attempt == 2


def test_sigterm_waits_for_what_is_stored_and_gives_back_what_is_drawn(make_workplace: Callable[..., Workplace]):
    place = make_workplace(grace_s=4.0)
    worker = place.start_worker(PROGRAM)
    stored, hold = post_held(place)
    drawn = place.post(frames=960)
    place.wait_drawing(drawn)
    os.kill(worker.pid, signal.SIGTERM)
    wait_until(lambda: place.get(drawn).state is JobState.QUEUED, "the one is given back", worker)
    assert place.get(drawn).attempt == 0
    assert worker.process.poll() is None, "the other one is still being stored"
    hold.unlink()
    worker.process.wait(PATIENCE_S)
    assert worker.process.returncode == 0
    record = place.get(stored)
    assert (record.state, record.attempt, record.crashes) == (JobState.SUCCEEDED, 1, 0)


def test_a_worker_killed_between_drawn_and_stored_loses_neither_and_blames_one(
    make_workplace: Callable[..., Workplace],
):
    place = make_workplace()
    worker = place.start_worker(PROGRAM)
    stored, hold = post_held(place)
    drawn = place.post(**MEDIUM)
    place.wait_drawing(drawn)
    worker.kill_group()
    hold.unlink()
    assert {place.get(job_id).state for job_id in (stored, drawn)} == {JobState.RUNNING}
    place.start_worker()
    records = [place.wait(job_id) for job_id in (stored, drawn)]
    assert [(r.state, r.attempt, r.crashes) for r in records] == [
        (JobState.SUCCEEDED, 2, 0),
        (JobState.SUCCEEDED, 2, 1),
    ]
