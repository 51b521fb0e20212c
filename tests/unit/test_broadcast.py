"""Where a run is, as its head says it to the store."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest

from orchestrator.cli.progress.broadcast import Broadcast
from orchestrator.dispatch.messages import CaseStarted, HostSilent, PrepareDevice, RecordVerdict, StartCase
from orchestrator.dispatch.settings import HostConcurrency
from orchestrator.errors import StoreError
from tests.builders import a_case, a_device, a_new_run, a_workload
from workers.protocol import Phase, Progress, Verdict

if TYPE_CHECKING:
    from orchestrator.live import LiveRun

DEADLINE_S = 20.0


class Board:
    """Keeps what it was told."""

    def __init__(self, error: StoreError | None = None) -> None:
        self.said: list[LiveRun] = []
        self.dropped: list[str] = []
        self.has_new = threading.Event()
        self._error = error

    def put_live(self, state: LiveRun) -> None:
        self.said.append(state)
        self.has_new.set()
        if self._error is not None:
            raise self._error

    def drop_live(self, run_id: str) -> None:
        self.dropped.append(run_id)
        if self._error is not None:
            raise self._error


@pytest.fixture
def board() -> Board:
    return Board()


CASES = [
    a_case(a_device("a", selector), a_workload(batch_size=size), key=f"{selector}#{size}")
    for selector in ("gpu:0", "gpu:1")
    for size in (1, 2)
]


def a_broadcast(board: Board) -> Broadcast:
    broadcast = Broadcast(board, a_new_run("7f3a01"), clock=lambda: 100.0)
    broadcast.expect(CASES, estimates={}, concurrency=HostConcurrency.CONCURRENT)
    return broadcast


def test_it_says_what_each_device_is_doing(board: Board) -> None:
    broadcast = a_broadcast(board)
    for case in (CASES[0], CASES[2]):
        broadcast.heard(PrepareDevice(device=case.device))
    broadcast.heard(StartCase(case=CASES[0], attempt=2))
    broadcast.heard(CaseStarted(at=1.0, case_key=CASES[0].key, attempt=2))
    progress = Progress(
        case_key=CASES[0].key, attempt=2, phase=Phase.MEASURE, step=3, max_steps=50, last_ms=12.5, temperature_c=61.0,
        power_w=402.0,
    )  # fmt: skip
    broadcast.heard(progress)
    broadcast.heard(HostSilent(at=2.0, host="b"))
    state = broadcast.state()
    assert (state.run_id, state.done, state.failed, state.total, state.silent) == ("7f3a01", 0, 0, 4, ("b",))
    busy, preparing = state.devices
    assert (busy.id, busy.activity, busy.step, busy.last_ms, busy.attempt) == ("a/gpu:0", "measuring", 3, 12.5, 2)
    assert (busy.temperature_c, busy.power_w, busy.total, busy.case) == (61.0, 402.0, 2, "alexnet forward b1 float32")
    assert (preparing.activity, preparing.case, preparing.step, preparing.temperature_c) == (
        "preparing",
        None,
        None,
        None,
    )


def test_failures_and_doubts_are_told_the_newest_first_and_not_without_end(board: Board) -> None:
    broadcast = a_broadcast(board)
    broadcast.heard(RecordVerdict(case_key=CASES[0].key, verdict=Verdict.OK, reason=None))
    broadcast.heard(RecordVerdict(case_key=CASES[1].key, verdict=Verdict.NOISY, reason="it varies"))
    broadcast.heard(RecordVerdict(case_key=CASES[2].key, verdict=Verdict.OOM, reason="no memory"))
    state = broadcast.state()
    assert [(each.device_id, each.verdict, each.reason) for each in state.failures] == [
        ("a/gpu:1", "oom", "no memory"),
        ("a/gpu:0", "noisy", "it varies"),
    ]
    assert [(each.done, each.failed) for each in state.devices] == [(2, 0), (1, 1)]
    for _ in range(100):
        broadcast.heard(RecordVerdict(case_key=CASES[2].key, verdict=Verdict.OOM, reason="no memory"))
    assert len(broadcast.state().failures) == 20


def test_it_writes_by_itself_and_takes_back_what_it_said(board: Board) -> None:
    with a_broadcast(board) as broadcast:
        assert board.has_new.wait(DEADLINE_S)
        board.has_new.clear()
        broadcast.heard(RecordVerdict(case_key=CASES[0].key, verdict=Verdict.OOM, reason=None))
        assert board.has_new.wait(DEADLINE_S)
    assert board.said[-1].done == 1
    assert board.dropped == ["7f3a01"]
    assert not [thread for thread in threading.enumerate() if thread.name == "muster-broadcast"]


def test_a_store_that_fails_ends_it_and_nothing_else() -> None:
    board = Board(StoreError("the disk is full"))
    with a_broadcast(board) as broadcast:
        assert board.has_new.wait(DEADLINE_S)
        for _ in range(3):
            broadcast.heard(RecordVerdict(case_key=CASES[0].key, verdict=Verdict.OOM, reason=None))
    assert len(board.said) == 1
