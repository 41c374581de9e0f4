"""Clients' keys: made, shown once, found by their id, rotated, revoked. The tables hold hashes and no key.

A key reads ``ank_<id>_<secret>``: the id may stand in logs and lists, the secret is 256 random bits. Because nobody can
guess those, one SHA-256 is hash enough; slow hashes are for words that people choose. No HTTP in here.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from services.errors import PermanentError
from services.jobs.database import Database
from services.jobs.tables import api_keys

USED_TO_S = 60  # `used_at` is told to the minute: a write a request would be a high price for the seconds
MAX_NAME = 128
_KEY = re.compile(r"ank_([0-9a-f]{16})_[A-Za-z0-9_-]{43}")
_OWNER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@:-]{0,127}")


class Scope(StrEnum):
    """What a key opens."""

    ANIMATIONS_READ = "animations:read"
    ANIMATIONS_WRITE = "animations:write"
    MODELS_READ = "models:read"
    WEBHOOKS_MANAGE = "webhooks:manage"
    METRICS_READ = "metrics:read"


# What a client needs. The metrics tell of all clients together, so they are the operator's.
CLIENT_SCOPES = (Scope.ANIMATIONS_READ, Scope.ANIMATIONS_WRITE, Scope.MODELS_READ, Scope.WEBHOOKS_MANAGE)


@dataclass(frozen=True)
class KeyRecord:
    """One key as lists show it; times as the database's clock told them."""

    id: str
    owner: str
    name: str
    scopes: tuple[Scope, ...]
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    used_at: datetime | None

    def state_at(self, moment: datetime) -> str:
        """Return ``live``, ``expired`` or ``revoked``."""
        if self.revoked_at is not None:
            return "revoked"
        return "expired" if self.expires_at is not None and self.expires_at <= moment else "live"


@dataclass(frozen=True)
class KeyProof:
    """What a sent key is compared with: the record, the hash, and the database's time of the look."""

    record: KeyRecord
    sha256: str
    seen_at: datetime


def read_key_id(text: str) -> str | None:
    """Return the id that stands in a key, or None for a text that can be no key."""
    found = _KEY.fullmatch(text)
    return None if found is None else found[1]


def hash_key(text: str) -> str:
    """Return what is stored of a key."""
    return hashlib.sha256(text.encode("ascii")).hexdigest()


class Keys(Database):
    """The table of keys."""

    def create_key(
        self, owner: str, name: str = "", scopes: Sequence[Scope] = CLIENT_SCOPES, lifetime_s: float | None = None
    ) -> tuple[str, KeyRecord]:
        """Make a key; returns its text, which nobody can read again, and its record.

        Args:
            owner: whose jobs it sees and makes; several keys of one owner see the same.
            name: for people, e.g. where the key is used.
            scopes: what it opens.
            lifetime_s: seconds until it expires; None: never.

        Raises: PermanentError("key-invalid") for an owner, a name, scopes or a lifetime that can't be.
        """
        _check(owner, name, scopes, lifetime_s)
        with self._write() as connection:
            now = self._now(connection)
            expires_at = None if lifetime_s is None else now + timedelta(seconds=lifetime_s)
            return _insert(connection, owner, name, tuple(dict.fromkeys(scopes)), now, expires_at)

    def rotate_key(self, key_id: str, overlap_s: float, lifetime_s: float | None = None) -> tuple[str, KeyRecord]:
        """Make a successor with the same owner, name and scopes; the old key lives on for ``overlap_s`` seconds.

        Raises: PermanentError("not-found"), PermanentError("key-invalid") for a key that is dead already.
        """
        with self._write() as connection:
            now = self._now(connection)
            old = _find(connection, key_id)
            if old is None:
                raise _no_such_key(key_id)
            if old.state_at(now) != "live":
                raise PermanentError(
                    "key-invalid",
                    f"The key {key_id} is {old.state_at(now)}, so it can't be rotated.",
                    "Make a new one: animato keys create",
                )
            _check(old.owner, old.name, old.scopes, lifetime_s)
            ends_at = now + timedelta(seconds=max(0.0, overlap_s))
            if old.expires_at is None or old.expires_at > ends_at:
                connection.execute(sa.update(api_keys).where(api_keys.c.id == key_id).values(expires_at=ends_at))
            expires_at = None if lifetime_s is None else now + timedelta(seconds=lifetime_s)
            return _insert(connection, old.owner, old.name, old.scopes, now, expires_at)

    def revoke_key(self, key_id: str) -> KeyRecord:
        """End a key for good; ending it again changes nothing. Raises: PermanentError("not-found")."""
        with self._write() as connection:
            connection.execute(
                sa.update(api_keys)
                .where(api_keys.c.id == key_id, api_keys.c.revoked_at.is_(None))
                .values(revoked_at=self._now(connection))
            )
            record = _find(connection, key_id)
        if record is None:
            raise _no_such_key(key_id)
        return record

    def list_keys(self, owner: str | None = None) -> tuple[list[KeyRecord], datetime]:
        """Return all keys, or those of one owner, the oldest first; and the time that their states are told of."""
        query = sa.select(api_keys).order_by(api_keys.c.created_at, api_keys.c.id)
        if owner is not None:
            query = query.where(api_keys.c.owner == owner)
        with self._read() as connection:
            return [_record_from_row(row) for row in connection.execute(query).mappings()], self._now(connection)

    def find_key(self, key_id: str) -> KeyProof | None:
        """Return what a key with this id must prove, dead keys included, or None when there is none."""
        with self._read() as connection:
            row = connection.execute(sa.select(api_keys).where(api_keys.c.id == key_id)).mappings().one_or_none()
            now = self._now(connection)
        return None if row is None else KeyProof(_record_from_row(row), row["sha256"], now)

    def has_live_keys(self) -> bool:
        """Return whether anybody could pass."""
        records, now = self.list_keys()
        return any(record.state_at(now) == "live" for record in records)

    def note_key_use(self, key_id: str) -> None:
        """Write down that a key was used, unless that was done within the last minute."""
        with self._write() as connection:
            now = self._now(connection)
            minute = now.replace(second=0, microsecond=0)
            connection.execute(
                sa.update(api_keys)
                .where(
                    api_keys.c.id == key_id,
                    sa.or_(api_keys.c.used_at.is_(None), api_keys.c.used_at < minute),
                )
                .values(used_at=minute)
            )


def _insert(
    connection: Connection,
    owner: str,
    name: str,
    scopes: tuple[Scope, ...],
    now: datetime,
    expires_at: datetime | None,
) -> tuple[str, KeyRecord]:
    key_id = secrets.token_hex(8)
    text = f"ank_{key_id}_{secrets.token_urlsafe(32)}"
    record = KeyRecord(key_id, owner, name, scopes, now, expires_at, None, None)
    connection.execute(
        sa.insert(api_keys).values(
            id=key_id,
            owner=owner,
            name=name,
            sha256=hash_key(text),
            scopes=[scope.value for scope in scopes],
            created_at=now,
            expires_at=expires_at,
        )
    )
    return text, record


def _find(connection: Connection, key_id: str) -> KeyRecord | None:
    row = connection.execute(sa.select(api_keys).where(api_keys.c.id == key_id)).mappings().one_or_none()
    return None if row is None else _record_from_row(row)


def _record_from_row(row: sa.RowMapping) -> KeyRecord:
    # A scope of a newer release opens nothing here.
    known = tuple(Scope(name) for name in row["scopes"] if name in set(Scope))
    return KeyRecord(
        id=row["id"],
        owner=row["owner"],
        name=row["name"],
        scopes=known,
        created_at=row["created_at"],
        expires_at=row["expires_at"],
        revoked_at=row["revoked_at"],
        used_at=row["used_at"],
    )


def _check(owner: str, name: str, scopes: Sequence[Scope], lifetime_s: float | None) -> None:
    fault = ""
    if not _OWNER.fullmatch(owner):
        fault = "An owner has 1 to 128 letters, digits or . _ @ : -, and begins with a letter or a digit."
    elif len(name) > MAX_NAME or not name.isprintable():
        fault = f"A key's name has at most {MAX_NAME} printable characters."
    elif not scopes:
        fault = "A key without a scope opens nothing."
    elif lifetime_s is not None and not 0 < lifetime_s <= 100 * 366 * 86_400:
        fault = "A key lives longer than nothing and at most 100 years."
    if fault:
        raise PermanentError("key-invalid", fault, "animato keys create --help tells what there is.")


def _no_such_key(key_id: str) -> PermanentError:
    return PermanentError("not-found", f"There is no key with the id {key_id!r}.", "animato keys list names them all.")
