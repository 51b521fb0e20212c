"""Networks as data: one file a family, each with its named variants in ``VARIANTS``.

The file is its own registration: a new model is a new file in this folder, or a new entry in a file's ``VARIANTS``.
"""

from __future__ import annotations

import difflib
import functools
import importlib
import pkgutil
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from workers.models.network import Model


class UnknownModelError(LookupError):
    """No model has that name; the message lists those there are."""


def names() -> tuple[str, ...]:
    """Return the name of every model, sorted."""
    return tuple(sorted(_variants()))


def get(name: str) -> Model:
    """Return the model of that name; raises :class:`UnknownModelError`."""
    try:
        return _variants()[name]
    except KeyError:
        close = difflib.get_close_matches(name, names(), n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise UnknownModelError(f"no model is called {name!r}, there are {', '.join(names())}{hint}") from None


@functools.cache
def _variants() -> Mapping[str, Model]:
    found: dict[str, Model] = {}
    for module_info in pkgutil.iter_modules(__path__):
        module = importlib.import_module(f"{__name__}.{module_info.name}")
        for model in getattr(module, "VARIANTS", ()):
            if model.name in found:
                raise ValueError(f"two models are called {model.name!r}; the second in {module_info.name}.py")
            found[model.name] = model
    return found
