"""What must hold after every event; tests ask after each, for it takes time in proportion to the run."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from orchestrator.dispatch.policies import HostLoad, may_start, must_be_alone
from orchestrator.dispatch.settings import HostConcurrency
from orchestrator.dispatch.transitions import CLOSED, OVER, AttemptState, CaseState, DeviceState
from workers.protocol import DeviceKind

if TYPE_CHECKING:
    from collections.abc import Iterator

    from orchestrator.dispatch.state import Board, CaseRecord, DeviceRecord, HostRecord


def check_invariants(board: Board, concurrency: HostConcurrency, *, is_stopping: bool) -> None:
    """Raise AssertionError that lists everything on the board that must never be."""
    by_host: dict[str, list[DeviceRecord]] = {name: [] for name in board.hosts}
    for device in board.devices.values():
        by_host[device.device.host].append(device)
    wrong = [line for device in board.devices.values() for line in _wrong_with_device(board, device, is_stopping)]
    wrong += [line for host in board.hosts.values() for line in _wrong_with_host(host, by_host[host.name], concurrency)]
    wrong += [line for host in board.hosts.values() for line in _wrong_with_silence(board, host)]
    wrong += _wrong_with_cases(board)
    if wrong:
        raise AssertionError("\n".join(wrong))


def _wrong_with_device(board: Board, device: DeviceRecord, is_stopping: bool) -> Iterator[str]:
    attempt = device.active
    is_missing = attempt is not None and attempt.state is AttemptState.MISSING and not device.is_peer
    may_miss = device.state in (DeviceState.AWAY, DeviceState.PREPARING)
    if is_missing and not may_miss:
        yield f"{device} is {device.state.value} and misses an attempt"
    if (device.state is DeviceState.BUSY) != (attempt is not None and not is_missing):
        yield f"{device} is {device.state.value} with the active attempt {attempt}"
    if attempt is not None and attempt.state in OVER and not device.is_peer:
        yield f"{device} is at work on an attempt that is {attempt.state.value}"
    yield from _wrong_with_waiting(board, device)
    if device.queue and (is_stopping or device.state in CLOSED):
        yield f"{device} is {device.state.value} with {len(device.queue)} cases queued"
    if not (device.queue or device.shared) and device.state is DeviceState.IDLE:
        yield f"{device} has nothing left and was not released"
    positions = [record.position for record in device.queue]
    if positions != sorted(positions):
        yield f"{device} has left the plan's order"


def _wrong_with_waiting(board: Board, device: DeviceRecord) -> Iterator[str]:
    """Tell of a device that waits for nothing, or for what cannot come."""
    has_deadline = board.deadlines.of(device.device.id) is not None
    is_silent = device.host.silent_since is not None
    waits = device.state in (DeviceState.BUSY, DeviceState.PREPARING, DeviceState.AWAY)
    if device.state is DeviceState.IDLE:
        waits = bool(device.queue) and not device.is_in_line
    if device.is_peer and device.active is not None:
        waits = device.active.state in OVER or device.active.state is AttemptState.MISSING
    if has_deadline != (waits and not is_silent):
        yield f"{device} is {device.state.value} {'with' if has_deadline else 'without'} a deadline"


def _wrong_with_host(host: HostRecord, devices: list[DeviceRecord], concurrency: HostConcurrency) -> Iterator[str]:
    busy = [device.device.kind for device in devices if device.state is DeviceState.BUSY]
    cases = [device.active.case for device in devices if device.state is DeviceState.BUSY and device.active]
    load = HostLoad(
        preparing=sum(device.state is DeviceState.PREPARING for device in devices),
        active_cpus=busy.count(DeviceKind.CPU),
        active_gpus=busy.count(DeviceKind.GPU),
    )
    if load != host.load:
        yield f"host {host.name} has {load} and counts {host.load}"
    if len({id(device.active) for device in devices if device.state is DeviceState.BUSY}) > 1 and any(
        _must_be_alone(device, concurrency) for device in devices
    ):
        yield f"host {host.name} has {len(busy)} devices at work, and one of them must be alone"
    if concurrency is HostConcurrency.BOTH and len({one.group for one in cases}) > 1:
        yield f"host {host.name} has cases at work together that do not belong together"
    # Where cases wait for each other, a device may wait for one that is away.
    is_away = any(device.state is DeviceState.AWAY for device in devices)
    for device in devices:
        has_turn = device.state is DeviceState.IDLE and device.is_in_line and host.silent_since is None
        waits_for_others = concurrency is HostConcurrency.BOTH and is_away
        waits_for_others |= any(record.is_shared for record in device.queue)
        if has_turn and may_start(device.device.kind, load, concurrency) and not waits_for_others:
            yield f"{device} waits although its host has room"


def _must_be_alone(device: DeviceRecord, concurrency: HostConcurrency) -> bool:
    company = device.active.case.case.company if device.active is not None else None
    return device.state is DeviceState.BUSY and must_be_alone(device.device.kind, concurrency, company)


def _wrong_with_silence(board: Board, host: HostRecord) -> Iterator[str]:
    is_silent, has_deadline = host.silent_since is not None, board.deadlines.of(host.name) is not None
    if is_silent != has_deadline:
        said = "with" if has_deadline else "without"
        yield f"host {host.name} is {'silent' if is_silent else 'heard'} {said} a deadline"
    if is_silent and all(device.state in CLOSED or device.state is DeviceState.AWAY for device in host.devices):
        yield f"host {host.name} is silent, and nobody there could speak"


def _wrong_with_cases(board: Board) -> Iterator[str]:
    counts = Counter(record.state for record in board.cases.values())
    if counts != Counter(board.counts):
        yield f"cases are {counts} and counted as {board.counts}"
    open_devices = sum(device.state not in CLOSED for device in board.devices.values())
    if open_devices != board.open_devices:
        yield f"{open_devices} devices are open and {board.open_devices} are counted"
    places = Counter(_places(board))
    for record in board.cases.values():
        expected = {CaseState.DONE: 0, CaseState.QUEUED: len(record.case.devices), CaseState.ACTIVE: 1}[record.state]
        if places[record] != expected:
            yield f"{record} is {record.state.value} and in {places[record]} places"
        if (record.verdict is not None) != (record.state is CaseState.DONE):
            yield f"{record} is {record.state.value} with the verdict {record.verdict}"


def _places(board: Board) -> Iterator[CaseRecord]:
    for device in board.devices.values():
        yield from device.queue
        if device.active is not None and not device.is_peer:
            yield device.active.case
