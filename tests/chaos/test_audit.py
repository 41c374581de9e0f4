"""The judge finds what it is there to find: each test tells it of a world in which one promise is broken."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest

from tests.chaos.audit import Verdict, count_successes, judge
from tests.chaos.client import Accepted, Ledger
from tests.chaos.orders import Kind, Order, make_orders
from tests.chaos.receiver import Receiver
from tests.chaos.service import last_begun
from tests.chaos.watch import Watcher, percentile

FILM = b"a film"
HOOK = "http://127.0.0.1:1/hook"
DONE = {"sha256": hashlib.sha256(FILM).hexdigest(), "bytes": len(FILM), "url": "/v1/animations/a/video"}


def make_ledger(*kinds: Kind) -> Ledger:
    """Jobs a, b, c … under the keys key-a, key-b, …"""
    names = "abcdef"[: len(kinds)]
    orders = [Order(f"key-{name}", kind, {}) for name, kind in zip(names, kinds, strict=True)]
    return Ledger(accepted={o.key: Accepted(o.key.removeprefix("key-"), o) for o in orders})


def make_job(name: str, status: str = "succeeded", attempt: int = 1, **fields: Any) -> dict[str, Any]:
    return {
        "id": name,
        "status": status,
        "attempt": attempt,
        "completed_at": "2026-01-01T00:00:00Z",
        "output": DONE if status == "succeeded" else None,
        "error": {"code": "worker-lost"} if status == "failed" else None,
        "metadata": {"chaos": f"key-{name}"},
        **fields,
    }


def judge_jobs(ledger: Ledger, *jobs: dict[str, Any], lines: tuple[str, ...] = (), **others: Any) -> Verdict:
    known = {job["id"]: job for job in jobs}
    films = others.pop("films", {job["id"]: FILM for job in jobs if job["status"] == "succeeded"})
    return judge(ledger, known, others.pop("earlier", known), films, lines, **others)


def test_a_faultless_world() -> None:
    ledger = make_ledger(Kind.TRIVIAL, Kind.POISON, Kind.LONG)
    jobs = make_job("a", attempt=2), make_job("b", "failed", 3), make_job("c", "canceled")
    verdict = judge_jobs(ledger, *jobs, canceled={"c"})
    assert (verdict.accepted, verdict.succeeded, verdict.failed_by_design, verdict.canceled) == (3, ["a"], ["b"], ["c"])
    assert verdict.why == []


@pytest.mark.parametrize(
    ("job", "films"),
    [
        (None, {}),
        (make_job("a", "queued", completed_at=None), {}),
        (make_job("a", "running", completed_at=None), {}),
        (make_job("a"), {}),
        (make_job("a"), {"a": FILM[:-1]}),
        (make_job("a"), {"a": b"A film"}),
    ],
    ids=["forgotten", "still queued", "still running", "no film", "half a film", "another film"],
)
def test_what_was_accepted_and_is_not_there_is_lost(job: dict[str, Any] | None, films: dict[str, bytes]) -> None:
    verdict = judge_jobs(make_ledger(Kind.TRIVIAL), *([job] if job else []), films=films)
    assert verdict.lost == ["a"]
    assert verdict.succeeded == []


def test_poison_that_succeeds_was_never_run() -> None:
    assert judge_jobs(make_ledger(Kind.POISON), make_job("a")).lost == ["a"]


@pytest.mark.parametrize(
    ("kind", "job"),
    [
        (Kind.TRIVIAL, make_job("a", "failed", 3)),
        (Kind.TRIVIAL, make_job("a", "expired")),
        (Kind.TRIVIAL, make_job("a", "canceled")),
        (Kind.POISON, make_job("a", "failed", 2)),
        (Kind.POISON, make_job("a", "failed", 3, error={"code": "internal"})),
    ],
    ids=["failed", "expired", "canceled unasked", "poison too soon", "poison for another reason"],
)
def test_who_fails_otherwise_than_by_design_failed_innocently(kind: Kind, job: dict[str, Any]) -> None:
    assert judge_jobs(make_ledger(kind), job).innocent_failures == ["a"]


def test_two_jobs_of_one_key() -> None:
    twin = make_job("z", metadata={"chaos": "key-a"})
    assert judge_jobs(make_ledger(Kind.TRIVIAL), make_job("a"), twin).duplicated == ["key-a"]
    ledger = make_ledger(Kind.TRIVIAL)
    ledger.two_ids.append("key-a")
    assert judge_jobs(ledger, make_job("a")).duplicated == ["key-a"]


@pytest.mark.parametrize(
    "after",
    [
        make_job("a", "failed", 3),
        make_job("a", output={**DONE, "url": "/elsewhere"}),
        make_job("a", attempt=2),
        make_job("a", completed_at="2026-01-01T00:00:09Z"),
    ],
    ids=["another state", "another result", "another attempt", "another end"],
)
def test_an_end_that_changes_is_a_second_end(after: dict[str, Any]) -> None:
    verdict = judge_jobs(make_ledger(Kind.TRIVIAL), after, earlier={"a": make_job("a")})
    assert verdict.duplicated == ["a"]


def test_two_workers_that_made_a_result_visible() -> None:
    said = json.dumps({"event": "job_left", "status": "succeeded", "job_id": "a"})
    other = json.dumps({"event": "job_left", "status": "failed", "job_id": "a"})
    assert count_successes([said, other, said[:-9], "words"]) == {"a": 1}
    ledger = make_ledger(Kind.TRIVIAL)
    assert judge_jobs(ledger, make_job("a"), lines=(said, other)).duplicated == []
    assert judge_jobs(ledger, make_job("a"), lines=(said, said)).duplicated == ["a"]


@pytest.mark.parametrize(
    ("events", "column"),
    [
        ({}, "lost"),
        ({"msg_1": "animation.succeeded", "msg_2": "animation.succeeded"}, "duplicated"),
        ({"msg_1": "animation.failed"}, "duplicated"),
    ],
    ids=["nobody was told", "told under two ids", "told something else"],
)
def test_an_end_is_told_under_one_id(events: dict[str, str], column: str) -> None:
    order = Order("key-a", Kind.TRIVIAL, {"webhook": {"url": HOOK}})
    ledger = Ledger(accepted={order.key: Accepted("a", order)})
    assert judge_jobs(ledger, make_job("a"), told={"a": {"msg_1": "animation.succeeded"}}).why == []
    assert getattr(judge_jobs(ledger, make_job("a"), told={"a": events}), column) == ["a"]


def test_the_receiver_fails_once_for_some_events_and_keeps_the_others() -> None:
    receiver = Receiver()
    body = json.dumps({"type": "animation.succeeded", "data": {"id": "a"}}).encode()
    first = {f"msg_{number}": receiver.take(f"msg_{number}", body) for number in range(40)}
    assert set(first.values()) == {204, 500}
    assert {name for name, status in first.items() if status == 204} == set(receiver.told["a"])
    assert {receiver.take(name, body) for name in first} == {204}
    assert set(receiver.told["a"]) == set(first)


def test_recovery_is_the_time_from_a_hit_to_a_later_attempt() -> None:
    watcher = Watcher(None)  # type: ignore[arg-type]  # it is never started
    watcher.note("kill", {"a": 1, "b": 1, "c": 2})
    later = {name: make_job(name, attempt=attempt) for name, attempt in (("a", 2), ("b", 1))}
    for job in later.values():
        job["completed_at"] = "2100-01-01T00:00:00Z"
    watcher.settle(later)
    found = watcher.recoveries()["kill"]
    assert len(found) == 1, "b was spared, c has not ended"
    assert found[0] > 0


def test_the_job_in_hand_is_the_one_begun_and_not_left() -> None:
    begun, left = (json.dumps({"event": event, "job_id": "a"}) for event in ("job_started", "job_left"))
    other = begun.replace('"a"', '"b"')
    assert [last_begun(lines) for lines in ([], [begun], [begun, left], [begun, left, "words", other])] == [
        *(None, "a", None, "b")
    ]


def test_percentiles_are_values_that_were_measured() -> None:
    values = [5.0, 1.0, 3.0, 2.0, 4.0]
    assert [percentile(values, share) for share in (0.5, 0.95, 0.2, 0.0)] == [3.0, 5.0, 1.0, 1.0]
    assert percentile([], 0.5) is None


def test_the_mixture_holds_all_kinds_and_is_seeded() -> None:
    orders = make_orders("x", 60, seed=3, webhook=HOOK)
    kinds = [order.kind for order in orders]
    assert len({order.key for order in orders}) == 60
    assert (kinds.count(Kind.POISON), kinds.count(Kind.VENOM), kinds.count(Kind.SLOW)) == (2, 2, 10)
    again, other = (make_orders("x", 60, seed=seed, webhook=HOOK) for seed in (3, 4))
    assert orders == again != other
    assert {order.body.get("webhook", {}).get("url") for order in orders} == {HOOK, None}
    assert {("image_base64" in order.body) for order in orders} == {True, False}
