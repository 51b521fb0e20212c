"""The first store: runs, cases, attempts, samples, environments."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make every table."""
    op.create_table(
        "runs",
        sa.Column("id", sa.String, nullable=False),
        sa.Column("name", sa.String, nullable=False),
        sa.Column("created_at", sa.DateTime, nullable=False),
        sa.Column("finished_at", sa.DateTime),
        sa.Column("state", sa.String, nullable=False),
        sa.Column("config_text", sa.Text, nullable=False),
        sa.Column("config_path", sa.String, nullable=False),
        sa.Column("overrides", sa.Text, nullable=False),
        sa.Column("simulated", sa.Boolean, nullable=False),
        sa.Column("muster_version", sa.String, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_runs"),
    )
    op.create_index("ix_runs_created_at", "runs", ["created_at"])
    op.create_table(
        "environments",
        sa.Column("hash", sa.String, nullable=False),
        sa.Column("json", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("hash", name="pk_environments"),
    )
    _create_cases()
    _create_attempts()


def _create_cases() -> None:
    op.create_table(
        "cases",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("run_id", sa.String, nullable=False),
        sa.Column("position", sa.Integer, nullable=False),
        sa.Column("key", sa.String, nullable=False),
        sa.Column("device_id", sa.String, nullable=False),
        sa.Column("device", sa.Text, nullable=False),
        sa.Column("workload", sa.Text, nullable=False),
        sa.Column("sampling", sa.Text, nullable=False),
        sa.Column("method_version", sa.Integer, nullable=False),
        sa.Column("verdict", sa.String),
        sa.Column("reason", sa.Text),
        sa.PrimaryKeyConstraint("id", name="pk_cases"),
        sa.UniqueConstraint("run_id", "key", name="uq_cases_run_id_key"),
        sa.UniqueConstraint("run_id", "position", name="uq_cases_run_id_position"),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name="fk_cases_run_id_runs"),
    )
    op.create_index("ix_cases_device_id_workload", "cases", ["device_id", "workload"])


def _create_attempts() -> None:
    op.create_table(
        "attempts",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("case_id", sa.Integer, nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("verdict", sa.String, nullable=False),
        sa.Column("reason", sa.Text),
        sa.Column("stopped_by", sa.String),
        sa.Column("peak_flops", sa.Double),
        sa.Column("peak_reason", sa.Text),
        sa.Column("phases", sa.Text, nullable=False),
        sa.Column("ending", sa.Text, nullable=False),
        sa.Column("started_at", sa.Double, nullable=False),
        sa.Column("duration_s", sa.Double, nullable=False),
        sa.Column("environment_hash", sa.String, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_attempts"),
        sa.UniqueConstraint("case_id", "number", name="uq_attempts_case_id_number"),
        sa.ForeignKeyConstraint(["case_id"], ["cases.id"], name="fk_attempts_case_id_cases"),
        sa.ForeignKeyConstraint(
            ["environment_hash"], ["environments.hash"], name="fk_attempts_environment_hash_environments"
        ),
    )
    op.create_table(
        "samples",
        sa.Column("attempt_id", sa.Integer, nullable=False),
        sa.Column("kind", sa.String, nullable=False),
        sa.Column("count", sa.Integer, nullable=False),
        sa.Column("ms", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("attempt_id", "kind", name="pk_samples"),
        sa.ForeignKeyConstraint(["attempt_id"], ["attempts.id"], name="fk_samples_attempt_id_attempts"),
    )
