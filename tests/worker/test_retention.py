"""Stored objects that go and stay, on a real folder and a real S3 store, with real rows beside them."""

from __future__ import annotations

import hashlib
import os
import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from services.errors import TemporaryError
from services.jobs.contract import AnimationOptions, InputFacts, JobState, OutputFacts, VideoFormat, make_job_id
from services.jobs.store import JobStore
from services.settings import Settings
from services.storage import DATABASE_KEY, ObjectStore, input_key, video_key
from tests.servers import S3Server, s3_settings
from tests.worker.workplace import wait_until
from worker.retention import PURGE_EVERY_S, OrphanCollector, Retention

DAY_S = 86_400.0
BYTES = b"the bytes"
SHA256 = hashlib.sha256(BYTES).hexdigest()


class Clock:
    """The host's time, and what was added to it."""

    def __init__(self) -> None:
        self.ahead_s = 0.0

    def __call__(self) -> datetime:
        return datetime.now(UTC) + timedelta(seconds=self.ahead_s)


class Service:
    """A job store, an object store, and the two things that clients and workers do with them."""

    def __init__(self, store: JobStore, storage: ObjectStore, settings: Settings, clock: Clock) -> None:
        self.store = store
        self.storage = storage
        self.settings = settings
        self.clock = clock

    def accept(self, **options: Any) -> str:
        """Store a picture and accept its job."""
        job_id = make_job_id()
        key = input_key(job_id, SHA256)
        self.storage.put(key, BYTES, "image/png")
        facts = InputFacts(key=key, sha256=SHA256, width=64, height=64)
        self.store.accept(
            job_id=job_id,
            owner="me",
            options=AnimationOptions(prompt="smiling", **options),
            input=facts,
            seed=1,
            model_id="human",
        )
        return job_id

    def finish(self, ttl_s: float = 3600) -> str:
        """Run the next job to its end."""
        lease = self.store.claim("w", 3600)
        assert lease is not None
        job_id = lease.record.id
        output = OutputFacts(
            key=self.put_result(job_id),
            format=VideoFormat.MP4,
            width=64,
            height=64,
            fps=24,
            frames=48,
            bytes=len(BYTES),
            sha256=SHA256,
            poster_key=None,
        )
        self.store.succeed(lease, output, None, {}, self.clock() + timedelta(seconds=ttl_s))
        return job_id

    def put_result(self, job_id: str, data: bytes = BYTES) -> str:
        key = video_key(job_id, hashlib.sha256(data).hexdigest(), "mp4")
        self.storage.put(key, data, "video/mp4")
        return key

    def objects(self, job_id: str) -> int:
        return sum(len(list(self.storage.list_objects(f"{folder}/{job_id}"))) for folder in ("inputs", "results"))

    def collect(self, **options: Any) -> None:
        """Let one pass over all objects be made."""
        collector = OrphanCollector(self.store, self.storage, DAY_S, **options)
        self.clock.ahead_s += 6 * 3600 + 1  # it is due again
        collector.step()
        while collector._pass is not None:
            collector.step()


@pytest.fixture(params=["folder", "s3"])
def service(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Service]:
    settings = Settings(data_dir=tmp_path)
    if request.param == "s3":
        server: S3Server = request.getfixturevalue("s3_server")
        settings = s3_settings(server, f"b-{uuid.uuid4().hex}").model_copy(update={"data_dir": tmp_path})
    clock = Clock()
    store = JobStore(settings.resolved_database_url, clock=clock)
    store.migrate()
    storage = ObjectStore.from_settings(settings)
    storage.ensure_bucket()
    yield Service(store, storage, settings, clock)
    store.close()


def test_a_result_is_kept_for_its_time_and_no_longer(service: Service) -> None:
    retention = Retention(service.settings, service.store, service.storage)
    job_id, waiting = service.accept(), service.accept()
    service.finish(ttl_s=3600)
    retention.step()
    assert service.objects(job_id) == 2
    service.clock.ahead_s = 3601
    retention.step()
    assert service.objects(job_id) == 0
    record = service.store.get(job_id)
    assert record is not None
    assert record.state is JobState.SUCCEEDED, "a terminal state never changes"
    assert service.objects(waiting) == 1
    service.clock.ahead_s += service.settings.job_ttl_s + 1
    Retention(service.settings, service.store, service.storage).step()
    assert service.store.get(job_id) is None
    assert service.store.get(waiting) is not None


def test_a_deleted_job_takes_all_its_bytes_along_however_late(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    retention = Retention(service.settings, service.store, service.storage)
    job_id, other = service.accept(), service.accept()
    service.finish()
    service.put_result(job_id, b"of an attempt that died")
    service.store.delete(job_id)

    def be_away(*_: object) -> None:
        raise TemporaryError("storage-failed", "The object store does not answer.")

    with monkeypatch.context() as outage:
        outage.setattr(service.storage, "delete", be_away)
        retention.step()
        assert service.objects(job_id) == 3
        assert service.store.buried() == [job_id]
    retention.step()
    assert service.objects(job_id) == 0
    assert service.store.buried() == []
    assert service.objects(other) == 1


def test_orphans_go_and_all_else_stays(service: Service) -> None:
    ended, queued = service.accept(), service.accept()
    service.finish(ttl_s=100 * DAY_S)
    service.put_result(ended, b"of an attempt that died")
    service.put_result(queued, b"of an attempt that may come back")
    nobody = make_job_id()
    service.put_result(nobody)
    service.storage.put(input_key(nobody, SHA256), BYTES, "image/png")
    service.storage.put("inputs/by-hand", BYTES, "text/plain")  # not as we make them: somebody else's
    service.collect(page_objects=2)
    assert service.objects(nobody) == 2, "too young"
    service.clock.ahead_s = DAY_S + 10
    service.collect(page_objects=2)
    assert service.objects(nobody) == 0
    assert service.objects(ended) == 2
    assert service.objects(queued) == 2
    assert service.storage.head("inputs/by-hand") is not None


def test_a_store_of_another_database_is_left_alone(service: Service, tmp_path: Path) -> None:
    """Whoever starts with a new database beside an old store must not lose what is in it."""
    job_id = service.accept()
    service.collect()
    stranger = JobStore(f"sqlite:///{tmp_path / 'new.sqlite3'}", clock=service.clock)
    stranger.migrate()
    service.clock.ahead_s = 2 * DAY_S
    with capture_logs() as logs:
        Service(stranger, service.storage, service.settings, service.clock).collect()
    assert [line["event"] for line in logs] == ["orphans_not_collected"]
    assert service.objects(job_id) == 1
    # Once somebody has removed the mark on purpose, the store is the new one's.
    service.storage.delete([DATABASE_KEY])
    Service(stranger, service.storage, service.settings, service.clock).collect()
    assert service.objects(job_id) == 0
    stranger.close()


def test_jobs_that_are_being_accepted_keep_their_pictures(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """Collectors go over everything without pause while pictures are stored and jobs accepted."""
    monkeypatch.setattr("worker.retention.ORPHANS_EVERY_S", 0.0)
    stop = threading.Event()
    passes: list[str] = []

    def collect_on_and_on() -> None:
        while not stop.is_set():
            collector = OrphanCollector(service.store, service.storage, DAY_S, page_objects=3)
            collector.step()
            while collector._pass is not None:
                collector.step()
            passes.append("whole")

    with ThreadPoolExecutor(2) as threads, capture_logs():
        collecting = [threads.submit(collect_on_and_on) for _ in range(2)]
        accepted = [service.accept() for _ in range(10)]
        seen = len(passes)
        wait_until(lambda: len(passes) > seen + 2, "they go on")
        stop.set()
        for each in collecting:
            each.result()
    assert [service.objects(job_id) for job_id in accepted] == [1] * 10


def test_one_collector_at_a_time_and_another_when_it_dies(service: Service) -> None:
    for _ in range(5):
        service.put_result(make_job_id())
    service.clock.ahead_s = 2 * DAY_S
    first, second = (OrphanCollector(service.store, service.storage, DAY_S, page_objects=1) for _ in range(2))
    first.step()
    assert first._pass is not None
    second.step()
    assert second._pass is None
    service.clock.ahead_s += 121  # the first one was not heard for two minutes
    second._asked_at_s -= PURGE_EVERY_S
    second.step()
    assert second._pass is not None
    first.step()
    assert first._pass is None, "it notices"
    while second._pass is not None:
        second.step()
    assert list(service.storage.list_objects("results")) == []
    assert not service.store.take_chore(OrphanCollector.NAME, "third", 60), "done until it is due again"


def test_writes_that_were_cut_short_are_removed_from_a_folder(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path)
    store = JobStore(settings.resolved_database_url)
    store.migrate()
    storage = ObjectStore.from_settings(settings)
    folder = tmp_path / "objects" / "inputs" / make_job_id()
    folder.mkdir(parents=True)
    old, new = folder / f"{SHA256}#1", folder / f"{SHA256}#2"
    for path in (old, new):
        path.write_bytes(b"half of a pict")
    long_ago_s = datetime.now(UTC).timestamp() - 2 * DAY_S
    os.utime(old, (long_ago_s, long_ago_s))
    OrphanCollector(store, storage, DAY_S).step()
    assert not old.exists()
    assert new.exists(), "its writer may live"
    store.close()


def test_the_thread_outlives_whatever_happens(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    retention = Retention(service.settings.model_copy(update={"sweep_s": 0.01}), service.store, service.storage)
    troubles: list[Exception] = [TemporaryError("not-ready", "away"), ZeroDivisionError()]
    ask = service.store.buried

    def ask_in_trouble() -> list[str]:
        if troubles:
            raise troubles.pop()
        return ask()

    monkeypatch.setattr(service.store, "buried", ask_in_trouble)
    job_id = service.accept()
    service.finish()
    service.store.delete(job_id)
    with capture_logs() as logs:
        retention.start()
        wait_until(lambda: service.objects(job_id) == 0, "it goes on")
        retention.close()
    assert {"retention_failed", "retention_failed_unexpectedly"} <= {line["event"] for line in logs}
