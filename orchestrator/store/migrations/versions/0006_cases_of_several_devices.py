"""The other devices of a case that holds several at once."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Add them, in the order of their ranks."""
    op.add_column("cases", sa.Column("peers", sa.Text))


def downgrade() -> None:
    """Take them away again."""
    with op.batch_alter_table("cases") as cases:
        cases.drop_column("peers")
