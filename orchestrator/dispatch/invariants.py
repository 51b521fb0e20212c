"""What must hold after every event; tests ask after each, for it takes time in proportion to the run."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from orchestrator.dispatch.policies import HostLoad, may_start, must_be_alone
from orchestrator.dispatch.state import CLOSED, OVER, CaseState, DeviceState
from workers.protocol import DeviceKind

if TYPE_CHECKING:
    from collections.abc import Iterator

    from orchestrator.dispatch.settings import HostConcurrency
    from orchestrator.dispatch.state import Board, CaseRecord, DeviceRecord, HostRecord


def check_invariants(board: Board, concurrency: HostConcurrency, *, is_stopping: bool) -> None:
    """Raise AssertionError that lists everything on the board that must never be."""
    by_host: dict[str, list[DeviceRecord]] = {name: [] for name in board.hosts}
    for device in board.devices.values():
        by_host[device.device.host].append(device)
    wrong = [line for device in board.devices.values() for line in _wrong_with_device(board, device, is_stopping)]
    wrong += [line for host in board.hosts.values() for line in _wrong_with_host(host, by_host[host.name], concurrency)]
    wrong += _wrong_with_cases(board)
    if wrong:
        raise AssertionError("\n".join(wrong))


def _wrong_with_device(board: Board, device: DeviceRecord, is_stopping: bool) -> Iterator[str]:
    is_busy = device.state is DeviceState.BUSY
    if is_busy != (device.active is not None):
        yield f"{device} is {device.state.value} with the active attempt {device.active}"
    if device.active is not None and device.active.state in OVER:
        yield f"{device} is busy with an attempt that is {device.active.state.value}"
    has_deadline = board.deadlines.of(device.device.id) is not None
    if has_deadline != (is_busy or device.state is DeviceState.PREPARING):
        yield f"{device} is {device.state.value} {'with' if has_deadline else 'without'} a deadline"
    if device.queue and (is_stopping or device.state in CLOSED):
        yield f"{device} is {device.state.value} with {len(device.queue)} cases queued"
    if not device.queue and device.state is DeviceState.IDLE:
        yield f"{device} has nothing left and was not released"
    positions = [record.position for record in device.queue]
    if positions != sorted(positions):
        yield f"{device} has left the plan's order"


def _wrong_with_host(host: HostRecord, devices: list[DeviceRecord], concurrency: HostConcurrency) -> Iterator[str]:
    busy = [device.device.kind for device in devices if device.state is DeviceState.BUSY]
    load = HostLoad(
        preparing=sum(device.state is DeviceState.PREPARING for device in devices),
        active_cpus=busy.count(DeviceKind.CPU),
        active_gpus=busy.count(DeviceKind.GPU),
    )
    if load != host.load:
        yield f"host {host.name} has {load} and counts {host.load}"
    if len(busy) > 1 and any(must_be_alone(kind, concurrency) for kind in busy):
        yield f"host {host.name} has {len(busy)} devices at work, and one of them must be alone"
    for device in devices:
        if device.state is DeviceState.IDLE and may_start(device.device.kind, load, concurrency):
            yield f"{device} waits although its host has room"


def _wrong_with_cases(board: Board) -> Iterator[str]:
    counts = Counter(record.state for record in board.cases.values())
    if counts != Counter(board.counts):
        yield f"cases are {counts} and counted as {board.counts}"
    open_devices = sum(device.state not in CLOSED for device in board.devices.values())
    if open_devices != board.open_devices:
        yield f"{open_devices} devices are open and {board.open_devices} are counted"
    places = Counter(_places(board))
    for record in board.cases.values():
        expected = 0 if record.state is CaseState.DONE else 1
        if places[record] != expected:
            yield f"{record} is {record.state.value} and in {places[record]} places"
        if (record.verdict is not None) != (record.state is CaseState.DONE):
            yield f"{record} is {record.state.value} with the verdict {record.verdict}"


def _places(board: Board) -> Iterator[CaseRecord]:
    for device in board.devices.values():
        yield from device.queue
        if device.active is not None:
            yield device.active.case
