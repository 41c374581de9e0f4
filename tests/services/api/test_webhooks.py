"""The routes of webhooks: what is refused when a job is posted, the delivery log, telling again, secrets, isolation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from fastapi.testclient import TestClient

from services.api.resources import Resources
from services.webhooks.signing import make_secret
from tests.services.api.conftest import claim, expect_problem, finish, post_photo, post_sampled

URL = "https://receiver.example/hook"
SECRETS = "/v1/webhooks/secrets"
DELIVERIES = "/v1/webhooks/deliveries"


@pytest.fixture
def client(serve: Callable[..., TestClient]) -> TestClient:
    """An API that sends nothing: what is due stays due."""
    return serve(webhook_concurrency=0)


@pytest.fixture
def secret(client: TestClient) -> str:
    text: str = client.post(SECRETS).json()["secret"]
    return text


def post_ended(client: TestClient, rooms: Resources, url: str = URL) -> str:
    """Post a job with a webhook and finish it as a worker does; returns its id."""
    answer = post_sampled(client, webhook={"url": url})
    assert answer.status_code == 202, answer.text
    finish(rooms, claim(rooms))
    job_id: str = answer.json()["id"]
    return job_id


def strange_delivery(rooms: Resources) -> str:
    """Make another owner's job with a delivery; returns the delivery's id."""
    from services.jobs.contract import AnimationOptions, InputFacts, make_job_id

    record, _ = rooms.store.accept(
        job_id=make_job_id(),
        owner="somebody else",
        options=AnimationOptions.model_validate({"prompt": "smiling", "webhook": {"url": URL}}),
        input=InputFacts(),
        seed=1,
        model_id="human",
    )
    rooms.store.request_cancel(record.id)
    return rooms.store.list_deliveries("somebody else")[0][0].id


# -- posting --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        "http://receiver.example/hook",
        "https://127.0.0.1/hook",
        "https://localhost/hook",
        "https://[::1]/",
        "https://169.254.169.254/latest/meta-data",
        "https://2130706433/",
        "https://user:password@receiver.example/",
        "ftp://receiver.example/",
        "https://receiver.example:22/",
        "receiver.example",
        "",
    ],
)
def test_url_that_may_not_be_called_is_refused(client: TestClient, rooms: Resources, secret: str, url: str) -> None:
    problem = expect_problem(post_sampled(client, webhook={"url": url}), 422, "validation-failed")
    assert [error["pointer"] for error in problem["errors"]] == ["#/webhook/url"]
    assert rooms.store.counts()["queued"] == 0


def test_opened_address_is_accepted(serve: Callable[..., TestClient]) -> None:
    client = serve(outbound_allow=("127.0.0.1:9999",), webhook_concurrency=0)
    client.post(SECRETS)
    assert post_sampled(client, webhook={"url": "http://127.0.0.1:9999/hook"}).status_code == 202
    expect_problem(post_sampled(client, webhook={"url": "http://127.0.0.1:9998/hook"}), 422, "validation-failed")


@pytest.mark.parametrize(
    ("webhook", "pointer"),
    [
        ({"url": URL, "events": []}, "#/webhook/events"),
        ({"url": URL, "events": ["animation.started"]}, "#/webhook/events/0"),
        ({"url": URL, "secret": "x"}, "#/webhook/secret"),
        ({"url": "https://receiver.example/" + "a" * 2048}, "#/webhook/url"),
        ("https://receiver.example/", "#/webhook"),
    ],
)
def test_wrong_webhooks_are_refused(client: TestClient, secret: str, webhook: object, pointer: str) -> None:
    problem = expect_problem(post_sampled(client, webhook=webhook), 422, "validation-failed")
    assert [error["pointer"] for error in problem["errors"]] == [pointer]


def test_first_webhook_makes_the_first_secret(client: TestClient) -> None:
    post_sampled(client)
    assert client.get(SECRETS).json()["data"] == []
    for _ in range(2):
        assert post_sampled(client, webhook={"url": URL}).status_code == 202
    (made,) = client.get(SECRETS).json()["data"]
    assert made["secret"].startswith("whsec_")
    assert made["expires_at"] is None


def test_webhook_of_a_form(client: TestClient, rooms: Resources, secret: str, photo: bytes) -> None:
    answer = post_photo(client, photo, webhook='{"url": "https://receiver.example/hook"}')
    assert answer.status_code == 202, answer.text
    record = rooms.store.get(answer.json()["id"])
    assert record is not None
    assert record.options.webhook is not None
    assert record.options.webhook.url == URL


# -- the log --------------------------------------------------------------------------------------


def test_delivery_log(client: TestClient, rooms: Resources, secret: str) -> None:
    job_id = post_ended(client, rooms)
    (parcel,) = rooms.store.claim_deliveries(1, 30.0)
    rooms.store.settle_delivery(parcel, status=503, reason="it answered with an error", duration_s=0.5, delay_s=60.0)
    answer = client.get(f"/v1/animations/{job_id}/deliveries")
    assert answer.status_code == 200
    (delivery,) = answer.json()["data"]
    (line,) = delivery.pop("tries")
    assert (line["number"], line["status"], line["duration_s"]) == (1, 503, 0.5)
    assert line["reason"] == "it answered with an error"
    assert delivery["next_at"] > line["at"]
    assert {name: delivery[name] for name in ("job_id", "event", "url", "state", "delivered_at")} == {
        "job_id": job_id,
        "event": "animation.succeeded",
        "url": URL,
        "state": "pending",
        "delivered_at": None,
    }
    assert client.get(f"{DELIVERIES}/{delivery['id']}").json() == answer.json()["data"][0]
    rooms.store.redeliver(delivery["id"])
    (parcel,) = rooms.store.claim_deliveries(1, 30.0)
    rooms.store.settle_delivery(parcel, status=200, reason=None, duration_s=0.5, delay_s=None)
    shown = client.get(f"{DELIVERIES}/{delivery['id']}").json()
    assert (shown["state"], shown["next_at"], len(shown["tries"])) == ("delivered", None, 2)


def test_pages_of_the_log(client: TestClient, rooms: Resources, secret: str) -> None:
    jobs = [post_ended(client, rooms) for _ in range(3)]
    first = client.get(DELIVERIES, params={"limit": 2, "state": "pending"})
    link = first.headers["Link"]
    following = client.get(link[1 : link.index(">")])
    assert "Link" not in following.headers
    shown = [delivery["job_id"] for answer in (first, following) for delivery in answer.json()["data"]]
    assert shown == jobs[::-1]
    assert [d["job_id"] for d in client.get(DELIVERIES, params={"job_id": jobs[1]}).json()["data"]] == [jobs[1]]
    assert client.get(DELIVERIES, params={"state": "failed"}).json()["data"] == []


@pytest.mark.parametrize("query", [{"state": "lost"}, {"limit": 0}, {"limit": 101}, {"cursor": "x"}, {"other": 1}])
def test_wrong_queries_are_refused(client: TestClient, query: dict[str, Any]) -> None:
    expect_problem(client.get(DELIVERIES, params=query), 422, "validation-failed")


def test_redelivery(client: TestClient, rooms: Resources, secret: str) -> None:
    post_ended(client, rooms)
    (parcel,) = rooms.store.claim_deliveries(1, 30.0)
    rooms.store.settle_delivery(parcel, status=410, reason="it is gone", duration_s=0.5, delay_s=None)
    answer = client.post(f"{DELIVERIES}/{parcel.delivery.id}/redeliver")
    assert answer.status_code == 202
    assert (answer.json()["id"], answer.json()["state"]) == (parcel.delivery.id, "pending")
    assert [again.delivery.id for again in rooms.store.claim_deliveries(1, 30.0)] == [parcel.delivery.id]


def test_deleted_job_takes_its_deliveries_along(client: TestClient, rooms: Resources, secret: str) -> None:
    job_id = post_ended(client, rooms)
    (delivery,) = client.get(DELIVERIES).json()["data"]
    assert client.delete(f"/v1/animations/{job_id}").status_code == 204
    assert client.get(DELIVERIES).json()["data"] == []
    expect_problem(client.post(f"{DELIVERIES}/{delivery['id']}/redeliver"), 404, "not-found")
    expect_problem(client.get(f"/v1/animations/{job_id}/deliveries"), 404, "not-found")


def test_deliveries_of_others_do_not_exist(client: TestClient, rooms: Resources) -> None:
    theirs = strange_delivery(rooms)
    expect_problem(client.get(f"{DELIVERIES}/{theirs}"), 404, "not-found")
    expect_problem(client.post(f"{DELIVERIES}/{theirs}/redeliver"), 404, "not-found")
    assert client.get(DELIVERIES).json()["data"] == []
    found = rooms.store.get_delivery(theirs)
    assert found is not None
    job = found.job_id
    expect_problem(client.get(f"/v1/animations/{job}/deliveries"), 404, "not-found")
    assert client.get(DELIVERIES, params={"job_id": job}).json()["data"] == []


@pytest.mark.parametrize("delivery_id", ["msg_0", "%00", "x" * 300])
def test_unknown_deliveries(client: TestClient, delivery_id: str) -> None:
    expect_problem(client.get(f"{DELIVERIES}/{delivery_id}"), 404, "not-found")
    expect_problem(client.post(f"{DELIVERIES}/{delivery_id}/redeliver"), 404, "not-found")


# -- secrets --------------------------------------------------------------------------------------


def test_secret_is_shown_to_its_owner(client: TestClient, rooms: Resources) -> None:
    theirs = rooms.store.add_webhook_secret("somebody else", make_secret(), 0)
    made = client.post(SECRETS)
    assert made.status_code == 201
    assert made.json()["secret"].startswith("whsec_")
    listed = client.get(SECRETS)
    assert listed.json()["data"] == [made.json()]
    assert {answer.headers["Cache-Control"] for answer in (made, listed)} == {"no-store"}
    assert theirs.secret not in listed.text


def test_rotation(client: TestClient) -> None:
    first = client.post(SECRETS).json()
    second = client.post(SECRETS, json={"overlap_s": 3600}).json()
    newest, older = client.get(SECRETS).json()["data"]
    assert (newest["id"], newest["expires_at"]) == (second["id"], None)
    assert older["id"] == first["id"]
    assert older["expires_at"] > older["created_at"]
    third = client.post(SECRETS, json={"overlap_s": 0}).json()
    assert [made["id"] for made in client.get(SECRETS).json()["data"]] == [third["id"]]


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        (b'{"overlap_s": -1}', "#/overlap_s"),
        (b'{"overlap_s": 1e9}', "#/overlap_s"),
        (b'{"overlap_s": "1"}', "#/overlap_s"),
        (b'{"secret": "mine"}', "#/secret"),
        (b"[]", "#"),
        (b"{", "#"),
    ],
)
def test_wrong_rotations_are_refused(client: TestClient, body: bytes, pointer: str) -> None:
    answer = client.post(SECRETS, content=body, headers={"Content-Type": "application/json"})
    problem = expect_problem(answer, 422, "validation-failed")
    assert [error["pointer"] for error in problem["errors"]] == [pointer]
    assert client.get(SECRETS).json()["data"] == []


def test_ending_a_secret(client: TestClient, rooms: Resources) -> None:
    made = client.post(SECRETS).json()
    theirs = rooms.store.add_webhook_secret("somebody else", make_secret(), 0)
    expect_problem(client.delete(f"{SECRETS}/{theirs.id}"), 404, "not-found")
    assert client.delete(f"{SECRETS}/{made['id']}").status_code == 204
    expect_problem(client.delete(f"{SECRETS}/{made['id']}"), 404, "not-found")
    assert client.get(SECRETS).json()["data"] == []
    assert len(rooms.store.list_webhook_secrets("somebody else")) == 1
