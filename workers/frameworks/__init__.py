"""One file a framework, found by its name; nothing heavy is imported until a case asks for it.

A new framework is a new file in this folder, with the functions of :class:`workers.frameworks.base.Framework`.
"""

from __future__ import annotations

import importlib
import pkgutil
from typing import TYPE_CHECKING, Final, cast

if TYPE_CHECKING:
    from workers.frameworks.base import Framework

#: What every framework must offer, and no framework itself.
_PROTOCOL_MODULE: Final = "base"


class UnknownFrameworkError(LookupError):
    """No framework has that name; the message lists those there are."""


def names() -> tuple[str, ...]:
    """Return the name of every framework that muster knows, sorted, whether it is installed or not."""
    return tuple(sorted(found.name for found in pkgutil.iter_modules(__path__) if found.name != _PROTOCOL_MODULE))


def load(name: str) -> Framework:
    """Return the framework of that name; raises :class:`UnknownFrameworkError`."""
    if name not in names():
        raise UnknownFrameworkError(f"no framework is called {name!r}, there are {', '.join(names())}")
    return cast("Framework", importlib.import_module(f"{__name__}.{name}"))
