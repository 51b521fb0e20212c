"""Cases that are measured together: who belongs to whom, and when a host has room for what."""

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


def has_room(board: Board, host: HostRecord, record: CaseRecord, concurrency: HostConcurrency) -> bool:
    """Return whether a host has room for a case: of those that come together, for all, each with its agent."""
    if not is_together(record.case, concurrency):
        return may_start(record.case.device.kind, host.load, concurrency)
    devices = (board.devices[each.case.device.id] for each in companions(board, record))
    return host.load.is_quiet and all(device.state is DeviceState.IDLE for device in devices)


def together_of(records: Sequence[CaseRecord]) -> Together:
    """Return what the agents of cases are told that begin together now: a name that was never given before."""
    attempts = "\n".join(f"{record.case.key} {record.made + 1}" for record in records)
    return Together(
        group=hashlib.sha256(attempts.encode()).hexdigest()[:32],
        selectors=tuple(record.case.device.selector for record in records),
    )
