"""Workplaces for the tests of the worker."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.servers import QueueServer
from tests.worker.workplace import Workplace

DATABASES = itertools.cycle(range(1, 16))


@pytest.fixture
def make_workplace(tmp_path: Path, tiny_bundle: Path, queue_server: QueueServer) -> Iterator[Callable[..., Workplace]]:
    places: list[Workplace] = []

    def make(**settings: object) -> Workplace:
        folder = tmp_path / f"place-{len(places)}"
        folder.mkdir()
        places.append(
            Workplace(folder, tiny_bundle.parent, str(settings.pop("redis_url", queue_server.url)), **settings)
        )
        return places[-1]

    yield make
    for place in places:
        place.close()
