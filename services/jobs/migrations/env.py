"""Alembic's entry: runs the revisions on the connection that ``Database.migrate`` hands over.

There is no alembic.ini and no offline mode: migrations are run by the service itself, under its lock.
"""

from __future__ import annotations

from alembic import context
from sqlalchemy.engine import Connection

from services.jobs.tables import metadata

connection: Connection = context.config.attributes["connection"]
context.configure(connection=connection, target_metadata=metadata, render_as_batch=True)
context.run_migrations()
