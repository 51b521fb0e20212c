"""Members of a group in one process: each has its own open file, which is what the kernel's locks keep apart."""

from __future__ import annotations

import contextlib
import fcntl
import os
from typing import TYPE_CHECKING

import pytest

from tests.builders import a_device
from workers.company import FILE, Company, CompanyLateError, CompanyMissingError, excuse, lead
from workers.lease import Lease, LeaseBusyError, claims_of
from workers.lockfiles import opened_file, opened_folder, set_lock
from workers.protocol import Together

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from workers.protocol import Device

TOGETHER = Together(group="g1", selectors=("cpu:0", "cpu:1", "cpu:2"))
OTHERS = Together(group="g2", selectors=("cpu:0", "cpu:1"))


def a_lease(folder: Path, selector: str, group: str | None, device: Device | None = None) -> Lease:
    device = device or a_device("h", selector, cores=(int(selector.removeprefix("cpu:")),))
    claims = claims_of(device, is_alone=False, group=group)
    return Lease(claims, run_id="run", head="head", folder=folder)


def take(lease: Lease, timeout_s: float = 0.0) -> list[str]:
    told: list[str] = []
    assert lease.take(timeout_s, pause=lambda _: False, tell=told.append)
    return told


class Clock:
    """Time goes on with every pause and step, and something may happen at a pause."""

    def __init__(self, *, step_s: float = 0.03) -> None:
        self.now = 0.0
        self.step_s = step_s
        self.steps = 0
        self.at_pause: Callable[[], object] = lambda: None
        self.at_step: Callable[[], object] = lambda: None

    def __call__(self) -> float:
        return self.now

    def pause(self, seconds: float) -> None:
        self.now += seconds
        self.at_pause()

    def step(self) -> None:
        self.now += self.step_s
        self.steps += 1
        self.at_step()


@pytest.fixture
def members(tmp_path: Path) -> Iterator[list[Company]]:
    """Three who have come, and whose group is led."""
    with a_lease(tmp_path, "cpu:0", "g1") as leader:
        take(leader)
        found = [Company(TOGETHER, selector, tmp_path) for selector in TOGETHER.selectors]
        for each in found:
            each.join()
        yield found
        for each in found:
            with contextlib.suppress(OSError):  # a test has closed it
                each.close()


def begin(company: Company, clock: Clock, timeout_s: float = 10.0) -> None:
    company.begin(clock.step, timeout_s=timeout_s, clock=clock, pause=clock.pause)


# --- the host ---


def test_the_first_of_a_group_takes_the_host_for_all_of_it(tmp_path: Path) -> None:
    with a_lease(tmp_path, "cpu:0", "g1") as first, a_lease(tmp_path, "cpu:1", "g1") as second:
        take(first)
        take(second)
        for stranger in (a_lease(tmp_path, "cpu:2", None), a_lease(tmp_path, "cpu:2", "g2")):
            with stranger, pytest.raises(LeaseBusyError, match="the host is held by"):
                take(stranger)
    with a_lease(tmp_path, "cpu:0", "g2") as other:
        assert take(other) == []


def test_a_group_waits_for_whoever_has_the_host(tmp_path: Path) -> None:
    with a_lease(tmp_path, "cpu:3", None) as stranger, a_lease(tmp_path, "cpu:0", "g1") as first:
        take(stranger)
        with pytest.raises(LeaseBusyError, match="the host is held by"):
            take(first)


def test_who_stands_in_line_when_one_of_its_group_takes_the_host_leaves_the_line(tmp_path: Path) -> None:
    with opened_folder(tmp_path) as folder:
        host, company = (opened_file(folder, tmp_path / name) for name in ("host", FILE))
    assert set_lock(host, fcntl.F_WRLCK, 0)  # it has the host, and has not said yet for whom
    with a_lease(tmp_path, "cpu:1", "g1") as second, a_lease(tmp_path, "cpu:2", None) as stranger:

        def pause(_: float) -> bool:
            lead(company, "g1")
            return False

        told: list[str] = []
        assert second.take(5.0, pause=pause, tell=told.append)
        assert told == ["the host is held by somebody"]
        with pytest.raises(LeaseBusyError, match="the host is held by somebody"):  # and promised to nobody
            take(stranger)
    os.close(host)
    os.close(company)


def test_a_member_keeps_its_own_cores_from_others_of_its_group(tmp_path: Path) -> None:
    with a_lease(tmp_path, "cpu:0", "g1") as first, a_lease(tmp_path, "cpu:0", "g1") as twice:
        take(first)
        with pytest.raises(LeaseBusyError, match="core 0 is held by"):
            take(twice)


# --- beginning ---


def test_nobody_begins_before_all_are_ready(members: list[Company]) -> None:
    clock = Clock()
    waited: list[int] = []

    def others_become_ready() -> None:
        waited.append(clock.steps)
        if len(waited) == 3:
            members[1]._write(b"r")
        if len(waited) == 5:
            members[2]._write(b"r")

    clock.at_pause = others_become_ready
    begin(members[0], clock)
    assert waited == [0] * 5
    assert clock.steps == 4  # at work together for a tenth of a second, before anything counts
    assert members[0].reason is None
    assert members[0].facts().get("company.devices").value == "cpu:1, cpu:2"


def test_one_long_step_is_enough_to_be_at_work_together(members: list[Company]) -> None:
    clock = Clock(step_s=3.0)
    members[1]._write(b"r")
    members[2]._write(b"r")
    begin(members[0], clock)
    assert clock.steps == 1


def test_who_is_gone_before_it_was_ready_is_not_waited_for_and_the_figure_says_so(members: list[Company]) -> None:
    clock = Clock()
    members[1]._write(b"r")
    clock.at_pause = members[2].close
    begin(members[0], clock)
    assert members[0].reason == "its company was not whole: cpu:2 not beside it"
    assert members[0].facts().get("company.devices").value == "cpu:1"


def test_nobody_is_measured_alone_in_place_of_together(members: list[Company]) -> None:
    members[1].close()
    members[2].close()
    with pytest.raises(CompanyMissingError, match="cpu:1, cpu:2 ended before the first step"):
        begin(members[0], Clock())


def test_nobody_waits_longer_than_the_deadline(members: list[Company]) -> None:
    members[1]._write(b"r")
    clock = Clock()
    with pytest.raises(CompanyLateError, match=r"cpu:2 not ready to be measured beside it within 10 s"):
        begin(members[0], clock)
    assert 10.0 <= clock.now < 10.1


def test_who_has_not_come_yet_is_waited_for_unless_it_was_excused(tmp_path: Path) -> None:
    with a_lease(tmp_path, "cpu:0", "g1") as leader:
        take(leader)
        first, second = (Company(TOGETHER, selector, tmp_path) for selector in ("cpu:0", "cpu:1"))
        first.join()
        second.join()
        second._write(b"r")
        clock = Clock()
        clock.at_pause = lambda: excuse(TOGETHER, "cpu:2", tmp_path) if clock.now > 1.0 else None
        begin(first, clock)
        assert 1.0 < clock.now < 2.0
        first.close()
        second.close()


def test_an_excuse_changes_nothing_for_who_has_come_nor_for_another_group(
    members: list[Company], tmp_path: Path
) -> None:
    excuse(TOGETHER, "cpu:2", tmp_path)
    excuse(OTHERS, "cpu:1", tmp_path)
    with pytest.raises(CompanyLateError, match="cpu:1, cpu:2 not ready"):
        begin(members[0], Clock())


def test_an_excuse_that_cannot_be_made_is_left_out(tmp_path: Path) -> None:
    (tmp_path / FILE).mkdir()
    excuse(TOGETHER, "cpu:2", tmp_path)


def test_nobody_joins_a_group_that_is_not_there_nor_twice(members: list[Company], tmp_path: Path) -> None:
    for together, selector in ((OTHERS, "cpu:0"), (TOGETHER, "cpu:1")):
        late = Company(together, selector, tmp_path)
        with pytest.raises(CompanyMissingError, match="the host is not held any more for"):
            late.join()
        late.close()


# --- staying ---


def all_at_work(members: list[Company]) -> None:
    for each in members:
        each._write(b"r")
    begin(members[0], Clock())


def test_whoever_is_done_goes_on_until_all_are(members: list[Company]) -> None:
    all_at_work(members)
    clock = Clock()

    def others_end() -> None:
        if clock.steps == 5:
            members[1]._write(b"d")
        if clock.steps == 9:
            members[2]._write(b"d")

    clock.at_step = others_end
    members[0].stay(clock.step, timeout_s=60.0, clock=clock)
    assert clock.steps == 9
    assert members[0].reason is None


def test_who_ends_without_a_word_is_not_stayed_for(members: list[Company]) -> None:
    all_at_work(members)
    members[1]._write(b"d")
    clock = Clock()
    clock.at_step = members[2].close
    members[0].stay(clock.step, timeout_s=60.0, clock=clock)
    assert clock.steps == 1
    assert members[0].reason is None  # it was there until our own last step


def test_who_left_before_the_last_step_spoils_the_company_and_the_figure_says_so(members: list[Company]) -> None:
    all_at_work(members)
    members[1]._write(b"d")
    members[2].close()
    clock = Clock()
    members[0].stay(clock.step, timeout_s=60.0, clock=clock)
    assert clock.steps == 0
    assert members[0].reason == "its company was not whole: cpu:2 left before its last step"
    assert members[0].facts().get("company.left").value == "cpu:2"


def test_nobody_stays_longer_than_the_deadline_nor_after_a_step_that_fails(members: list[Company]) -> None:
    all_at_work(members)
    clock = Clock(step_s=1.0)
    members[0].stay(clock.step, timeout_s=7.0, clock=clock)
    assert clock.steps == 7

    def fail() -> None:
        raise RuntimeError("too late to matter")

    clock.at_step = fail
    members[0].stay(clock.step, timeout_s=7.0, clock=clock)
    assert clock.steps == 8


def test_who_leads_after_another_of_its_group_still_sees_who_has_come_and_gone(tmp_path: Path) -> None:
    pair = Together(group="g1", selectors=("cpu:0", "cpu:1"))
    with a_lease(tmp_path, "cpu:1", "g1") as first:
        take(first)
        gone = Company(pair, "cpu:1", tmp_path)
        gone.join()
        gone.close()
    with a_lease(tmp_path, "cpu:0", "g1") as second:
        take(second)
        late = Company(pair, "cpu:0", tmp_path)
        late.join()
        with pytest.raises(CompanyMissingError, match="cpu:1 ended before the first step"):
            begin(late, Clock())
        late.close()


def test_a_new_leader_begins_with_an_empty_file(tmp_path: Path) -> None:
    with a_lease(tmp_path, "cpu:0", "g1") as leader:
        take(leader)
        old = Company(TOGETHER, "cpu:1", tmp_path)
        old.join()
        old._write(b"d")
        old.close()
    with a_lease(tmp_path, "cpu:0", "g2") as leader:
        take(leader)
        new = Company(OTHERS, "cpu:0", tmp_path)
        new.join()
        with pytest.raises(CompanyLateError, match="cpu:1 not ready"):
            begin(new, Clock())
        new.close()
