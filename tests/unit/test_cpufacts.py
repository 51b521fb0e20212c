from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from workers.cpufacts import cpu_setting_facts
from workers.protocol import Fact

if TYPE_CHECKING:
    from pathlib import Path

CPUS = "sys/devices/system/cpu"


def write(root: Path, name: str, text: str) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text + "\n")


def test_a_host_tells_how_its_processors_are_set(tmp_path: Path) -> None:
    for name, text in {
        f"{CPUS}/cpu0/cpufreq/scaling_governor": "performance",
        f"{CPUS}/cpu0/cpufreq/scaling_driver": "intel_pstate",
        f"{CPUS}/intel_pstate/no_turbo": "0",
        f"{CPUS}/smt/control": "off",
        f"{CPUS}/isolated": "2-7",
        "proc/cpuinfo": "processor\t: 0\nmicrocode\t: 0x2b000603\n",
        "sys/fs/cgroup/cpu.max": "150000 100000",
        "sys/fs/cgroup/cpuset.cpus": "0-3",
    }.items():
        write(tmp_path, name, text)
    assert {name: fact.value for name, fact in cpu_setting_facts(tmp_path).items()} == {
        "cpu.governor": "performance",
        "cpu.driver": "intel_pstate",
        "cpu.boost": True,
        "cpu.microcode": "0x2b000603",
        "cpu.smt": "off",
        "cpu.isolated": "2-7",
        "cgroup.cpu_max": "150000 100000",
        "cgroup.cpuset": "0-3",
    }


@pytest.mark.parametrize(
    ("file", "text", "boost"),
    [
        (f"{CPUS}/intel_pstate/no_turbo", "1", False),
        (f"{CPUS}/cpufreq/boost", "1", True),
        (f"{CPUS}/cpu0/cpufreq/boost", "0", False),
    ],
)
def test_whether_clocks_may_rise_is_told_in_three_ways(tmp_path: Path, file: str, text: str, boost: bool) -> None:
    write(tmp_path, file, text)
    assert cpu_setting_facts(tmp_path)["cpu.boost"] == Fact(value=boost)


@pytest.mark.parametrize(
    ("file", "text", "limit"),
    [
        ("cpu.max", "max 100000", None),
        ("cpu/cpu.cfs_quota_us", "-1", None),
        ("cpu/cpu.cfs_quota_us", "50000", "50000"),
    ],
)
def test_a_control_group_without_a_limit_has_none(tmp_path: Path, file: str, text: str, limit: str | None) -> None:
    write(tmp_path, f"sys/fs/cgroup/{file}", text)
    assert cpu_setting_facts(tmp_path)["cgroup.cpu_max"].value == limit


def test_what_a_kernel_does_not_tell_has_a_reason(tmp_path: Path) -> None:
    assert all(fact.value is None and fact.reason for fact in cpu_setting_facts(tmp_path).values())
