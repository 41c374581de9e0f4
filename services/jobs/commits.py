"""Group commit for SQLite: the threads of a process that write at the same time share one transaction and one sync.

A commit waits for the disk, some milliseconds each, and SQLite has one writer. So a thread that has written leaves the
transaction open while others wait for their turn in it; the last one in the row commits for all. Nobody returns before
the commit that carries his writes is on disk. PostgreSQL does the same inside and needs none of this.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.engine import Connection, Engine

MOST_TOGETHER = 64
_SAVEPOINT = "one_of_many"


class _Group:
    """The writes of several threads in one transaction, and what became of it."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.members = 0
        self.ended = threading.Event()
        self.error: BaseException | None = None


class SharedCommits:
    """Write transactions of one SQLite engine. Thread-safe.

    Args:
        engine: begins its transactions with the write lock (``BEGIN IMMEDIATE``); one connection is used at a time.
        most_together: so many writers share a commit at most; 1: each has its own.
    """

    def __init__(self, engine: Engine, most_together: int = MOST_TOGETHER) -> None:
        self._engine = engine
        self._most_together = most_together
        self._turn = threading.Lock()  # who holds it may use the group's connection
        self._counting = threading.Lock()
        self._waiting = 0
        self._group: _Group | None = None

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """Run the block in a transaction that may be shared; durable when the block is left.

        What the block raises undoes its own writes and nobody else's. When the commit fails, all that share it raise.
        """
        self._wait_for_turn()
        try:
            group = self._enter()
            try:
                yield group.connection
            except BaseException as error:
                self._undo(group, error)
                raise
            self._keep(group)
        finally:
            self._turn.release()
        group.ended.wait()
        if group.error is not None:
            raise group.error

    def _wait_for_turn(self) -> None:
        with self._counting:
            self._waiting += 1
        self._turn.acquire()
        with self._counting:
            self._waiting -= 1

    def _enter(self) -> _Group:
        """Begin a transaction, or mark where this member's writes begin in the one that is open."""
        group = self._group
        if group is None:
            group = self._group = _Group(self._begin())
            return group
        try:
            group.connection.exec_driver_sql(f"SAVEPOINT {_SAVEPOINT}")
        except BaseException as error:
            group.error = error
            self._end(group)
            raise
        return group

    def _begin(self) -> Connection:
        connection = self._engine.connect()
        try:
            connection.begin()
        except BaseException:
            connection.close()
            raise
        return connection

    def _keep(self, group: _Group) -> None:
        """Add one member's writes to the group, and commit for all when nobody waits to join."""
        if group.members:
            try:
                group.connection.exec_driver_sql(f"RELEASE {_SAVEPOINT}")
            except BaseException as error:
                group.error = error
                self._end(group)
                raise
        group.members += 1
        if not self._waiting or group.members >= self._most_together:
            self._end(group)

    def _undo(self, group: _Group, reason: BaseException) -> None:
        """Take one member's writes back, and commit for the others when nobody waits to join."""
        if group.members:
            try:
                if _is_open(group.connection):
                    group.connection.exec_driver_sql(f"ROLLBACK TO {_SAVEPOINT}")
                    group.connection.exec_driver_sql(f"RELEASE {_SAVEPOINT}")
                else:  # a full or failing disk makes SQLite roll all of it back: nobody's writes are left
                    group.error = reason
            except BaseException as error:  # noqa: BLE001 - kept for every member to raise
                group.error = error
        if not group.members or group.error is not None or not self._waiting:
            self._end(group)

    def _end(self, group: _Group) -> None:
        """Commit what the members wrote, unless something went wrong; let them all go on."""
        self._group = None
        try:
            with group.connection as connection:  # closing it rolls back what was not committed
                if group.members and group.error is None:
                    connection.commit()
        except BaseException as error:  # noqa: BLE001 - kept for every member to raise
            group.error = error
        finally:
            group.ended.set()


def _is_open(connection: Connection) -> bool:
    """Return whether the driver is still inside the transaction."""
    return bool(getattr(connection.connection.driver_connection, "in_transaction", False))
