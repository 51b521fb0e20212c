"""Findings: one a check of a host, what they come to together, and what they mean for the host's cases."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from workers.protocol import Verdict

#: The order in which a person wants to read checks: the way to the host, its software, its state, its devices.
CHECKS: Final = (
    "name", "port", "key", "login", "clock", "environment", "probe",
    "python", "ray", "tensorflow", "torch", "jax", "numpy", "muster",
    "load", "governor", "memory", "disk",
    "gpus", "driver", "persistence", "busy", "devices",
)  # fmt: skip

#: Further apart, and times of different hosts are hard to read together. Never more than a warning: no deadline hangs
#: on a host's clock, and the certificates of a cluster allow for a day.
CLOCK_TOLERANCE_S: Final = 1.0


class Level(str, enum.Enum):
    """How much a finding matters; in ascending order."""

    OK = "ok"
    #: The run goes on; a figure may be worth less.
    WARNING = "warning"
    #: The host, or a device of it, cannot be measured.
    PROBLEM = "problem"


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """What one check of one host found."""

    host: str
    #: The check's short name: ``name``, ``port``, ``key``, ``login``, ``python``, ``ray``, ``clock``, ``driver`` …
    check: str
    level: Level
    text: str
    #: What to type to mend it, on that host unless it says otherwise.
    remedy: str | None = None
    #: What the host's cases get where this is a problem of the whole host; ``None`` where it stops nothing.
    verdict: Verdict | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Gap:
    """Why a declared device cannot be measured."""

    verdict: Verdict
    reason: str


def worst(findings: Iterable[Finding]) -> Level:
    """Return the level that matters most; OK where nothing was found."""
    return max((finding.level for finding in findings), key=tuple(Level).index, default=Level.OK)


def arranged(findings: Iterable[Finding], hosts: Sequence[str]) -> tuple[Finding, ...]:
    """Return findings host by host in the order of ``hosts``, and of each host in the order of :data:`CHECKS`.

    Hosts and checks that are in neither come last.
    """
    places = {host: place for place, host in enumerate(hosts)}
    checks = {check: place for place, check in enumerate(CHECKS)}
    return tuple(
        sorted(findings, key=lambda each: (places.get(each.host, len(places)), checks.get(each.check, len(checks))))
    )


def gaps(findings: Iterable[Finding]) -> Mapping[str, Gap]:
    """Return why whole hosts cannot be measured, by host: the first finding of each that has a verdict."""
    found: dict[str, Gap] = {}
    for finding in findings:
        if finding.verdict is not None:
            found.setdefault(finding.host, Gap(verdict=finding.verdict, reason=f"{finding.check}: {finding.text}"))
    return found


def clock_finding(host: str, *, offset_s: float, uncertainty_s: float) -> Finding:
    """Return what a clock that is ``offset_s`` seconds ahead of the head's means.

    ``uncertainty_s`` is half of what the question and its answer took: by so much the offset may be wrong, and the
    host gets the benefit of it.
    """
    side = "ahead of" if offset_s > 0 else "behind"
    text = f"{_seconds(abs(offset_s))} {side} the head's, ± {_seconds(uncertainty_s)}"
    if abs(offset_s) - uncertainty_s <= CLOCK_TOLERANCE_S:
        return Finding(host=host, check="clock", level=Level.OK, text=text)
    return Finding(
        host=host,
        check="clock",
        level=Level.WARNING,
        text=f"{text}: its times cannot be read beside those of others",
        remedy="sudo timedatectl set-ntp true; where chrony runs: sudo chronyc makestep",
    )


def _seconds(value: float) -> str:
    return f"{value:.0f} s" if value >= 10 else f"{value:.2g} s"
