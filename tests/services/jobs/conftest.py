"""An empty job store on each database, with a clock that tests set, and a short way to fill it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from services.jobs.contract import AnimationOptions, InputFacts, JobRecord, OutputFacts, VideoFormat, make_job_id
from services.jobs.store import JobStore


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


@pytest.fixture
def store(empty_url: str, clock: Clock) -> Iterator[JobStore]:
    """An empty store; runs once on SQLite and once on PostgreSQL."""
    store = JobStore(empty_url, max_crashes=3, max_retries=2, result_ttl_s=1000, clock=clock)
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
