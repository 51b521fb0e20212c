from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from workers.oom import KernelLog, Witness, kills

if TYPE_CHECKING:
    from pathlib import Path

GIB = 2**30
CHILD, OTHER = 4711, 4712


def write(root: Path, name: str, text: str) -> None:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(text)


@pytest.fixture
def host(tmp_path: Path) -> Path:
    """A host of 16 GiB with no control groups and a log that we may not read."""
    write(tmp_path, "proc/self/cgroup", "0::/\n")
    write(tmp_path, "proc/vmstat", "pgpgin 7\noom_kill 11\n")
    write(tmp_path, "proc/meminfo", "MemTotal:       16777216 kB\nMemFree: 1 kB\n")
    return tmp_path


@pytest.fixture
def in_group(host: Path) -> Path:
    """The same, and we are in a control group of version 2."""
    write(host, "proc/self/cgroup", "0::/user.slice/a.scope\n")
    write(host, "sys/fs/cgroup/user.slice/a.scope/memory.events", "oom 9\noom_kill 2\noom_group_kill 0\n")
    return host


def with_log(host: Path) -> Path:
    """Let us read the kernel's log, in which a kill of old days stands."""
    (host / "proc/self/ns").mkdir(parents=True, exist_ok=True)
    (host / "proc/self/ns/pid").symlink_to("pid:[4026531836]")
    write(host, "dev/kmsg", f"3,1,1,-;Out of memory: Killed process {CHILD} (python) total-vm:1kB\n")
    return host


def kernel_says(host: Path, text: str) -> None:
    with (host / "dev/kmsg").open("a") as log:
        log.write(f"3,2,2,-;{text}\n")


def host_counts(host: Path, count: int = 12) -> None:
    write(host, "proc/vmstat", f"oom_kill {count}\n")


def group_counts(host: Path, count: int = 3) -> None:
    write(host, "sys/fs/cgroup/user.slice/a.scope/memory.events", f"oom_kill {count}\n")


# --- the kernel's counts ---------------------------------------------------------------------------------------


def test_kills_are_counted_in_both_kinds_of_control_group_and_on_the_host(in_group: Path) -> None:
    write(in_group, "proc/self/cgroup", "4:cpu,memory:/jobs/7\n0::/user.slice/a.scope\n")
    write(in_group, "sys/fs/cgroup/memory/jobs/7/memory.oom_control", "under_oom 0\noom_kill 3\n")
    found = kills(in_group)
    assert sorted(count for _, count in found.of_group) == [2, 3]
    assert found.of_host == 11


def test_inside_a_container_the_group_is_where_the_mount_is(host: Path) -> None:
    write(host, "proc/self/cgroup", "4:memory:/docker/0123\n0::/docker/0123\n")
    write(host, "sys/fs/cgroup/memory.events", "oom_kill 5\n")
    write(host, "sys/fs/cgroup/memory/memory.oom_control", "oom_kill 6\n")
    assert sorted(count for _, count in kills(host).of_group) == [5, 6]


def test_beside_version_1_there_may_be_version_2(host: Path) -> None:
    write(host, "proc/self/cgroup", "0::/a\n")
    write(host, "sys/fs/cgroup/unified/a/memory.events", "oom_kill 5\n")
    assert [count for _, count in kills(host).of_group] == [5]


def test_the_root_of_all_groups_is_everybodys(host: Path) -> None:
    write(host, "proc/self/cgroup", "4:memory:/\n0::/\n")
    write(host, "sys/fs/cgroup/memory/memory.oom_control", "oom_kill 6\n")
    assert kills(host).of_group == ()


def test_without_counters_there_is_no_evidence(tmp_path: Path) -> None:
    assert (kills(tmp_path).of_group, kills(tmp_path).of_host) == ((), 0)
    assert Witness(tmp_path).evidence(CHILD, 16 * GIB) is None


# --- what is evidence ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "Out of memory: Killed process {} (python) total-vm:1kB, anon-rss:1kB",
        "Memory cgroup out of memory: Killed process {} (python) total-vm:1kB, anon-rss:1kB",
        "Killed process {} (python) total-vm:1kB, anon-rss:1kB",
        "Memory cgroup out of memory (oom_kill_allocating_task): Killed process {} (python) total-vm:1kB",
    ],
)
def test_the_log_that_names_the_child_is_evidence(host: Path, text: str) -> None:
    witness = Witness(with_log(host))
    kernel_says(host, "python invoked oom-killer: gfp_mask=0xcc0")
    kernel_says(host, text.format(CHILD))
    host_counts(host)
    assert witness.evidence(CHILD, None) == f"the kernel's log names process {CHILD}"
    witness.close()
    witness.close()


def test_the_log_that_names_another_is_evidence_of_nothing(in_group: Path) -> None:
    # Somebody sends SIGKILL while the kernel ends another child of ours, in the same control group.
    witness = Witness(with_log(in_group))
    kernel_says(in_group, f"Memory cgroup out of memory: Killed process {OTHER} (python) total-vm:1kB")
    host_counts(in_group)
    group_counts(in_group)
    assert witness.evidence(CHILD, 16 * GIB) is None
    witness.close()


def test_a_log_that_does_not_tell_of_all_kills_is_not_the_last_word(in_group: Path) -> None:
    witness = Witness(with_log(in_group))
    kernel_says(in_group, f"Memory cgroup out of memory: Killed process {OTHER} (python) total-vm:1kB")
    host_counts(in_group, 13)
    group_counts(in_group, 4)
    assert "control group" in str(witness.evidence(CHILD, None))
    witness.close()


def test_what_stood_in_the_log_before_is_no_evidence(host: Path) -> None:
    witness = Witness(with_log(host))
    assert witness.evidence(CHILD, 16 * GIB) is None
    witness.close()


def test_a_rise_in_the_control_group_is_evidence(in_group: Path) -> None:
    witness = Witness(in_group)
    assert witness.evidence(CHILD, None) is None
    group_counts(in_group)
    group = in_group / "sys/fs/cgroup/user.slice/a.scope"
    expected = f"the kernel counted an out-of-memory kill in the control group {group}"
    assert witness.evidence(CHILD, None) == expected


def test_a_rise_on_the_host_is_no_evidence_where_the_control_group_counts_none(in_group: Path) -> None:
    witness = Witness(in_group)
    host_counts(in_group)
    assert witness.evidence(CHILD, 16 * GIB) is None


@pytest.mark.parametrize("max_rss_bytes", [None, 0, 3 * GIB])
def test_a_rise_on_the_host_is_somebody_elses_if_the_child_was_small(host: Path, max_rss_bytes: int | None) -> None:
    witness = Witness(host)
    host_counts(host)
    assert witness.evidence(CHILD, max_rss_bytes) is None


def test_a_rise_on_the_host_is_evidence_for_a_child_that_held_much_of_it(host: Path) -> None:
    witness = Witness(host)
    assert witness.evidence(CHILD, 12 * GIB) is None
    host_counts(host)
    expected = "the kernel killed something for want of memory, and this process had 12.0 of 16.0 GiB"
    assert witness.evidence(CHILD, 12 * GIB) == expected


# --- the kernel's log ------------------------------------------------------------------------------------------


def test_a_log_that_names_processes_by_other_ids_is_not_read(host: Path) -> None:
    with_log(host)
    (host / "proc/self/ns/pid").unlink()
    (host / "proc/self/ns/pid").symlink_to("pid:[4026532001]")
    assert KernelLog.from_now_on(host) is None


def test_a_log_that_cannot_be_read_is_not_there(host: Path) -> None:
    with_log(host)
    (host / "dev/kmsg").unlink()
    assert KernelLog.from_now_on(host) is None


def test_a_log_that_was_overwritten_tells_so(monkeypatch: pytest.MonkeyPatch, host: Path) -> None:
    log = KernelLog.from_now_on(with_log(host))
    assert log is not None

    def overwritten(_descriptor: int, _size: int) -> bytes:
        raise BrokenPipeError

    with monkeypatch.context() as patched:
        patched.setattr(os, "read", overwritten)
        assert log.killed() is None
    log.close()
