"""Clients take turns: whoever queues a thousand jobs keeps nobody waiting; places tell the order of claims."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import pytest
import sqlalchemy as sa

from services.jobs.contract import JobRecord, Lease, OutputFacts
from services.jobs.store import JobStore


def claim(store: JobStore) -> Lease:
    lease = store.claim("w", 3600)
    assert lease is not None, "something is due"
    return lease


def claim_all(store: JobStore) -> list[JobRecord]:
    claimed = []
    while (lease := store.claim("w", 3600)) is not None:
        claimed.append(lease.record)
    return claimed


def test_a_backlog_keeps_nobody_waiting(store: JobStore, accept: Any, clock: Any) -> None:
    for _ in range(60):
        accept(owner="many")
        clock.advance(1)
    served = [claim(store).record.owner for _ in range(20)]
    assert served == ["many"] * 20
    one = accept(owner="one")
    assert store.queue_position(one.id) == 2, "one job of the backlog is older and has the same turn"
    assert one.id in [claim(store).record.id for _ in range(2)]


def test_backlogs_are_served_in_turn(store: JobStore, accept: Any, clock: Any) -> None:
    for owner, jobs in (("a", 30), ("b", 10), ("c", 3)):
        for _ in range(jobs):
            accept(owner=owner)
            clock.advance(1)
    order = [record.owner for record in claim_all(store)]
    assert Counter(order[:9]) == {"a": 3, "b": 3, "c": 3}
    assert Counter(order[9:23]) == {"a": 7, "b": 7}
    assert order[23:] == ["a"] * 20


def test_who_posts_one_after_the_other_takes_turns_too(
    store: JobStore, accept: Any, clock: Any, output: OutputFacts
) -> None:
    for _ in range(20):
        accept(owner="backlog")
    served: Counter[str] = Counter()
    accept(owner="patient")
    for _ in range(16):
        clock.advance(1)
        lease = claim(store)
        served[lease.record.owner] += 1
        store.succeed(lease, output, None, {}, clock.now)
        if lease.record.owner == "patient":
            accept(owner="patient")
    assert abs(served["backlog"] - served["patient"]) <= 1, served


def test_priority_counts_among_the_jobs_of_one_client(store: JobStore, accept: Any, clock: Any) -> None:
    made = {}
    for name, priority in (("n1", 0), ("n2", 0), ("u1", -1), ("late", 1), ("u2", -1), ("n3", 0)):
        made[accept(priority=priority).id] = name
        clock.advance(1)
    places = [made[job_id] for job_id in sorted(made, key=lambda job_id: store.queue_position(job_id) or 0)]
    assert places == ["u1", "u2", "n1", "n2", "n3", "late"]
    assert [made[record.id] for record in claim_all(store)] == places


def test_urgent_jobs_of_one_client_do_not_starve_another(store: JobStore, accept: Any, clock: Any) -> None:
    accept(owner="other")
    for _ in range(20):
        clock.advance(1)
        accept(owner="urgent", priority=-1)
    assert "other" in [claim(store).record.owner for _ in range(2)]


def test_places_are_the_order_of_claims(store: JobStore, accept: Any, clock: Any) -> None:
    pick = random.Random(5)
    made = []
    for number in range(60):
        made.append(accept(owner=pick.choice("abcd"), priority=pick.choice((0, 0, 0, -1, 1))).id)
        clock.advance(pick.choice((0, 1)))
        if number % 7 == 6:
            made.remove(claim(store).record.id)
    places = {store.queue_position(job_id): job_id for job_id in made}
    assert sorted(place for place in places if place is not None) == list(range(1, len(made) + 1))
    assert [record.id for record in claim_all(store)] == [places[place] for place in range(1, len(made) + 1)]


def test_a_job_that_comes_back_keeps_its_turn(store: JobStore, accept: Any, clock: Any) -> None:
    first = accept(owner="a")
    for _ in range(5):
        clock.advance(1)
        accept(owner="b")
    lease = claim(store)
    assert lease.record.id == first.id
    claim(store)
    store.drain(lease)
    assert claim(store).record.id == first.id


def test_an_old_queue_is_not_overtaken_when_the_past_is_forgotten(store: JobStore, accept: Any, clock: Any) -> None:
    for _ in range(30):
        accept(owner="old")
    ended = [claim(store) for _ in range(20)]
    for lease in ended:
        store.finish_canceled(lease)
        store.delete(lease.record.id)
    for _ in range(20):
        clock.advance(1)
        accept(owner="new")
    served = Counter(claim(store).record.owner for _ in range(10))
    assert served == {"old": 5, "new": 5}


def test_nothing_on_the_way_of_a_job_reads_the_whole_table(store: JobStore, accept: Any) -> None:
    """What a plan of SQLite calls a scan of the table grows with every job that was ever accepted."""
    if not store.is_sqlite:
        pytest.skip("the plans of PostgreSQL depend on how much is in the table")
    seen: list[str] = []

    def explain(connection: Any, cursor: Any, statement: str, parameters: Any, context: Any, many: bool) -> None:
        if " jobs" in statement and not many:
            plan = connection.connection.driver_connection.execute(f"EXPLAIN QUERY PLAN {statement}", parameters)
            seen.extend(f"{row[3]} in {statement}" for row in plan.fetchall())

    for engine in (store._engine, store._writing_engine):
        sa.event.listen(engine, "before_cursor_execute", explain)
    for priority in (0, -1):
        record = accept(priority=priority, key=(f"key{priority}", "b" * 64))
    store.queue_position(record.id)
    claim(store)
    assert len(seen) >= 15, "the plans were looked at"
    assert not [step for step in seen if step.startswith("SCAN") and "CONSTANT ROW" not in step]
