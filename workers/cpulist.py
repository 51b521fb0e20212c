"""Lists of logical CPUs as the kernel writes them: ``0-3,8``."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


def parse_cpulist(text: str) -> tuple[int, ...]:
    """Return the numbers that ``text`` names, in its order; raises ValueError for anything else."""
    numbers: list[int] = []
    for part in filter(None, text.strip().split(",")):
        first, _, last = part.partition("-")
        numbers.extend(range(int(first), int(last or first) + 1))
    return tuple(numbers)


def format_cpulist(cpus: Iterable[int]) -> str:
    """Return the shortest list that names ``cpus``, ascending."""
    ranges: list[tuple[int, int]] = []
    for cpu in sorted(set(cpus)):
        if ranges and cpu == ranges[-1][1] + 1:
            ranges[-1] = (ranges[-1][0], cpu)
        else:
            ranges.append((cpu, cpu))
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in ranges)
