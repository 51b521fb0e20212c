"""Cases that are measured together, and devices that are held together: when there is room for what."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from orchestrator.dispatch.policies import may_start
from orchestrator.dispatch.settings import HostConcurrency
from orchestrator.dispatch.transitions import CaseState, DeviceState
from workers.protocol import Company, Together

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestrator.dispatch.state import Board, CaseRecord, HostRecord
    from workers.protocol import Case


def is_together(case: Case, concurrency: HostConcurrency) -> bool:
    """Return whether a case waits for others of its host and begins with them."""
    return concurrency is HostConcurrency.BOTH and case.company is Company.TOGETHER


def companions(board: Board, record: CaseRecord) -> tuple[CaseRecord, ...]:
    """Return the queued cases that would be measured together with a queued one, itself among them, in plan order.

    One of each device: what of another case is left over there comes together with nobody.
    """
    found: dict[str, CaseRecord] = {}
    for each in board.groups[record.group]:
        if each.state is CaseState.QUEUED:
            found.setdefault(each.case.device.id, each)
    return (*found.values(),) if record in found.values() else (record,)


def has_room(board: Board, host: HostRecord, record: CaseRecord, concurrency: HostConcurrency, at: float) -> bool:
    """Return whether a host has room for a case: of those that come together, for all, each with its agent.

    A case of several devices needs all of them, and room on each of their hosts.
    """
    if record.is_shared:
        return _have_room(board, record, concurrency, at)
    if not is_together(record.case, concurrency):
        return may_start(record.case.device.kind, host.load, concurrency)
    devices = (board.devices[each.case.device.id] for each in companions(board, record))
    return host.load.is_quiet and all(device.state is DeviceState.IDLE for device in devices)


def _have_room(board: Board, record: CaseRecord, concurrency: HostConcurrency, at: float) -> bool:
    """Return whether all devices of a case wait for it, and for nothing that stands before it in the plan.

    So nobody waits in a circle: of the cases that hold several devices, the first one in the plan that may begin is the
    next one of each of its devices as soon as these have done what is before it.
    """
    devices = board.devices_of(record)
    hosts = {device.host.name: device.host for device in devices}
    return all(device.state is DeviceState.IDLE and device.due(at) is record for device in devices) and all(
        host.silent_since is None and may_start(record.case.device.kind, host.load, concurrency)
        for host in hosts.values()
    )


def together_of(records: Sequence[CaseRecord]) -> Together:
    """Return what the agents of cases are told that begin together now: a name that was never given before."""
    attempts = "\n".join(f"{record.case.key} {record.made + 1}" for record in records)
    return Together(
        group=hashlib.sha256(attempts.encode()).hexdigest()[:32],
        selectors=tuple(record.case.device.selector for record in records),
    )
