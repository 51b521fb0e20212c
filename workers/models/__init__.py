"""Networks as data: one file a family, each with its named variants in ``VARIANTS``.

The file is its own registration: a new model is a new file in this folder, or a new entry in a file's ``VARIANTS``.
"""

from __future__ import annotations

import difflib
import functools
import importlib
import pkgutil
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

    from workers.models.network import Model


#: Where the name of a network ends, and that of one of its layers begins.
SEPARATOR: Final = "/"


class UnknownModelError(LookupError):
    """No model has that name; the message lists those there are."""


def names() -> tuple[str, ...]:
    """Return the name of every model, sorted."""
    return tuple(sorted(_variants()))


def get(name: str) -> Model:
    """Return the model of that name, or a layer of one by itself: ``alexnet/conv1``.

    Raises :class:`UnknownModelError`.
    """
    network, separator, layer = name.partition(SEPARATOR)
    return _layer(network, layer) if separator else _network(network)


@functools.cache
def _layer(network: str, layer: str) -> Model:
    model = _network(network)
    try:
        return model.layer_alone(layer)
    except LookupError:
        there = [each.layer.name for each in model.every_layer()]
        close = difflib.get_close_matches(layer, there, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise UnknownModelError(f"{network} has no layer {layer!r}, it has {', '.join(there)}{hint}") from None


def _network(name: str) -> Model:
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
