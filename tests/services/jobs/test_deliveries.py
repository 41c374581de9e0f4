"""The outbox, the couriers' half and the owners' half of deliveries, and the secrets; on both databases."""

from __future__ import annotations

import threading
from collections import Counter
from typing import Any

import pytest

from services.errors import RequestError
from services.jobs.contract import JobError, JobRecord, OutputFacts
from services.jobs.deliveries import Delivery, Parcel
from services.jobs.store import JobStore
from tests.services.jobs.conftest import Accept, Clock

URL = "https://receiver.example/hook"
LEASE_S = 30.0
ERROR = JobError(code="internal", message="It broke.", hint="", retryable=False)


def webhook(url: str = URL, **fields: Any) -> dict[str, Any]:
    return {"url": url, **fields}


def end(store: JobStore, accept: Accept, url: str = URL, **options: Any) -> JobRecord:
    """Accept a job with a webhook and end it by a cancel."""
    record = accept(webhook=webhook(url), **options)
    store.request_cancel(record.id)
    return record


def take(store: JobStore, limit: int = 10, **choice: Any) -> list[Parcel]:
    return store.claim_deliveries(limit, LEASE_S, **choice)


def settle(store: JobStore, parcel: Parcel, status: int | None = 200, delay_s: float | None = None) -> bool:
    reason = None if status == 200 else "it answered with an error"
    return store.settle_delivery(parcel, status=status, reason=reason, duration_s=0.25, delay_s=delay_s)


def look(store: JobStore, delivery_id: str) -> Delivery:
    found = store.get_delivery(delivery_id)
    assert found is not None
    return found


# -- the outbox --------------------------------------------------------------------------------------------------------


def test_every_end_of_a_job_writes_one_delivery(
    store: JobStore, accept: Accept, clock: Clock, output: OutputFacts
) -> None:
    ids: dict[str, str] = {}

    def start(expected: str, **options: Any) -> Any:
        ids[accept(webhook=webhook(), **options).id] = expected
        lease = store.claim("w", LEASE_S)
        assert lease is not None
        return lease

    store.succeed(start("animation.succeeded"), output, None, {}, clock())
    store.fail(start("animation.failed"), ERROR)
    lease = start("animation.canceled")
    store.request_cancel(lease.record.id)
    store.finish_canceled(lease)
    for _ in range(3):  # crashes
        lease = store.claim("w", LEASE_S) if _ else start("animation.failed")
        assert lease is not None
        store.crash(lease, ERROR)
    lease = start("animation.failed")
    for _ in range(3):  # lapsed leases
        clock.advance(LEASE_S + 1)
        store.sweep()
        store.claim("w", LEASE_S)
    canceled = accept(webhook=webhook())
    store.request_cancel(canceled.id)
    ids[canceled.id] = "animation.canceled"
    late = accept(webhook=webhook(), deadline_s=1)
    ids[late.id] = "animation.expired"
    clock.advance(2)
    store.sweep()
    store.sweep()  # a second look ends nothing twice

    deliveries, _ = store.list_deliveries(None, 100)
    assert {delivery.job_id: delivery.event for delivery in deliveries} == ids
    assert len(deliveries) == len(ids) == 7
    assert len({delivery.id for delivery in deliveries}) == 7
    assert {(delivery.state, delivery.url, delivery.receiver) for delivery in deliveries} == {
        ("pending", URL, "receiver.example")
    }


def test_only_wanted_events_are_told(store: JobStore, accept: Accept) -> None:
    silent = accept()
    other = accept(webhook=webhook(events=["animation.succeeded"]))
    wanted = accept(webhook=webhook(events=["animation.canceled"]))
    for record in (silent, other, wanted):
        store.request_cancel(record.id)
    deliveries, _ = store.list_deliveries(None)
    assert [delivery.job_id for delivery in deliveries] == [wanted.id]


@pytest.mark.parametrize("url", ["https://[::1", "https://rece\u2100iver.example/", "", "https://" + "a" * 2000])
def test_no_url_keeps_a_job_from_ending(store: JobStore, accept: Accept, url: str) -> None:
    record = end(store, accept, url)
    assert [delivery.url for delivery in store.list_deliveries(None, job_id=record.id)[0]] == [url]


def test_a_job_takes_its_deliveries_along(store: JobStore, accept: Accept) -> None:
    gone, stays = end(store, accept), end(store, accept)
    for parcel in take(store):
        settle(store, parcel, 500, delay_s=1.0)
    held = {delivery.job_id: delivery.id for delivery in store.list_deliveries(None)[0]}
    store.delete(gone.id)
    assert store.get_delivery(held[gone.id]) is None
    kept = look(store, held[stays.id])
    assert len(kept.log) == 1


# -- couriers ----------------------------------------------------------------------------------------------------------


def test_claim_gives_each_delivery_to_one_courier(store: JobStore, accept: Accept) -> None:
    expected = {end(store, accept).id for _ in range(20)}
    taken: list[str] = []
    gate = threading.Barrier(4)

    def run() -> None:
        gate.wait()
        # A courier that finds all rows locked by another one comes back, as it does in real life.
        for _ in range(40):
            taken.extend(parcel.delivery.job_id for parcel in take(store, 3))

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert Counter(taken) == Counter(dict.fromkeys(expected, 1))


def test_delivered(store: JobStore, accept: Accept, clock: Clock) -> None:
    end(store, accept)
    (parcel,) = take(store)
    clock.advance(1)
    assert settle(store, parcel)
    delivery = look(store, parcel.delivery.id)
    assert (delivery.state, delivery.tries, delivery.delivered_at) == ("delivered", 1, clock())
    (line,) = delivery.log
    assert (line.number, line.status, line.reason, line.duration_s) == (1, 200, None, 0.25)
    clock.advance(1000)
    assert take(store) == []


def test_retry_waits_and_then_gives_up(store: JobStore, accept: Accept, clock: Clock) -> None:
    end(store, accept)
    (parcel,) = take(store)
    assert settle(store, parcel, 503, delay_s=60.0)
    clock.advance(59)
    assert take(store) == []
    clock.advance(1)
    (again,) = take(store)
    assert again.delivery.id == parcel.delivery.id
    assert again.delivery.tries == 1
    assert settle(store, again, None, delay_s=None)
    delivery = look(store, parcel.delivery.id)
    assert (delivery.state, delivery.tries, delivery.delivered_at) == ("failed", 2, None)
    assert [(line.number, line.status, line.reason) for line in delivery.log] == [
        (1, 503, "it answered with an error"),
        (2, None, "it answered with an error"),
    ]
    clock.advance(100_000)
    assert take(store) == []


def test_a_dead_courier_loses_its_lease(store: JobStore, accept: Accept, clock: Clock) -> None:
    end(store, accept)
    (frozen,) = take(store)
    clock.advance(LEASE_S - 1)
    assert take(store) == []
    clock.advance(1)
    (other,) = take(store)
    assert other.delivery.id == frozen.delivery.id
    assert not settle(store, frozen, 500, delay_s=None), "a courier wrote after its delivery went to another one"
    assert settle(store, other)
    assert not settle(store, frozen, 500, delay_s=None), "a courier undid another one's delivery"
    delivery = look(store, frozen.delivery.id)
    assert (delivery.state, len(delivery.log)) == ("delivered", 1)


def test_claim_leaves_who_is_to_be_spared(store: JobStore, accept: Accept) -> None:
    dead = "https://dead.example:8443/a"
    for number in range(30):  # more than a claim looks at
        end(store, accept, f"{dead}?{number}")
    mine = end(store, accept, owner="me")
    yours = end(store, accept, dead, owner="you")
    spared = take(store, 2, avoid={("me", "dead.example:8443")})
    assert {parcel.delivery.job_id for parcel in spared} == {mine.id, yours.id}
    assert take(store, 2, avoid_owners={"me"}) == []
    two = take(store, 2, admits=lambda address: address == ("me", "dead.example:8443"))
    assert len(two) == 2


def test_oldest_first(store: JobStore, accept: Accept, clock: Clock) -> None:
    order = []
    for _ in range(3):
        order.append(end(store, accept).id)
        clock.advance(1)
    assert [parcel.delivery.job_id for parcel in take(store)] == order


def test_facts_of_the_outbox(store: JobStore, accept: Accept, clock: Clock) -> None:
    for _ in range(3):
        end(store, accept)
    first, second, _third = take(store)
    settle(store, first)
    settle(store, second, 410, delay_s=None)
    clock.advance(7)
    facts = store.outbox_facts()
    assert (facts.pending, facts.delivered, facts.failed, facts.overdue_s) == (1, 1, 1, 7.0)


# -- owners ------------------------------------------------------------------------------------------------------------


def test_pages(store: JobStore, accept: Accept, clock: Clock) -> None:
    expected = []
    for number in range(5):
        expected.append(end(store, accept).id)
        clock.advance(number % 2)  # some at the same moment
    end(store, accept, owner="you")
    seen: list[str] = []
    cursor = None
    for _ in range(3):
        page, cursor = store.list_deliveries("me", 2, cursor)
        seen += [delivery.job_id for delivery in page]
    assert cursor is None
    assert sorted(seen) == sorted(expected)
    assert [d.job_id for d in store.list_deliveries("me", job_id=expected[2])[0]] == [expected[2]]
    assert store.list_deliveries("me", job_id="anm_\0")[0] == []
    settle(store, take(store, 1)[0])
    assert [d.state for d in store.list_deliveries("me", state="delivered")[0]] == ["delivered"]
    assert len(store.list_deliveries("me", state="pending")[0]) == 4
    with pytest.raises(RequestError, match="cursor"):
        store.list_deliveries("me", cursor="x")


def test_redelivery_begins_anew_under_the_same_id(store: JobStore, accept: Accept, clock: Clock) -> None:
    end(store, accept)
    (parcel,) = take(store)
    settle(store, parcel, 500, delay_s=None)
    clock.advance(3600)
    again = store.redeliver(parcel.delivery.id, "me")
    assert (again.id, again.state, again.tries, again.asked_at) == (parcel.delivery.id, "pending", 0, clock())
    (parcel,) = take(store)
    settle(store, parcel)
    store.redeliver(parcel.delivery.id, "me")  # also of what was delivered
    (parcel,) = take(store)
    settle(store, parcel)
    delivery = look(store, parcel.delivery.id)
    assert [(line.number, line.status) for line in delivery.log] == [(1, 500), (2, 200), (3, 200)]


def test_redelivery_of_what_is_in_hand_takes_it_from_nobody(store: JobStore, accept: Accept, clock: Clock) -> None:
    end(store, accept)
    (parcel,) = take(store)
    assert store.redeliver(parcel.delivery.id, "me").state == "pending"
    assert take(store) == []
    assert settle(store, parcel)
    end(store, accept)
    (lost,) = take(store)
    clock.advance(LEASE_S)
    store.redeliver(lost.delivery.id, "me")
    assert not settle(store, lost)
    assert len(take(store)) == 1


def test_deliveries_of_others_do_not_exist(store: JobStore, accept: Accept) -> None:
    end(store, accept)
    (parcel,) = take(store)
    settle(store, parcel)
    assert store.get_delivery(parcel.delivery.id, "you") is None
    for delivery_id in (parcel.delivery.id, "msg_\0"):
        with pytest.raises(RequestError) as caught:
            store.redeliver(delivery_id, "you")
        assert caught.value.code == "not-found"
    assert look(store, parcel.delivery.id).state == "delivered"


def test_the_log_does_not_grow_for_ever(store: JobStore, accept: Accept) -> None:
    end(store, accept)
    for _ in range(52):
        (parcel,) = take(store)
        settle(store, parcel)
        store.redeliver(parcel.delivery.id)
    log = look(store, parcel.delivery.id).log
    assert [line.number for line in log] == list(range(3, 53))


# -- secrets -----------------------------------------------------------------------------------------------------------


def secrets_of(store: JobStore, owner: str = "me") -> list[str]:
    return [made.secret for made in store.list_webhook_secrets(owner)]


def test_two_secrets_live_at_once(store: JobStore, clock: Clock) -> None:
    store.add_webhook_secret("me", "first", 100)
    clock.advance(1)
    store.add_webhook_secret("me", "second", 100)
    assert secrets_of(store) == ["second", "first"]
    newest, older = store.list_webhook_secrets("me")
    assert newest.expires_at is None
    assert older.expires_at is not None
    clock.advance(1)
    store.add_webhook_secret("me", "third", 100)
    assert secrets_of(store) == ["third", "second"]
    clock.advance(100)
    assert secrets_of(store) == ["third"]
    assert secrets_of(store, "you") == []
    assert "third" not in repr(store.list_webhook_secrets("me"))


def test_secret_without_an_overlap_replaces_the_others(store: JobStore) -> None:
    store.add_webhook_secret("you", "yours", 0)
    store.add_webhook_secret("me", "first", 100)
    store.add_webhook_secret("me", "second", 0)
    assert secrets_of(store) == ["second"]
    assert secrets_of(store, "you") == ["yours"]


def test_a_later_end_is_never_given(store: JobStore, clock: Clock) -> None:
    store.add_webhook_secret("me", "first", 100)
    newer = store.add_webhook_secret("me", "second", 50)
    store.delete_webhook_secret("me", newer.id)
    store.add_webhook_secret("me", "third", 1000)
    clock.advance(50)
    assert secrets_of(store) == ["third"], "a secret that was to end lived on"


def test_secret_is_deleted_by_its_owner_alone(store: JobStore) -> None:
    made = store.add_webhook_secret("me", "first", 100)
    assert not store.delete_webhook_secret("you", made.id)
    assert not store.delete_webhook_secret("me", "whs_\0")
    assert store.delete_webhook_secret("me", made.id)
    assert not store.delete_webhook_secret("me", made.id)
    assert secrets_of(store) == []


def test_first_secret_is_made_once(store: JobStore, clock: Clock) -> None:
    gate = threading.Barrier(4)

    def ensure(text: str) -> None:
        gate.wait()
        store.ensure_webhook_secret("me", lambda: text)

    threads = [threading.Thread(target=ensure, args=(str(number),)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (made,) = store.list_webhook_secrets("me")
    assert made.expires_at is None
    store.ensure_webhook_secret("me", lambda: "another")
    assert secrets_of(store) == [made.secret]


def test_rotations_at_once_leave_two(store: JobStore) -> None:
    store.add_webhook_secret("me", "old", 100)
    threads = [threading.Thread(target=store.add_webhook_secret, args=("me", str(n), 100)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    live = store.list_webhook_secrets("me")
    assert [made.expires_at is None for made in live] == [True, False]
