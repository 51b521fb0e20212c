"""What else is different between two runs, most likely reason first: a difference without a cause is half a finding."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from orchestrator.analysis.comparison import Change
from orchestrator.analysis.pooling import pooled

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from orchestrator.analysis.comparison import Comparison
    from orchestrator.analysis.pooling import PooledCase
    from orchestrator.results import CaseResult
    from workers.protocol import FactValue

#: Facts by what they begin with, those first that most often make a device slower or faster.
_LIKELY_FIRST: Final = (
    "gpu.power_limit", "gpu.clock", "gpu.memory_clock", "gpu.mig", "gpu.driver", "library.", "framework.cuda",
    "framework.cudnn", "framework.version", "package.tensorflow", "framework.", "env.", "process.env.", "gpu.",
    "cpu.governor", "cpu.boost", "process.affinity", "cgroup.", "memory.limit", "cpu.smt", "cpu.isolated",
    "cpu.microcode", "cpu.", "memory.", "package.numpy", "muster.", "package.muster", "package.", "python.",
    "host.kernel", "host.container", "host.",
)  # fmt: skip

#: Facts that differ from run to run, or say where and not how.
_IGNORED: Final = frozenset({
    "process.env.CUDA_VISIBLE_DEVICES", "process.strays", "host.spool", "host.probe", "host.name", "search.tried",
    "search.memory_bytes", "simulated.speed_flops", "framework.device",
})  # fmt: skip

#: What people call a fact, where its name is not enough.
_CALLED: Final = {
    "gpu.driver": "NVIDIA driver",
    "framework.version": "TensorFlow",
    "framework.cuda": "CUDA",
    "framework.cudnn": "cuDNN",
    "python.version": "Python",
    "host.kernel": "kernel",
    "host.os": "operating system",
    "muster.commit": "muster's commit",
}

_UNITS: Final = {"_w": "W", "_mhz": "MHz", "_bytes": "bytes", "_c": "°C", "_mts": "MT/s", "_percent": "%"}

#: What was seen while measuring, what people call it, and from which difference on it is told: as a share, or as is.
_SEEN: Final = (
    ("gpu.clock_mhz", "GPU clock while measuring", 0.03, 0.0),
    ("cpu.frequency_mhz", "CPU clock while measuring", 0.03, 0.0),
    ("gpu.throttle", "share of readings in which the GPU slowed itself down", 0.0, 0.05),
    ("gpu.power_w", "GPU power while measuring", 0.05, 2.0),
    ("gpu.temperature_c", "GPU temperature while measuring", 0.0, 5.0),
    ("cpu.temperature_c", "CPU temperature while measuring", 0.0, 5.0),
    ("cpu.others_percent", "others' share of the cores while measuring", 0.0, 3.0),
    ("cpu.steal_percent", "share that the hypervisor took while measuring", 0.0, 2.0),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Difference:
    """One thing that is not as it was, on some devices."""

    #: The fact's or series' name.
    name: str
    #: What people call it.
    what: str
    before: str
    now: str
    #: Where it differs so.
    device_ids: tuple[str, ...]
    #: How much more often it differs on devices whose figures changed than on the others, from -1 to 1.
    contrast: float

    def __str__(self) -> str:
        return f"{self.what} {self.before} -> {self.now}"


def explain(
    comparison: Comparison, before: Iterable[CaseResult], after: Iterable[CaseResult]
) -> tuple[Difference, ...]:
    """Return what differs between the two runs' environments and readings, the most likely reason first.

    First comes what differs on the devices whose figures changed and not on those whose figures did not; of equals,
    what more often makes a device faster or slower. It is a list of suspects and no proof.
    """
    old, new = _by_device(before), _by_device(after)
    shared = [device_id for device_id in new if device_id in old]
    moved = {case.device.id for case in comparison.cases if case.change in (Change.FASTER, Change.SLOWER)}
    found: dict[tuple[str, str, str, str], list[str]] = {}
    for device_id in shared:
        for name, what, was, now in _differences(old[device_id], new[device_id]):
            found.setdefault((name, what, was, now), []).append(device_id)
    differing: dict[str, set[str]] = {}
    for (name, *_), device_ids in found.items():
        differing.setdefault(name, set()).update(device_ids)
    contrasts = {name: _contrast(device_ids, moved, shared) for name, device_ids in differing.items()}
    differences = [
        Difference(name=name, what=what, before=was, now=now, device_ids=tuple(ids), contrast=contrasts[name])
        for (name, what, was, now), ids in found.items()
    ]
    return tuple(sorted(differences, key=lambda each: (-round(each.contrast, 2), _likelihood(each.name), each.name)))


def _by_device(cases: Iterable[CaseResult]) -> dict[str, list[PooledCase]]:
    found: dict[str, list[PooledCase]] = {}
    for each in pooled(cases):
        if each.measured:
            found.setdefault(each.device.id, []).append(each)
    return found


def _contrast(differing: set[str], moved: set[str], shared: Sequence[str]) -> float:
    with_change = [device_id in differing for device_id in shared if device_id in moved]
    without = [device_id in differing for device_id in shared if device_id not in moved]
    return _share(with_change) - _share(without)


def _share(claims: Sequence[bool]) -> float:
    return sum(claims) / len(claims) if claims else 0.0


def _differences(old: Sequence[PooledCase], new: Sequence[PooledCase]) -> Iterator[tuple[str, str, str, str]]:
    """Yield name, what people call it, before and now, of the readings and then of the facts."""
    for name, what, share, least in _SEEN:
        was, now = _seen(old, name), _seen(new, name)
        if was is not None and now is not None and abs(now - was) > max(share * abs(was), least):
            yield name, what, _number(name, was), _number(name, now)
    then, today = _facts(old), _facts(new)
    for name in sorted(then.keys() | today.keys()):
        if name not in _IGNORED and then.get(name) != today.get(name):
            yield name, _called(name), _shown(name, then.get(name)), _shown(name, today.get(name))


def _facts(cases: Sequence[PooledCase]) -> Mapping[str, FactValue]:
    """Return a device's facts; of several cases the last one's."""
    return {name: fact.value for each in cases for result in each.measured for name, fact in result.environment.facts}


def _seen(cases: Sequence[PooledCase], name: str) -> float | None:
    """Return the usual reading over all counted steps of a device; of a yes or no, how often it was yes."""
    values = [
        value
        for each in cases
        for result in each.measured
        if result.telemetry is not None
        for value in result.telemetry.measured(name)
    ]
    if not values:
        return None
    return float(np.mean(values)) if name == "gpu.throttle" else float(np.median(values))


def _likelihood(name: str) -> int:
    seen = [known for known, *_ in _SEEN]
    if name in seen:
        return seen.index(name) - len(seen)
    return next((place for place, begin in enumerate(_LIKELY_FIRST) if name.startswith(begin)), len(_LIKELY_FIRST))


def _called(name: str) -> str:
    if name in _CALLED:
        return _CALLED[name]
    kind, _, rest = name.partition(".")
    if kind in ("package", "env", "library"):
        return rest
    if name.startswith("process.env."):
        return rest.removeprefix("env.")
    without_unit = re.sub(f"({'|'.join(_UNITS)})$", "", rest)
    kind = kind.upper() if kind in ("gpu", "cpu") else kind
    return f"{kind} {without_unit.replace('_', ' ')}"


def _shown(name: str, value: FactValue) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "on" if value else "off"
    return _number(name, value) if isinstance(value, int | float) else str(value)


def _number(name: str, value: float) -> str:
    unit = next((unit for ending, unit in _UNITS.items() if name.endswith(ending)), "")
    return f"{value:.4g} {unit}".strip() if abs(value) < 10_000 else f"{value:.0f} {unit}".strip()
