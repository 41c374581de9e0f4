"""The migrated schema is the one that the tables declare, however many processes start at once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from services.errors import PermanentError
from services.jobs.database import MIGRATIONS
from services.jobs.store import JobStore
from services.jobs.tables import metadata

ROOT = Path(__file__).parents[3]


def test_migrated_schema_equals_the_declared_one(database_url: str) -> None:
    store = JobStore(database_url)
    store.migrate()
    store.migrate()  # nothing to do the second time
    store.ping()
    store.close()
    engine = sa.create_engine(database_url)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        assert compare_metadata(context, metadata) == []
        inspector = sa.inspect(connection)
        for table in metadata.sorted_tables:  # compare_metadata looks at no primary key
            primary_key = inspector.get_pk_constraint(table.name)["constrained_columns"]
            assert primary_key == [column.name for column in table.primary_key]
    engine.dispose()


@pytest.mark.timeout(2000)
def test_several_processes_migrate_one_database_at_once(database_url: str) -> None:
    script = "import sys; from services.jobs.store import JobStore; JobStore(sys.argv[1]).migrate()"
    children = [
        subprocess.Popen(
            [sys.executable, "-c", script, database_url], cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL
        )
        for _ in range(4)
    ]
    faults = [child.communicate(timeout=1800)[1].decode() for child in children]
    assert [child.returncode for child in children] == [0] * 4, faults
    store = JobStore(database_url)
    assert sum(store.counts().values()) == 0
    store.close()


def test_database_of_a_newer_release_is_refused(database_url: str) -> None:
    store = JobStore(database_url)
    store.migrate()
    engine = sa.create_engine(database_url)
    with engine.begin() as connection:
        connection.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))
    engine.dispose()
    with pytest.raises(PermanentError) as refusal:
        store.migrate()
    assert refusal.value.code == "database-newer"
    store.close()


def test_revisions_form_one_line() -> None:
    assert len(ScriptDirectory(str(MIGRATIONS)).get_heads()) == 1
