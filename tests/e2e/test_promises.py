"""The promises of docs/reliability.md that one fault shows: leases, cancels, the queue server's absence, one key.

Storms of faults are ``make chaos``; kills in mid-job are in ``test_kill``.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from services.jobs.contract import JobState
from tests.chaos.ground import Ground, open_ground
from tests.chaos.proxy import Road
from tests.chaos.service import Service, running_service
from tests.worker.conftest import make_workplace
from tests.worker.workplace import LONG, PATIENCE_S, WorkerProcess, Workplace, descendants, parents, wait_until

__all__ = ["make_workplace"]

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(2000)]

JOB = {"prompt": "smiling", "source": "sampled", "frames": 4}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, tiny_bundle: Path) -> Iterator[tuple[Ground, Service]]:
    """A whole service whose road to its queue server can be closed."""
    folder = tmp_path_factory.mktemp("promises")
    with (
        open_ground("embedded", folder / "ground", tiny_bundle.parent, may_mount=False, sweep_s=1.0) as ground,
        running_service(ground.settings, folder / "service", workers=1) as service,
    ):
        yield ground, service


def post(service: Service, key: str) -> httpx.Response:
    url = f"{service.base_url}/v1/animations"
    return httpx.post(url, json=JOB, headers={"Idempotency-Key": key}, timeout=PATIENCE_S, trust_env=False)


def times_started(job_id: str, *workers: WorkerProcess) -> int:
    """Return how often workers said that they begin this job."""
    return sum(
        '"job_started"' in line and job_id in line
        for worker in workers
        for line in worker.log.read_text(errors="replace").splitlines()
    )


def test_a_job_three_leases_long_starts_exactly_once(make_workplace: Callable[..., Workplace]) -> None:
    place = make_workplace(lease_s=5.0, heartbeat_s=0.5, sweep_s=0.5)
    workers = place.start_worker(), place.start_worker()  # one runs it, the other would take it from a lapsed lease
    job_id = place.post(frames=24 * 16)
    record = place.wait(job_id)
    assert (record.state, record.attempt, record.crashes) == (JobState.SUCCEEDED, 1, 0)
    assert record.completed_at is not None
    assert record.started_at is not None
    assert (record.completed_at - record.started_at).total_seconds() > 3 * place.settings.lease_s, "it was long enough"
    assert times_started(job_id, *workers) == 1


def test_a_cancel_survives_its_worker(make_workplace: Callable[..., Workplace]) -> None:
    place = make_workplace(lease_s=5.0)
    worker = place.start_worker()
    running, queued = place.post(frames=LONG["frames"]), place.post(frames=2)
    place.wait_drawing(running)
    below = descendants(worker.pid)
    worker.kill_group()  # before it could hear of anything
    wait_until(lambda: not below & set(parents()), "the worker is gone")
    assert place.store.request_cancel(queued).state is JobState.CANCELED
    asked = place.store.request_cancel(running)
    assert (asked.state, asked.cancel_requested) == (JobState.RUNNING, True)
    after = place.start_worker()
    record = place.wait(running)
    assert (record.state, record.attempt) == (JobState.CANCELED, 1), "nobody runs again what its client gave up"
    later = place.wait(place.post(frames=2))
    assert later.state is JobState.SUCCEEDED
    assert times_started(running, after) == times_started(queued, after) == 0
    assert place.get(queued).state is JobState.CANCELED


@pytest.mark.parametrize("road", [Road.CUT, Road.BLACK_HOLE, Road.FROZEN])
def test_jobs_are_accepted_and_run_without_the_queue_server(place: tuple[Ground, Service], road: Road) -> None:
    ground, service = place
    with ground.redis_road.made(road):
        answers = [post(service, f"{road.name}-{number}") for number in range(20)]
        assert [answer.status_code for answer in answers] == [202] * 20, "answered while nothing gets through"
        ids = [answer.json()["id"] for answer in answers]
        wait_for_ends(service, ids[:1])  # the worker looks by itself
    wait_for_ends(service, ids)


def wait_for_ends(service: Service, ids: list[str]) -> None:
    for job_id in ids:
        path = f"/v1/animations/{job_id}"
        wait_until(lambda path=path: service.client.look(path)["status"] == "succeeded", f"{job_id} succeeds")  # type: ignore[misc]


def test_a_killed_and_wiped_queue_server_delays_and_loses_nothing(place: tuple[Ground, Service]) -> None:
    ground, service = place
    ground.queue.kill()
    ids = [post(service, f"killed-{number}").json()["id"] for number in range(5)]
    ground.queue.start()  # it kept nothing on its disk
    wait_for_ends(service, ids)


def test_fifty_calls_with_one_key_make_one_job(place: tuple[Ground, Service]) -> None:
    _, service = place
    with ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(lambda _: post(service, "fifty"), range(50)))
    assert {answer.status_code for answer in answers} <= {202, 409}, "409: the first call is still being worked on"
    ids = {answer.json()["id"] for answer in answers if answer.status_code == 202}
    assert len(ids) == 1
    assert [job["id"] for job in service.client.every_job() if job["id"] in ids] == list(ids)


def test_an_api_killed_between_two_calls_of_one_key_made_one_job(place: tuple[Ground, Service]) -> None:
    _, service = place
    first = post(service, "killed").json()["id"]
    before = service.api.starts
    service.api.send(signal.SIGKILL)
    wait_until(lambda: service.api.starts > before, "the API is started again")
    again = post(service, "killed")
    assert (again.status_code, again.json()["id"]) == (202, first)
    assert again.headers["Idempotent-Replayed"] == "true"
