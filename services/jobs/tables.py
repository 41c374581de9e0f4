"""The tables of the job store, and how a row becomes a ``JobRecord``.

The schema of a running database is made by ``migrations``; a test compares the two. No queries in here.
"""

from __future__ import annotations

from datetime import UTC, datetime

import sqlalchemy as sa
from sqlalchemy.engine import Dialect

from services.jobs.contract import AnimationOptions, InputFacts, JobError, JobRecord, JobState, OutputFacts, Stage


class UtcDateTime(sa.types.TypeDecorator[datetime]):
    """An aware UTC datetime in both databases (SQLite has no time zones, so it stores the naive UTC value)."""

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Refuse naive datetimes: they are how hours get lost."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("the job store takes aware datetimes only")
        try:
            value = value.astimezone(UTC)
        except OverflowError:  # the first or last hours of the calendar: clients do ask for created_after=0001-01-01
            value = value.replace(tzinfo=UTC)
        return value.replace(tzinfo=None) if dialect.name == "sqlite" else value

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Give every datetime its zone back."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


metadata = sa.MetaData(
    naming_convention={"ix": "ix_%(table_name)s_%(column_0_N_name)s", "pk": "pk_%(table_name)s"},
)


def _json() -> sa.JSON:
    return sa.JSON(none_as_null=True)


jobs = sa.Table(
    "jobs",
    metadata,
    sa.Column("id", sa.String(64), primary_key=True),
    sa.Column("owner", sa.String(128), nullable=False),
    sa.Column("priority", sa.Integer, nullable=False),  # smaller runs sooner
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("cancel_requested", sa.Boolean, nullable=False),
    sa.Column("revision", sa.Integer, nullable=False),
    sa.Column("options", _json(), nullable=False),
    sa.Column("input", _json(), nullable=False),
    sa.Column("seed", sa.BigInteger, nullable=False),
    sa.Column("model_id", sa.String(128), nullable=False),
    sa.Column("model_sha256", sa.String(64)),
    sa.Column("stage", sa.String(16)),
    sa.Column("progress", sa.Float, nullable=False),
    sa.Column("frames_done", sa.Integer, nullable=False),
    sa.Column("frames_total", sa.Integer, nullable=False),
    sa.Column("preview_jpeg", sa.LargeBinary),
    sa.Column("attempt", sa.Integer, nullable=False),
    sa.Column("crashes", sa.Integer, nullable=False),
    sa.Column("retries", sa.Integer, nullable=False),
    sa.Column("created_at", UtcDateTime, nullable=False),
    sa.Column("not_before", UtcDateTime, nullable=False),
    sa.Column("deadline_at", UtcDateTime),
    sa.Column("started_at", UtcDateTime),
    sa.Column("completed_at", UtcDateTime),
    sa.Column("expires_at", UtcDateTime),
    sa.Column("swept_at", UtcDateTime),  # when the stored objects of an outdated job were removed
    sa.Column("output", _json()),
    sa.Column("quality", _json()),
    sa.Column("metrics", _json(), nullable=False),
    sa.Column("error", _json()),
    sa.Column("worker", sa.String(256)),
    sa.Column("token", sa.String(64)),
    sa.Column("lease_expires_at", UtcDateTime),
    sa.Column("traceparent", sa.String(64)),  # W3C trace context of the request that made the job
    sa.Column("turn", sa.BigInteger, server_default=sa.text("0"), nullable=False),  # see fairness
    sa.Index(None, "state", "turn", "priority", "created_at", "id"),  # claim, queue position, counts
    sa.Index(None, "state", "owner", "priority", "turn"),  # a client's own queue
    sa.Index(None, "state", "lease_expires_at"),  # lapsed leases
    sa.Index(None, "state", "deadline_at"),
    sa.Index(None, "swept_at", "expires_at"),  # outdated results
    sa.Index(None, "owner", "created_at", "id"),  # pages
)

# How many jobs have ended how. Ends add rows, the sweeper folds them: nobody waits for anybody, and removing a job
# takes nothing back.
job_ends = sa.Table(
    "job_ends",
    metadata,
    sa.Column("number", sa.Integer, primary_key=True),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("code", sa.String(64), nullable=False),  # of its error; empty: none
    sa.Column("model_id", sa.String(128), nullable=False),
    sa.Column("jobs", sa.Integer, nullable=False),
)

idempotency = sa.Table(
    "idempotency",
    metadata,
    sa.Column("owner", sa.String(128), primary_key=True),
    sa.Column("key", sa.String(255), primary_key=True),
    sa.Column("body_sha256", sa.String(64), nullable=False),
    sa.Column("job_id", sa.String(64), nullable=False),
    sa.Column("created_at", UtcDateTime, nullable=False),
    sa.Index(None, "job_id"),
    sa.Index(None, "created_at"),
)

workers = sa.Table(
    "workers",
    metadata,
    sa.Column("name", sa.String(256), primary_key=True),
    sa.Column("beaten_at", UtcDateTime, nullable=False),
    sa.Column("facts", _json(), nullable=False),
)

# A client's keys. The key itself is never stored: its SHA-256 is, and 256 random bits need no slow hash.
api_keys = sa.Table(
    "api_keys",
    metadata,
    sa.Column("id", sa.String(32), primary_key=True),  # stands in the key, so that it can be told in a log
    sa.Column("owner", sa.String(128), nullable=False),
    sa.Column("name", sa.String(128), nullable=False),
    sa.Column("sha256", sa.String(64), nullable=False),
    sa.Column("scopes", _json(), nullable=False),
    sa.Column("created_at", UtcDateTime, nullable=False),
    sa.Column("expires_at", UtcDateTime),
    sa.Column("revoked_at", UtcDateTime),
    sa.Column("used_at", UtcDateTime),  # to the minute
    sa.Index(None, "owner", "created_at"),
)

# What signs an owner's webhooks; two may live at once, so that receivers can change over.
webhook_secrets = sa.Table(
    "webhook_secrets",
    metadata,
    sa.Column("id", sa.String(32), primary_key=True),
    sa.Column("owner", sa.String(128), nullable=False),
    sa.Column("secret", sa.String(128), nullable=False),
    sa.Column("created_at", UtcDateTime, nullable=False),
    sa.Column("expires_at", UtcDateTime),  # of the older one
    sa.Index(None, "owner", "created_at"),
)

# The outbox: a row is written in the transaction that ends a job; it is pending until delivered or given up.
webhook_deliveries = sa.Table(
    "webhook_deliveries",
    metadata,
    sa.Column("id", sa.String(64), primary_key=True),  # the event's stable id: receivers drop repeats by it
    sa.Column("job_id", sa.String(64), nullable=False),
    sa.Column("owner", sa.String(128), nullable=False),
    sa.Column("event", sa.String(64), nullable=False),
    sa.Column("url", sa.String(2048), nullable=False),
    sa.Column("receiver", sa.String(320), nullable=False),  # host and port: what is spared when it does not answer
    sa.Column("state", sa.String(16), nullable=False),  # pending, delivered, failed
    sa.Column("tries", sa.Integer, nullable=False),  # since it was asked for
    sa.Column("created_at", UtcDateTime, nullable=False),
    sa.Column("asked_at", UtcDateTime, nullable=False),  # by the end of the job, or by its client for once more
    sa.Column("next_at", UtcDateTime, nullable=False),
    sa.Column("delivered_at", UtcDateTime),
    sa.Column("token", sa.String(64)),  # of the courier that has it in hand
    sa.Column("lease_expires_at", UtcDateTime),
    sa.Index(None, "state", "next_at"),
    sa.Index(None, "job_id"),
    sa.Index(None, "owner", "created_at", "id"),  # pages
)

# The delivery log: one row a try.
webhook_tries = sa.Table(
    "webhook_tries",
    metadata,
    sa.Column("delivery_id", sa.String(64), primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True),
    sa.Column("at", UtcDateTime, nullable=False),
    sa.Column("status", sa.Integer),  # of the receiver's answer
    sa.Column("reason", sa.String(200)),  # why there was none
    sa.Column("duration_s", sa.Float, nullable=False),
)

# Deleted jobs whose objects may still be in the store: a row leaves when they are gone.
tombstones = sa.Table(
    "tombstones",
    metadata,
    sa.Column("job_id", sa.String(64), primary_key=True),
    sa.Column("created_at", UtcDateTime, nullable=False),
)

# What one worker does for all, now and then: who has it in hand, and when it is due again.
chores = sa.Table(
    "chores",
    metadata,
    sa.Column("name", sa.String(32), primary_key=True),
    sa.Column("token", sa.String(64)),
    sa.Column("lease_expires_at", UtcDateTime),
    sa.Column("due_at", UtcDateTime, nullable=False),
)

# Who this database is, so that it never tidies up in another's object store.
identities = sa.Table(
    "identities",
    metadata,
    sa.Column("name", sa.String(32), primary_key=True),
    sa.Column("value", sa.String(64), nullable=False),
)

# A page carries no previews: a hundred pictures would be read to be thrown away.
PAGE_COLUMNS = tuple(column for column in jobs.c if column.name != "preview_jpeg")


def record_from_row(row: sa.RowMapping) -> JobRecord:
    """Return the record of one row of ``jobs`` (with or without its preview)."""
    return JobRecord(
        id=row["id"],
        owner=row["owner"],
        state=JobState(row["state"]),
        cancel_requested=row["cancel_requested"],
        revision=row["revision"],
        options=AnimationOptions.model_validate(row["options"]),
        input=InputFacts.model_validate(row["input"]),
        seed=row["seed"],
        model_id=row["model_id"],
        model_sha256=row["model_sha256"],
        stage=None if row["stage"] is None else Stage(row["stage"]),
        progress=row["progress"],
        frames_done=row["frames_done"],
        frames_total=row["frames_total"],
        preview_jpeg=row.get("preview_jpeg"),
        attempt=row["attempt"],
        crashes=row["crashes"],
        created_at=row["created_at"],
        started_at=row["started_at"],
        completed_at=row["completed_at"],
        expires_at=row["expires_at"],
        output=None if row["output"] is None else OutputFacts.model_validate(row["output"]),
        quality=row["quality"],
        metrics=row["metrics"],
        error=None if row["error"] is None else JobError.model_validate(row["error"]),
        worker=row["worker"],
        traceparent=row["traceparent"],
    )
