"""The outbox of webhooks: what is to be told of a job's end is written in the transaction that ends it.

A crash after that transaction loses nothing: the row is there, and some courier delivers it. No HTTP in here.
"""

from __future__ import annotations

import secrets
from collections.abc import Collection
from datetime import datetime
from urllib.parse import urlsplit

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from services.jobs.contract import TERMINAL_STATES
from services.jobs.tables import jobs, webhook_deliveries, webhook_tries

PENDING = "pending"
DELIVERED = "delivered"
FAILED = "failed"


def make_delivery_id() -> str:
    """Return a new event id, e.g. ``msg_3f9c…``; it stays the same over all tries of a delivery."""
    return "msg_" + secrets.token_hex(16)


def name_receiver(url: str) -> str:
    """Return who is called, as ``host:port``: several URLs of one server fail and recover together."""
    try:
        return urlsplit(url).netloc.rpartition("@")[2].lower()[:320]
    except ValueError:  # whatever stands in the row: no URL may keep a job from ending
        return ""


def announce(connection: Connection, job_ids: Collection[str], now: datetime) -> None:
    """Write a delivery for each of these jobs that has just ended and whose client asked to be told of such an end.

    Called in the very transaction that ended them, once a job: terminal states can't be left.
    """
    if not job_ids:
        return
    ended = connection.execute(
        sa.select(jobs.c.id, jobs.c.owner, jobs.c.state, jobs.c.options).where(
            jobs.c.id.in_(list(job_ids)), jobs.c.state.in_(sorted(TERMINAL_STATES))
        )
    ).all()
    rows = []
    for job in ended:
        webhook = job.options.get("webhook")
        event = f"animation.{job.state}"
        if webhook is None or event not in webhook["events"]:
            continue
        rows.append(
            {
                "id": make_delivery_id(),
                "job_id": job.id,
                "owner": job.owner,
                "event": event,
                "url": webhook["url"],
                "receiver": name_receiver(webhook["url"]),
                "state": PENDING,
                "tries": 0,
                "created_at": now,
                "asked_at": now,
                "next_at": now,
            }
        )
    if rows:
        connection.execute(sa.insert(webhook_deliveries), rows)


def forget(connection: Connection, job_ids: Collection[str]) -> None:
    """Remove the deliveries of these jobs with their logs; called in the transaction that removes the jobs."""
    if not job_ids:
        return
    of_jobs = webhook_deliveries.c.job_id.in_(list(job_ids))
    connection.execute(
        sa.delete(webhook_tries).where(
            webhook_tries.c.delivery_id.in_(sa.select(webhook_deliveries.c.id).where(of_jobs))
        )
    )
    connection.execute(sa.delete(webhook_deliveries).where(of_jobs))
