"""Where runs that go on are."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    """Add it."""
    op.create_table(
        "live",
        sa.Column("run_id", sa.String, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("run_id", name="pk_live"),
    )


def downgrade() -> None:
    """Take it away again."""
    op.drop_table("live")
