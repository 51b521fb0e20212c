"""Where the runs are, as texts for a page, and what of them has changed. Pure."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any, Final

from orchestrator.report.printable import printable
from orchestrator.report.words import count, seconds

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from orchestrator.live import LiveDevice, LiveFailure, LiveRun


#: Fields of a run that the page has places for, beside those of its devices.
_CHANGING: Final = ("done", "total", "cases", "failed", "elapsed", "eta", "stage", "failures")


@dataclass(frozen=True, kw_only=True, slots=True)
class DeviceLine:
    """One device's bar; every field but the two numbers is text for people, empty for nothing."""

    #: Its number in the run, by which the page knows it.
    number: int
    host: str
    selector: str
    name: str
    activity: str
    case: str
    doing: str
    steps: str
    ms: str
    heat: str
    power: str
    left: str
    cases: str
    #: Counted steps so far, and at most: the bar.
    step: int
    max_steps: int


@dataclass(frozen=True, kw_only=True, slots=True)
class RunView:
    """One run that goes on."""

    id: str
    name: str
    simulated: bool
    done: int
    total: int
    cases: str
    failed: str
    elapsed: str
    eta: str
    stage: str
    failures: tuple[str, ...]
    devices: tuple[DeviceLine, ...]

    @property
    def hosts(self) -> tuple[tuple[str, tuple[DeviceLine, ...]], ...]:
        """Its devices by host, in the plan's order."""
        found: dict[str, list[DeviceLine]] = {}
        for host, lines in groupby(self.devices, key=lambda line: line.host):
            found.setdefault(host, []).extend(lines)
        return tuple((host, tuple(lines)) for host, lines in found.items())


def views(runs: Sequence[LiveRun]) -> tuple[RunView, ...]:
    """Return the runs for a page."""
    return tuple(map(_view, runs))


def _view(run: LiveRun) -> RunView:
    silent = f"silent: {', '.join(map(printable, run.silent))}" if run.silent else ""
    return RunView(
        id=run.run_id,
        name=printable(run.name),
        simulated=run.simulated,
        done=run.done,
        total=run.total,
        cases=f"{run.done} of {count(run.total, 'case')}",
        failed=f"{run.failed} without a figure" if run.failed else "",
        elapsed=seconds(run.elapsed_s),
        eta=_eta(run),
        stage="; ".join(filter(None, (*map(printable, run.stages), silent))),
        failures=tuple(map(_failure, run.failures)),
        devices=tuple(_line(number, device) for number, device in enumerate(run.devices)),
    )


def _eta(run: LiveRun) -> str:
    if run.done >= run.total:
        return "ending"
    return "unknown" if run.left_s is None else seconds(run.left_s)


def _failure(failure: LiveFailure) -> str:
    why = f": {failure.reason}" if failure.reason else ""
    return printable(f"{failure.device_id}: {failure.case}: {failure.verdict}{why}")


def _line(number: int, device: LiveDevice) -> DeviceLine:
    is_stepping = device.step is not None and device.max_steps is not None
    again = f" (attempt {device.attempt})" if device.attempt is not None and device.attempt > 1 else ""
    return DeviceLine(
        number=number,
        host=printable(device.host),
        selector=printable(device.id.partition("/")[2]),
        name=printable(device.name),
        activity=device.activity,
        case="" if device.case is None else printable(device.case) + again,
        doing="" if device.doing in (None, device.activity) else printable(device.doing or ""),
        steps=f"{device.step}/{device.max_steps}" if is_stepping else "",
        ms="" if device.last_ms is None else f"{device.last_ms:.4g} ms",
        heat="" if device.temperature_c is None else f"{device.temperature_c:.0f} °C",
        power="" if device.power_w is None else f"{device.power_w:.0f} W",
        left="" if device.left_s is None or device.left_s < 1 else f"~{seconds(device.left_s)}",
        cases=f"{device.done}/{device.total}" + (f", {device.failed} failed" if device.failed else ""),
        step=device.step or 0,
        max_steps=device.max_steps or 1,
    )


def structure(found: Sequence[RunView]) -> str:
    """Return a word that is another one where the page must be drawn anew: other runs, hosts or devices."""
    parts = [(run.id, [(line.host, line.selector) for line in run.devices]) for run in found]
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


def everything(now: Sequence[RunView]) -> dict[str, Any]:
    """Return what brings any page of that structure up to date, in the form of :func:`changes`."""
    told = {
        run.id: {**_fields(run), "devices": {str(line.number): asdict(line) for line in run.devices}} for run in now
    }
    return {"structure": structure(now), "runs": told}


def changes(before: Sequence[RunView], now: Sequence[RunView]) -> dict[str, Any]:
    """Return what a page that shows ``before`` must change to show ``now``: field by field, and nothing else.

    ``{"structure": WORD, "runs": {RUN: {FIELD: TEXT, "failures": [...], "devices": {NUMBER: {FIELD: TEXT}}}}}``; where
    the word is another one, the page must be drawn anew, and no more is told.
    """
    word = structure(now)
    if structure(before) != word:
        return {"structure": word, "runs": {}}
    told = {new.id: _run_changes(old, new) for old, new in zip(before, now, strict=True)}
    return {"structure": word, "runs": {run_id: change for run_id, change in told.items() if change}}


def _fields(run: RunView) -> dict[str, Any]:
    """Return what of a run itself can change while it goes on."""
    return {name: getattr(run, name) for name in _CHANGING}


def _run_changes(old: RunView, new: RunView) -> dict[str, Any]:
    devices = {
        str(line.number): _differing(asdict(before), asdict(line))
        for before, line in zip(old.devices, new.devices, strict=True)
        if before != line
    }
    change = _differing(_fields(old), _fields(new))
    return {**change, "devices": devices} if devices else change


def _differing(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in new.items() if old[name] != value}
