"""Forgetting: what goes, what stays, and that one worker at a time does what is done for all. On both databases."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from typing import Any

import pytest

from services.jobs.contract import Lease
from services.jobs.retention import BATCH
from services.jobs.store import JobStore

DAY_S = 86_400.0


@pytest.fixture
def lease(store: JobStore, accept: Any) -> Lease:
    accept(key=("first", "hash"), webhook={"url": "https://hooks.example.org/", "events": ["animation.succeeded"]})
    lease = store.claim("w", 30)
    assert lease is not None
    return lease


def end(store: JobStore, lease: Lease, output: Any, clock: Any) -> str:
    """Let the job succeed; its result is kept for a minute."""
    store.succeed(lease, output, None, {}, clock.now + timedelta(seconds=60))
    return lease.record.id


def test_a_record_goes_after_its_result_with_all_that_hangs_on_it(
    store: JobStore, lease: Lease, output: Any, clock: Any, accept: Any
) -> None:
    job_id = end(store, lease, output, clock)
    waiting, kept = accept(), accept()
    store.request_cancel(kept.id)
    clock.advance(100)
    assert store.purge(0) == 0, "its objects are not removed yet"
    store.mark_swept([job_id])
    clock.advance(DAY_S - 1)
    assert store.purge(DAY_S) == 0
    clock.advance(1)
    assert store.list_deliveries("me", job_id=job_id)[0], "the test would show nothing"
    assert store.purge(DAY_S) == 1
    assert store.get(job_id) is None
    assert store.list_deliveries("me", job_id=job_id)[0] == []
    assert store.find_accepted("me", "first", "hash") is None
    assert store.totals() == [("canceled", "", "human", 1), ("succeeded", "", "human", 1)], "it happened all the same"
    clock.advance(100 * DAY_S)
    assert store.purge(DAY_S) == 0
    assert store.get(waiting.id) is not None, "what has not ended stays for ever"
    assert store.get(kept.id) is not None


def test_records_go_in_batches(store: JobStore, accept: Any, clock: Any) -> None:
    ended = [store.request_cancel(accept().id).id for _ in range(BATCH // 50 + 3)]
    store.mark_swept(ended)
    clock.advance(10)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("services.jobs.retention.BATCH", BATCH // 50)
        assert [store.purge(0) for _ in range(3)] == [BATCH // 50, 3, 0]


def test_idempotency_keys_go_after_a_day(store: JobStore, accept: Any, clock: Any) -> None:
    accept(key=("old", "hash"))
    accept(key=("old", "hash"), owner="you")
    clock.advance(DAY_S - 10)
    accept(key=("new", "hash"))
    assert store.purge_keys() == 0
    clock.advance(10)
    assert store.purge_keys() == 2
    assert store.purge_keys() == 0
    assert store.find_accepted("me", "new", "hash") is not None


def test_graves_are_told_until_they_are_empty(store: JobStore, lease: Lease, output: Any, clock: Any) -> None:
    job_id = end(store, lease, output, clock)
    store.delete(job_id)
    assert store.buried() == [job_id] == store.buried()
    store.unbury([job_id])
    store.unbury([job_id])
    assert store.buried() == []


def test_orphans_are_what_nobody_needs_and_nobody_will(
    store: JobStore, lease: Lease, output: Any, clock: Any, accept: Any
) -> None:
    running = lease.record.id
    queued = accept().id
    gone = "anm_" + "0" * 32

    def find(*objects: tuple[str, str], age_s: float = DAY_S) -> list[str]:
        written_at: datetime = clock.now - timedelta(seconds=age_s)
        return store.find_orphans([(key, job_id, written_at) for key, job_id in objects], DAY_S)

    nameless = "results/x/of-a-dead-attempt.mp4"
    assert find(("inputs/x/y", gone), (nameless, gone)) == ["inputs/x/y", nameless]
    assert find(("inputs/x/y", gone), age_s=DAY_S - 1) == [], "a job may be about to name it"
    assert find(("inputs/x/y", queued), (nameless, queued)) == []
    assert find(("inputs/x/y", running), (nameless, running)) == [], "the attempt may be about to name it"
    end(store, lease, output, clock)
    own = ("inputs/x/y", "results/x/video.mp4", "results/x/poster.jpg")
    assert find((nameless, running), *((key, running) for key in own)) == [nameless]
    store.mark_swept([running])
    assert find(*((key, running) for key in own)) == list(own), "it was removed once; whoever wrote it again was late"
    assert store.find_orphans([], DAY_S) == []


def test_a_database_keeps_its_name(store: JobStore, migrated_url: str) -> None:
    other = JobStore(migrated_url)
    with ThreadPoolExecutor(8) as threads:
        names = set(threads.map(lambda each: each.identity(), [store, other] * 8))
    assert len(names) == 1
    assert names.pop().startswith("db_")
    other.close()


def test_a_chore_is_one_workers_at_a_time(store: JobStore, clock: Any) -> None:
    with ThreadPoolExecutor(8) as threads:
        taken = list(threads.map(lambda token: store.take_chore("orphans", token, 60), "abcdefgh"))
    assert taken.count(True) == 1
    mine = "abcdefgh"[taken.index(True)]
    assert store.take_chore("orphans", mine, 60), "kept in hand"
    assert store.take_chore("another", "x", 60)
    clock.advance(59)
    assert not store.take_chore("orphans", "x", 60)
    clock.advance(1)
    assert store.take_chore("orphans", "x", 60), "its holder was not heard for a minute"
    assert not store.take_chore("orphans", mine, 60)
    store.finish_chore("orphans", mine, 0)
    assert not store.take_chore("orphans", "y", 60), "who lost it can't put it down"
    store.finish_chore("orphans", "x", 3600)
    assert not store.take_chore("orphans", "y", 60)
    clock.advance(3600)
    assert store.take_chore("orphans", "y", 60)
