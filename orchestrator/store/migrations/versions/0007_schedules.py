"""Schedules, their times, and which runs they began."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Add them."""
    op.add_column("runs", sa.Column("schedule", sa.String))
    op.create_index("ix_runs_schedule", "runs", ["schedule"])
    op.create_table(
        "schedules",
        sa.Column("name", sa.String, nullable=False),
        sa.Column("added_at", sa.DateTime, nullable=False),
        sa.Column("config_text", sa.Text, nullable=False),
        sa.Column("config_path", sa.String, nullable=False),
        sa.Column("overrides", sa.Text, nullable=False),
        sa.Column("simulated", sa.Boolean, nullable=False),
        sa.Column("is_paused", sa.Boolean, nullable=False),
        sa.Column("decided_until", sa.DateTime, nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_schedules"),
    )
    op.create_table(
        "firings",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("schedule", sa.String, nullable=False),
        sa.Column("due_at", sa.DateTime, nullable=False),
        sa.Column("begins_at", sa.DateTime, nullable=False),
        sa.Column("cause", sa.String, nullable=False),
        sa.Column("state", sa.String, nullable=False),
        sa.Column("reason", sa.Text),
        sa.Column("run_id", sa.String),
        sa.Column("began_at", sa.DateTime),
        sa.Column("ended_at", sa.DateTime),
        sa.Column("outcome", sa.String),
        sa.Column("told", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_firings"),
        sa.UniqueConstraint("schedule", "due_at", name="uq_firings_schedule_due_at"),
    )
    op.create_index("ix_firings_state", "firings", ["state"])


def downgrade() -> None:
    """Take them away again."""
    op.drop_table("firings")
    op.drop_table("schedules")
    op.drop_index("ix_runs_schedule", "runs")
    with op.batch_alter_table("runs") as runs:
        runs.drop_column("schedule")
