"""What faults leave behind, and the batch that was searched for: late results, what is put aside, repeated runs."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Add two tables and two columns."""
    op.add_column("runs", sa.Column("rerun_of", sa.String))
    op.add_column("attempts", sa.Column("batch_size", sa.Integer))
    op.create_table(
        "late_results",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("case_id", sa.Integer, nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("received_at", sa.DateTime, nullable=False),
        sa.Column("result", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_late_results"),
        sa.ForeignKeyConstraint(["case_id"], ["cases.id"], name="fk_late_results_case_id_cases"),
    )
    op.create_index("ix_late_results_case_id", "late_results", ["case_id"])
    op.create_table(
        "quarantines",
        sa.Column("target", sa.String, nullable=False),
        sa.Column("simulated", sa.Boolean, nullable=False),
        sa.Column("since", sa.DateTime, nullable=False),
        sa.Column("until", sa.DateTime, nullable=False),
        sa.Column("failures", sa.Integer, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("run_id", sa.String, nullable=False),
        sa.PrimaryKeyConstraint("target", "simulated", name="pk_quarantines"),
    )


def downgrade() -> None:
    """Take them away again, with what is in them."""
    op.drop_table("quarantines")
    op.drop_table("late_results")
    with op.batch_alter_table("attempts") as attempts:
        attempts.drop_column("batch_size")
    with op.batch_alter_table("runs") as runs:
        runs.drop_column("rerun_of")
