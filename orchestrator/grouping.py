"""Which devices an operation of several holds. Pure."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from orchestrator.config.kinds import Across
from workers import ops
from workers.ops.collective import AllReduce

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from orchestrator.config.sweep import SweptWorkload
    from orchestrator.inventory import DeclaredDevice


def groups_of(declared: Sequence[DeclaredDevice], swept: SweptWorkload) -> tuple[tuple[DeclaredDevice, ...], ...]:
    """Return the groups of devices, each by rank, that an operation of several is measured on.

    All devices of one kind, of one host or of all hosts, in the config's order; where the name says how many so
    many of them, from each host in turn. A group across hosts has devices of two at least. Devices that share cores
    cannot be at work at once: the first of them is in the group. Nothing is returned where no group has as many devices
    as are wanted.
    """
    wanted = _ranks(swept.model)
    groups = (_first(tuple(_apart(group)), wanted) for group in _candidates(declared, swept.across))
    found = (group for group in groups if len(group) >= max(wanted or 0, 2))
    if swept.across is Across.HOSTS:
        found = (group for group in found if len({entry.device.host for entry in group}) > 1)
    return tuple(dict.fromkeys(found))


def _first(group: Sequence[DeclaredDevice], wanted: int | None) -> tuple[DeclaredDevice, ...]:
    """Return so many of a group, of each host as many as of every other as far as there are; in the group's order."""
    on_host: Counter[str] = Counter()
    by_turn: list[tuple[int, int]] = []
    for place, entry in enumerate(group):
        by_turn.append((on_host[entry.device.host], place))
        on_host[entry.device.host] += 1
    return tuple(group[place] for place in sorted(place for _, place in sorted(by_turn)[:wanted]))


def too_few(model: str) -> str:
    """Return why an operation of several devices is measured nowhere."""
    wanted = _ranks(model)
    return f"it takes {wanted or 2} devices of one kind{'' if wanted else ' at least'}, and there are fewer"


def _ranks(model: str) -> int | None:
    operation = ops.get(model)
    return operation.ranks if isinstance(operation, AllReduce) else None


def _candidates(declared: Sequence[DeclaredDevice], across: Across | None) -> Iterator[list[DeclaredDevice]]:
    """Give the devices of each kind, of each host or of all."""
    groups: dict[tuple[object, ...], list[DeclaredDevice]] = {}
    for entry in declared:
        host = None if across is Across.HOSTS else entry.device.host
        groups.setdefault((host, entry.device.kind), []).append(entry)
    yield from groups.values()


def _apart(group: Sequence[DeclaredDevice]) -> Iterator[DeclaredDevice]:
    """Give the devices that share no cores with one before them."""
    taken: set[tuple[str, int]] = set()
    for entry in group:
        cores = {(entry.device.host, core) for core in entry.device.cores}
        if not cores & taken:
            taken |= cores
            yield entry
