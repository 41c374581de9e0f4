"""Turns: the round in which a job may run, so that clients are served in turn."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the turn; jobs that wait already share one, and so go by priority and age as before."""
    op.add_column("jobs", sa.Column("turn", sa.BigInteger(), server_default=sa.text("0"), nullable=False))
    op.create_index(
        op.f("ix_jobs_state_turn_priority_created_at_id"), "jobs", ["state", "turn", "priority", "created_at", "id"]
    )
    op.create_index(op.f("ix_jobs_state_owner_priority_turn"), "jobs", ["state", "owner", "priority", "turn"])
    op.drop_index(op.f("ix_jobs_state_priority_created_at_id"), "jobs")


def downgrade() -> None:
    """Go back to priority and age alone."""
    op.create_index(op.f("ix_jobs_state_priority_created_at_id"), "jobs", ["state", "priority", "created_at", "id"])
    op.drop_index(op.f("ix_jobs_state_owner_priority_turn"), "jobs")
    op.drop_index(op.f("ix_jobs_state_turn_priority_created_at_id"), "jobs")
    op.drop_column("jobs", "turn")
