"""The workers that live: who beat lately, and what they told of themselves. Readiness is read from here."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert

from services.jobs.database import Database
from services.jobs.tables import workers


@dataclass(frozen=True)
class WorkerRecord:
    """One worker that has beaten lately, and what it told of itself (providers, bundles, pid, …)."""

    name: str
    beaten_at: datetime
    facts: dict[str, Any]


class Roster(Database):
    """The table of workers."""

    def beat_worker(self, worker: str, facts: dict[str, Any]) -> None:
        """Say that this worker lives, and what it is (JSON-serialisable facts: providers, bundle hashes, pid, …)."""
        insert = sqlite_insert if self.is_sqlite else postgresql_insert
        with self._note() as connection:
            statement = insert(workers).values(name=worker, beaten_at=self._now(connection), facts=facts)
            connection.execute(
                statement.on_conflict_do_update(
                    index_elements=[workers.c.name],
                    set_={"beaten_at": statement.excluded.beaten_at, "facts": statement.excluded.facts},
                )
            )

    def retire_worker(self, worker: str) -> None:
        """Forget a worker that shuts down in order."""
        with self._write() as connection:
            connection.execute(sa.delete(workers).where(workers.c.name == worker))

    def live_workers(self, max_age_s: float) -> list[WorkerRecord]:
        """Return the workers that have beaten within ``max_age_s`` seconds, by name."""
        with self._read() as connection:
            since = self._now(connection) - timedelta(seconds=max_age_s)
            rows = connection.execute(
                sa.select(workers).where(workers.c.beaten_at >= since).order_by(workers.c.name)
            ).all()
        return [WorkerRecord(row.name, row.beaten_at, row.facts) for row in rows]
