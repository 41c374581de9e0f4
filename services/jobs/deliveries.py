"""The deliveries of webhooks: what couriers do to them (claim, settle), and what their owner may (look, ask again).

A courier holds a delivery under a token and a lease; one that dies loses it to the next. No HTTP in here: what a try
came to is told by the caller. ``outbox`` writes the rows.
"""

from __future__ import annotations

import secrets
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from services.errors import RequestError
from services.jobs.cursors import make_cursor, read_cursor
from services.jobs.database import Database
from services.jobs.outbox import DELIVERED, FAILED, PENDING
from services.jobs.tables import webhook_deliveries, webhook_tries

# Who is called for whom: one owner's dead receiver is no reason to keep another owner's calls to it waiting.
Address = tuple[str, str]  # owner, receiver

_KEPT_TRIES = 50  # asking again and again must not fill the log
_CANDIDATES = 8  # rows looked at for each that is wanted


@dataclass(frozen=True)
class DeliveryTry:
    """One line of the delivery log: the receiver's status, or the reason why there is none."""

    number: int
    at: datetime
    status: int | None
    reason: str | None
    duration_s: float


@dataclass(frozen=True)
class Delivery:
    """One event on its way to one receiver. ``tries`` counts since ``asked_at``; the log holds all the latest."""

    id: str
    job_id: str
    owner: str
    event: str
    url: str
    receiver: str
    state: str
    tries: int
    created_at: datetime
    asked_at: datetime
    next_at: datetime
    delivered_at: datetime | None
    log: list[DeliveryTry] = field(default_factory=list)

    @property
    def address(self) -> Address:
        """Who is called for whom."""
        return self.owner, self.receiver


@dataclass(frozen=True)
class Parcel:
    """A delivery in a courier's hand: its ``settle_delivery`` carries the token."""

    delivery: Delivery
    token: str


@dataclass(frozen=True)
class OutboxFacts:
    """How the outbox stands; ``overdue_s`` is how long the delivery that waits longest has been due."""

    pending: int
    delivered: int
    failed: int
    overdue_s: float


_COLUMNS = tuple(column for column in webhook_deliveries.c if column.name not in ("token", "lease_expires_at"))


class Deliveries(Database):
    """The table of deliveries and its log."""

    # -- couriers -----------------------------------------------------------------------------------------------------

    def claim_deliveries(
        self,
        limit: int,
        lease_s: float,
        *,
        avoid: Collection[Address] = (),
        avoid_owners: Collection[str] = (),
        admits: Callable[[Address], bool] = lambda _: True,
    ) -> list[Parcel]:
        """Take the deliveries that are due, the longest waiting first.

        Args:
            limit: at most so many.
            lease_s: seconds until another courier may take what was not settled.
            avoid, avoid_owners: left where they are, however many of theirs are due.
            admits: asked for each candidate in order, and may change its mind as it says yes.
        """
        with self._read() as connection:  # most looks find nothing: they shall take no write lock
            query = _due(self._now(connection), avoid, avoid_owners).limit(1)
            if limit < 1 or connection.execute(query).first() is None:
                return []
        with self._write() as connection:
            now = self._now(connection)
            query = _due(now, avoid, avoid_owners).limit(limit * _CANDIDATES).with_for_update(skip_locked=True)
            chosen: list[Delivery] = []
            for row in connection.execute(query).mappings():
                delivery = Delivery(**row)
                if len(chosen) < limit and admits(delivery.address):
                    chosen.append(delivery)
            if not chosen:
                return []
            token = secrets.token_hex(16)
            connection.execute(
                sa.update(webhook_deliveries)
                .where(webhook_deliveries.c.id.in_([delivery.id for delivery in chosen]))
                .values(token=token, lease_expires_at=now + timedelta(seconds=lease_s))
            )
            return [Parcel(delivery, token) for delivery in chosen]

    def settle_delivery(
        self,
        parcel: Parcel,
        *,
        status: int | None,
        reason: str | None,
        duration_s: float,
        delay_s: float | None,
    ) -> bool:
        """Write down what a try came to; returns False when the delivery has left this courier's hand meanwhile.

        Args:
            status: of the receiver's answer, 2xx: delivered; None: there was none.
            reason: why it is not delivered, in words.
            delay_s: until the next try; None: there is none.
        """
        delivered = status is not None and 200 <= status < 300
        state = DELIVERED if delivered else FAILED if delay_s is None else PENDING
        table = webhook_deliveries
        with self._write() as connection:
            now = self._now(connection)
            changed = connection.execute(
                sa.update(table)
                .where(table.c.id == parcel.delivery.id, table.c.token == parcel.token, table.c.state == PENDING)
                .values(
                    state=state,
                    tries=table.c.tries + 1,
                    next_at=now + timedelta(seconds=delay_s or 0.0),
                    delivered_at=now if delivered else None,
                    token=None,
                    lease_expires_at=None,
                )
            )
            if changed.rowcount != 1:
                return False
            _log_try(
                connection,
                parcel.delivery.id,
                {
                    "at": now - timedelta(seconds=duration_s),
                    "status": status,
                    "reason": None if reason is None else reason[:200],
                    "duration_s": duration_s,
                },
            )
            return True

    def outbox_facts(self) -> OutboxFacts:
        """Return how many deliveries stand in each state, and how late the latest one is."""
        table = webhook_deliveries
        with self._read() as connection:
            now = self._now(connection)
            rows = connection.execute(sa.select(table.c.state, sa.func.count()).group_by(table.c.state)).all()
            oldest = connection.execute(
                sa.select(sa.func.min(table.c.next_at)).where(table.c.state == PENDING)
            ).scalar_one()
        counts: dict[str, int] = {row[0]: row[1] for row in rows}
        overdue_s = 0.0 if oldest is None else max(0.0, (now - oldest).total_seconds())
        return OutboxFacts(counts.get(PENDING, 0), counts.get(DELIVERED, 0), counts.get(FAILED, 0), overdue_s)

    # -- owners -------------------------------------------------------------------------------------------------------

    def list_deliveries(
        self,
        owner: str | None,
        limit: int = 20,
        cursor: str | None = None,
        *,
        job_id: str | None = None,
        state: str | None = None,
    ) -> tuple[list[Delivery], str | None]:
        """Return one page with its logs, newest first, and the cursor of the next page or None.

        Raises: RequestError("validation-failed") for a cursor that this method did not make.
        """
        table = webhook_deliveries
        query = sa.select(*_COLUMNS).order_by(table.c.created_at.desc(), table.c.id.desc()).limit(limit + 1)
        if owner is not None:
            query = query.where(table.c.owner == owner)
        if job_id is not None:
            query = query.where(_is(table.c.job_id, job_id))
        if state is not None:
            query = query.where(table.c.state == state)
        if cursor is not None:
            created_at, last_id = read_cursor(cursor)
            query = query.where(
                sa.or_(table.c.created_at < created_at, sa.and_(table.c.created_at == created_at, table.c.id < last_id))
            )
        with self._read() as connection:
            rows = connection.execute(query).mappings().all()
            page = rows[:limit]
            logs = _read_logs(connection, [row["id"] for row in page])
        deliveries = [Delivery(**row, log=logs[row["id"]]) for row in page]
        if len(rows) <= limit:
            return deliveries, None
        return deliveries, make_cursor(deliveries[-1].created_at, deliveries[-1].id)

    def get_delivery(self, delivery_id: str, owner: str | None = None) -> Delivery | None:
        """Return the delivery with its log, or None when there is none or it is another owner's."""
        with self._read() as connection:
            return _find(connection, delivery_id, owner)

    def redeliver(self, delivery_id: str, owner: str | None = None) -> Delivery:
        """Make the delivery due at once, with all its tries before it; its id stays, so receivers can tell.

        One that a courier has in hand stays there: its answer counts. Raises: RequestError("not-found").
        """
        table = webhook_deliveries
        with self._write() as connection:
            now = self._now(connection)
            connection.execute(
                sa.update(table)
                .where(
                    _is(table.c.id, delivery_id),
                    *([] if owner is None else [table.c.owner == owner]),
                    sa.or_(table.c.lease_expires_at.is_(None), table.c.lease_expires_at <= now),
                )
                .values(
                    state=PENDING,
                    tries=0,
                    asked_at=now,
                    next_at=now,
                    delivered_at=None,
                    token=None,
                    lease_expires_at=None,
                )
            )
            delivery = _find(connection, delivery_id, owner)
        if delivery is None:
            raise RequestError(
                "not-found",
                "There is no delivery with this id.",
                "Check the id; deliveries are removed with their animation.",
            )
        return delivery


def _is(column: sa.Column[Any], text: str) -> sa.ColumnElement[bool]:
    # Ids come from URLs, and PostgreSQL takes no NUL in a text.
    return sa.false() if "\0" in text else column == text


def _due(now: datetime, avoid: Collection[Address], avoid_owners: Collection[str]) -> sa.Select[Any]:
    """Return the query of what a courier may take."""
    table = webhook_deliveries
    query = (
        sa.select(*_COLUMNS)
        .where(
            table.c.state == PENDING,
            table.c.next_at <= now,
            sa.or_(table.c.lease_expires_at.is_(None), table.c.lease_expires_at <= now),
        )
        .order_by(table.c.next_at)
    )
    if avoid:
        query = query.where(sa.tuple_(table.c.owner, table.c.receiver).not_in(sorted(avoid)))
    if avoid_owners:
        query = query.where(table.c.owner.not_in(sorted(avoid_owners)))
    return query


def _find(connection: Connection, delivery_id: str, owner: str | None) -> Delivery | None:
    query = sa.select(*_COLUMNS).where(_is(webhook_deliveries.c.id, delivery_id))
    if owner is not None:
        query = query.where(webhook_deliveries.c.owner == owner)
    row = connection.execute(query).mappings().one_or_none()
    return None if row is None else Delivery(**row, log=_read_logs(connection, [row["id"]])[row["id"]])


def _read_logs(connection: Connection, delivery_ids: Iterable[str]) -> defaultdict[str, list[DeliveryTry]]:
    """Return the tries of these deliveries, the first one first."""
    table = webhook_tries
    rows = connection.execute(
        sa.select(table).where(table.c.delivery_id.in_(list(delivery_ids))).order_by(table.c.number)
    ).mappings()
    logs: defaultdict[str, list[DeliveryTry]] = defaultdict(list)
    for row in rows:
        facts = dict(row)
        logs[facts.pop("delivery_id")].append(DeliveryTry(**facts))
    return logs


def _log_try(connection: Connection, delivery_id: str, facts: dict[str, Any]) -> None:
    """Add a line to the delivery's log; the caller holds its row, so numbers can't clash."""
    table = webhook_tries
    mine = table.c.delivery_id == delivery_id
    number = (connection.execute(sa.select(sa.func.max(table.c.number)).where(mine)).scalar_one() or 0) + 1
    connection.execute(sa.insert(table).values(delivery_id=delivery_id, number=number, **facts))
    if number > _KEPT_TRIES:
        connection.execute(sa.delete(table).where(mine, table.c.number <= number - _KEPT_TRIES))
