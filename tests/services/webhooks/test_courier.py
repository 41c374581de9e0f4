"""The courier with a real receiver, a real job store and the real way out."""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from services.api.schemas import describe_job
from services.api.webhooks import WebhookMessage
from services.errors import TemporaryError
from services.jobs.deliveries import Parcel
from services.jobs.store import JobStore
from services.outbound.client import Answered, Outbound
from services.webhooks import courier as courier_room
from services.webhooks.courier import Courier
from services.webhooks.receivers import PATIENCE
from services.webhooks.signing import make_secret
from tests.services.webhooks.conftest import (
    OWNER,
    Call,
    End,
    Receiver,
    delivery_of,
    wait_for,
    wait_for_state,
)

Start = Callable[..., Courier]
Open = Callable[..., Receiver]


def test_event_is_the_job_signed(
    store: JobStore, secret: str, end: End, open_receiver: Open, start_courier: Start
) -> None:
    receiver = open_receiver()
    record = end(receiver.url + "?token=a%20b", prompt="lächelt 😀", metadata={"order": "12"})
    start_courier()
    delivery = wait_for_state(store, record, "delivered")
    (call,) = receiver.calls
    event = Webhook(secret).verify(call.body, call.headers)
    assert event["type"] == "animation.canceled"
    assert event["timestamp"] == delivery.created_at.isoformat().replace("+00:00", "Z")
    assert event["data"] == describe_job(record)
    WebhookMessage.model_validate_json(call.body)  # as openapi.yaml describes it
    assert (call.id, call.path) == (delivery.id, "/hook?token=a%20b")
    assert call.headers["content-type"] == "application/json"
    (line,) = delivery.log
    assert (line.number, line.status, line.reason) == (1, 204, None)
    assert line.duration_s > 0


def test_receiver_that_fails_half_the_time_gets_everything(
    store: JobStore, secret: str, end: End, open_receiver: Open, start_courier: Start
) -> None:
    """Promise 7 of docs/reliability.md: everything delivered, one id an event."""
    draw = random.Random(7)
    lock = threading.Lock()

    def answer(_: Call) -> int:
        with lock:
            return draw.choice([204, 204, 500, 0])

    receiver = open_receiver(answer=answer)
    records = [end(receiver.url) for _ in range(30)]
    start_courier(concurrency=16)
    deliveries = [wait_for_state(store, record, "delivered") for record in records]

    assert len(receiver.calls) > 40, "the receiver did not fail, so nothing was shown"
    ids_of_jobs: dict[str, set[str]] = {record.id: set() for record in records}
    for call in receiver.calls:
        ids_of_jobs[Webhook(secret).verify(call.body, call.headers)["data"]["id"]].add(call.id)
    assert {job: {delivery.id} for job, delivery in zip(ids_of_jobs, deliveries, strict=True)} == ids_of_jobs
    taken = Counter(call.id for call in receiver.taken)
    assert taken == dict.fromkeys((delivery.id for delivery in deliveries), 1), "an event that was taken came again"
    for delivery in deliveries:
        assert [line.number for line in delivery.log] == list(range(1, delivery.tries + 1))
        assert [line.reason is None for line in delivery.log] == [False] * (delivery.tries - 1) + [True]


def test_tries_end(store: JobStore, secret: str, end: End, open_receiver: Open, start_courier: Start) -> None:
    receiver = open_receiver(answer=lambda _: 500)
    start_courier(delays_s=(0.0, 0.0))
    delivery = wait_for_state(store, end(receiver.url), "failed")
    assert [line.status for line in delivery.log] == [500, 500, 500]
    assert len({call.id for call in receiver.calls}) == 1


def test_gone_is_believed(store: JobStore, secret: str, end: End, open_receiver: Open, start_courier: Start) -> None:
    receiver = open_receiver(answer=lambda _: 410)
    start_courier()
    delivery = wait_for_state(store, end(receiver.url), "failed")
    assert [(line.status, line.reason) for line in delivery.log] == [(410, "it says that the address is gone for good")]


def test_redirects_are_not_followed(
    store: JobStore, secret: str, end: End, open_receiver: Open, start_courier: Start
) -> None:
    other = open_receiver()
    receiver = open_receiver(answer=lambda _: 307, headers={"Location": other.url})
    start_courier(delays_s=())
    delivery = wait_for_state(store, end(receiver.url), "failed")
    assert [(line.status, line.reason) for line in delivery.log] == [
        (307, "it redirects, and redirects are not followed")
    ]
    assert len(receiver.calls) == 1
    assert other.calls == []


def test_retry_after_is_heard(
    store: JobStore, secret: str, end: End, open_receiver: Open, start_courier: Start
) -> None:
    receiver = open_receiver(answer=lambda _: 429, headers={"Retry-After": "3600"})
    record = end(receiver.url)
    start_courier()
    wait_for(lambda: delivery_of(store, record).log, "the first try")
    delivery = delivery_of(store, record)
    assert delivery.state == "pending"
    assert (delivery.next_at - delivery.log[0].at).total_seconds() > 3599


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "127.1", "[::1]", "0.0.0.0", "169.254.169.254"])
def test_private_addresses_are_not_called(
    host: str, store: JobStore, secret: str, end: End, open_receiver: Open, start_courier: Start
) -> None:
    """Also where the URL was let in when the job was accepted: a name may have another address by now."""
    receiver = open_receiver()
    start_courier(Outbound(), delays_s=())
    delivery = wait_for_state(store, end(receiver.url.replace("127.0.0.1", host)), "failed")
    (line,) = delivery.log
    assert line.status is None
    assert line.reason
    assert receiver.calls == []


def test_slow_receiver_holds_nobody_up(
    store: JobStore, secret: str, end: End, open_receiver: Open, start_courier: Start
) -> None:
    release = threading.Event()

    def hang(_: Call) -> int:
        release.wait(120)
        return 204

    slow, fast = open_receiver(answer=hang), open_receiver()
    waiting = [end(slow.url) for _ in range(40)]  # more than a claim looks at
    records = [end(fast.url) for _ in range(5)]
    start_courier()
    try:
        for record in records:
            wait_for_state(store, record, "delivered")
        assert {delivery_of(store, record).state for record in waiting} == {"pending"}
        assert len(slow.calls) == 1, "a slow receiver has more than its quarter of four places"
    finally:
        release.set()
    for record in waiting:
        wait_for_state(store, record, "delivered")


def test_dead_receiver_is_spared(
    store: JobStore, secret: str, end: End, open_receiver: Open, start_courier: Start
) -> None:
    receiver = open_receiver(answer=lambda _: 503)
    records = [end(receiver.url) for _ in range(20)]
    start_courier(delays_s=())
    wait_for(lambda: len(receiver.calls) >= PATIENCE, "the first calls")
    other = open_receiver()
    wait_for_state(store, end(other.url), "delivered")
    assert len(receiver.calls) < len(records), "a receiver that fails all the time was called all the time"


def test_nothing_is_sent_unsigned(store: JobStore, end: End, open_receiver: Open, start_courier: Start) -> None:
    receiver = open_receiver()
    record = end(receiver.url)
    start_courier(delays_s=(0.0, 0.0, 1.0) + (0.1,) * 17)
    wait_for(lambda: len(delivery_of(store, record).log) >= 2, "tries without a secret")
    assert receiver.calls == []
    assert "no secret" in str(delivery_of(store, record).log[0].reason)
    made = store.add_webhook_secret(OWNER, make_secret(), 0)
    wait_for_state(store, record, "delivered")
    Webhook(made.secret).verify(receiver.calls[0].body, receiver.calls[0].headers)


def test_secrets_change_over(store: JobStore, secret: str, end: End, open_receiver: Open, start_courier: Start) -> None:
    receiver = open_receiver()
    start_courier()

    def told() -> Call:
        wait_for_state(store, end(receiver.url), "delivered")
        return receiver.calls[-1]

    def check(call: Call, with_secret: str) -> bool:
        try:
            Webhook(with_secret).verify(call.body, call.headers)
        except WebhookVerificationError:
            return False
        return True

    new = store.add_webhook_secret(OWNER, make_secret(), overlap_s=3600)
    call = told()
    assert check(call, secret), "a receiver that still has the old secret was shut out"
    assert check(call, new.secret)
    assert len(call.headers["webhook-signature"].split(" ")) == 2
    old = store.list_webhook_secrets(OWNER)[1]
    store.delete_webhook_secret(OWNER, old.id)
    call = told()
    assert not check(call, secret), "an ended secret still signs"
    assert check(call, new.secret)


def test_couriers_share_the_work(
    store: JobStore, secret: str, end: End, open_receiver: Open, start_courier: Start
) -> None:
    receiver = open_receiver()
    for _ in range(3):
        start_courier()
    records = [end(receiver.url) for _ in range(30)]
    for record in records:
        wait_for_state(store, record, "delivered")
    assert Counter(call.event["data"]["id"] for call in receiver.calls) == Counter(record.id for record in records)


def test_frozen_courier_is_replaced_and_writes_nothing(
    store: JobStore, secret: str, end: End, open_receiver: Open, start_courier: Start
) -> None:
    frozen, thaw, thawed = threading.Event(), threading.Event(), threading.Event()

    class Frozen:
        def post(self, _url: str, **_: object) -> Answered:
            frozen.set()
            thaw.wait(120)
            thawed.set()
            return Answered(500, 0.0)

    receiver = open_receiver()
    record = end(receiver.url)
    courier = start_courier(Frozen(), timeout_s=0.2)  # its lease lapses after 0.6 s
    assert frozen.wait(120)
    start_courier()
    delivery = wait_for_state(store, record, "delivered")
    thaw.set()
    assert thawed.wait(120)
    courier.close(120)
    assert [line.status for line in delivery_of(store, record).log] == [204]
    assert [call.id for call in receiver.calls] == [delivery.id]


def test_deleted_job_is_told_no_more(
    store: JobStore, secret: str, end: End, open_receiver: Open, start_courier: Start
) -> None:
    arrived, go_on = threading.Event(), threading.Event()

    def answer(call: Call) -> int:
        if call.event["data"]["id"] != gone.id:
            return 204
        arrived.set()
        go_on.wait(120)
        return 500

    receiver = open_receiver(answer=answer)
    gone = end(receiver.url)
    start_courier()
    assert arrived.wait(120)
    store.delete(gone.id)
    go_on.set()
    wait_for_state(store, end(receiver.url), "delivered")
    assert [call.event["data"]["id"] for call in receiver.calls].count(gone.id) == 1


@pytest.mark.parametrize("trouble", [TemporaryError("not-ready", "The database is away."), ValueError("a bug")])
def test_courier_gets_up_again(
    trouble: Exception,
    store: JobStore,
    secret: str,
    end: End,
    open_receiver: Open,
    start_courier: Start,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    troubles = [trouble] * 3
    claim = store.claim_deliveries

    def stumble(*arguments: Any, **choice: Any) -> list[Parcel]:
        if troubles:
            raise troubles.pop()
        return claim(*arguments, **choice)

    monkeypatch.setattr(store, "claim_deliveries", stumble)
    monkeypatch.setattr(courier_room, "PAUSE_AFTER_TROUBLE_S", 0.01)
    receiver = open_receiver()
    start_courier()
    wait_for_state(store, end(receiver.url), "delivered")
    assert troubles == []


def test_without_threads_events_wait(
    store: JobStore,
    secret: str,
    end: End,
    open_receiver: Open,
    start_courier: Start,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    refused: list[threading.Thread] = []
    start = threading.Thread.start

    def refuse(thread: threading.Thread) -> None:
        if thread.name == "webhook" and len(refused) < 3:
            refused.append(thread)
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse)
    monkeypatch.setattr(courier_room, "PAUSE_AFTER_TROUBLE_S", 0.01)
    receiver = open_receiver()
    records = [end(receiver.url) for _ in range(5)]
    start_courier(timeout_s=1.0)  # leases of three seconds
    for record in records:
        wait_for_state(store, record, "delivered")
    assert len(refused) == 3
    assert len({call.id for call in receiver.taken}) == 5


def test_closed_courier_finishes_what_it_has_in_hand(
    store: JobStore, secret: str, end: End, open_receiver: Open, start_courier: Start
) -> None:
    arrived = threading.Event()

    def answer(_: Call) -> int:
        arrived.set()
        closing.wait(120)
        return 204

    closing = threading.Event()
    receiver = open_receiver(answer=answer)
    record = end(receiver.url)
    courier = start_courier()
    assert arrived.wait(120)
    threading.Timer(0.2, closing.set).start()
    courier.close(120)
    assert delivery_of(store, record).state == "delivered"
    later = end(receiver.url)
    assert delivery_of(store, later).state == "pending"
