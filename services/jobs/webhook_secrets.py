"""The secrets that sign an owner's webhooks: two may live at once, so that receivers can change over."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from services.jobs.database import Database
from services.jobs.tables import webhook_secrets

LIVE_SECRETS = 2


@dataclass(frozen=True)
class WebhookSecret:
    """One secret. ``expires_at`` is None for the newest, which signs until it is replaced."""

    id: str
    secret: str = field(repr=False)  # reprs reach logs
    created_at: datetime
    expires_at: datetime | None


class WebhookSecrets(Database):
    """The table of secrets."""

    def add_webhook_secret(self, owner: str, secret: str, overlap_s: float) -> WebhookSecret:
        """Store a new secret; the one before it signs along for ``overlap_s`` seconds, older ones end now."""
        table = webhook_secrets
        with self._write() as connection:
            self._queue_up(connection, owner)
            now = self._now(connection)
            earlier = connection.execute(_live(owner, now)).all()
            newest = earlier[0] if earlier else None
            end = now + timedelta(seconds=overlap_s)
            if newest is not None and overlap_s > 0:
                connection.execute(
                    sa.update(table)
                    .where(table.c.id == newest.id)
                    .values(expires_at=end if newest.expires_at is None else min(end, newest.expires_at))
                )
            kept = [newest.id] if newest is not None and overlap_s > 0 else []
            connection.execute(sa.delete(table).where(table.c.owner == owner, table.c.id.not_in(kept)))
            return _insert(connection, owner, secret, now)

    def ensure_webhook_secret(self, owner: str, make_secret: Callable[[], str]) -> None:
        """Store a first secret for an owner who has none that signs."""
        if self.list_webhook_secrets(owner):
            return
        with self._write() as connection:
            self._queue_up(connection, owner)
            now = self._now(connection)
            if connection.execute(_live(owner, now)).first() is None:
                _insert(connection, owner, make_secret(), now)

    def _queue_up(self, connection: Connection, owner: str) -> None:
        """Let two who change an owner's secrets at once see each other's change; SQLite has one writer anyway."""
        if not self.is_sqlite:
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(sa.func.hashtext(f"webhooks of {owner}"))))

    def list_webhook_secrets(self, owner: str) -> list[WebhookSecret]:
        """Return the owner's secrets that sign now, newest first."""
        with self._read() as connection:
            rows = connection.execute(_live(owner, self._now(connection))).all()
        return [WebhookSecret(row.id, row.secret, row.created_at, row.expires_at) for row in rows]

    def delete_webhook_secret(self, owner: str, secret_id: str) -> bool:
        """End a secret at once; returns False when the owner has none of this id."""
        if "\0" in secret_id:  # PostgreSQL takes no NUL in a text
            return False
        table = webhook_secrets
        with self._write() as connection:
            removed = connection.execute(sa.delete(table).where(table.c.owner == owner, table.c.id == secret_id))
            return removed.rowcount == 1


def _insert(connection: Connection, owner: str, secret: str, now: datetime) -> WebhookSecret:
    made = WebhookSecret("whs_" + secrets.token_hex(12), secret, now, None)
    connection.execute(
        sa.insert(webhook_secrets).values(id=made.id, owner=owner, secret=secret, created_at=now, expires_at=None)
    )
    return made


def _live(owner: str, now: datetime) -> sa.Select[tuple[str, str, datetime, datetime | None]]:
    table = webhook_secrets
    return (
        sa.select(table.c.id, table.c.secret, table.c.created_at, table.c.expires_at)
        .where(table.c.owner == owner, sa.or_(table.c.expires_at.is_(None), table.c.expires_at > now))
        # The one without an end is the newest, whatever the clock did.
        .order_by(table.c.expires_at.is_not(None), table.c.created_at.desc(), table.c.id)
        .limit(LIVE_SECRETS)
    )
