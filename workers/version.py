"""The one place that holds muster's version."""

from typing import Final

VERSION: Final = "0.1.0.dev0"
