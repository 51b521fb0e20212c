from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from orchestrator.dispatch.invariants import check_invariants
from orchestrator.dispatch.messages import (
    DeviceReady,
    PrepareDevice,
    StartCase,
)
from orchestrator.dispatch.settings import HostConcurrency
from orchestrator.dispatch.state import AttemptRecord, Board
from orchestrator.dispatch.transitions import AttemptState, CaseState, DeviceState
from tests.builders import a_case, a_device, a_workload
from tests.unit.bench import (
    case_on,
)
from workers.protocol import Company, Verdict

if TYPE_CHECKING:
    from collections.abc import Callable

    from workers.protocol import Case


def a_board(*cases: Case) -> Board:
    """The board of a run that has begun, its first device at work on its first case and all others idle."""
    board = Board.of(cases)
    for device in board.devices.values():
        board.move_device(device, PrepareDevice, 0.0)
        board.move_device(device, DeviceReady, 1.0)
        device.is_in_line = True
    device = next(iter(board.devices.values()))
    device.is_in_line = False
    record = device.queue.pop(0)
    device.active = record.attempt = AttemptRecord(case=record, number=1)
    board.move_device(device, StartCase, 1.0)
    board.move_case(record, StartCase, 1.0)
    board.deadlines.set(device.device.id, 9.0)
    return board


def busy_without_attempt(board: Board) -> None:
    board.devices["gpu01/gpu:0"].active = None


def busy_with_what_is_over(board: Board) -> None:
    board.cases["gpu01-gpu:0-1"].attempt.state = AttemptState.DONE  # type: ignore[union-attr]


def busy_without_deadline(board: Board) -> None:
    board.deadlines.clear("gpu01/gpu:0")


def idle_with_deadline(board: Board) -> None:
    board.deadlines.set("gpu01/cpu", 3.0)


def idle_without_line(board: Board) -> None:
    board.devices["gpu01/cpu"].is_in_line = False


def busy_and_missing(board: Board) -> None:
    board.cases["gpu01-gpu:0-1"].attempt.state = AttemptState.MISSING  # type: ignore[union-attr]


def silent_without_deadline(board: Board) -> None:
    board.hosts["gpu01"].silent_since = 3.0
    board.deadlines.clear("gpu01/gpu:0")


def heard_with_deadline(board: Board) -> None:
    board.deadlines.set("gpu01", 9.0)


def silent_without_anybody(board: Board) -> None:
    board.hosts["gpu01"].silent_since = 3.0
    for device in board.devices.values():
        device.state = DeviceState.AWAY


def closed_with_cases(board: Board) -> None:
    board.devices["gpu01/cpu"].state = DeviceState.LOST


def idle_without_cases(board: Board) -> None:
    board.devices["gpu01/cpu"].queue.clear()


def out_of_order(board: Board) -> None:
    board.devices["gpu01/gpu:0"].queue.reverse()


def load_miscounted(board: Board) -> None:
    board.hosts["gpu01"].preparing = 1


def cpu_beside_gpu(board: Board) -> None:
    board.move_device(board.devices["gpu01/cpu"], StartCase, 2.0)


def cases_miscounted(board: Board) -> None:
    board.counts[CaseState.DONE] = 7


def devices_miscounted(board: Board) -> None:
    board.open_devices = 0


def in_two_places(board: Board) -> None:
    board.devices["gpu01/cpu"].queue.append(board.cases["gpu01-gpu:0-2"])


def verdict_too_early(board: Board) -> None:
    board.cases["gpu01-gpu:0-2"].verdict = Verdict.OK


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (busy_without_attempt, "is busy with the active attempt None"),
        (busy_with_what_is_over, "at work on an attempt that is done"),
        (busy_without_deadline, "is busy without a deadline"),
        (idle_with_deadline, "is idle with a deadline"),
        (idle_without_line, "is idle without a deadline"),
        (busy_and_missing, "is busy and misses an attempt"),
        (silent_without_deadline, "host gpu01 is silent without a deadline"),
        (heard_with_deadline, "host gpu01 is heard with a deadline"),
        (silent_without_anybody, "is silent, and nobody there could speak"),
        (closed_with_cases, "is lost with 1 cases queued"),
        (idle_without_cases, "has nothing left and was not released"),
        (out_of_order, "has left the plan's order"),
        (load_miscounted, "and counts HostLoad"),
        (cpu_beside_gpu, "one of them must be alone"),
        (cases_miscounted, "and counted as"),
        (devices_miscounted, "2 devices are open and 0 are counted"),
        (in_two_places, "is queued and in 2 places"),
        (verdict_too_early, "with the verdict"),
    ],
)
def test_a_broken_invariant_is_noticed(spoil: Callable[[Board], None], message: str) -> None:
    board = a_board(case_on("gpu:0", 1), case_on("gpu:0", 2), case_on("gpu:0", 3), case_on("cpu"))
    check_invariants(board, HostConcurrency.CONCURRENT, is_stopping=False)
    spoil(board)
    with pytest.raises(AssertionError, match=message):
        check_invariants(board, HostConcurrency.CONCURRENT, is_stopping=False)


def test_an_idle_device_that_could_work_is_noticed() -> None:
    board = a_board(case_on("gpu:0"), case_on("gpu:1"))
    with pytest.raises(AssertionError, match="device gpu01/gpu:1 waits although its host has room"):
        check_invariants(board, HostConcurrency.CONCURRENT, is_stopping=False)


def test_cases_at_work_together_that_do_not_belong_together_are_noticed() -> None:
    cases = [
        a_case(a_device("gpu01", selector), a_workload(batch_size=number), key=selector, company=Company.TOGETHER)
        for number, selector in enumerate(("gpu:0", "gpu:1"), 1)
    ]
    board = Board.of(cases)
    for case in cases:
        device, record = board.devices[case.device.id], board.cases[case.key]
        for trigger in (PrepareDevice, DeviceReady, StartCase):
            board.move_device(device, trigger, 0.0)
        board.move_case(record, StartCase, 0.0)
        device.queue.remove(record)
        device.active = record.attempt = AttemptRecord(case=record, number=1)
        board.deadlines.set(case.device.id, 10.0)
    with pytest.raises(AssertionError, match="host gpu01 has cases at work together that do not belong together"):
        check_invariants(board, HostConcurrency.BOTH, is_stopping=False)
