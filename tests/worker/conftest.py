"""Workplaces for the tests of the worker."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.servers import QueueServer
from tests.worker.workplace import Workplace

# Of the shared queue server: a worker must not take the hints of another workplace, where it finds nothing to do.
DATABASES = itertools.cycle(range(2, 16))


@pytest.fixture
def make_workplace(tmp_path: Path, tiny_bundle: Path, queue_server: QueueServer) -> Iterator[Callable[..., Workplace]]:
    places: list[Workplace] = []

    def make(**settings: object) -> Workplace:
        folder = tmp_path / f"place-{len(places)}"
        folder.mkdir()
        own_database = f"{queue_server.url.removesuffix('/0')}/{next(DATABASES)}"
        redis_url = str(settings.pop("redis_url", own_database))
        places.append(Workplace(folder, tiny_bundle.parent, redis_url, **settings))
        return places[-1]

    yield make
    for place in places:
        place.close()
