"""What operators are told is true on both databases, whoever asks and whatever was removed meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import sqlalchemy as sa
from alembic import command
from alembic.config import Config

from services.jobs import figures
from services.jobs.contract import AnimationOptions, InputFacts, JobError, make_job_id
from services.jobs.database import MIGRATIONS
from services.jobs.figures import QueueFacts
from services.jobs.store import JobStore

FAULT = JobError(code="worker-lost", message="The worker was lost.", hint="Try again.")


def make_store(url: str, clock: Callable[[], datetime] | None = None) -> JobStore:
    store = JobStore(url, clock=clock)
    store.migrate()
    return store


def accept(store: JobStore, model_id: str = "human", **options: object) -> str:
    job_id = make_job_id()
    asked = AnimationOptions.model_validate({"prompt": "smiling", **options})
    store.accept(job_id=job_id, owner="me", options=asked, input=InputFacts(), seed=1, model_id=model_id)
    return job_id


def end_one(store: JobStore, how: str) -> str:
    job_id = accept(store)
    lease = store.claim("worker", 600)
    assert lease is not None
    if how == "fail":
        store.fail(lease, FAULT)
    else:
        store.finish_canceled(lease)
    return job_id


def test_ends_are_counted_for_good(database_url: str) -> None:
    store = make_store(database_url)
    ended = [end_one(store, how) for how in ("fail", "fail", "cancel")]
    queued = accept(store, model_id="dog")
    store.request_cancel(queued)
    expected = [("canceled", "", "dog", 1), ("canceled", "", "human", 1), ("failed", "worker-lost", "human", 2)]
    assert store.totals() == expected
    for job_id in [*ended, queued]:
        store.delete(job_id)
    assert sum(store.counts().values()) == 0
    assert store.totals() == expected, "a counter that falls is read as a restart"
    store.close()


def test_ends_of_sweeps_are_counted(database_url: str) -> None:
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    store = JobStore(database_url, clock=lambda: moment, max_crashes=1)
    store.migrate()
    for options in ({"deadline_s": 5}, {"deadline_s": 5}):
        accept(store, **options)
    lost = accept(store, model_id="dog")
    assert store.claim("worker", 10, model_ids=["dog"]) is not None
    moment += timedelta(hours=1)
    report = store.sweep()
    assert report.failed == [lost]
    assert store.totals() == [("expired", "deadline-exceeded", "human", 2), ("failed", "worker-lost", "dog", 1)]
    store.close()


def test_many_rows_are_folded_and_their_sum_stays(database_url: str) -> None:
    store = make_store(database_url)
    for _ in range(figures._FOLD_FROM):
        store.request_cancel(accept(store))
    before = store.totals()
    assert before == [("canceled", "", "human", figures._FOLD_FROM)]
    store.sweep()
    assert store.totals() == before
    assert count_rows(store) == 1
    store.sweep()
    assert (store.totals(), count_rows(store)) == (before, 1)
    store.close()


def test_folding_and_ending_at_once_loses_nothing(database_url: str) -> None:
    store = make_store(database_url)
    jobs = [accept(store) for _ in range(figures._FOLD_FROM + 100)]
    for job_id in jobs[: figures._FOLD_FROM]:
        store.request_cancel(job_id)

    def cancel(mine: list[str]) -> None:
        for job_id in mine:
            store.request_cancel(job_id)

    threads = [threading.Thread(target=cancel, args=(jobs[figures._FOLD_FROM + n :: 4],)) for n in range(4)]
    threads += [threading.Thread(target=lambda: [store.sweep() for _ in range(10)]) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert store.totals() == [("canceled", "", "human", len(jobs))]
    store.close()


def test_the_queue_is_told_with_its_oldest(database_url: str) -> None:
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    store = make_store(database_url, lambda: moment)
    assert store.queue_facts() == QueueFacts(0, 0, 0.0)
    first = accept(store)
    moment += timedelta(seconds=90)
    accept(store)
    assert store.queue_facts() == QueueFacts(2, 0, 90.0)
    assert store.claim("worker", 600).record.id == first  # type: ignore[union-attr]
    moment += timedelta(seconds=5)
    assert store.queue_facts() == QueueFacts(1, 1, 5.0)
    store.close()


def test_what_ended_before_the_counters_is_counted_by_the_migration(database_url: str) -> None:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    engine = sa.create_engine(database_url)
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
        columns = (
            "id, owner, priority, state, cancel_requested, revision, options, input, seed, model_id, progress, "
            "frames_done, frames_total, attempt, crashes, retries, created_at, not_before, metrics, error"
        )
        for job_id, state, error in (
            ("a", "failed", '{"code": "internal"}'),
            ("b", "failed", '{"code": "internal"}'),
            ("c", "succeeded", None),
            ("d", "queued", None),
        ):
            connection.execute(
                sa.text(
                    f"INSERT INTO jobs ({columns}) VALUES (:id, 'me', 0, :state, :no, 1, '{{}}', '{{}}', 1, 'human', 0,"
                    " 0, 48, 1, 0, 0, :now, :now, '{}', :error)"
                ),
                {"id": job_id, "state": state, "error": error, "no": False, "now": datetime(2026, 1, 1)},
            )
    engine.dispose()
    store = make_store(database_url)
    assert store.totals() == [("failed", "internal", "human", 2), ("succeeded", "", "human", 1)]
    store.close()


def count_rows(store: JobStore) -> int:
    with store._read() as connection:
        return connection.execute(sa.text("SELECT count(*) FROM job_ends")).scalar_one()
