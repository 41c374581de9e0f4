"""Accepting, listing, looking at, cancelling and deleting jobs, against the real store."""

from __future__ import annotations

import base64
import json
import re
import time
from collections.abc import Callable
from datetime import datetime

import pytest
from fastapi.testclient import TestClient

import services.api.waiting as waiting_room
from services.api.looks import Follower
from services.api.resources import Resources
from services.errors import TemporaryError
from services.jobs.contract import Stage
from services.settings import Settings
from services.storage import input_key
from tests.services.api.conftest import (
    claim,
    expect_problem,
    fail,
    finish,
    post_photo,
    post_sampled,
    stored_files,
    write_model,
)
from tests.services.api.pictures import decode, make_photo

JOB_FIELDS = {
    *("id", "object", "status", "stage", "progress", "frames_done", "frames_total", "queue_position", "eta_s"),
    *("created_at", "started_at", "completed_at", "expires_at", "attempt", "cancel_requested", "input", "faces"),
    *("output", "quality", "metrics", "model", "error", "metadata", "urls"),
}


def test_post_form(client: TestClient, rooms: Resources, photo: bytes) -> None:
    response = post_photo(client, photo, seed=7, frames=16, metadata='{"order": "12"}')
    assert response.status_code == 202
    job = response.json()
    assert set(job) == JOB_FIELDS
    assert re.fullmatch(r"anm_[0-9a-f]{32}", job["id"])
    assert job["object"] == "animation"
    assert job["status"] == "queued"
    assert job["queue_position"] == 1
    assert job["frames_total"] == 16
    assert job["metadata"] == {"order": "12"}
    assert job["input"]["prompt"] == "smiling"
    assert job["input"]["seed"] == 7
    assert (job["input"]["width"], job["input"]["height"]) == (96, 128)
    assert job["model"]["id"] == "human"
    assert len(job["model"]["sha256"]) == 64
    assert datetime.fromisoformat(job["created_at"]).tzinfo is not None
    assert job["urls"]["self"] == f"/v1/animations/{job['id']}" == response.headers["Location"]
    assert int(response.headers["Retry-After"]) >= 1
    assert response.headers["ETag"].startswith('W/"')
    stored = rooms.storage.get(input_key(job["id"], job["input"]["sha256"]))
    assert list(decode(stored).get_flattened_data()) == list(make_photo().get_flattened_data())
    assert claim(rooms).record.id == job["id"]


@pytest.mark.parametrize("prefix", ["", "data:image/png;base64,", "data:image/jpeg;charset=x;base64,"])
def test_post_json(client: TestClient, photo: bytes, prefix: str) -> None:
    encoded = prefix + base64.b64encode(photo).decode()
    body = {"prompt": "smiling", "image_base64": encoded, "duration_s": 2.0, "fps": 24.0, "output": {"format": "gif"}}
    response = client.post("/v1/animations", json=body)
    assert response.status_code == 202, response.text
    assert response.json()["frames_total"] == 48
    assert response.json()["input"]["width"] == 96


def test_form_and_json_ask_for_the_same(client: TestClient, rooms: Resources, photo: bytes) -> None:
    fields = {"intensity": 1.5, "fps": 12, "frames": 9, "loop": "pingpong", "easing": "linear", "align": "none"}
    fields["sway"] = False
    nested = {"output": {"format": "webm", "size": 128, "quality": 50, "poster": False}, "metadata": {"a": "b"}}
    encoded = base64.b64encode(photo).decode()
    client.post("/v1/animations", json={"prompt": "sad", "image_base64": encoded, **fields, **nested})
    post_photo(client, photo, prompt="sad", **fields, **{name: json.dumps(value) for name, value in nested.items()})
    post_photo(client, photo, prompt="sad", options=json.dumps({**fields, **nested}))
    first, second, third = (claim(rooms).record.options for _ in range(3))
    assert first == second == third
    assert first.output.size == 128


def test_sampled_needs_no_picture(client: TestClient, settings: Settings) -> None:
    response = post_sampled(client)
    assert response.status_code == 202
    assert response.json()["input"] == {
        "prompt": "smiling",
        "seed": response.json()["input"]["seed"],
        "sha256": None,
        "width": None,
        "height": None,
    }
    assert stored_files(settings) == []
    assert client.post("/v1/animations", data={"prompt": "smiling", "source": "sampled"}).status_code == 415
    form = {"prompt": (None, "smiling"), "source": (None, "sampled")}
    assert client.post("/v1/animations", files=form).status_code == 202


def test_seed_is_drawn_and_told(client: TestClient) -> None:
    seeds = {post_sampled(client).json()["input"]["seed"] for _ in range(8)}
    assert len(seeds) == 8
    assert all(0 <= seed < 2**32 for seed in seeds)
    assert post_sampled(client, seed=2**32 - 1).json()["input"]["seed"] == 2**32 - 1
    assert post_sampled(client, seed=0).json()["input"]["seed"] == 0


def test_prompt_is_one_line(client: TestClient) -> None:
    response = post_sampled(client, prompt="  smiling,\r\n\tthen   winking \n")
    assert response.json()["input"]["prompt"] == "smiling, then winking"


def test_default_model_is_the_first(serve: Callable[..., TestClient], settings: Settings) -> None:
    write_model(settings.bundles_dir, "dog", "dog")
    client = serve()
    assert post_sampled(client).json()["model"]["id"] == "human"
    assert post_sampled(client, model="dog").json()["model"]["id"] == "dog"
    problem = expect_problem(post_sampled(client, model="cat"), 422, "model-unknown")
    assert "human" in problem["hint"]
    assert "dog" in problem["hint"]


def test_no_model_at_all(serve: Callable[..., TestClient], settings: Settings) -> None:
    client = serve(bundles_dir=settings.data_dir / "nothing")
    expect_problem(post_sampled(client), 503, "not-ready")


def test_get_whole_life(client: TestClient, rooms: Resources, photo: bytes) -> None:
    url = post_photo(client, photo, frames=10).headers["Location"]
    began_s = time.monotonic()
    lease = claim(rooms)
    running = client.get(url).json()
    assert (running["status"], running["attempt"], running["queue_position"]) == ("running", 1, None)
    time.sleep(0.05)
    rooms.store.report(lease, stage=Stage.RENDER, progress=0.5, frames_done=5)
    half = client.get(url).json()
    assert (half["stage"], half["progress"], half["frames_done"]) == ("render", 0.5, 5)
    assert half["eta_s"] is not None
    assert 0 <= half["eta_s"] <= time.monotonic() - began_s + 1, "the second half lasts as long as the first"
    output = finish(rooms, lease)
    response = client.get(url)
    job = response.json()
    assert job["status"] == "succeeded"
    assert job["progress"] == 1
    assert job["output"] == {
        "url": f"{url}/video",
        "format": "mp4",
        "width": 128,
        "height": 128,
        "fps": 24,
        "frames": 10,
        "bytes": output.bytes,
        "sha256": output.sha256,
        "poster_url": f"{url}/poster",
    }
    assert job["quality"] == {"identity": 0.9}
    assert job["expires_at"] is not None
    assert "Retry-After" not in response.headers


def test_failed_job_says_why(client: TestClient, rooms: Resources) -> None:
    url = post_sampled(client).headers["Location"]
    fail(rooms, claim(rooms))
    job = client.get(url).json()
    assert job["status"] == "failed"
    assert job["error"]["code"] == "inversion-failed"
    assert job["error"]["hint"]
    expect_problem(client.get(f"{url}/video"), 409, "result-not-ready")


@pytest.mark.parametrize("job_id", ["anm_" + "0" * 32, "nonsense", "anm_%00", "..%2f..%2fetc", "anm_" + "A" * 32])
def test_unknown_job(client: TestClient, job_id: str) -> None:
    for method, path in (
        ("GET", ""),
        ("DELETE", ""),
        ("POST", "/cancel"),
        ("GET", "/events"),
        ("GET", "/video"),
        ("GET", "/poster"),
    ):
        expect_problem(client.request(method, f"/v1/animations/{job_id}{path}"), 404, "not-found")


def test_other_owners_jobs_do_not_exist(client: TestClient, rooms: Resources) -> None:
    record = rooms.store.get(post_sampled(client).json()["id"])
    assert record is not None
    foreign, _ = rooms.store.accept(
        job_id="anm_" + "f" * 32,
        owner="somebody else",
        options=record.options,
        input=record.input,
        seed=1,
        model_id="human",
    )
    expect_problem(client.get(f"/v1/animations/{foreign.id}"), 404, "not-found")
    expect_problem(client.post(f"/v1/animations/{foreign.id}/cancel"), 404, "not-found")
    assert len(client.get("/v1/animations").json()["data"]) == 1


def test_etag_and_304(client: TestClient, rooms: Resources) -> None:
    url = post_sampled(client).headers["Location"]
    lease = claim(rooms)
    first = client.get(url)
    tag = first.headers["ETag"]
    for value in (tag, f'"x", {tag}', tag.removeprefix("W/"), "*"):
        again = client.get(url, headers={"If-None-Match": value})
        assert again.status_code == 304
        assert again.content == b""
        assert again.headers["ETag"] == tag
    assert client.get(url, headers={"If-None-Match": '"other"'}).status_code == 200
    rooms.store.report(lease, progress=0.2)
    changed = client.get(url, headers={"If-None-Match": tag})
    assert changed.status_code == 200
    assert changed.headers["ETag"] != tag


def test_queue_position_changes_the_etag(client: TestClient, rooms: Resources) -> None:
    post_sampled(client)
    second = post_sampled(client)
    assert second.json()["queue_position"] == 2
    claim(rooms)
    moved = client.get(second.headers["Location"], headers={"If-None-Match": second.headers["ETag"]})
    assert moved.status_code == 200
    assert moved.json()["queue_position"] == 1


def test_pages(client: TestClient, rooms: Resources) -> None:
    ids = [post_sampled(client).json()["id"] for _ in range(7)]
    url, seen = "/v1/animations?limit=3", []
    for length in (3, 3, 1):
        response = client.get(url)
        page = response.json()
        assert page["object"] == "list"
        assert len(page["data"]) == length
        seen += [job["id"] for job in page["data"]]
        link = response.headers.get("Link")
        assert (link is None) == (page["next_cursor"] is None) == (length == 1)
        if link is not None:
            match = re.fullmatch(r'<(/v1/animations\?[^>]+)>; rel="next"', link)
            assert match is not None
            assert "limit=3" in match[1]
            url = match[1]
    assert seen == ids[::-1]
    claim(rooms)
    running = client.get("/v1/animations", params={"status": "running"}).json()["data"]
    assert [job["id"] for job in running] == ids[:1]
    third = client.get(f"/v1/animations/{ids[2]}").json()["created_at"]
    later = client.get("/v1/animations", params={"created_after": third}).json()["data"]
    assert [job["id"] for job in later] == ids[:2:-1]


@pytest.mark.parametrize(
    "query",
    [
        *("limit=0", "limit=101", "limit=x", "limit=1e3", "status=done", "cursor=%00", "cursor=abc", "page=2"),
        *("created_after=yesterday", "created_after=2026-01-01T00:00:00", "created_after=0001-01-01T00:00:00%2B23:59"),
        "cursor=" + "A" * 600,
        "cursor=" + base64.urlsafe_b64encode(b"0001-01-01T00:00:00+23:59 anm_x").decode().rstrip("="),
        "cursor=" + base64.urlsafe_b64encode(b"2026-01-01T00:00:00+00:00 anm_\0").decode().rstrip("="),
    ],
)
def test_wrong_list_parameters(client: TestClient, query: str) -> None:
    expect_problem(client.get(f"/v1/animations?{query}"), 422, "validation-failed")


def test_cancel_queued(client: TestClient) -> None:
    url = post_sampled(client).headers["Location"]
    job = client.post(f"{url}/cancel").json()
    assert (job["status"], job["cancel_requested"]) == ("canceled", False)
    expect_problem(client.post(f"{url}/cancel"), 409, "not-cancelable")


def test_cancel_running(client: TestClient, rooms: Resources) -> None:
    url = post_sampled(client).headers["Location"]
    lease = claim(rooms)
    for _ in range(2):
        response = client.post(f"{url}/cancel")
        assert response.status_code == 200
        assert (response.json()["status"], response.json()["cancel_requested"]) == ("running", True)
    rooms.store.finish_canceled(lease)
    assert client.get(url).json()["status"] == "canceled"


def test_delete(client: TestClient, rooms: Resources, photo: bytes, settings: Settings) -> None:
    url = post_photo(client, photo).headers["Location"]
    expect_problem(client.delete(url), 409, "job-active")
    lease = claim(rooms)
    expect_problem(client.delete(url), 409, "job-active")
    finish(rooms, lease)
    assert len(stored_files(settings)) == 3
    response = client.delete(url)
    assert response.status_code == 204
    assert response.content == b""
    assert stored_files(settings) == []
    expect_problem(client.get(url), 404, "not-found")
    expect_problem(client.delete(url), 404, "not-found")
    assert rooms.store.buried() == [], "nothing is left for the sweepers"


def test_delete_while_the_store_is_away(
    client: TestClient, rooms: Resources, photo: bytes, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The job is gone at once; its tombstone sees to it that its bytes follow."""
    url = post_photo(client, photo).headers["Location"]
    job_id = finish(rooms, claim(rooms)).key.split("/")[1]

    def be_away(*_: object) -> None:
        raise TemporaryError("storage-failed", "The object store does not answer.")

    monkeypatch.setattr(rooms.storage, "delete", be_away)
    assert client.delete(url).status_code == 204
    expect_problem(client.get(url), 404, "not-found")
    assert len(stored_files(settings)) == 3
    assert rooms.store.buried() == [job_id]


class Waiting:
    """The time of a waiting request: it passes only where the request sleeps."""

    def __init__(self) -> None:
        self.now_s = 1000.0
        self.when_s = float("inf")
        self.action: Callable[[], object] = lambda: None

    def monotonic(self) -> float:
        return self.now_s

    async def rest(self, duration_s: float) -> bool:
        """Pass the time of a follower's rest, in which nobody wakes it."""
        self.now_s += duration_s
        if self.now_s >= self.when_s:
            self.when_s = float("inf")
            self.action()
        return False


@pytest.fixture
def waiting(monkeypatch: pytest.MonkeyPatch) -> Waiting:
    waiting = Waiting()
    monkeypatch.setattr(waiting_room, "time", waiting)
    monkeypatch.setattr(Follower, "rest", lambda _follower, duration_s: waiting.rest(duration_s))
    return waiting


def test_prefer_wait_times_out(client: TestClient, waiting: Waiting) -> None:
    response = post_sampled(client, headers={"Prefer": "respond-async, wait=7"})
    assert response.status_code == 202
    assert response.headers["Preference-Applied"] == "wait=7"
    assert waiting.now_s == pytest.approx(1007.0, abs=waiting_room.TOLD_LOOK_S)


def test_prefer_wait_ends_with_the_job(client: TestClient, rooms: Resources, waiting: Waiting) -> None:
    waiting.when_s = 1005.0
    waiting.action = lambda: finish(rooms, claim(rooms))
    response = post_sampled(client, headers={"Prefer": "wait=30"})
    assert response.status_code == 201
    assert response.headers["Preference-Applied"] == "wait=30"
    assert response.json()["status"] == "succeeded"
    assert "Retry-After" not in response.headers
    assert waiting.now_s == pytest.approx(1005.0, abs=2 * waiting_room.TOLD_LOOK_S)
    again = client.get(response.headers["Location"], headers={"Prefer": "wait=9999"})
    assert again.status_code == 200
    assert again.headers["Preference-Applied"] == "wait=60"


@pytest.mark.parametrize("prefer", ["wait=soon", "wait", "respond-async", "wait=-1", ""])
def test_other_preferences_are_ignored(client: TestClient, prefer: str) -> None:
    response = post_sampled(client, headers={"Prefer": prefer})
    assert response.status_code == 202
    assert "Preference-Applied" not in response.headers
