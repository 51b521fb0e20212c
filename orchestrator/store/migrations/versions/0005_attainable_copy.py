"""What a device's memory attains, beside what its arithmetic does."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Add the bytes per second of a large array, and why there is no such figure."""
    op.add_column("attempts", sa.Column("copy_bytes_per_s", sa.Double))
    op.add_column("attempts", sa.Column("copy_reason", sa.Text))


def downgrade() -> None:
    """Take them away again."""
    with op.batch_alter_table("attempts") as attempts:
        attempts.drop_column("copy_reason")
        attempts.drop_column("copy_bytes_per_s")
