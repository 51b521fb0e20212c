from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.descendants import Process, below, parse_stat


def a_process(pid: int, parent: int, started: int = 0, *, is_zombie: bool = False) -> Process:
    return Process(pid=pid, parent=parent, started=started, name=f"p{pid}", is_zombie=is_zombie)


def pids(processes: tuple[Process, ...]) -> list[int]:
    return [process.pid for process in processes]


#: ``/proc/PID/stat`` from the state on: parent 7 is the second field, start 4711 the twentieth.
_REST = "7 1 1 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 4711 99 1 18446744073709551615"


@pytest.mark.parametrize("name", ["raylet", "ray::IDLE", "a b", "a) R 1 (b", "(", ")", ""])
def test_a_process_is_read_whatever_its_name(name: str) -> None:
    found = parse_stat(f"12 ({name}) S {_REST}\n")
    assert found == Process(pid=12, parent=7, started=4711, name=name, is_zombie=False)


def test_what_has_ended_and_was_not_reaped_is_a_zombie() -> None:
    assert parse_stat(f"12 (x) Z {_REST}").is_zombie


def test_all_generations_are_found_and_nobody_else() -> None:
    everybody = (a_process(1, 0), a_process(2, 1), a_process(3, 2), a_process(4, 3), a_process(5, 1), a_process(6, 5))
    assert pids(below(everybody, 2)) == [3, 4]
    assert pids(below(everybody, 99)) == []


def test_a_child_older_than_its_parent_belongs_to_one_that_had_the_same_id() -> None:
    everybody = (a_process(1, 0, 0), a_process(2, 1, 50), a_process(3, 2, 49), a_process(4, 2, 50))
    assert pids(below(everybody, 1)) == [2, 4]


def test_zombies_are_not_alive_and_what_hangs_below_them_is_still_found() -> None:
    everybody = (a_process(1, 0), a_process(2, 1, is_zombie=True), a_process(3, 2))
    assert pids(below(everybody, 1)) == [3]


@given(parents=st.lists(st.integers(0, 30), max_size=30), root=st.integers(0, 30))
def test_whoever_is_found_has_the_root_among_its_ancestors(parents: list[int], root: int) -> None:
    everybody = tuple(a_process(pid, parent) for pid, parent in enumerate(parents, start=1) if parent < pid)
    by_pid = {process.pid: process for process in everybody}

    def descends(process: Process | None) -> bool:
        while process is not None:
            if process.parent == root:
                return True
            process = by_pid.get(process.parent)
        return False

    expected = {process.pid for process in everybody if root in by_pid and descends(process)}
    assert set(pids(below(everybody, root))) == expected
