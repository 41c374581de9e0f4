"""Jobs that are taken in together: one transaction, and each as if it had come alone."""

from __future__ import annotations

import random
from typing import Any

import pytest
import sqlalchemy as sa

from services.errors import AnimatoError
from services.jobs.contract import AnimationOptions, InputFacts, make_job_id
from services.jobs.intake import NewJob, Taken
from services.jobs.store import JobStore


def newcomer(owner: str = "me", **fields: Any) -> NewJob:
    asked: dict[str, Any] = {
        "options": AnimationOptions(prompt="smiling"),
        "input": InputFacts(),
        "seed": 1,
        "model_id": "human",
    }
    return NewJob(id=make_job_id(), owner=owner, **(asked | fields))


def take_in(store: JobStore, newcomers: list[NewJob]) -> list[Taken]:
    taken = store.accept_all(newcomers)
    assert all(isinstance(each, Taken) for each in taken), taken
    return [each for each in taken if isinstance(each, Taken)]


def codes_of(taken: list[Taken | Exception]) -> list[str]:
    return [each.code if isinstance(each, AnimatoError) else "taken" for each in taken]


def test_many_are_one_transaction(store: JobStore) -> None:
    commits: list[object] = []
    sa.event.listen(store._writing_engine, "commit", commits.append)
    newcomers = [newcomer(idempotency=(f"key {number}", "a" * 64)) for number in range(20)]
    taken = take_in(store, newcomers)
    assert len(commits) == 1
    assert [each.record.id for each in taken] == [each.id for each in newcomers]
    assert [each.created for each in taken] == [True] * 20
    assert [store.get(each.id) for each in newcomers] == [each.record for each in taken]


def test_nobody_comes(store: JobStore) -> None:
    assert store.accept_all([]) == []


def test_places_are_those_of_the_queue(store: JobStore) -> None:
    """Also where jobs of others, and of earlier days, stand between them."""
    pick = random.Random(3)
    for _ in range(6):
        newcomers = [newcomer(owner=pick.choice("abc")) for _ in range(pick.choice((1, 2, 9)))]
        for taken in take_in(store, newcomers):
            assert taken.place == store.queue_position(taken.record.id)
    assert store.counts()["queued"] > 20


def test_together_is_the_same_as_one_by_one(store: JobStore) -> None:
    """Turns and priorities: the order in which the jobs are claimed does not tell how they came."""
    pick = random.Random(4)
    asked = [(pick.choice("ab"), pick.choice((0, 0, 0, -1, 1))) for _ in range(30)]

    def claim_all(batches: list[int]) -> list[int]:
        rest = [newcomer(owner=owner, priority=priority) for owner, priority in asked]
        numbers = {each.id: number for number, each in enumerate(rest)}
        for size in batches:
            take_in(store, rest[:size])
            rest = rest[size:]
            store._clock.advance(1)  # type: ignore[union-attr]
        claimed = []
        while (lease := store.claim("w", 3600)) is not None:
            claimed.append(numbers[lease.record.id])
            store.finish_canceled(lease)
            store.delete(lease.record.id)
        return claimed

    alone = claim_all([1] * 30)
    assert sorted(alone) == list(range(30)) != alone
    assert claim_all([1, 4, 10, 15]) == alone


def test_twins_in_one_batch_make_one_job(store: JobStore) -> None:
    first, twin, other, foreign = (
        newcomer(idempotency=("key", "a" * 64)),
        newcomer(idempotency=("key", "a" * 64)),
        newcomer(idempotency=("key", "b" * 64)),
        newcomer(owner="you", idempotency=("key", "b" * 64)),
    )
    taken = store.accept_all([first, twin, other, foreign])
    assert codes_of(taken) == ["taken", "taken", "idempotency-mismatch", "taken"]
    assert isinstance(taken[1], Taken)
    assert (taken[1].record.id, taken[1].created) == (first.id, False)
    assert store.get(twin.id) is None
    assert store.get(other.id) is None
    assert store.counts()["queued"] == 2
    again = store.accept_all([newcomer(idempotency=("key", "a" * 64))])[0]
    assert isinstance(again, Taken)
    assert (again.record.id, again.created, again.place) == (first.id, False, 1)


def test_limits_hold_within_a_batch(store: JobStore) -> None:
    taken = store.accept_all([newcomer(queue_limit=3, idempotency=(f"{number}", "a" * 64)) for number in range(5)])
    assert codes_of(taken) == ["taken"] * 3 + ["queue-full"] * 2
    assert store.counts()["queued"] == 3
    assert store.find_accepted("me", "4", "a" * 64) is None, "a refused one leaves nothing"


def test_an_owners_share_holds_within_a_batch(store: JobStore) -> None:
    taken = store.accept_all([newcomer(owner=owner, owner_limit=2) for owner in "aababb"])
    assert codes_of(taken) == ["taken", "taken", "taken", "rate-limited", "taken", "rate-limited"]


def test_what_the_database_objects_to_hurts_nobody_else(store: JobStore) -> None:
    newcomers = [newcomer(), newcomer(seed=2**80), newcomer(idempotency=("key", "a" * 64))]
    taken = store.accept_all(newcomers)
    assert [type(each) is Taken for each in taken] == [True, False, True]
    assert isinstance(taken[1], Exception)
    assert store.counts()["queued"] == 2
    assert store.get(newcomers[1].id) is None


def test_an_outage_is_everybodys(store: JobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Told at once: jobs that were tried one by one would each wait for the database."""
    if not store.is_sqlite:
        pytest.skip("an outage of PostgreSQL is played by tests/chaos")
    said: list[str] = []
    sa.event.listen(store._writing_engine, "before_cursor_execute", lambda *of: said.append(of[2]))
    store.close()
    monkeypatch.setattr("services.jobs.database.BUSY_TIMEOUT_S", 0.0)
    blocker = sa.create_engine(store._url)
    with blocker.connect() as connection:
        connection.exec_driver_sql("BEGIN IMMEDIATE")
        assert codes_of(store.accept_all([newcomer() for _ in range(5)])) == ["not-ready"] * 5
        assert said == ["BEGIN IMMEDIATE"]
    blocker.dispose()
    take_in(store, [newcomer()])
