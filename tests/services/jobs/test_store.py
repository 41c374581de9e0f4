"""The client's half of the job store, on SQLite and on PostgreSQL."""

from __future__ import annotations

import base64
import threading
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from services.errors import PermanentError, RequestError, TemporaryError
from services.jobs.contract import AnimationOptions, InputFacts, JobState, make_job_id
from services.jobs.store import JobStore


def test_accepted_job_reads_back_as_it_was_written(store: JobStore, accept: Any, clock: Any) -> None:
    made = accept(prompt="winks, then laughs", frames=30, metadata={"a": "ü"}, output={"format": "gif", "size": 64})
    read = store.get(made.id)
    assert read == made
    assert read is not None
    assert read.state is JobState.QUEUED
    assert read.options.prompt == "winks, then laughs"
    assert read.options.metadata == {"a": "ü"}
    assert (read.frames_total, read.seed, read.revision, read.attempt) == (30, 2**32 - 1, 1, 0)
    assert read.created_at == clock.now
    assert read.created_at.utcoffset() == timedelta(0)


def test_other_owners_job_does_not_exist(store: JobStore, accept: Any) -> None:
    made = accept(owner="me")
    assert store.get(made.id, "me") is not None
    assert store.get(made.id, "you") is None
    assert store.revisions([made.id, "anm_none"]) == {made.id: 1}
    assert store.revisions([]) == {}
    for ask in (store.request_cancel, store.delete):
        with pytest.raises(RequestError) as refusal:
            ask(made.id, "you")
        assert refusal.value.code == "not-found"
    assert store.get(made.id) == made


def test_same_key_and_body_return_the_first_job(store: JobStore, accept: Any) -> None:
    first = accept(key=("k", "hash"))
    assert accept(key=("k", "hash")).id == first.id
    assert store.find_accepted("me", "k", "hash") == first
    assert store.counts()["queued"] == 1


def test_same_key_with_another_body_is_refused(store: JobStore, accept: Any) -> None:
    accept(key=("k", "hash"))
    with pytest.raises(RequestError) as refusal:
        accept(key=("k", "other"))
    assert refusal.value.code == "idempotency-mismatch"
    with pytest.raises(RequestError):
        store.find_accepted("me", "k", "other")
    assert store.counts()["queued"] == 1


def test_keys_of_two_owners_are_two_keys(store: JobStore, accept: Any) -> None:
    assert accept(owner="me", key=("k", "hash")).id != accept(owner="you", key=("k", "other")).id
    assert store.find_accepted("them", "k", "hash") is None


def test_key_is_forgotten_after_a_day(store: JobStore, accept: Any, clock: Any) -> None:
    first = accept(key=("k", "hash"))
    clock.advance(24 * 3600 - 1)
    assert accept(key=("k", "hash")).id == first.id
    clock.advance(1)
    assert store.find_accepted("me", "k", "hash") is None
    assert accept(key=("k", "another")).id != first.id


def test_twenty_accepts_of_one_key_at_once_make_one_job(store: JobStore) -> None:
    gate = threading.Barrier(20)
    results: list[tuple[str, bool]] = []

    def accept() -> None:
        gate.wait()
        record, created = store.accept(
            job_id=make_job_id(),
            owner="me",
            options=AnimationOptions(prompt="smiling"),
            input=InputFacts(),
            seed=1,
            model_id="human",
            idempotency=("key", "hash"),
        )
        results.append((record.id, created))

    threads = [threading.Thread(target=accept) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 20
    assert len({job_id for job_id, _ in results}) == 1
    assert sum(created for _, created in results) == 1
    assert store.counts()["queued"] == 1


def test_full_queue_is_told_and_leaves_nothing_behind(store: JobStore, accept: Any) -> None:
    accept(queue_limit=1)
    with pytest.raises(TemporaryError) as refusal:
        accept(queue_limit=1, key=("k", "hash"))
    assert refusal.value.code == "queue-full"
    assert store.counts()["queued"] == 1
    assert store.find_accepted("me", "k", "hash") is None


def test_pages_show_every_job_once_newest_first_while_others_arrive(store: JobStore, accept: Any, clock: Any) -> None:
    made = []
    for number in range(25):
        made.append(accept().id)
        if number % 3 == 0:  # some share one moment
            clock.advance(1)
    seen: list[str] = []
    cursor = None
    while True:
        page, cursor = store.list_page("me", limit=7, cursor=cursor)
        assert len(page) <= 7
        seen += [record.id for record in page]
        clock.advance(1)
        accept()  # arrives while the client turns the page
        if cursor is None:
            break
    assert sorted(seen) == sorted(made)
    moments = [record.created_at for record in (store.get(job_id) for job_id in seen) if record]
    assert moments == sorted(moments, reverse=True)


def test_page_that_is_exactly_full_has_no_next(store: JobStore, accept: Any) -> None:
    for _ in range(3):
        accept()
    page, cursor = store.list_page("me", limit=3)
    assert (len(page), cursor) == (3, None)


def test_pages_filter_by_owner_state_and_time(store: JobStore, accept: Any, clock: Any) -> None:
    old = accept()
    store.request_cancel(old.id)
    clock.advance(10)
    new = accept()
    accept(owner="you")
    assert [record.id for record in store.list_page("me")[0]] == [new.id, old.id]
    assert [record.id for record in store.list_page("me", status=JobState.CANCELED)[0]] == [old.id]
    assert [record.id for record in store.list_page("me", created_after=old.created_at)[0]] == [new.id]
    assert len(store.list_page(None)[0]) == 3


def _cursor(moment: str, job_id: str = "anm_" + "0" * 32) -> str:
    return base64.urlsafe_b64encode(f"{moment} {job_id}".encode()).decode().rstrip("=")


FOREIGN_CURSORS = [
    *("", "x", "!!", "bm90IGEgY3Vyc29y", "é", "MjAyNi0xMS0yMg", "A" * 5000),
    *(_cursor("0001-01-01T00:00:00+23:59"), _cursor("yesterday")),
    _cursor("2026-11-22T00:00:00+00:00", "anm_\0"),
]


@pytest.mark.parametrize("cursor", FOREIGN_CURSORS)
def test_foreign_cursor_is_refused(store: JobStore, cursor: str) -> None:
    with pytest.raises(RequestError) as refusal:
        store.list_page("me", cursor=cursor)
    assert refusal.value.code == "validation-failed"


def test_texts_that_a_url_can_carry_find_nothing(store: JobStore) -> None:
    for job_id in ("anm_\0", "", "é" * 1000, "'; DROP TABLE jobs; --", "%00"):
        assert store.get(job_id, "me") is None
        with pytest.raises(RequestError):
            store.request_cancel(job_id, "me")
    for moment in ("0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59"):
        assert store.list_page("me", created_after=datetime.fromisoformat(moment)) == ([], None)


def test_totals_count_ended_jobs_by_state_code_and_model(store: JobStore, accept: Any, clock: Any) -> None:
    accept()
    store.request_cancel(accept(model_id="dog").id)
    for _ in range(2):
        accept(deadline_s=1)
    clock.advance(2)
    store.sweep()
    assert sorted(store.totals()) == [("canceled", "", "dog", 1), ("expired", "deadline-exceeded", "human", 2)]


def _accept_many(store: JobStore, options: AnimationOptions) -> None:
    for seed in range(100):
        store.accept(job_id=make_job_id(), owner="me", options=options, input=InputFacts(), seed=seed, model_id="human")


def test_full_disk_is_told_and_nothing_is_accepted(tmp_path: Path) -> None:
    store = JobStore(f"sqlite:///{tmp_path / 'jobs.sqlite3'}")
    store.migrate()

    @sa.event.listens_for(store._writing_engine, "begin")
    def limit(connection: Any) -> None:
        connection.exec_driver_sql("PRAGMA max_page_count = 1")  # SQLite's own way to meet a full disk

    options = AnimationOptions(prompt="smiling", metadata={str(number): "x" * 500 for number in range(16)})
    with pytest.raises(TemporaryError) as refusal:
        _accept_many(store, options)
    assert refusal.value.code == "storage-failed"
    store.close()


def test_queue_position_counts_those_that_run_sooner(store: JobStore, accept: Any, clock: Any) -> None:
    first = accept()
    clock.advance(1)
    second = accept()
    urgent = accept(priority=-1)
    assert [store.queue_position(job.id) for job in (urgent, first, second)] == [1, 2, 3]
    lease = store.claim("w", 30)
    assert lease is not None
    assert lease.record.id == urgent.id
    assert store.queue_position(urgent.id) is None
    assert store.queue_position(second.id) == 2
    assert store.queue_position("anm_none") is None


def test_queued_job_is_canceled_at_once(store: JobStore, accept: Any, clock: Any) -> None:
    made = accept()
    clock.advance(5)
    canceled = store.request_cancel(made.id, "me")
    assert canceled.state is JobState.CANCELED
    assert canceled.completed_at == clock.now
    assert canceled.revision == made.revision + 1
    assert store.claim("w", 30) is None


def test_running_job_is_marked_and_ended_by_its_worker(store: JobStore, accept: Any) -> None:
    made = accept()
    lease = store.claim("w", 30)
    assert lease is not None
    marked = store.request_cancel(made.id, "me")
    assert (marked.state, marked.cancel_requested) == (JobState.RUNNING, True)
    assert store.request_cancel(made.id, "me") == marked  # asking again changes nothing
    assert store.heartbeat(lease, 30) is True
    store.finish_canceled(lease)
    ended = store.get(made.id)
    assert ended is not None
    assert ended.state is JobState.CANCELED


def test_ended_job_cannot_be_canceled(store: JobStore, accept: Any) -> None:
    made = accept()
    store.request_cancel(made.id)
    before = store.get(made.id)
    with pytest.raises(RequestError) as refusal:
        store.request_cancel(made.id)
    assert refusal.value.code == "not-cancelable"
    assert store.get(made.id) == before


def test_delete_removes_an_ended_job_and_buries_its_objects(store: JobStore, accept: Any, output: Any) -> None:
    made = accept(key=("k", "hash"))
    for _ in range(2):
        with pytest.raises(RequestError) as refusal:
            store.delete(made.id, "me")
        assert refusal.value.code == "job-active"
        lease = store.claim("w", 30) or lease  # noqa: F821 - the second time it runs already
    store.succeed(lease, output, None, {}, expires_at=made.created_at + timedelta(days=1))
    assert store.buried() == []
    store.delete(made.id, "me")
    assert store.buried() == [made.id]
    assert store.get(made.id) is None
    assert store.find_accepted("me", "k", "hash") is None
    with pytest.raises(RequestError) as refusal:
        store.delete(made.id, "me")
    assert refusal.value.code == "not-found"


def test_workers_are_known_while_they_beat(store: JobStore, clock: Any) -> None:
    store.beat_worker("b", {"providers": ["cpu"], "pid": 1})
    clock.advance(10)
    store.beat_worker("a", {"pid": 2})
    assert [(worker.name, worker.facts["pid"]) for worker in store.live_workers(15)] == [("a", 2), ("b", 1)]
    clock.advance(6)
    assert [worker.name for worker in store.live_workers(15)] == ["a"]
    store.beat_worker("b", {"providers": ["cuda"], "pid": 3})
    assert [(worker.name, worker.facts["pid"]) for worker in store.live_workers(15)] == [("a", 2), ("b", 3)]
    store.retire_worker("a")
    assert [worker.name for worker in store.live_workers(15)] == ["b"]


def test_naive_times_are_refused(store: JobStore, accept: Any, clock: Any) -> None:
    with pytest.raises(Exception, match="aware"):
        accept(now=clock.now.replace(tzinfo=None))


@pytest.mark.parametrize("url", ["mysql://h/d", "nonsense", "sqlite://", "sqlite:///:memory:"])
def test_unfit_database_is_refused_with_a_hint(url: str) -> None:
    with pytest.raises(PermanentError) as refusal:
        JobStore(url)
    assert refusal.value.code == "settings-invalid"
    assert "ANIMATO_DATABASE_URL" in refusal.value.hint


def test_absent_server_is_a_temporary_error_without_its_password() -> None:
    store = JobStore("postgresql+psycopg://animato:canary@127.0.0.1:1/none")
    with pytest.raises(TemporaryError) as refusal:
        store.get("anm_1")
    assert refusal.value.code == "not-ready"
    assert "canary" not in refusal.value.message + refusal.value.hint
