"""What makes a figure one to trust: evidence beside it, processes apart, baselines and noise floors."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Add two tables and four columns."""
    op.add_column("cases", sa.Column("process", sa.Integer, nullable=False, server_default="1"))
    op.add_column("cases", sa.Column("company", sa.String))
    op.add_column("attempts", sa.Column("doubts", sa.Text, nullable=False, server_default="[]"))
    op.add_column("attempts", sa.Column("telemetry", sa.LargeBinary))
    op.create_table(
        "baselines",
        sa.Column("name", sa.String, nullable=False),
        sa.Column("run_id", sa.String, nullable=False),
        sa.Column("set_at", sa.DateTime, nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_baselines"),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name="fk_baselines_run_id_runs"),
    )
    op.create_table(
        "noise_floors",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("device_id", sa.String, nullable=False),
        sa.Column("device_uuid", sa.String),
        sa.Column("workload", sa.Text, nullable=False),
        sa.Column("simulated", sa.Boolean, nullable=False),
        sa.Column("measured_at", sa.DateTime, nullable=False),
        sa.Column("run_id", sa.String, nullable=False),
        sa.Column("processes", sa.Integer, nullable=False),
        sa.Column("between_sd", sa.Double, nullable=False),
        sa.Column("within_sd", sa.Double, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_noise_floors"),
    )
    op.create_index("ix_noise_floors_device_id_workload", "noise_floors", ["device_id", "workload"])


def downgrade() -> None:
    """Take them away again, with what is in them."""
    op.drop_table("noise_floors")
    op.drop_table("baselines")
    with op.batch_alter_table("attempts") as attempts:
        attempts.drop_column("telemetry")
        attempts.drop_column("doubts")
    with op.batch_alter_table("cases") as cases:
        cases.drop_column("company")
        cases.drop_column("process")
