"""Steps from one store version to the next; a new store is made by taking all of them.

A step is a file in ``migrations/versions``, named ``0002_what_it_does.py``, written by hand; its number goes to the end
of :data:`REVISIONS`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from alembic.config import Config
    from sqlalchemy import Connection

#: Every store version that this muster knows, oldest first. Kept here so that opening a current store need not read
#: the steps, nor import Alembic.
REVISIONS: Final = ("0001", "0002", "0003", "0004", "0005", "0006", "0007", "0008")

MIGRATIONS: Final = Path(__file__).with_name("migrations")


def migrate(connection: Connection) -> None:
    """Bring the database to the last of :data:`REVISIONS`, within the connection's transaction: all steps or none."""
    from alembic import command

    command.upgrade(_config(connection), "head")


def migrate_back(connection: Connection, revision: str) -> None:
    """Bring the database back to one of :data:`REVISIONS`; what only later ones have is lost."""
    from alembic import command

    command.downgrade(_config(connection), revision)


def _config(connection: Connection) -> Config:
    from alembic.config import Config

    config = Config()
    # Alembic's settings are an ini file's, in which a percent sign begins a reference.
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config
