"""The connection to the one database: engines, transactions, the clock of truth, migrations.

SQLite and PostgreSQL behave alike to everything above this room. No job transitions in here.
"""

from __future__ import annotations

import fcntl
import random
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy import event
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.exc import DBAPIError, InterfaceError, InternalError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from services.errors import PermanentError, TemporaryError
from services.jobs.commits import MOST_TOGETHER, SharedCommits

MIGRATIONS = Path(__file__).parent / "migrations"
BUSY_TIMEOUT_S = 10.0
_ADVISORY_LOCK = 0x616E_696D  # "anim": any number that nobody else uses in this database
_migration_lock = threading.Lock()  # Alembic keeps its context in module globals

Clock = Callable[[], datetime]


class Database:
    """One engine with read and write transactions.

    Args:
        url: ``sqlite:///path`` or ``postgresql+psycopg://…``.
        commit_batch: so many writers of this process share one commit at most (SQLite only).
        clock: returns the aware current time; only tests pass one. Without it the clock of truth is the database
            server's for PostgreSQL (hosts disagree, leases must not) and this host's for SQLite.
    """

    def __init__(self, url: str, *, commit_batch: int = MOST_TOGETHER, clock: Clock | None = None) -> None:
        try:
            self._url = sa.make_url(url)
        except sa.exc.ArgumentError:
            raise _refuse_url() from None
        self._clock = clock
        self.is_sqlite = self._url.get_backend_name() == "sqlite"
        if self.is_sqlite:
            self._engine = _sqlite_engine(self._url, writes=False)
            self._writing_engine = _sqlite_engine(self._url, writes=True)
            self._noting_engine = _sqlite_engine(self._url, writes=True, synced=False)
        elif self._url.get_backend_name() == "postgresql":
            self._engine = self._writing_engine = self._noting_engine = _postgresql_engine(self._url)
        else:
            raise _refuse_url()
        # SQLite has one writer: the threads of this process queue for it here, processes in _begin_writing.
        self._commits = SharedCommits(self._writing_engine, commit_batch) if self.is_sqlite else None
        self._notes = SharedCommits(self._noting_engine, commit_batch) if self.is_sqlite else None

    @contextmanager
    def _read(self) -> Iterator[Connection]:
        """Run one read transaction. Raises: TemporaryError("not-ready") when the database does not answer."""
        with _translated(), self._engine.begin() as connection:
            yield connection

    @contextmanager
    def _write(self) -> Iterator[Connection]:
        """Run one write transaction, durable when the block is left. Raises: TemporaryError("not-ready")."""
        transaction = self._writing_engine.begin() if self._commits is None else self._commits.write()
        with _translated(), transaction as connection:
            yield connection

    @contextmanager
    def _note(self) -> Iterator[Connection]:
        """Run one write transaction that a power cut may undo; everybody sees it at once, nobody waits for the disk.

        For what lives no longer than the processes that it is about: claims, leases, progress, heartbeats. It is on
        disk with the next commit of ``_write`` at the latest. Raises: TemporaryError("not-ready").
        """
        transaction = self._noting_engine.begin() if self._notes is None else self._notes.write()
        with _translated(), transaction as connection:
            if not self.is_sqlite:
                connection.exec_driver_sql("SET LOCAL synchronous_commit = off")
            yield connection

    def _now(self, connection: Connection) -> datetime:
        """Return the time that every comparison of this transaction uses."""
        if self._clock is not None:
            return self._clock()
        if self.is_sqlite:
            return datetime.now(UTC)
        # Not now(): that is the start of the transaction, which may have waited for a lock since.
        moment: datetime = connection.execute(sa.select(sa.func.clock_timestamp())).scalar_one()
        return moment.astimezone(UTC)

    def ping(self) -> None:
        """Ask the database for an answer. Raises: TemporaryError("not-ready") when there is none."""
        with self._read() as connection:
            connection.execute(sa.text("SELECT 1 FROM jobs LIMIT 1"))

    def close(self) -> None:
        """Close every pooled connection."""
        self._engine.dispose()
        self._writing_engine.dispose()
        self._noting_engine.dispose()

    def migrate(self) -> None:
        """Bring the schema to the newest revision; safe when several processes start at once.

        Raises: PermanentError("database-newer") when a newer release has migrated this database already.
        """
        config = Config()
        config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
        config.set_main_option("path_separator", "os")
        with _translated(), _migration_lock, self._migration_guard(), self._writing_engine.begin() as connection:
            if not self.is_sqlite:
                # The time limits of ordinary statements would end a long migration, or who waits for one.
                for limit in ("lock_timeout", "statement_timeout", "idle_in_transaction_session_timeout"):
                    connection.exec_driver_sql(f"SET LOCAL {limit} = 0")
                connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_ADVISORY_LOCK)))
            config.attributes["connection"] = connection
            try:
                command.upgrade(config, "head")
            except CommandError as error:
                raise PermanentError(
                    "database-newer",
                    f"The job database can't be brought to this release's schema: {error}.",
                    "Run the release that made it, or start with another ANIMATO_DATABASE_URL.",
                ) from error

    @contextmanager
    def _migration_guard(self) -> Iterator[None]:
        """Hold a lock file beside an SQLite database; PostgreSQL has an advisory lock inside the transaction."""
        if not self.is_sqlite:
            yield
            return
        path = Path(str(self._url.database))
        with path.with_name(path.name + ".migrate-lock").open("a") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield


@contextmanager
def _translated() -> Iterator[None]:
    """Turn the driver's outages into a TemporaryError; programming errors pass."""
    try:
        yield
    except (OperationalError, InterfaceError, InternalError, PoolTimeout) as error:
        raise (_disk_full() if _is_disk_full(error) else _unavailable()) from error
    except DBAPIError as error:
        if error.connection_invalidated:
            raise _unavailable() from error
        raise


def _unavailable() -> TemporaryError:
    # The driver's message may carry the URL with its password, so it stays in the chained exception.
    return TemporaryError(
        "not-ready",
        "The job database does not answer.",
        "Try again in a few seconds; if it stays so, look at the database of ANIMATO_DATABASE_URL.",
        delay_s=2.0,
    )


def _is_disk_full(error: Exception) -> bool:
    cause = getattr(error, "orig", None)
    return getattr(cause, "sqlite_errorcode", 0) == sqlite3.SQLITE_FULL or getattr(cause, "sqlstate", "") == "53100"


def _disk_full() -> TemporaryError:
    return TemporaryError(
        "storage-failed",
        "The job database has no room left on its disk.",
        "Free some space on the disk of ANIMATO_DATABASE_URL.",
        delay_s=10.0,
    )


def _refuse_url() -> PermanentError:
    return PermanentError(
        "settings-invalid",
        "The database URL names no database that the job store knows.",
        "Set ANIMATO_DATABASE_URL to sqlite:///path or postgresql+psycopg://user:password@host/name.",
    )


def _sqlite_engine(url: sa.URL, *, writes: bool, synced: bool = True) -> Engine:
    if not url.database or url.database == ":memory:":
        raise PermanentError(
            "settings-invalid",
            "An SQLite database in memory can't be shared by the API and the worker.",
            "Set ANIMATO_DATABASE_URL to sqlite:///path.",
        )
    Path(url.database).parent.mkdir(parents=True, exist_ok=True)
    engine = sa.create_engine(
        url,
        pool_size=1 if writes else 20,
        max_overflow=0 if writes else 20,
        pool_timeout=BUSY_TIMEOUT_S,
        hide_parameters=True,  # options carry prompts, and errors reach logs
        # autocommit in the driver: it must not open transactions behind our back, "begin" below does
        connect_args={"timeout": BUSY_TIMEOUT_S, "isolation_level": None},
    )

    @event.listens_for(engine, "connect")
    def _configure(connection: Any, _record: Any) -> None:
        cursor = connection.cursor()
        cursor.execute("PRAGMA journal_mode=WAL")
        # A 202 survives a power cut. NORMAL loses the newest commits in one, and damages nothing.
        cursor.execute(f"PRAGMA synchronous={'FULL' if synced else 'NORMAL'}")
        cursor.execute("PRAGMA foreign_keys=ON")
        if writes:
            cursor.execute("PRAGMA busy_timeout=10")  # _begin_writing waits, see there
        cursor.close()

    event.listen(engine, "begin", _begin_writing if writes else _begin_reading)
    return engine


def _begin_reading(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN")


def _begin_writing(connection: Connection) -> None:
    """Take the write lock at once: a deferred transaction fails at its first UPDATE when another writer came between.

    SQLite's own busy handler soon sleeps 100 ms between two tries, so that a process among busy ones can starve for
    seconds; short naps with jitter share the lock fairly.
    """
    deadline_s = time.monotonic() + BUSY_TIMEOUT_S
    while True:
        try:
            connection.exec_driver_sql("BEGIN IMMEDIATE")
        except OperationalError as error:
            code = getattr(error.orig, "sqlite_errorcode", 0) & 0xFF
            if code != sqlite3.SQLITE_BUSY or time.monotonic() > deadline_s:
                raise
            time.sleep(random.uniform(0.001, 0.004))
        else:
            return


def _postgresql_engine(url: sa.URL) -> Engine:
    return sa.create_engine(
        url.set(drivername="postgresql+psycopg"),
        pool_size=10,
        max_overflow=20,
        pool_timeout=BUSY_TIMEOUT_S,
        hide_parameters=True,  # options carry prompts, and errors reach logs
        pool_pre_ping=True,
        pool_recycle=1800,
        connect_args={
            "connect_timeout": 5,
            "options": "-c statement_timeout=15000 -c lock_timeout=10000 -c idle_in_transaction_session_timeout=30000",
            "keepalives_idle": 15,
            "keepalives_interval": 5,
            "keepalives_count": 3,
            "tcp_user_timeout": 15_000,
        },
    )
