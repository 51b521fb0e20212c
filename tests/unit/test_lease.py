from __future__ import annotations

import os
import re
import stat
import time
from typing import TYPE_CHECKING

import pytest

from tests.builders import a_device
from workers.lease import (
    Claim,
    Holder,
    Lease,
    LeaseBusyError,
    claims_of,
    holders,
    this_process,
)
from workers.lockfiles import FOLDER_VARIABLE, LeaseError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from workers.protocol import Device

GPU = a_device("gpu01", "gpu:0")
OTHER_GPU = a_device("gpu01", "gpu:1")
CPU = a_device("gpu01", "cpu", cores=(0, 1, 2, 3))


class Waiting:
    """What a lease is given to wait with: it counts, and says when to stop."""

    def __init__(self, *, pauses: int = 0, then: Callable[[], object] = lambda: None) -> None:
        self.told: list[str] = []
        self.left = pauses
        self.then = then

    def tell(self, reason: str) -> None:
        self.told.append(reason)

    def pause(self, seconds: float) -> bool:
        assert 0 < seconds <= 1
        if self.left == 0:
            self.then()
        self.left -= 1
        return self.left < -3


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "leases"


@pytest.fixture
def lease(folder: Path) -> Iterator[Callable[..., Lease]]:
    """Makes leases, each as if another muster had it, all of which are given back at the end."""
    made: list[Lease] = []

    def make(device: Device = GPU, *, is_alone: bool = False, run_id: str = "3f2a", head: str = "head01") -> Lease:
        made.append(Lease(claims_of(device, is_alone=is_alone), run_id=run_id, head=head, folder=folder))
        return made[-1]

    yield make
    for one in made:
        one.give_back()


def take(lease: Lease, waiting: Waiting | None = None, timeout_s: float = 60.0) -> bool:
    waiting = waiting or Waiting()
    return lease.take(timeout_s, pause=waiting.pause, tell=waiting.tell)


def is_free_beside(first: Lease, second: Lease) -> bool:
    """Return whether the second lease can be had at once while somebody has the first; gives both back."""
    assert take(first)
    waiting = Waiting()
    try:
        with second:
            return take(second, waiting) and not waiting.told
    finally:
        first.give_back()


# --- what excludes what ----------------------------------------------------------------------------------------


def test_a_gpu_shares_its_host_and_keeps_to_itself() -> None:
    assert claims_of(GPU, is_alone=False) == (
        Claim(file="host", label="the host", is_shared=True),
        Claim(file="gpu-GPU-gpu01-gpu_0", label="the GPU"),
    )


def test_a_gpu_without_a_uuid_goes_by_its_index() -> None:
    assert claims_of(a_device("gpu01", "gpu:3", uuid=None), is_alone=False)[1].file == "gpu-index-3"


def test_no_file_has_a_name_that_leads_elsewhere() -> None:
    file = claims_of(a_device("gpu01", "gpu:0", uuid="MIG-GPU-1/../2\n\0"), is_alone=False)[1].file
    assert re.fullmatch(r"[\w.-]+", file)


def test_what_must_be_alone_has_the_host_to_itself() -> None:
    assert claims_of(CPU, is_alone=True) == (Claim(file="host", label="the host"),)
    assert [claim.is_shared for claim in claims_of(GPU, is_alone=True)] == [False, False]


@pytest.mark.parametrize(
    ("first", "second", "is_free"),
    [
        ((GPU, False), (OTHER_GPU, False), True),
        ((GPU, False), (GPU, False), False),
        ((GPU, False), (CPU, True), False),
        ((CPU, True), (GPU, False), False),
        ((CPU, True), (CPU, True), False),
        ((GPU, True), (OTHER_GPU, False), False),
        ((CPU, False), (GPU, False), True),
        ((CPU, False), (CPU, True), False),
    ],
)
def test_cases_exclude_each_other_as_their_hosts_ask(
    lease: Callable[..., Lease], first: tuple[Device, bool], second: tuple[Device, bool], is_free: bool
) -> None:
    made = [lease(device, is_alone=is_alone) for device, is_alone in (first, second)]
    assert is_free_beside(*made) is is_free


# --- waiting ---------------------------------------------------------------------------------------------------


def test_a_lease_that_is_free_is_had_at_once_and_nobody_is_told(lease: Callable[..., Lease], folder: Path) -> None:
    waiting = Waiting()
    assert take(lease(), waiting)
    assert waiting.told == []
    assert sorted(path.name for path in folder.iterdir()) == ["gpu-GPU-gpu01-gpu_0", "host"]


def test_whoever_waits_hears_who_has_it_and_gets_it_once_it_is_free(lease: Callable[..., Lease]) -> None:
    first, second = lease(run_id="3f2a", head="head01"), lease()
    assert take(first)
    waiting = Waiting(pauses=2, then=first.give_back)
    assert take(second, waiting)
    (reason,) = waiting.told
    user = this_process(run_id="", head="").user
    assert re.fullmatch(rf"the GPU is held by {user} \(run 3f2a of head01, since \d\d:\d\d\)", reason)


def test_a_wait_that_lasts_too_long_says_who_had_it(lease: Callable[..., Lease]) -> None:
    first, second = lease(CPU, is_alone=True), lease()
    assert take(first)
    with pytest.raises(LeaseBusyError, match=r"^the host is held by .*\(run 3f2a of .*, and was not free within 0 s$"):
        take(second, timeout_s=0.0)
    assert second.descriptors == ()


def test_a_wait_that_is_called_off_leaves_nothing_held(lease: Callable[..., Lease]) -> None:
    holder, waiter, third = lease(), lease(), lease()
    assert take(holder)
    assert not take(waiter)
    assert waiter.descriptors == ()
    holder.give_back()
    assert is_free_beside(third, lease(OTHER_GPU))


def test_those_who_share_a_host_are_told_of_by_what_they_hold(lease: Callable[..., Lease]) -> None:
    assert take(lease(GPU, run_id="run-a"))
    assert take(lease(OTHER_GPU, run_id="run-b"))
    waiting = Waiting()
    assert not take(lease(CPU, is_alone=True), waiting)
    (reason,) = waiting.told
    assert reason.startswith("the host is held by ")
    assert "run run-a of head01" in reason
    assert reason.endswith(" and 1 more")


def test_cores_of_one_holder_are_one_holder(lease: Callable[..., Lease]) -> None:
    assert take(lease(CPU, run_id="run-a"))
    waiting = Waiting()
    assert not take(lease(CPU, is_alone=True), waiting)
    assert "more" not in waiting.told[0]
    assert "run run-a of" in waiting.told[0]


def test_whoever_waits_hears_when_somebody_else_has_it(lease: Callable[..., Lease]) -> None:
    first, second = lease(GPU, run_id="run-a"), lease(OTHER_GPU, run_id="run-b")
    assert take(first)
    assert take(second)
    waiting = Waiting(then=first.give_back)
    assert not take(lease(CPU, is_alone=True), waiting)
    assert ["run-a" in waiting.told[0], "run-b" in waiting.told[1]] == [True, True]
    assert len(waiting.told) == 2


def test_whoever_waits_comes_before_whoever_comes_later(lease: Callable[..., Lease]) -> None:
    first, waiter, latecomer = lease(), lease(), lease()
    assert take(first)
    late = Waiting()

    def come_late() -> None:
        first.give_back()
        assert not take(latecomer, late)

    assert take(waiter, Waiting(then=come_late))
    assert late.told == ["the GPU is promised to somebody who came before"]


def test_whoever_has_waited_stands_in_nobodys_way(lease: Callable[..., Lease]) -> None:
    first, waiter, other = lease(CPU, is_alone=True), lease(GPU), lease(OTHER_GPU)
    assert take(first)
    assert take(waiter, Waiting(then=first.give_back))
    late = Waiting()
    assert take(other, late)
    assert late.told == []


def test_a_case_that_needs_the_whole_host_is_not_put_off_for_ever(lease: Callable[..., Lease]) -> None:
    first, whole, other = lease(GPU), lease(CPU, is_alone=True), lease(OTHER_GPU)
    assert take(first)
    late = Waiting()

    def come_late() -> None:
        assert not take(other, late)
        first.give_back()

    assert take(whole, Waiting(then=come_late))
    assert late.told[0] == "the host is promised to somebody who came before"


def test_a_lease_may_be_taken_again_and_given_back_twice(lease: Callable[..., Lease]) -> None:
    one = lease()
    for _ in range(2):
        assert take(one)
        one.give_back()
        one.give_back()
    assert is_free_beside(one, lease(OTHER_GPU))


def test_leaving_a_lease_to_a_child_ends_it_where_there_is_none(lease: Callable[..., Lease]) -> None:
    one, another = lease(), lease()
    assert take(one)
    one.leave_to_heirs()
    assert one.descriptors == ()
    assert take(another)


# --- what is written -------------------------------------------------------------------------------------------


def test_a_holder_of_another_day_is_told_with_the_date() -> None:
    then = time.mktime((2026, 3, 1, 12, 3, 0, 0, 0, -1))
    holder = Holder(user="alice", head="head01", run_id="3f2a", pid=1, since=then)
    assert str(holder) == "alice (run 3f2a of head01, since 2026-03-01 12:03)"


@pytest.mark.parametrize("since", [1e300, -1e300])
def test_a_holder_with_an_impossible_date_is_told_without(since: float) -> None:
    holder = Holder(user="al\x1b[31mice", head="h" * 100, run_id="3f2a", pid=1, since=since)
    assert str(holder) == f"al?[31mice (run 3f2a of {'h' * 48})"


def test_the_longest_names_fit(lease: Callable[..., Lease]) -> None:
    assert take(lease(run_id="\U0001f600" * 999, head="\U0001f600" * 999))
    waiting = Waiting()
    assert not take(lease(), waiting)
    assert waiting.told[0].count("\U0001f600") == 2 * 48


@pytest.mark.parametrize("text", [b"", b"\xff\xfe", b"[1]", b'{"user":1}', b"\0" * 9000])
def test_nonsense_in_a_lease_file_hides_the_holder_and_nothing_else(
    lease: Callable[..., Lease], folder: Path, text: bytes
) -> None:
    assert take(lease(CPU, is_alone=True))
    (folder / "host").write_bytes(text)
    (folder / "gpu-junk").write_bytes(text)
    waiting = Waiting()
    assert not take(lease(), waiting)
    assert waiting.told == ["the host is held by somebody"]


def test_strange_things_in_the_folder_are_passed_over(lease: Callable[..., Lease], folder: Path) -> None:
    assert take(lease())
    (folder / "sub").mkdir()
    os.mkfifo(folder / "pipe")
    (folder / "link").symlink_to("/etc/passwd")
    with (folder / "huge").open("wb") as file:
        file.truncate(2**40)
    waiting = Waiting()
    assert not take(lease(CPU, is_alone=True), waiting)
    assert "run 3f2a of head01" in waiting.told[0]


# --- the folder ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_every_user_can_use_what_one_user_made(lease: Callable[..., Lease], folder: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        assert take(lease())
    finally:
        os.umask(before)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o1777
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o666}
    assert list(folder.parent.iterdir()) == [folder]


def test_who_holds_something_is_known_without_taking_or_making_anything(
    lease: Callable[..., Lease], folder: Path
) -> None:
    assert holders(folder) == ()
    assert not folder.exists()
    one, other = lease(GPU, run_id="one"), lease(OTHER_GPU, run_id="other")
    for each in (one, other):
        assert each.take(1.0, pause=lambda _: True, tell=print)
    assert [re.findall(r"run (\w+)", who) for who in holders(folder)] == [["one"], ["other"]]
    one.give_back()
    assert len(holders(folder)) == 1
    other.give_back()
    assert holders(folder) == ()
    alone = lease(CPU, is_alone=True, run_id="alone")
    assert alone.take(1.0, pause=lambda _: True, tell=print)
    assert "run alone" in holders(folder)[0]


def test_the_folder_can_be_another(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path / "elsewhere"))
    with Lease(claims_of(GPU, is_alone=False), run_id="3f2a", head="head01") as one:
        assert take(one)
        assert (tmp_path / "elsewhere" / "host").is_file()


def refused(lease: Lease) -> str:
    with pytest.raises(LeaseError) as caught:
        take(lease)
    assert lease.descriptors == ()
    return str(caught.value)


def test_a_link_in_the_folders_place_is_refused(lease: Callable[..., Lease], folder: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    folder.symlink_to(tmp_path / "elsewhere")
    assert refused(lease()) == f"{folder} must be a folder, and is not (a link is none): remove it: rm {folder}"
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_a_file_in_the_folders_place_is_refused(lease: Callable[..., Lease], folder: Path) -> None:
    folder.touch()
    assert refused(lease()).startswith(f"{folder} must be a folder")


def test_a_folder_that_anybody_may_clear_is_refused(lease: Callable[..., Lease], folder: Path) -> None:
    folder.mkdir()
    folder.chmod(0o777)
    assert refused(lease()).endswith(f"chmod 1777 {folder}")


def test_a_folder_that_cannot_be_made_is_a_clear_error(tmp_path: Path) -> None:
    one = Lease(claims_of(GPU, is_alone=False), run_id="3f2a", head="head01", folder=tmp_path / "no" / "leases")
    assert refused(one) == f"leases in {tmp_path / 'no' / 'leases'} cannot be had: No such file or directory"


def link(path: Path) -> None:
    path.symlink_to("/etc/hostname")


def dangling_link(path: Path) -> None:
    path.symlink_to(path.parent / "nowhere")


@pytest.mark.parametrize("make", [link, dangling_link, os.mkfifo, os.mkdir])
def test_what_is_no_plain_file_is_refused(
    lease: Callable[..., Lease], folder: Path, make: Callable[[Path], None]
) -> None:
    folder.mkdir()
    make(folder / "host")
    reason = refused(lease())
    assert (
        reason == f"{folder / 'host'} must be a plain file, and is not (a link is none): remove it: rm -r {folder}/host"
    )
    assert not (folder / "nowhere").exists()


def test_a_lease_file_that_is_cleared_away_is_made_young_again(lease: Callable[..., Lease], folder: Path) -> None:
    one = lease()
    assert take(one)
    one.give_back()
    os.utime(folder / "host", (0, 0))
    assert take(one)
    assert (folder / "host").stat().st_mtime > 1e9


def test_a_lease_file_that_was_removed_meanwhile_excludes_nobody_and_is_not_trusted(
    lease: Callable[..., Lease], folder: Path
) -> None:
    first, second = lease(CPU, is_alone=True), lease(CPU, is_alone=True)
    assert take(first)

    def clear() -> None:
        (folder / "host").unlink()
        first.give_back()

    with pytest.raises(LeaseError, match="was removed while it was waited for"):
        take(second, Waiting(then=clear))
