"""What the database forgets, and what it knows of stored objects that nobody needs any more.

Results past their time, jobs whose results are long gone, idempotency keys past their day, tombstones of deleted jobs,
and the question which objects no job names. Whoever asks removes the objects: no storage in here.
"""

from __future__ import annotations

import secrets
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert
from sqlalchemy.engine import Connection

from services.jobs.contract import TERMINAL_STATES
from services.jobs.database import Database
from services.jobs.intake import IDEMPOTENCY_TTL
from services.jobs.outbox import forget
from services.jobs.tables import chores, idempotency, identities, jobs, tombstones

BATCH = 500
_DATABASE = "database"
_TERMINAL = tuple(sorted(TERMINAL_STATES))


def bury(connection: Connection, job_id: str, now: datetime) -> None:
    """Remember that a job's objects are to be removed; called in the transaction that deletes the job."""
    connection.execute(sa.insert(tombstones).values(job_id=job_id, created_at=now))


class Retention(Database):
    """The forgetting half of the job store; see ``Database`` for the arguments."""

    # -- results past their time --------------------------------------------------------------------------------------

    def outdated(self) -> dict[str, list[str]]:
        """Return the keys of what is past its time, by job id, a batch at most; confirm with ``mark_swept``."""
        with self._read() as connection:
            rows = connection.execute(
                sa.select(jobs.c.id, jobs.c.input, jobs.c.output)
                .where(
                    jobs.c.swept_at.is_(None), jobs.c.expires_at <= self._now(connection), jobs.c.state.in_(_TERMINAL)
                )
                .order_by(jobs.c.expires_at)
                .limit(BATCH)
            ).all()
        return {row.id: stored_keys(row.input, row.output) for row in rows}

    def mark_swept(self, job_ids: Collection[str]) -> None:
        """Remember that the stored objects of these outdated jobs are gone, so that nobody lists them again."""
        if not job_ids:
            return
        with self._write() as connection:
            connection.execute(
                sa.update(jobs)
                .where(jobs.c.id.in_(list(job_ids)), jobs.c.state.in_(_TERMINAL), jobs.c.swept_at.is_(None))
                .values(swept_at=self._now(connection), revision=jobs.c.revision + 1)
            )

    # -- rows ---------------------------------------------------------------------------------------------------------

    def purge(self, job_ttl_s: float) -> int:
        """Remove the rows of jobs whose results were removed ``job_ttl_s`` ago, a batch at most; return how many."""
        with self._write() as connection:
            old = (
                connection.execute(
                    sa.select(jobs.c.id)
                    .where(
                        jobs.c.swept_at <= self._now(connection) - timedelta(seconds=job_ttl_s),
                        jobs.c.state.in_(_TERMINAL),
                    )
                    .limit(BATCH)
                    .with_for_update(skip_locked=True)  # another worker removes those
                )
                .scalars()
                .all()
            )
            if old:
                connection.execute(sa.delete(idempotency).where(idempotency.c.job_id.in_(old)))
                forget(connection, old)
                connection.execute(sa.delete(jobs).where(jobs.c.id.in_(old)))
            return len(old)

    def purge_keys(self) -> int:
        """Remove idempotency keys that no longer mean anything, a batch at most; return how many."""
        with self._write() as connection:
            old = (
                sa.select(idempotency.c.owner, idempotency.c.key)
                .where(idempotency.c.created_at <= self._now(connection) - IDEMPOTENCY_TTL)
                .limit(BATCH)
            )
            removed = connection.execute(
                sa.delete(idempotency).where(sa.tuple_(idempotency.c.owner, idempotency.c.key).in_(old))
            )
            return removed.rowcount

    # -- deleted jobs -------------------------------------------------------------------------------------------------

    def buried(self) -> list[str]:
        """Return the ids of deleted jobs whose objects may still be there, the oldest first, a batch at most."""
        with self._read() as connection:
            return list(
                connection.execute(
                    sa.select(tombstones.c.job_id).order_by(tombstones.c.created_at).limit(BATCH)
                ).scalars()
            )

    def unbury(self, job_ids: Collection[str]) -> None:
        """Forget deleted jobs whose objects are gone."""
        if not job_ids:
            return
        with self._write() as connection:
            connection.execute(sa.delete(tombstones).where(tombstones.c.job_id.in_(list(job_ids))))

    # -- objects ------------------------------------------------------------------------------------------------------

    def find_orphans(self, objects: Sequence[tuple[str, str, datetime]], min_age_s: float) -> list[str]:
        """Return the keys of those objects that nobody needs and nobody will.

        An orphan is old, and its job is gone, or has ended without naming it, or has had its result removed. What
        belongs to a job that has not ended stays: an attempt may be about to name it.

        Args:
            objects: (key, the job's id as its key tells it, when it was written).
            min_age_s: younger objects may belong to a job that is being accepted right now.
        """
        with self._read() as connection:
            until = self._now(connection) - timedelta(seconds=min_age_s)
            old = [(key, job_id) for key, job_id, written_at in objects if written_at <= until]
            if not old:
                return []
            rows = connection.execute(
                sa.select(jobs.c.id, jobs.c.state, jobs.c.swept_at, jobs.c.input, jobs.c.output).where(
                    jobs.c.id.in_({job_id for _, job_id in old})
                )
            ).all()
        kept = {
            row.id: None if row.state not in TERMINAL_STATES else set(stored_keys(row.input, row.output))
            for row in rows
            if row.swept_at is None
        }
        return [key for key, job_id in old if (named := kept.get(job_id, set())) is not None and key not in named]

    def identity(self) -> str:
        """Return the name that this database gave itself when it was first asked."""
        insert = sqlite_insert if self.is_sqlite else postgresql_insert
        query = sa.select(identities.c.value).where(identities.c.name == _DATABASE)
        with self._read() as connection:
            known: str | None = connection.execute(query).scalar_one_or_none()
        if known is not None:
            return known
        with self._write() as connection:
            statement = insert(identities).values(name=_DATABASE, value="db_" + secrets.token_hex(16))
            connection.execute(statement.on_conflict_do_nothing())
            made: str = connection.execute(query).scalar_one()
        return made

    # -- chores -------------------------------------------------------------------------------------------------------

    def take_chore(self, name: str, token: str, lease_s: float) -> bool:
        """Take a chore that is due and that nobody else has in hand, or keep it in hand; return whether it is ours.

        Args:
            token: what tells us from others; the same one keeps the chore.
            lease_s: seconds until another may take it from us.
        """
        insert = sqlite_insert if self.is_sqlite else postgresql_insert
        with self._write() as connection:
            now = self._now(connection)
            connection.execute(insert(chores).values(name=name, due_at=now).on_conflict_do_nothing())
            free = sa.and_(
                chores.c.due_at <= now, sa.or_(chores.c.lease_expires_at.is_(None), chores.c.lease_expires_at <= now)
            )
            taken = connection.execute(
                sa.update(chores)
                .where(chores.c.name == name, sa.or_(chores.c.token == token, free))
                .values(token=token, lease_expires_at=now + timedelta(seconds=lease_s))
            )
            return taken.rowcount == 1

    def finish_chore(self, name: str, token: str, pause_s: float) -> None:
        """Put a chore down; it is due again in ``pause_s`` seconds. Changes nothing when it is no longer ours."""
        with self._write() as connection:
            connection.execute(
                sa.update(chores)
                .where(chores.c.name == name, chores.c.token == token)
                .values(token=None, lease_expires_at=None, due_at=self._now(connection) + timedelta(seconds=pause_s))
            )


def stored_keys(job_input: Mapping[str, Any], output: Mapping[str, Any] | None) -> list[str]:
    """Return the object keys that a job's row names."""
    named = [job_input.get("key"), (output or {}).get("key"), (output or {}).get("poster_key")]
    return [key for key in named if key]
