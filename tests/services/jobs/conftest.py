"""A migrated job store on each database, with a clock that tests set, and a short way to fill it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from services.jobs.contract import AnimationOptions, InputFacts, JobRecord, OutputFacts, VideoFormat, make_job_id
from services.jobs.store import JobStore
from services.jobs.tables import metadata


class Clock:
    """A clock that moves when it is told to."""

    def __init__(self) -> None:
        self.now = datetime(2026, 11, 22, 12, 0, 0, 123456, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(scope="session", params=["sqlite", "postgresql"])
def migrated_url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The URL of a migrated database of each kind, shared by the tests, each of which begins with empty tables."""
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path_factory.mktemp('jobs') / 'jobs.sqlite3'}"
    else:
        server = request.getfixturevalue("postgres_server")
        server.execute("CREATE DATABASE jobs")
        url = server.url("jobs")
    store = JobStore(url)
    store.migrate()
    store.close()
    return url


@pytest.fixture
def store(migrated_url: str, clock: Clock) -> Iterator[JobStore]:
    """An empty store; runs once on SQLite and once on PostgreSQL."""
    engine = sa.create_engine(migrated_url)
    with engine.begin() as connection:
        for table in metadata.sorted_tables:
            connection.execute(sa.delete(table))
    engine.dispose()
    store = JobStore(migrated_url, max_crashes=3, max_retries=2, result_ttl_s=1000, clock=clock)
    yield store
    store.close()


Accept = Callable[..., JobRecord]


@pytest.fixture
def accept(store: JobStore) -> Accept:
    """Accept a job with these options and facts, and return its record."""

    def accept(*, owner: str = "me", key: tuple[str, str] | None = None, **options: Any) -> JobRecord:
        facts = {name: options.pop(name) for name in ("priority", "now", "queue_limit") if name in options}
        model_id = options.pop("model_id", "human")
        record, _created = store.accept(
            job_id=make_job_id(),
            owner=owner,
            options=AnimationOptions(**({"prompt": "smiling"} | options)),
            input=InputFacts(key="inputs/x/y", sha256="a" * 64, width=64, height=48),
            seed=2**32 - 1,
            model_id=model_id,
            idempotency=key,
            **facts,
        )
        return record

    return accept


@pytest.fixture
def output() -> OutputFacts:
    return OutputFacts(
        key="results/x/video.mp4",
        format=VideoFormat.MP4,
        width=128,
        height=128,
        fps=24,
        frames=48,
        bytes=1000,
        sha256="b" * 64,
        poster_key="results/x/poster.jpg",
    )
