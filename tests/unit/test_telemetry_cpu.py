"""The gauge of a host's processors: over made-up kernels where they cannot be had, and over this one."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import psutil
import pytest

from workers.telemetry.cpu import MOST_CORES_ALONE, CpuGauge, foreign, shares
from workers.telemetry.rapl import Rapl
from workers.telemetry.series import Energy

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CORES = sorted(os.sched_getaffinity(0))

#: Takes a core until its standard input is closed.
SPIN = """
import sys, threading
waiting = threading.Thread(target=sys.stdin.read, daemon=True)
waiting.start()
while waiting.is_alive():
    pass
"""


@pytest.fixture
def spinning() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen([sys.executable, "-c", SPIN], stdin=subprocess.PIPE) as process:
        yield process
        process.communicate(timeout=30)


def wait_for_cpu(pid: int, seconds: float) -> None:
    """Return once a process has used that much more of the CPU; what it uses is the clock here."""
    process = psutil.Process(pid)
    until = sum(process.cpu_times()[:2]) + seconds
    while sum(process.cpu_times()[:2]) < until:
        os.sched_yield()


def seen(at_s: float, cores: dict[int, tuple[float, float, float]], child_s: float | None, **us: int):  # type: ignore[no-untyped-def]
    from workers.telemetry.cpu import _Seen

    return _Seen(at_s=at_s, cores=cores, child_s=child_s, pressure_us=us)


def test_what_the_cores_were_busy_beyond_the_child_is_others() -> None:
    before = seen(10.0, {0: (5.0, 0.0, 10.0), 1: (5.0, 0.5, 10.0), 2: (0.0, 0.0, 10.0)}, 4.0, cpu=1_000_000)
    now = seen(11.0, {0: (6.0, 0.0, 11.0), 1: (5.6, 0.7, 11.0), 2: (1.0, 0.0, 11.0)}, 5.1, cpu=1_250_000)

    assert shares(before, now, [0, 1]) == {
        "cpu.use_percent": 80.0,
        "cpu.steal_percent": 10.0,
        "cpu.others_percent": 25.0,  # 1.6 s busy less 1.1 s of the child's, of 2 s
        "cpu.pressure_percent": 25.0,
        "core.0.use_percent": 100.0,
        "core.1.use_percent": 60.0,
    }


def test_a_child_that_is_gone_leaves_no_figure_of_the_others() -> None:
    before, now = seen(0.0, {0: (0.0, 0.0, 0.0)}, 1.0), seen(1.0, {0: (1.0, 0.0, 1.0)}, None)
    assert shares(before, now, [0])["cpu.others_percent"] is None


def test_between_two_looks_at_once_there_is_no_share() -> None:
    one = seen(1.0, {0: (1.0, 0.0, 2.0)}, 1.0)
    assert shares(one, one, [0])["cpu.use_percent"] is None


def test_with_very_many_cores_none_has_a_line_of_its_own() -> None:
    cores = range(MOST_CORES_ALONE + 1)
    before, now = (
        seen(0.0, dict.fromkeys(cores, (0.0, 0.0, 0.0)), 0.0),
        seen(1.0, dict.fromkeys(cores, (0.5, 0.0, 1.0)), 0.0),
    )
    assert set(shares(before, now, cores)) == {"cpu.use_percent", "cpu.steal_percent", "cpu.others_percent"}
    (missing,) = [each for each in CpuGauge(cores, with_energy=False).missing() if each.name.startswith("core.")]
    assert missing.reason == "65 cores: a line for each is kept up to 64"


def test_a_busy_process_beside_the_child_is_seen_and_named(spinning: subprocess.Popen[bytes]) -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    gauge = CpuGauge(CORES, with_energy=False)
    gauge.read(child.pid)

    wait_for_cpu(spinning.pid, 0.3)
    others = gauge.read(child.pid)["cpu.others_percent"]
    _, found = gauge.end_steps(child.pid)
    child.communicate(b"\n", timeout=30)

    assert others is not None
    assert others > 50 / len(CORES)
    named = {each.pid: each for each in found}
    assert named[spinning.pid].cores is not None
    assert named[spinning.pid].user == psutil.Process().username()
    assert child.pid not in named
    assert os.getpid() not in named


def test_what_the_child_uses_itself_is_not_others(spinning: subprocess.Popen[bytes]) -> None:
    gauge = CpuGauge(CORES, with_energy=False)
    gauge.read(spinning.pid)
    wait_for_cpu(spinning.pid, 0.3)
    read = gauge.read(spinning.pid)
    assert read["cpu.use_percent"] is not None
    assert read["cpu.others_percent"] is not None
    assert read["cpu.use_percent"] - read["cpu.others_percent"] > 50 / len(CORES)


def test_only_the_busiest_others_are_named_and_none_that_hardly_worked() -> None:
    from workers.telemetry.cpu import _Used

    def used(cpu_s: float) -> _Used:
        return _Used(user="alice", name="job", cpu_s=cpu_s)

    before = {(7, 1.0): used(100.0), (8, 1.0): used(0.0)}
    now = {(7, 1.0): used(100.1), (8, 1.0): used(5.0), **{(20 + n, 2.0): used(1.0 + n) for n in range(6)}}
    found = foreign(before, now, ours=[25], elapsed_s=10.0)
    assert [(each.pid, each.cores) for each in found] == [(8, 0.5), (24, 0.5), (23, 0.4), (22, 0.3), (21, 0.2)]
    assert foreign(before, now, ours=[], elapsed_s=0.0) == ()


# --- made-up kernels ---------------------------------------------------------------------------------------------


def write(root: Path, **files: str) -> Path:
    for name, text in files.items():
        path = root / name.replace("__", "/").replace("_dash_", "-")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_clocks_temperature_and_memory_come_from_the_kernels_files(tmp_path: Path) -> None:
    for core, khz in ((0, 3_000_000), (1, 2_000_000)):
        (tmp_path / f"sys/devices/system/cpu/cpu{core}/cpufreq").mkdir(parents=True)
        (tmp_path / f"sys/devices/system/cpu/cpu{core}/cpufreq/scaling_cur_freq").write_text(f"{khz}\n")
    for number, (name, millidegrees) in enumerate([("nvme", 70_000), ("k10temp", 55_250)]):
        folder = tmp_path / f"sys/class/hwmon/hwmon{number}"
        folder.mkdir(parents=True)
        (folder / "name").write_text(f"{name}\n")
        (folder / "temp1_input").write_text(f"{millidegrees}\n")
    write(tmp_path, proc__meminfo="MemTotal: 10 kB\nMemAvailable: 4 kB\n")

    gauge = CpuGauge([0, 1], with_energy=False, root=tmp_path)
    read = gauge.read(os.getpid())

    assert read["cpu.frequency_mhz"] == 2500.0
    assert read["cpu.temperature_c"] == 55.25
    assert read["memory.available_bytes"] == 4096
    assert [each.name for each in gauge.missing()] == ["cpu.pressure_percent"]


def test_what_a_kernel_does_not_show_is_missing_with_the_reason(tmp_path: Path) -> None:
    gauge = CpuGauge([0], with_energy=True, root=tmp_path)
    assert {each.name for each in gauge.missing()} == {
        "cpu.frequency_mhz", "cpu.temperature_c", "cpu.pressure_percent",
    }  # fmt: skip
    assert gauge.read(os.getpid())["memory.available_bytes"] is None
    energy, _ = gauge.end_steps(os.getpid())
    assert energy == Energy(joules=None, reason="the kernel shows no energy counters (RAPL) of processors")
    assert gauge.events() == ()
    gauge.close()


def a_package(root: Path, number: int, energy_uj: int, name: str = "package") -> Path:
    folder = root / f"sys/class/powercap/intel-rapl:{number}"
    folder.mkdir(parents=True)
    (folder / "name").write_text(f"{name}-{number}\n")
    (folder / "max_energy_range_uj").write_text("999999\n")
    (folder / "energy_uj").write_text(f"{energy_uj}\n")
    return folder


def test_energy_is_that_of_all_packages_also_where_a_counter_began_anew(tmp_path: Path) -> None:
    first, second = a_package(tmp_path, 0, 100), a_package(tmp_path, 1, 900_000)
    a_package(tmp_path, 2, 5, name="psys")
    rapl = Rapl(tmp_path)
    rapl.begin()
    (first / "energy_uj").write_text("500100")
    (second / "energy_uj").write_text("100000")
    assert rapl.taken() == Energy(joules=0.7, source="rapl")


def test_a_counter_that_goes_away_is_no_energy(tmp_path: Path) -> None:
    package = a_package(tmp_path, 0, 100)
    rapl = Rapl(tmp_path)
    rapl.begin()
    (package / "energy_uj").unlink()
    assert rapl.taken().joules is None
    rapl.begin()
    assert "cannot be read any more" in str(rapl.taken().reason)


def test_counters_that_only_root_may_read_say_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = a_package(tmp_path, 0, 100)
    if os.geteuid() == 0:  # root may read everything: the refusal is made here
        read = type(package).read_text

        def refuse(path: Path, *arguments: object, **given: object) -> str:
            if path.name == "energy_uj":
                raise PermissionError(13, "Permission denied", str(path))
            return read(path, *arguments, **given)  # type: ignore[arg-type]

        monkeypatch.setattr(type(package), "read_text", refuse)
    else:
        (package / "energy_uj").chmod(0)
    assert Rapl(tmp_path).reason == "only root may read the processors' energy counters (RAPL)"
