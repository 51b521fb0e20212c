"""What a workload's ``model`` names: a network, a layer of one, or an operation. Standard library only."""

from __future__ import annotations

from typing import TYPE_CHECKING

from workers import models, ops
from workers.ops.base import UnknownOperationError
from workers.ops.collective import KINDS, AllReduce

if TYPE_CHECKING:
    from workers.models.network import Model
    from workers.ops.base import Operation

#: No network, layer or operation has that name.
UNKNOWN = (models.UnknownModelError, UnknownOperationError)


def find(name: str) -> Model | Operation:
    """Return what has that name; raises one of :data:`UNKNOWN`."""
    return ops.get(name) if ops.is_operation(name) else models.get(name)


def is_operation(name: str) -> bool:
    """True for an operation, whose name says all of its sizes."""
    return ops.is_operation(name)


def is_part(name: str) -> bool:
    """True for a layer by itself and for an operation: no whole network."""
    return models.SEPARATOR in name


def is_collective(name: str) -> bool:
    """True for an operation that holds several devices at once."""
    return name.partition(models.SEPARATOR)[0] in KINDS


def among(name: str, ranks: int) -> str:
    """Return the name of an operation of several devices with so many of them."""
    operation = ops.get(name)
    return operation.among(ranks).name if isinstance(operation, AllReduce) else name


def reduced_bytes(name: str, itemsize: int) -> int | None:
    """Return the bytes that the devices of a sum give together; ``None`` where it does not say how many they are."""
    operation = ops.get(name)
    if not isinstance(operation, AllReduce) or operation.ranks is None:
        return None
    return operation.reduced_bytes(itemsize)
