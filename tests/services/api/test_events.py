"""Server-sent events over a real uvicorn on a real socket: order, resume, end, and clients that go away."""

from __future__ import annotations

import itertools
import json
import socket
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
import uvicorn
from fastapi import FastAPI
from fastapi.testclient import TestClient

import services.api.events as events_room
from services.api.app import create_app
from services.api.resources import Resources
from services.jobs.contract import Stage
from services.settings import Settings
from tests.services.api.conftest import claim, expect_problem, fail, finish, post_sampled

# Only ever waited for by a test that fails.
PATIENCE_S = 120.0


@dataclass
class Event:
    name: str = ""
    data: Any = None
    id: str | None = None


@dataclass
class Served:
    base_url: str
    app: FastAPI

    @property
    def rooms(self) -> Resources:
        resources = self.app.state.resources
        assert isinstance(resources, Resources)
        return resources


@pytest.fixture
def served(settings: Settings) -> Iterator[Served]:
    app = create_app(settings)
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.02)
    yield Served(f"http://127.0.0.1:{port}", app)
    server.should_exit = True
    thread.join()
    listener.close()


@pytest.fixture
def web(served: Served) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=served.base_url, timeout=PATIENCE_S) as client:
        yield client


def read_events(response: httpx.Response) -> Iterator[Event]:
    event = Event()
    for line in response.iter_lines():
        name, _, value = line.partition(": ")
        if line == "":
            if event.name:
                yield event
            event = Event()
        elif name == "event":
            event.name = value
        elif name == "data":
            event.data = json.loads(value)
        elif name == "id":
            event.id = value
        elif line == ": ping":
            yield Event("ping")


def follow(web: httpx.Client, url: str, last_id: str | None = None) -> Any:
    headers = {} if last_id is None else {"Last-Event-ID": last_id}
    return web.stream("GET", f"{url}/events", headers=headers)


def test_whole_life(served: Served, web: httpx.Client) -> None:
    url = post_sampled(web, frames=20).headers["Location"]
    with follow(web, url) as response:
        assert response.status_code == 200
        assert response.headers["Content-Type"].startswith("text/event-stream")
        assert response.headers["Cache-Control"] == "no-store"
        stream = read_events(response)
        snapshot = next(stream)
        assert snapshot.name == "status"
        assert snapshot.data == web.get(url).json()
        assert snapshot.id == "1"
        lease = claim(served.rooms)
        running = next(stream)
        assert (running.name, running.data["status"], running.data["attempt"]) == ("status", "running", 1)
        served.rooms.store.report(lease, stage=Stage.RENDER, progress=0.1, frames_done=2)
        render = next(stream)
        assert (render.name, render.data["stage"]) == ("status", "render")
        served.rooms.store.report(lease, progress=0.5, frames_done=10, preview_jpeg=b"\xff\xd8a jpeg")
        preview, progress = next(stream), next(stream)
        assert preview.name == "preview"
        assert preview.data == {"image": "data:image/jpeg;base64,/9hhIGpwZWc=", "frames_done": 10}
        assert preview.id is None
        assert progress.name == "progress"
        assert (progress.data["progress"], progress.data["frames_done"], progress.data["frames_total"]) == (0.5, 10, 20)
        finish(served.rooms, lease)
        rest = list(stream)  # ends by itself
        assert rest[-1].name == "done"
        assert rest[-1].data == web.get(url).json()
        assert rest[-1].data["status"] == "succeeded"
        ids = [int(event.id) for event in (snapshot, running, render, progress, *rest) if event.id is not None]
        assert ids == sorted(ids)
    # An EventSource that comes back with the last id is told to stop.
    assert web.get(f"{url}/events", headers={"Last-Event-ID": str(rest[-1].id)}).status_code == 204


def test_progress_at_most_twice_a_second(client: TestClient, rooms: Resources) -> None:
    """Told of a new step every 30 ms, a client hears of two a second and of the newest in the end; time is a number."""
    post_sampled(client, frames=100)
    lease = claim(rooms)
    follower = events_room._Told()
    told: list[float] = []
    for step in range(1, 101):
        rooms.store.report(lease, stage=Stage.RENDER, progress=step / 100, frames_done=step)
        record = rooms.store.get(lease.record.id)
        assert record is not None
        now_s = 1000.0 + 0.03 * step
        if any(event.startswith(b"event: progress") for event in follower.list_events(record, None, now_s)):
            told.append(now_s)
    assert len(told) == 6, "in three seconds"
    assert all(after - before >= 0.5 for before, after in itertools.pairwise(told))


def test_progress_waits_for_its_slot_and_the_end_does_not(
    served: Served, web: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events_room, "PROGRESS_GAP_S", 3600.0)
    url = post_sampled(web, frames=100).headers["Location"]
    lease = claim(served.rooms)
    served.rooms.store.report(lease, stage=Stage.RENDER)
    with follow(web, url) as response:
        stream = read_events(response)
        assert next(stream).name == "status"
        served.rooms.store.report(lease, progress=0.01, frames_done=1)
        assert next(stream).name == "progress"
        for done in range(2, 31):
            served.rooms.store.report(lease, progress=done / 100, frames_done=done)
            time.sleep(0.03)
        fail(served.rooms, lease)
        rest = list(stream)
    assert [event.name for event in rest] == ["done"]
    assert rest[-1].data["error"]["code"] == "inversion-failed"


def test_ended_job(served: Served, web: httpx.Client) -> None:
    url = post_sampled(web).headers["Location"]
    finish(served.rooms, claim(served.rooms))
    with follow(web, url) as response:
        events = list(read_events(response))
    assert [event.name for event in events] == ["status", "done"]
    assert events[0].id is None  # whoever loses `done` must not seem to have seen it
    assert events[1].id is not None
    with follow(web, url, "1") as response:
        assert [event.name for event in read_events(response)][-1] == "done"


@pytest.mark.parametrize("last_id", ["0", "999", "x", "-1", "", "9" * 30])
def test_useless_ids_mean_from_the_start(served: Served, web: httpx.Client, last_id: str) -> None:
    url = post_sampled(web).headers["Location"]
    with follow(web, url, last_id) as response:
        assert next(read_events(response)).name == "status"


def test_resume_skips_what_was_seen(served: Served, web: httpx.Client) -> None:
    url = post_sampled(web).headers["Location"]
    lease = claim(served.rooms)
    with follow(web, url) as response:
        seen = next(read_events(response)).id
    assert seen == "2"
    with follow(web, url, seen) as response:
        threading.Timer(0.5, lambda: served.rooms.store.report(lease, stage=Stage.MOVE, progress=0.3)).start()
        event = next(read_events(response))
        assert (event.name, event.id, event.data["stage"]) == ("status", "3", "move")
    served.rooms.store.report(lease, stage=Stage.RENDER, progress=0.4)
    with follow(web, url, seen) as response:  # the snapshot carries all that was missed
        event = next(read_events(response))
        assert (event.name, event.id, event.data["stage"]) == ("status", "4", "render")


def test_cancel_is_told(served: Served, web: httpx.Client) -> None:
    url = post_sampled(web).headers["Location"]
    lease = claim(served.rooms)
    with follow(web, url) as response:
        stream = read_events(response)
        next(stream)
        web.post(f"{url}/cancel")
        marked = next(stream)
        assert (marked.name, marked.data["cancel_requested"]) == ("status", True)
        served.rooms.store.finish_canceled(lease)
        assert next(stream).name == "done"


def test_ping(served: Served, web: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events_room, "PING_S", 0.3)
    url = post_sampled(web).headers["Location"]
    with follow(web, url) as response:
        stream = read_events(response)
        assert [next(stream).name for _ in range(3)] == ["status", "ping", "ping"]


def test_deleted_job_ends_the_stream(served: Served, web: httpx.Client) -> None:
    url = post_sampled(web).headers["Location"]
    with follow(web, url) as response:
        stream = read_events(response)
        next(stream)
        job_id = url.rsplit("/", 1)[-1]
        with served.rooms.store._write() as connection:  # as if it had ended and been removed between two looks
            connection.exec_driver_sql("DELETE FROM jobs WHERE id = ?", (job_id,))
        assert list(stream) == []


def test_unknown_job(web: httpx.Client) -> None:
    expect_problem(web.get("/v1/animations/anm_" + "0" * 32 + "/events"), 404, "not-found")


def test_clients_that_go_away_free_everything(
    served: Served, web: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[None] = []
    look = served.rooms.looks._ask

    def count(asked: Sequence[str]) -> Mapping[str, int]:
        looks.append(None)
        return look(asked)

    monkeypatch.setattr(served.rooms.looks, "_ask", count)
    url = post_sampled(web).headers["Location"]
    for _ in range(10):
        with follow(web, url) as response:
            next(read_events(response))
    with pytest.raises(httpx.ReadTimeout):
        httpx.get(f"{served.base_url}{url}", headers={"Prefer": "wait=30"}, timeout=0.5)
    deadline_s = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline_s:
        before = len(looks)
        time.sleep(2.0)  # ten looks
        if len(looks) == before:
            break
    else:
        pytest.fail("the job is still looked at though nobody listens")
    assert web.get("/livez").status_code == 200
