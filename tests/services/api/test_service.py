"""What is true of every answer, and what the service says of itself: problems, headers, health, models, page, docs."""

from __future__ import annotations

import io
import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from openapi_spec_validator import validate
from pydantic import TypeAdapter

import services.api.animations as animations_room
import services.api.openapi as openapi_room
from services.api.openapi import PATH, render_openapi
from services.api.problems import STATUSES, TITLES
from services.api.resources import Resources
from services.api.schemas import Animation
from services.logs import configure_logging
from services.settings import Settings
from tests.services.api.conftest import claim, expect_problem, finish, post_photo, post_sampled, rooms_of, write_model
from tests.services.api.pictures import encode, make_photo

# Only ever waited for by a test that fails.
PATIENCE_S = 120.0


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    """What the process logs, as it would on standard error."""
    stream = io.StringIO()
    configure_logging(service="api", log_format="json", level="info", stream=stream)
    yield stream
    configure_logging(service="api", log_format="json", level="info")


@pytest.mark.parametrize("path", ["/nope", "/v1", "/v1/animations/", "/page/nope.js", "/samples/../x", "/docs", "/%00"])
def test_unknown_routes(client: TestClient, path: str) -> None:
    expect_problem(client.get(path), 404, "not-found")


def test_wrong_method(client: TestClient) -> None:
    response = client.put("/v1/animations")
    expect_problem(response, 405, "method-not-allowed")
    assert response.headers["Allow"] == "GET, POST"


@pytest.mark.parametrize("path", ["/", "/livez", "/readyz", "/v1/models"])
def test_head_is_answered_as_get(client: TestClient, path: str) -> None:
    """What watches a service often asks with HEAD."""
    asked, looked = client.get(path), client.head(path)
    assert looked.status_code == asked.status_code
    assert looked.headers["Content-Type"] == asked.headers["Content-Type"]


def test_head_of_a_job(client: TestClient) -> None:
    url = post_sampled(client).headers["Location"]
    assert client.head(url).headers["ETag"] == client.get(url).headers["ETag"]


def test_a_bug_tells_nothing(client: TestClient, monkeypatch: pytest.MonkeyPatch, log: io.StringIO) -> None:
    def explode(*_: Any) -> Any:
        raise ZeroDivisionError("SECRET")

    monkeypatch.setattr(animations_room, "find_job", explode)
    response = client.get("/v1/animations/anm_" + "0" * 32, headers={"X-Request-ID": "mine-1"})
    expect_problem(response, 500, "internal")
    assert "SECRET" not in response.text
    assert "ZeroDivision" not in response.text
    assert response.headers["X-Request-ID"] == "mine-1"
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert "mine-1" in log.getvalue()
    assert "SECRET" not in log.getvalue()


def test_every_code_has_a_title() -> None:
    assert set(STATUSES) == set(TITLES)


def test_request_ids(client: TestClient) -> None:
    assert client.get("/livez", headers={"X-Request-ID": "abc-1.2_3"}).headers["X-Request-ID"] == "abc-1.2_3"
    drawn = {client.get("/nope").headers["X-Request-ID"] for _ in range(3)}
    assert len(drawn) == 3
    for bad in ("a b", "x" * 200, "<script>", ""):
        assert client.get("/livez", headers={"X-Request-ID": bad}).headers["X-Request-ID"] != bad


def test_security_headers(client: TestClient) -> None:
    for path in ("/", "/livez", "/nope", "/v1/animations", "/page/app.js"):
        headers = client.get(path).headers
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["X-Frame-Options"] == "DENY"
        assert headers["Referrer-Policy"] == "no-referrer"
        assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]


def test_cors_is_closed(client: TestClient) -> None:
    response = client.get("/v1/animations", headers={"Origin": "https://evil.example"})
    assert "Access-Control-Allow-Origin" not in response.headers
    preflight = client.options(
        "/v1/animations", headers={"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"}
    )
    assert preflight.status_code == 405


@pytest.mark.parametrize(
    ("site", "status"), [("cross-site", 403), ("same-site", 403), ("same-origin", 202), ("none", 202)]
)
def test_pages_of_other_sites_can_not_post(client: TestClient, photo: bytes, site: str, status: int) -> None:
    response = post_photo(client, photo, {"Sec-Fetch-Site": site})
    assert response.status_code == status
    if status == 403:
        expect_problem(response, 403, "forbidden")


def test_logs_carry_no_prompt_and_no_picture(client: TestClient, photo: bytes, log: io.StringIO) -> None:
    canary = "CANARYPROMPT"
    url = post_photo(client, photo, {"Idempotency-Key": "CANARYKEY"}, prompt=canary).headers["Location"]
    client.get(f"{url}?x={canary}")
    client.get(f"/v1/animations?cursor={canary}")
    client.get(f"/{canary}")
    client.post("/v1/animations", json={"prompt": canary, canary: 1})
    lines = [line for line in log.getvalue().splitlines() if '"logger": "services.api' in line]
    assert len(lines) >= 5
    assert "CANARY" not in "".join(lines)
    assert all(json.loads(line)["route"] for line in lines if json.loads(line)["event"] == "request")


def test_liveness(client: TestClient) -> None:
    assert client.get("/livez").json() == {"status": "alive"}


def test_readiness(client: TestClient, rooms: Resources) -> None:
    response = client.get("/readyz")
    assert response.status_code == 503
    assert int(response.headers["Retry-After"]) >= 1
    checks = response.json()["checks"]
    assert {name: check["ok"] for name, check in checks.items()} == {
        "broker": True,
        "database": True,
        "storage": True,
        "worker": False,
    }
    rooms.store.beat_worker("w1", {"models": {"human": {"warm": False}}})
    assert client.get("/readyz").status_code == 503
    rooms.store.beat_worker("w1", {"models": {"human": {"warm": True}}})
    assert client.get("/readyz").json()["status"] == "ready"


def test_dead_queue_server_is_no_obstacle(serve: Callable[..., TestClient]) -> None:
    client = serve(redis_url="redis://127.0.0.1:9/0")
    rooms_of(client).store.beat_worker("w1", {"models": {"human": {"warm": True}}})
    assert post_sampled(client).status_code == 202
    response = client.get("/readyz")
    assert response.status_code == 200
    assert response.json()["checks"]["broker"]["ok"] is False


def test_posts_never_wait_for_the_queue_server(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    answered, publishing = threading.Event(), threading.Event()

    def hang(*_: Any, **__: Any) -> None:
        publishing.set()
        answered.wait()

    # A server that takes the connection and then says nothing, for as long as it takes to answer ten requests.
    monkeypatch.setattr(rooms_of(client).dispatcher._hints, "count_unread", hang)
    try:
        for _ in range(10):
            assert post_sampled(client).status_code == 202
        assert publishing.wait(PATIENCE_S), "the hints were on their way all the time"
    finally:
        answered.set()


def test_models(client: TestClient, rooms: Resources, settings: Settings) -> None:
    response = client.get("/v1/models")
    model = response.json()["data"][0]
    assert model["id"] == "human"
    assert model["kind"] == "rendered"
    assert (model["resolution"], model["fps"], model["license"]) == (128, 24, "Apache-2.0")
    assert model["presets"] == ["smiling", "winks, then laughs"]
    assert model["expressions"] == ["smiling", "angry"]
    assert (model["providers"], model["warm"]) == ([], False)
    tag = response.headers["ETag"]
    assert client.get("/v1/models", headers={"If-None-Match": tag}).status_code == 304
    assert model["fallbacks"] == []
    facts = {"sha256": model["sha256"], "providers": {"synthesis": "cuda", "text": "cpu"}, "warm": True}
    facts["fallbacks"] = ["synthesis: tensorrt failed, cuda took over"]
    rooms.store.beat_worker("w1", {"models": {"human": facts}})
    rooms.store.beat_worker("w2", {"models": {"human": {**facts, "sha256": "0" * 64, "providers": ["tensorrt"]}}})
    rooms.store.beat_worker("w3", {"anything": 1})
    changed = client.get("/v1/models", headers={"If-None-Match": tag})
    assert changed.status_code == 200
    assert changed.json()["data"][0]["providers"] == ["cpu", "cuda"]
    assert changed.json()["data"][0]["fallbacks"] == ["synthesis: tensorrt failed, cuda took over"]
    write_model(settings.bundles_dir, "dog", "dog")
    deadline_s = time.monotonic() + PATIENCE_S
    while len(client.get("/v1/models").json()["data"]) < 2:
        assert time.monotonic() < deadline_s
        time.sleep(0.2)
    assert [entry["id"] for entry in client.get("/v1/models").json()["data"]] == ["human", "dog"]


def test_metrics(client: TestClient, rooms: Resources) -> None:
    post_sampled(client)
    post_sampled(client)
    post_sampled(client)
    finish(rooms, claim(rooms))
    claim(rooms)
    client.get("/v1/animations/anm_" + "0" * 32)
    client.get("/some/unknown/path")
    rooms.store.beat_worker("w1", {})
    response = client.get("/metrics")
    assert response.headers["Content-Type"].startswith("text/plain")
    text = response.text
    for line in (
        'animation_jobs_total{code="",model="human",status="succeeded"} 1.0',
        "animation_queue_depth 1.0",
        "animation_jobs_in_progress 1.0",
        'http_request_duration_seconds_count{method="GET",route="/v1/animations/{job_id}",status="404"} 1.0',
        'http_request_duration_seconds_count{method="POST",route="/v1/animations",status="202"} 3.0',
        'http_request_duration_seconds_count{method="GET",route="unmatched",status="404"} 1.0',
    ):
        assert line in text
    assert 'animation_model_info{model="human"' in text
    assert 'animation_worker_last_heartbeat_timestamp_seconds{worker="w1"}' in text
    assert "unknown/path" not in text


def test_page_and_samples(serve: Callable[..., TestClient], tmp_path: Path) -> None:
    samples = tmp_path / "samples"
    samples.mkdir()
    for name in ("ada.png", "ben-b.jpg", "ada-strip.png", "notes.txt", ".hidden.png"):
        samples.joinpath(name).write_bytes(encode(make_photo()))
    samples.joinpath("anime").mkdir()
    samples.joinpath("anime", "yuki.png").write_bytes(encode(make_photo()))
    client = serve(samples_dir=samples)
    page = client.get("/")
    assert page.status_code == 200
    assert page.headers["Content-Type"].startswith("text/html")
    assert "default-src 'self'" in page.headers["Content-Security-Policy"]
    assert "unsafe" not in page.headers["Content-Security-Policy"]
    script = client.get("/page/app.js")
    assert "javascript" in script.headers["Content-Type"]
    assert script.headers["Cache-Control"] == "no-cache"
    assert client.get("/page/app.js", headers={"If-None-Match": script.headers["ETag"]}).status_code == 304
    listed = client.get("/samples").json()["data"]
    assert listed == [
        {"name": "Ada", "url": "/samples/ada.png", "model": None},
        {"name": "Ben B", "url": "/samples/ben-b.jpg", "model": None},
        {"name": "Yuki", "url": "/samples/anime/yuki.png", "model": "anime"},
    ]
    assert client.get(listed[2]["url"]).status_code == 200
    assert client.get(listed[0]["url"]).content == encode(make_photo())
    expect_problem(client.get("/samples/%2e%2e/bundles/human/manifest.json"), 404, "not-found")


def test_openapi_is_valid_and_committed() -> None:
    import yaml

    rendered = render_openapi()
    assert PATH.read_text(encoding="utf-8") == rendered, "run `python -m services.api.openapi`"
    document = yaml.safe_load(rendered)
    validate(document)
    for path, operations in document["paths"].items():
        for operation in operations.values():
            for status, response in operation["responses"].items():
                if path.startswith("/v1") and int(status) >= 400:
                    assert "application/problem+json" in response["content"], (path, status)
            if "{job_id}" in path:
                assert "404" in operation["responses"]
    assert document["paths"]["/v1/animations"]["post"]["requestBody"]["content"]["application/json"]["examples"]


def test_openapi_check_fails_on_a_difference(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "openapi.yaml"
    monkeypatch.setattr(openapi_room, "PATH", path)
    monkeypatch.setattr(openapi_room, "render_openapi", lambda: "new: 1\n")
    assert openapi_room.main(["--check"]) == 1
    path.write_text("old: 1\n")
    assert openapi_room.main(["--check"]) == 1
    assert "+new: 1" in capsys.readouterr().err
    assert openapi_room.main(["--write"]) == 0
    assert openapi_room.main(["--check"]) == 0


def test_answers_are_as_described(client: TestClient, rooms: Resources) -> None:
    url = post_sampled(client).headers["Location"]
    adapter = TypeAdapter(Animation)
    adapter.validate_json(client.get(url).content)
    finish(rooms, claim(rooms))
    adapter.validate_json(client.get(url).content)


def test_nothing_blocks_the_loop(
    client: TestClient, rooms: Resources, photo: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While a picture is decoded, other requests are answered: the decoder here waits for such an answer."""
    decoding, answered = threading.Event(), threading.Event()
    waited: list[bool] = []

    def decode_slowly(*args: Any) -> Any:
        decoding.set()
        waited.append(answered.wait(PATIENCE_S))
        return decode(*args)

    decode = rooms.pictures._decode
    monkeypatch.setattr(rooms.pictures, "_decode", decode_slowly)
    statuses: list[int] = []
    posting = threading.Thread(target=lambda: statuses.append(post_photo(client, photo).status_code))
    posting.start()
    assert decoding.wait(PATIENCE_S)
    assert client.get("/livez").status_code == 200
    answered.set()
    posting.join()
    assert waited == [True], "the picture blocked everything"
    assert statuses == [202]
