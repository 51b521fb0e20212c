"""Single operations, DeepBench's among them: one file a family, each with its kinds in ``KINDS``.

The file is its own registration, as a model's is.
"""

from __future__ import annotations

import functools
import importlib
import importlib.resources
import json
import pkgutil
from typing import TYPE_CHECKING, Final

from workers.ops.base import SEPARATOR, UnknownOperationError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from workers.ops.base import Operation

_SETS: Final = "deepbench.json"


def kinds() -> tuple[str, ...]:
    """Return the kinds of operations, sorted: ``conv``, ``gemm`` and so on."""
    return tuple(sorted(_parsers()))


def is_operation(name: str) -> bool:
    """True where a name begins with the kind of an operation."""
    kind, separator, _ = name.partition(SEPARATOR)
    return bool(separator) and kind in _parsers()


@functools.cache
def get(name: str) -> Operation:
    """Return the operation of that name; raises :class:`workers.ops.base.UnknownOperationError`."""
    kind = name.partition(SEPARATOR)[0]
    if not is_operation(name):
        raise UnknownOperationError(f"no operation is called {name!r}, the kinds are {', '.join(kinds())}")
    found = _parsers()[kind](name)
    # One problem, one name: `m01` is none.
    if found.name != name:
        raise UnknownOperationError(f"no operation is called {name!r}; did you mean {found.name!r}?")
    return found


def set_names() -> tuple[str, ...]:
    """Return the names of the sets of problems that were published, and of our choice from them."""
    return tuple(_sets())


def problems(name: str, kind: str | None = None) -> tuple[str, ...]:
    """Return the operations of a set, in its order, or those of one kind; raises KeyError for an unknown set."""
    return tuple(each for each in _sets()[name] if kind is None or each.startswith(kind + SEPARATOR))


@functools.cache
def _sets() -> Mapping[str, tuple[str, ...]]:
    text = importlib.resources.files(__name__).joinpath("data", _SETS).read_text(encoding="utf-8")
    return {name: tuple(names) for name, names in json.loads(text)["sets"].items()}


@functools.cache
def _parsers() -> Mapping[str, Callable[[str], Operation]]:
    found: dict[str, Callable[[str], Operation]] = {}
    for module_info in pkgutil.iter_modules(__path__):
        module = importlib.import_module(f"{__name__}.{module_info.name}")
        found.update(getattr(module, "KINDS", {}))
    return found
