"""How a config names devices and ranges of hosts: two small grammars inside strings."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from workers.protocol import DeviceKind

#: The most hosts that a config may name, ranges expanded; a typo in a range must not fill the memory.
MAX_HOSTS: Final = 10_000

#: What a device selector may look like, for messages.
SELECTOR_FORMS: Final = "cpu, cpu:0-7,9, cpu:numa0, gpu:all, gpu:any, gpu:0, gpu:0-3 or gpu:GPU-1a2b"

#: What a host name may look like, for messages.
HOST_NAME_FORMS: Final = "a host name such as gpu01, or a range such as gpu[01-04]"

#: No host has more logical CPUs or GPUs than this; a larger number is a typo.
_MAX_INDEX: Final = 65_535

_NUMBERS: Final = re.compile(r"[0-9]{1,6}(-[0-9]{1,6})?(,[0-9]{1,6}(-[0-9]{1,6})?)*", re.ASCII)
_NUMA: Final = re.compile(r"numa([0-9]{1,3})", re.ASCII)
_UUID: Final = re.compile(r"(GPU|MIG)-[0-9A-Fa-f][0-9A-Fa-f-]{3,63}", re.ASCII)
_RANGE: Final = r"[0-9]{1,9}(-[0-9]{1,9}(/[0-9]{1,4})?)?"
_HOST: Final = re.compile(rf"[A-Za-z0-9]([A-Za-z0-9._-]|\[{_RANGE}(,{_RANGE})*\])*", re.ASCII)
_BRACKETS: Final = re.compile(r"\[([^\]]*)\]")


@dataclass(frozen=True, kw_only=True, slots=True)
class DeviceSelector:
    """Which devices of a host are meant; at most one of the parts below is given, none for ``cpu``."""

    kind: DeviceKind
    #: As the config has it: ``gpu:0-3``.
    text: str
    #: GPU numbers as NVML counts, ascending.
    indices: tuple[int, ...] = ()
    #: The beginning of a GPU's UUID.
    uuid_prefix: str | None = None
    #: ``gpu:all`` and ``gpu:any``: every GPU that is there.
    every: bool = False
    #: ``gpu:any``: that there is none is no fault.
    may_be_none: bool = False
    #: Logical CPUs by number, ascending; empty for all that the process may use.
    cores: tuple[int, ...] = ()
    #: Take the logical CPUs of this NUMA node.
    numa_node: int | None = None

    def __str__(self) -> str:
        """As the config has it."""
        return self.text


def parse_selector(text: str) -> DeviceSelector:
    """Return the devices that ``text`` names; raises ValueError with what was expected."""
    kind, _, rest = text.partition(":")
    if text == "cpu":
        return DeviceSelector(kind=DeviceKind.CPU, text=text)
    if kind == "cpu" and (numa := _NUMA.fullmatch(rest)):
        return DeviceSelector(kind=DeviceKind.CPU, text=text, numa_node=int(numa[1]))
    if kind == "cpu" and _NUMBERS.fullmatch(rest):
        return DeviceSelector(kind=DeviceKind.CPU, text=text, cores=_numbers(rest))
    if kind == "gpu" and rest in ("all", "any"):
        return DeviceSelector(kind=DeviceKind.GPU, text=text, every=True, may_be_none=rest == "any")
    if kind == "gpu" and _NUMBERS.fullmatch(rest):
        return DeviceSelector(kind=DeviceKind.GPU, text=text, indices=_numbers(rest))
    if kind == "gpu" and _UUID.fullmatch(rest):
        return DeviceSelector(kind=DeviceKind.GPU, text=text, uuid_prefix=rest)
    raise ValueError(f"a device: {SELECTOR_FORMS}")


def _numbers(text: str) -> tuple[int, ...]:
    """Return the numbers of ``0-3,7``, ascending, each once."""
    found: set[int] = set()
    for part in text.split(","):
        first, _, last = part.partition("-")
        low, high = int(first), int(last or first)
        if low > high:
            raise ValueError(f"a range that ascends, not {part}")
        if high > _MAX_INDEX:
            raise ValueError(f"numbers of at most {_MAX_INDEX}, not {high}")
        found.update(range(low, high + 1))
    return tuple(sorted(found))


def count_hosts(pattern: str) -> int:
    """Return how many hosts ``gpu[01-04]`` names, without expanding it; raises ValueError with what was expected."""
    if not _HOST.fullmatch(pattern):
        raise ValueError(HOST_NAME_FORMS)
    count = 1
    for ranges in _BRACKETS.findall(pattern):
        count *= sum(_width(part) for part in ranges.split(","))
    return count


def _width(part: str) -> int:
    """Return how many numbers ``01-10/3`` holds."""
    span, _, step = part.partition("/")
    first, dash, last = span.partition("-")
    if not dash:
        return 1
    if int(first) > int(last):
        raise ValueError(f"a range that ascends, not [{part}]")
    if step and int(step) == 0:
        raise ValueError(f"a step of at least 1, not [{part}]")
    return (int(last) - int(first)) // int(step or 1) + 1


def expand_hosts(pattern: str) -> tuple[str, ...]:
    """Return the hosts that ``gpu[01-04]`` names, in order.

    Raises ValueError with what was expected, also where there would be more than :data:`MAX_HOSTS`.
    """
    if count_hosts(pattern) > MAX_HOSTS:
        raise ValueError(f"at most {MAX_HOSTS:,} hosts")
    if "[" not in pattern:
        return (pattern,)
    # Here and not above: most configs have no range, and the import costs more than all the rest of a check.
    from ClusterShell.NodeSet import RESOLVER_NOGROUP, NodeSet, NodeSetException

    try:
        return tuple(NodeSet(pattern, resolver=RESOLVER_NOGROUP))
    except NodeSetException as error:
        raise ValueError(f"{HOST_NAME_FORMS} ({error})") from error
