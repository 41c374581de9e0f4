"""Keys at the API: every route of the app is walked, so that none that comes later can be forgotten."""

from __future__ import annotations

import io
import json
import logging
import re
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

import services.api.auth as auth_room
from services.api.auth import ANONYMOUS
from services.jobs.keys import CLIENT_SCOPES, Scope, hash_key
from services.settings import Settings
from tests.services.api.conftest import claim, expect_problem, finish, post_sampled, rooms_of

# Whoever reaches the service may ask these: is it alive, what is it, what does its page look like.
OPEN = {("get", "/livez"), ("get", "/readyz"), ("get", "/samples")}
PLACES = re.compile(r"\{(\w+)\}")

Headers = dict[str, str]


def bearer(key: str) -> Headers:
    return {"Authorization": f"Bearer {key}"}


@pytest.fixture
def client(serve: Callable[..., TestClient]) -> TestClient:
    return serve(auth="on")


@pytest.fixture
def make_key(client: TestClient) -> Callable[..., Headers]:
    """Make a key and return the header that sends it."""

    def make(owner: str = "ada", *scopes: Scope, **others: Any) -> Headers:
        return bearer(rooms_of(client).store.create_key(owner, "", scopes or CLIENT_SCOPES, **others)[0])

    return make


def list_operations(client: TestClient) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield method, path and description of all that the app describes, HEAD beside every GET of a file."""
    app = client.app
    assert isinstance(app, FastAPI)
    for path, operations in app.openapi()["paths"].items():
        for method, operation in operations.items():
            yield method, path, operation
            if method == "get" and path.endswith(("/video", "/poster")):
                yield "head", path, operation


def call(client: TestClient, method: str, path: str, headers: Headers) -> httpx.Response:
    answer: httpx.Response = client.request(method, path, headers=headers)
    return answer


@pytest.fixture
def ids(client: TestClient, make_key: Callable[..., Headers]) -> dict[str, str]:
    """What ada owns: an id for every place that a path of the API has."""
    store = rooms_of(client).store
    mine = make_key("ada")
    secret = client.post("/v1/webhooks/secrets", headers=mine)
    assert secret.status_code == 201, secret.text
    posted = post_sampled(client, mine, webhook={"url": "https://receiver.example/hook"})
    assert posted.status_code == 202, posted.text
    finish(rooms_of(client), claim(rooms_of(client)))
    (delivery, *_), _ = store.list_deliveries("ada", 10)
    return {"job_id": posted.json()["id"], "delivery_id": delivery.id, "secret_id": secret.json()["id"]}


def test_other_clients_see_nothing_on_any_route_with_an_id(
    client: TestClient, ids: dict[str, str], make_key: Callable[..., Headers]
) -> None:
    ada, eve = make_key("ada", *Scope), make_key("eve", *Scope)
    walked = set()
    # What removes something comes last, so that each route is asked about something that is there.
    for method, path, _ in sorted(list_operations(client), key=lambda operation: operation[0] == "delete"):
        places = PLACES.findall(path)
        if not places:
            continue
        assert set(places) <= set(ids), f"{path}: teach the fixture `ids` to make one, so that this route is walked"
        real = PLACES.sub(lambda found: ids[found[1]], path)
        answer = call(client, method, real, eve)
        assert answer.status_code == 404, f"{method} {path} answers {answer.status_code} to another client"
        if method != "head":
            unknown = call(client, method, PLACES.sub("anm_" + "0" * 32, path), eve)
            assert answer.json() == unknown.json(), f"{method} {path}: it can be told that the other's exists"
        mine = call(client, method, real, ada)
        assert mine.status_code not in (401, 403, 404), f"{method} {path}: {mine.text}: the id is no good to its owner"
        walked.add(path)
    assert len(walked) >= 8


def test_lists_show_ones_own_alone(client: TestClient, ids: dict[str, str], make_key: Callable[..., Headers]) -> None:
    for path in ("/v1/animations", "/v1/webhooks/deliveries", "/v1/webhooks/secrets"):
        assert len(client.get(path, headers=make_key("ada")).json()["data"]) == 1
        assert client.get(path, headers=make_key("eve")).json()["data"] == []


def test_every_route_asks_for_a_key(client: TestClient) -> None:
    asking, seen = 0, set()
    for method, path, operation in list_operations(client):
        real = PLACES.sub("anm_" + "0" * 32, path)
        answer = call(client, method, real, {})
        if (method, path) in OPEN:
            seen.add((method, path))
            assert answer.status_code in (200, 503), (method, path)
            continue
        asking += 1
        assert answer.status_code == 401, f"{method} {path} answers {answer.status_code} without a key"
        assert answer.headers["WWW-Authenticate"] == 'Bearer realm="animato"'
        if method != "head":
            expect_problem(answer, 401, "unauthorized")
        assert {"bearer", "apiKey"} == {name for way in operation["security"] for name in way}, (method, path)
        assert {"401", "403"} <= set(operation["responses"])
    assert seen == OPEN
    assert asking >= 15
    for path in ("/", "/page/app.js", "/openapi.json"):
        assert client.get(path).status_code == 200


def test_every_route_asks_for_its_scope(client: TestClient, make_key: Callable[..., Headers]) -> None:
    for method, path, operation in list_operations(client):
        if "security" not in operation:
            continue
        (scope,) = operation["security"][0]["bearer"]
        others = make_key("ada", *(other for other in Scope if other != scope))
        answer = call(client, method, PLACES.sub("anm_" + "0" * 32, path), others)
        assert answer.status_code == 403, f"{method} {path} answers {answer.status_code} without {scope}"
        challenge = answer.headers["WWW-Authenticate"]
        assert challenge == f'Bearer realm="animato", error="insufficient_scope", scope="{scope}"'
        if method != "head":
            assert scope in expect_problem(answer, 403, "forbidden")["detail"]
    assert client.get("/metrics", headers=make_key("ada")).status_code == 403, (
        "a client's key does not show all clients"
    )
    assert client.get("/metrics", headers=make_key("ops", Scope.METRICS_READ)).status_code == 200


def test_both_headers_carry_a_key(client: TestClient) -> None:
    key, _ = rooms_of(client).store.create_key("ada")
    good = [
        {"Authorization": f"Bearer {key}"},
        {"Authorization": f"bearer  {key} "},
        {"X-API-Key": key},
        {"X-API-Key": key, "Authorization": "Basic b3BzOnByb3h5"},
        {"X-API-Key": key, "Authorization": "Bearer a.gateways.token"},
    ]
    assert [client.get("/v1/models", headers=headers).status_code for headers in good] == [200] * len(good)
    damaged = key[:-1] + ("A" if key[-1] != "A" else "B")
    bad = [
        "",
        "x",
        key[:-1],
        key + "x",
        damaged,
        key.upper(),
        key.removeprefix("ank_"),
        "ank_" + "0" * 16 + key[20:],
        key.replace("ank_", "ank_\u00e9").encode().decode("latin-1"),
    ]
    for text in bad:
        for headers in ({"Authorization": f"Bearer {text}"}, {"X-API-Key": text}):
            sent = {name: value.encode("latin-1") for name, value in headers.items()}
            answer = client.get("/v1/models", headers=sent)
            expect_problem(answer, 401, "unauthorized")
    assert client.get(f"/v1/models?api_key={key}&access_token={key}").status_code == 401, "URLs end up in logs"
    assert client.get("/v1/models", headers={"Cookie": f"key={key}"}).status_code == 401


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Let time pass for what the API remembers of keys."""
    passed = [0.0]

    class Time:
        @staticmethod
        def monotonic() -> float:
            return passed[0]

    monkeypatch.setattr(auth_room, "time", Time)

    def wait(seconds: float) -> None:
        passed[0] += seconds

    return wait


def test_revoked_key_dies_within_two_seconds(
    client: TestClient, clock: Callable[[float], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert auth_room.KEY_MEMORY_S == 2.0, "docs/security.md and `animato keys revoke --help` say so"
    store = rooms_of(client).store
    key, record = store.create_key("ada")
    looks: list[str] = []
    find = store.find_key
    monkeypatch.setattr(store, "find_key", lambda key_id: looks.append(key_id) or find(key_id))
    for _ in range(5):
        assert client.get("/v1/models", headers=bearer(key)).status_code == 200
    assert len(looks) == 1, "a busy key is not looked up at every request"
    store.revoke_key(record.id)
    clock(1.9)
    assert client.get("/v1/models", headers=bearer(key)).status_code == 200
    clock(0.2)
    problem = expect_problem(client.get("/v1/models", headers=bearer(key)), 401, "unauthorized")
    assert "revoked" in problem["detail"]
    forged = key[:-4] + "AAAA"
    assert "revoked" not in client.get("/v1/models", headers=bearer(forged)).text, "only its holder is told"


def test_expired_key_is_dead_at_once(
    client: TestClient, clock: Callable[[float], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(auth_room, "KEY_MEMORY_S", 10_000.0)  # no second look: its end is known from the first one
    key, _ = rooms_of(client).store.create_key("ada", lifetime_s=5000)
    assert client.get("/v1/models", headers=bearer(key)).status_code == 200
    clock(4000)
    assert client.get("/v1/models", headers=bearer(key)).status_code == 200
    clock(1001)
    assert "expired" in expect_problem(client.get("/v1/models", headers=bearer(key)), 401, "unauthorized")["detail"]


def test_stream_ends_with_its_key(client: TestClient, clock: Callable[[float], None]) -> None:
    store = rooms_of(client).store
    key, record = store.create_key("ada")
    url = post_sampled(client, bearer(key)).headers["Location"]
    store.revoke_key(record.id)
    passing = threading.Timer(0.5, clock, [3.0])
    passing.start()
    with client.stream("GET", f"{url}/events", headers=bearer(key)) as answer:  # still remembered as live
        assert answer.status_code == 200
        assert "event: status" in "".join(answer.iter_text()), "a queued job's stream would not end by itself"
    passing.join()
    expect_problem(client.get(f"{url}/events", headers=bearer(key)), 401, "unauthorized")


def test_rotation_overlaps(client: TestClient, clock: Callable[[float], None]) -> None:
    store = rooms_of(client).store
    old, record = store.create_key("ada")
    new, successor = store.rotate_key(record.id, overlap_s=3600)
    mine = post_sampled(client, bearer(old)).headers["Location"]
    assert client.get(mine, headers=bearer(new)).status_code == 200, "both are ada's"
    assert client.get(mine, headers=bearer(old)).status_code == 200
    assert successor.scopes == record.scopes
    newest, _ = store.rotate_key(successor.id, overlap_s=0)
    clock(3)
    assert client.get(mine, headers=bearer(new)).status_code == 401
    assert client.get(mine, headers=bearer(old)).status_code == client.get(mine, headers=bearer(newest)).status_code


def test_idempotency_keys_of_two_clients_do_not_meet(client: TestClient, make_key: Callable[..., Headers]) -> None:
    made = [
        post_sampled(client, {**make_key(owner), "Idempotency-Key": "same"}).json()["id"]
        for owner in ("ada", "eve", "ada")
    ]
    assert made[0] == made[2] != made[1]


def test_use_is_noted_to_the_minute(client: TestClient, make_key: Callable[..., Headers]) -> None:
    store = rooms_of(client).store
    client.get("/v1/models", headers=make_key("ada"))
    rooms_of(client).authenticator.close()  # writes what is waiting
    (record,), now = store.list_keys("ada")
    assert record.used_at is not None
    assert record.used_at.second == record.used_at.microsecond == 0
    assert now - record.used_at < timedelta(hours=1)


def test_failing_database_is_a_503_and_no_way_in(
    client: TestClient, make_key: Callable[..., Headers], monkeypatch: pytest.MonkeyPatch
) -> None:
    from services.errors import TemporaryError

    def fail(_: str) -> None:
        raise TemporaryError("not-ready", "The job database does not answer.", "Try again.")

    headers = make_key("ada")
    monkeypatch.setattr(rooms_of(client).store, "find_key", fail)
    expect_problem(client.get("/v1/models", headers=headers), 503, "not-ready")


@pytest.mark.parametrize(
    ("auth", "host", "needed"),
    [
        ("on", "127.0.0.1", True),
        ("auto", "0.0.0.0", True),
        ("auto", "192.168.0.7", True),
        ("auto", "::", True),
        ("auto", "example.com", True),
        ("auto", "127.0.0.1", False),
        ("auto", "127.8.9.1", False),
        ("auto", "::1", False),
        ("auto", "localhost", False),
        ("off", "0.0.0.0", False),
    ],
)
def test_where_keys_are_asked_for(auth: Any, host: str, needed: bool) -> None:
    assert Settings(auth=auth, host=host).keys_needed is needed


def test_without_keys_all_are_one_client(serve: Callable[..., TestClient]) -> None:
    client = serve(auth="off")
    url = post_sampled(client, {"Authorization": "Bearer whatever"}).headers["Location"]
    assert client.get(url).status_code == 200
    assert rooms_of(client).store.list_page(ANONYMOUS)[0]


def test_logs_tell_no_key(client: TestClient, make_key: Callable[..., Headers]) -> None:
    root = logging.getLogger()
    buffer = io.StringIO()
    handler = logging.StreamHandler(buffer)
    handler.setFormatter(root.handlers[0].formatter)
    root.addHandler(handler)
    try:
        key = make_key("ada")["Authorization"].removeprefix("Bearer ")
        client.get("/v1/models", headers={"X-API-Key": key})
        client.get(f"/v1/{key}", headers={"X-API-Key": key + "x"})
        logging.getLogger("library").warning("got %s and 'X-API-Key': '%s'", key, key)
    finally:
        root.removeHandler(handler)
    text = buffer.getvalue()
    lines = [json.loads(line) for line in text.splitlines()]
    asked = next(line for line in lines if line["event"] == "request" and line["status"] == 200)
    assert asked["key_id"] == key.split("_")[1], "the id is for finding the client"
    assert key not in text
    assert key[21:] not in text


def test_database_holds_no_key(client: TestClient, settings: Settings) -> None:
    key, _ = rooms_of(client).store.create_key("ada", "ci")
    files = [path.read_bytes() for path in settings.data_dir.iterdir() if path.is_file()]
    assert any(hash_key(key).encode() in content for content in files)
    assert not any(key[21:].encode() in content for content in files)
    assert key not in json.dumps([str(record) for record in rooms_of(client).store.list_keys()[0]])
