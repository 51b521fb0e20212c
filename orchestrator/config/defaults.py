"""What is so where nobody says otherwise, for those that read no config."""

from __future__ import annotations

from typing import Final

#: Where results are when neither the config nor ``--store`` says so.
DEFAULT_STORE: Final = "sqlite:///muster.db"
