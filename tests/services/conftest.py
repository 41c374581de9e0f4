"""Fixtures that the tests of several rooms share."""

from __future__ import annotations

import pytest
import sqlalchemy as sa

from services.jobs.store import JobStore
from services.jobs.tables import metadata
from tests.services.outbound.internet import authority, internet, tls, trust  # noqa: F401 - fixtures


@pytest.fixture(scope="session", params=["sqlite", "postgresql"])
def migrated_url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The URL of a migrated database of each kind; see ``empty_url``."""
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
def empty_url(migrated_url: str) -> str:
    """The URL of a database with empty tables: a test runs once on SQLite and once on PostgreSQL."""
    engine = sa.create_engine(migrated_url)
    with engine.begin() as connection:
        for table in metadata.sorted_tables:
            connection.execute(sa.delete(table))
    engine.dispose()
    return migrated_url
