"""What the store knows of a lab: its hosts and devices, when each was seen, what is put aside, who holds what."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from typing_extensions import TypedDict

from orchestrator.report.listings import QuarantineData, quarantine_data

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestrator.live import LiveRun
    from orchestrator.results import DeviceSeen, Quarantine
    from orchestrator.store.repository import Store

#: In these a device of a run that goes on is held by it.
_HOLDING: Final = frozenset({"measuring", "starting"})


class LeaseData(TypedDict):
    """Who holds a device, or what is waited for there."""

    run_id: str
    #: ``held`` or ``waiting``.
    state: str
    #: The case, or for whom it waits.
    text: str


class LabDeviceData(TypedDict):
    """A device of the lab."""

    id: str
    host: str
    name: str
    kind: str
    memory: str | None
    uuid: str | None
    last_seen: str
    last_run: str
    last_verdict: str | None
    last_reason: str | None
    quarantine: QuarantineData | None
    leases: list[LeaseData]


@dataclass(frozen=True, kw_only=True, slots=True)
class LabHost:
    """A host and its devices."""

    name: str
    devices: tuple[LabDeviceData, ...]
    quarantine: QuarantineData | None


def lab_of(store: Store, *, simulated: bool) -> tuple[LabDeviceData, ...]:
    """Return every device that a run of this store had, by id; leases are those of runs that go on, as they say it."""
    now = datetime.datetime.now(datetime.timezone.utc)
    aside = store.quarantines(now, simulated=simulated)
    leases = _leases([run for run in store.live() if run.simulated == simulated])
    return tuple(
        _device(seen, aside, leases.get(seen.device.id, []), simulated=simulated)
        for seen in store.devices_seen(simulated=simulated)
    )


def _leases(live: Sequence[LiveRun]) -> dict[str, list[LeaseData]]:
    """Return by the device's id who holds it, and what is waited for there."""
    found: dict[str, list[LeaseData]] = {}
    for run in live:
        for device in run.devices:
            is_held = device.activity in _HOLDING
            if is_held or device.activity == "waiting":
                text = device.case if is_held else device.doing
                lease: LeaseData = {
                    "run_id": run.run_id, "state": "held" if is_held else "waiting", "text": text or "",
                }  # fmt: skip
                found.setdefault(device.id, []).append(lease)
    return found


def _device(
    seen: DeviceSeen, aside: Sequence[Quarantine], leases: list[LeaseData], *, simulated: bool
) -> LabDeviceData:
    device = seen.device
    put_aside = next((one for one in aside if one.covers(device.id)), None)
    return {
        "id": device.id,
        "host": device.host,
        "name": device.name,
        "kind": device.kind.value,
        "memory": device.memory,
        "uuid": device.uuid,
        "last_seen": seen.at.isoformat(),
        "last_run": seen.run_id,
        "last_verdict": None if seen.verdict is None else seen.verdict.value,
        "last_reason": seen.reason,
        "quarantine": None if put_aside is None else quarantine_data(put_aside, simulated=simulated),
        "leases": leases,
    }


def hosts_of(devices: Sequence[LabDeviceData]) -> tuple[LabHost, ...]:
    """Return the devices by host, in their order."""
    found: dict[str, list[LabDeviceData]] = {}
    for device in devices:
        found.setdefault(device["host"], []).append(device)
    return tuple(
        LabHost(name=name, devices=tuple(each), quarantine=_of_host(name, each)) for name, each in found.items()
    )


def _of_host(name: str, devices: Sequence[LabDeviceData]) -> QuarantineData | None:
    quarantines = (device["quarantine"] for device in devices)
    return next((one for one in quarantines if one is not None and one["target"] == name), None)
