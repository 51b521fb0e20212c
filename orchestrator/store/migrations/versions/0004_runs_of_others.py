"""Runs that were measured elsewhere, and taken in from a file."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Add where a run came from."""
    op.add_column("runs", sa.Column("imported_from", sa.String))
    op.add_column("runs", sa.Column("imported_at", sa.DateTime))


def downgrade() -> None:
    """Take it away again; the runs stay, and are no longer told from the store's own."""
    with op.batch_alter_table("runs") as runs:
        runs.drop_column("imported_at")
        runs.drop_column("imported_from")
