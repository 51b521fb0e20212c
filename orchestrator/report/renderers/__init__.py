"""One file a form of output, found by what it calls itself.

A renderer is a module of this folder with ``FORMAT``, the word that ``--format`` takes, and ``render``, a
:class:`Render`. The file is its own registration. Importing it must import nothing heavy; that happens in ``render``.
"""

from __future__ import annotations

import importlib
import pkgutil
from typing import TYPE_CHECKING, Protocol

from orchestrator.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from orchestrator.report.table import Table


class Render(Protocol):
    """Draws a table."""

    def __call__(self, table: Table, *, width: int | None = None, color: bool = False) -> str:
        """Return the table as text that ends with one line end.

        ``width`` is in terminal columns, ``None`` for as many as it takes; ``color`` allows terminal escapes. Forms
        that know no width or colour pass over them.
        """


def names() -> tuple[str, ...]:
    """Return what ``--format`` takes, sorted."""
    return tuple(sorted(_renderers()))


def load(name: str) -> Render:
    """Return the renderer of that name; raises :class:`orchestrator.errors.UsageError`."""
    try:
        return _renderers()[name]
    except KeyError:
        raise UsageError(f"no format is called {name!r}", remedy=f"there are: {', '.join(names())}") from None


def _renderers() -> Mapping[str, Render]:
    modules = (importlib.import_module(f"{__name__}.{found.name}") for found in pkgutil.iter_modules(__path__))
    return {module.FORMAT: module.render for module in modules}
