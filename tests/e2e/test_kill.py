"""Kill -9 of workers and of their inference children in mid-job: the job ends once, its neighbours don't notice."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable

import pytest

from services.errors import TemporaryError
from services.jobs.contract import JobState
from services.settings import Settings
from tests.worker.conftest import make_workplace
from tests.worker.workplace import LONG, MEDIUM, Workplace, child_of, descendants, parents, wait_until

__all__ = ["make_workplace"]

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(2000)]


def test_a_killed_workers_job_ends_on_another_worker_once(make_workplace: Callable[..., Workplace]):
    place = make_workplace()
    first = place.start_worker()
    job_id = place.post(**MEDIUM)
    place.wait_drawing(job_id)
    below = descendants(first.pid)
    assert below, "the inference child and its ffmpeg"
    # At once: on a quick machine the job ends while another worker starts.
    first.kill_group()
    assert place.get(job_id).attempt == 1
    place.start_worker()
    wait_until(lambda: not below & set(parents()), "no process of the killed worker is left")
    wait_until(lambda: place.get(job_id).attempt == 2, "another worker takes the job", *place.workers)
    record = place.wait(job_id)
    assert (record.state, record.attempt, record.crashes) == (JobState.SUCCEEDED, 2, 1), record.error
    assert record.output is not None
    stored = [found.key for found in place.storage.list_objects(f"results/{job_id}")]
    assert sorted(stored) == sorted(key for key in (record.output.key, record.output.poster_key) if key)
    revision = record.revision
    time.sleep(2 * place.settings.sweep_s)
    assert place.get(job_id).revision == revision, "a terminal state never changes"


def test_a_killed_workers_job_is_promised_to_run_again_within_forty_seconds():
    """By its figures, as a clock would measure the machine: the lease lapses, a sweep and the look after it follow."""
    settings = Settings()
    assert settings.lease_s + settings.sweep_s < 40.0


def test_a_killed_inference_child_costs_one_attempt(make_workplace: Callable[..., Workplace]):
    place = make_workplace()
    worker = place.start_worker()
    job_id = place.post(**MEDIUM)
    place.wait_drawing(job_id)
    child = child_of(worker)
    os.kill(child, signal.SIGKILL)
    record = place.wait(job_id)
    assert (record.state, record.attempt, record.crashes) == (JobState.SUCCEEDED, 2, 1), record.error
    assert worker.process.poll() is None, "the worker itself lives on"
    assert child_of(worker) != child


def test_a_poison_job_fails_after_three_crashes_and_its_neighbour_succeeds(make_workplace: Callable[..., Workplace]):
    place = make_workplace(max_crashes=3)
    worker = place.start_worker()
    poison, neighbour = place.post(**LONG), place.post(frames=4)
    for attempt in (1, 2, 3):
        place.wait_drawing(poison, attempt)
        os.kill(child_of(worker), signal.SIGKILL)
        wait_until(lambda n=attempt: place.get(poison).crashes == n, "the crash is counted", worker)  # type: ignore[misc]
    record = place.wait(poison)
    assert (record.state, record.attempt, record.crashes) == (JobState.FAILED, 3, 3)
    assert record.error is not None
    assert record.error.code == "worker-lost"
    assert "SIGKILL" in record.error.message
    assert "memory" in record.error.message
    fine = place.wait(neighbour)
    assert (fine.state, fine.attempt, fine.crashes) == (JobState.SUCCEEDED, 1, 0)


def freeze(place: Workplace, pids: set[int]) -> None:
    """Stop the processes, but not while one holds the lock of SQLite, which would stop everybody else as well."""
    for _ in range(20):
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        try:
            place.store.beat_worker("observer", {})
        except TemporaryError:
            for pid in pids:
                os.kill(pid, signal.SIGCONT)
            time.sleep(0.1)
        else:
            return
    raise AssertionError("the worker always holds the lock")


def test_a_worker_frozen_past_its_lease_writes_nothing_visible(make_workplace: Callable[..., Workplace]):
    place = make_workplace()
    frozen = place.start_worker()
    job_id = place.post(**MEDIUM)
    place.wait_drawing(job_id)
    everything = {frozen.pid, *descendants(frozen.pid)}
    freeze(place, everything)
    place.start_worker()
    wait_until(lambda: place.get(job_id).attempt == 2, "another worker takes the job", *place.workers)
    for pid in everything & set(parents()):
        os.kill(pid, signal.SIGCONT)
    record = place.wait(job_id)
    assert (record.state, record.attempt) == (JobState.SUCCEEDED, 2)
    wait_until(lambda: "lease_lost" in frozen.log.read_text(), "the thawed worker notices", *place.workers)
    stored = [found.key for found in place.storage.list_objects(f"results/{job_id}")]
    assert record.output is not None
    assert sorted(stored) == sorted(key for key in (record.output.key, record.output.poster_key) if key)
