"""How often a client may post, and how many of its jobs may wait; the headers are those of the IETF draft."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from fastapi.testclient import TestClient

import services.api.limits as limits_room
from services.api.auth import Client
from services.api.limits import PostLimiter
from services.errors import TemporaryError
from tests.services.api.conftest import claim, expect_problem, finish, post_photo, post_sampled, rooms_of

ADA = Client("ada", "0" * 16)
ANYBODY = Client("anonymous", None)


class Seconds:
    now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Seconds:
    return Seconds()


def count(limiter: PostLimiter, client: Client = ADA, address: str = "") -> tuple[str, TemporaryError | None]:
    headers, refusal = limiter.count(client, address)
    return headers.get("RateLimit", ""), refusal


def test_window_opens_with_the_first_post_and_ends_for_sure(clock: Seconds) -> None:
    limiter = PostLimiter(3, 0, clock)
    assert [count(limiter)[0] for _ in range(3)] == ['"posts";r=2;t=60', '"posts";r=1;t=60', '"posts";r=0;t=60']
    clock.now_s += 45.5
    told, refusal = count(limiter)
    assert told == '"posts";r=0;t=15'
    assert refusal is not None
    assert (refusal.code, refusal.delay_s) == ("rate-limited", 15)
    clock.now_s += refusal.delay_s
    assert count(limiter) == ('"posts";r=2;t=60', None), "whoever waits as long as Retry-After says is let through"


def test_refusals_cost_nothing(clock: Seconds) -> None:
    limiter = PostLimiter(1, 0, clock)
    count(limiter)
    assert all(count(limiter)[1] for _ in range(100))
    clock.now_s += 60
    assert count(limiter)[1] is None


def test_clients_do_not_share(clock: Seconds) -> None:
    limiter = PostLimiter(1, 1, clock)
    clients = [ADA, Client("ada", "1" * 16), Client("eve", "2" * 16)]
    assert [count(limiter, client)[1] for client in clients] == [None] * 3
    assert all(count(limiter, client)[1] for client in clients)


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        ("10.0.0.1", "10.0.0.2", False),
        ("::ffff:10.0.0.1", "10.0.0.1", True),
        ("2001:db8::1", "2001:db8::ffff:1", True),  # one subscriber has a whole /64
        ("2001:db8:0:1::1", "2001:db8:0:2::1", False),
        ("fe80::1%eth0", "fe80::2%eth1", True),
        ("testclient", "testclient", True),
        ("", "", True),
    ],
)
def test_addresses(clock: Seconds, first: str, second: str, same: bool) -> None:
    limiter = PostLimiter(0, 1, clock)
    assert count(limiter, ANYBODY, first)[1] is None
    assert (count(limiter, ANYBODY, second)[1] is not None) is same


def test_zero_is_no_limit(clock: Seconds) -> None:
    limiter = PostLimiter(0, 0, clock)
    assert all(limiter.count(client, "10.0.0.1") == ({}, None) for client in (ADA, ANYBODY) for _ in range(50))


def test_memory_is_bounded(clock: Seconds, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits_room, "MAX_CLIENTS", 10)
    limiter = PostLimiter(0, 2, clock)
    for number in range(100):
        count(limiter, ANYBODY, f"10.0.0.{number}")
        clock.now_s += 0.1
    assert len(limiter._windows) == 10
    assert count(limiter, ANYBODY, "10.0.0.99")[0].startswith('"posts";r=0'), "the newest are remembered"
    clock.now_s += 61
    for number in range(10):
        count(limiter, ANYBODY, f"10.1.0.{number}")
    assert all(name.startswith("10.1.") for name in limiter._windows), "what has ended is forgotten"


def test_posts_tell_and_keep_the_limit(serve: Callable[..., TestClient], photo: bytes) -> None:
    client = serve(auth="on", key_rate_limit=4)
    store = rooms_of(client).store
    ada, eve = ({"X-API-Key": store.create_key(owner)[0]} for owner in ("ada", "eve"))
    answers = [
        post_sampled(client, ada),
        client.post("/v1/animations", json={"prompt": ""}, headers=ada),
        client.post("/v1/faces:detect", files={"image": photo}, headers=ada),
        post_photo(client, photo, ada),
        post_sampled(client, ada),
    ]
    assert [answer.status_code for answer in answers] == [202, 422, 200, 202, 429]
    for left, answer in zip((3, 2, 1, 0, 0), answers, strict=True):
        assert answer.headers["RateLimit-Policy"] == '"posts";q=4;w=60'
        found = re.fullmatch(r'"posts";r=(\d+);t=(\d+)', answer.headers["RateLimit"])
        assert found is not None
        assert int(found[1]) == left
        assert 1 <= int(found[2]) <= 60
    problem = expect_problem(answers[-1], 429, "rate-limited")
    assert "4 posts" in problem["detail"]
    assert answers[-1].headers["Retry-After"] == found[2], "the header and the window end together"
    assert post_sampled(client, eve).status_code == 202, "another client does not pay for it"
    url = answers[0].headers["Location"]
    for answer in (client.get(url, headers=ada), client.post(f"{url}/cancel", headers=ada)):
        assert answer.status_code == 200, "looking and cancelling are free"
        assert "RateLimit" not in answer.headers


def test_refused_keys_spend_nobody_s_quota(serve: Callable[..., TestClient]) -> None:
    client = serve(auth="on", key_rate_limit=1)
    key, _ = rooms_of(client).store.create_key("ada")
    forged = key[:-4] + "AAAA"
    for _ in range(3):
        answer = post_sampled(client, {"X-API-Key": forged})
        assert answer.status_code == 401
        assert "RateLimit" not in answer.headers, "nobody learns how busy another client is"
    assert post_sampled(client, {"X-API-Key": key}).status_code == 202


def test_addresses_without_keys(serve: Callable[..., TestClient]) -> None:
    client = serve(address_rate_limit=2)
    assert [post_sampled(client).status_code for _ in range(3)] == [202, 202, 429]
    assert post_sampled(serve()).headers["RateLimit-Policy"] == '"posts";q=60000;w=60'
    assert "RateLimit" not in post_sampled(serve(address_rate_limit=0)).headers


def test_limit_holds_with_a_dead_queue_server(serve: Callable[..., TestClient]) -> None:
    client = serve(address_rate_limit=2, redis_url="redis://127.0.0.1:9/0")
    assert [post_sampled(client).status_code for _ in range(3)] == [202, 202, 429]


def test_an_owner_s_share_of_the_queue(serve: Callable[..., TestClient]) -> None:
    client = serve(auth="on", owner_queue_limit=2)
    rooms = rooms_of(client)
    ada, ada_too, eve = ({"X-API-Key": rooms.store.create_key(owner)[0]} for owner in ("ada", "ada", "eve"))
    first = post_sampled(client, {**ada, "Idempotency-Key": "first"})
    assert first.status_code == post_sampled(client, ada_too).status_code == 202
    refused = post_sampled(client, ada)
    assert "2 of your jobs" in expect_problem(refused, 429, "rate-limited")["detail"]
    assert post_sampled(client, {**ada, "Idempotency-Key": "first"}).json()["id"] == first.json()["id"]
    assert post_sampled(client, eve).status_code == 202
    finish(rooms, claim(rooms))
    assert post_sampled(client, ada).status_code == 202, "what runs or has ended does not count"
    assert rooms.store.counts()["queued"] == 3


def test_without_keys_the_whole_queue_is_everybody_s(serve: Callable[..., TestClient]) -> None:
    client = serve(owner_queue_limit=1)
    assert [post_sampled(client).status_code for _ in range(3)] == [202] * 3
