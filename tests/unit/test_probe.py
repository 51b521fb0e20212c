from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.test_memory import END, module
from workers import probe
from workers.codec import from_json
from workers.probe import (
    host_report,
    package_version,
    parse_cpuinfo,
    parse_meminfo,
    parse_os_release,
    software_facts,
)
from workers.protocol import HostReport

ROOT = Path(__file__).resolve().parents[2]

TWO_SOCKETS = """\
processor	: 0
vendor_id	: GenuineIntel
model name	: Intel(R) Xeon(R)  CPU E5-2680 v4 @ 2.40GHz
physical id	: 0
flags		: fpu vme avx2

processor	: 1
model name	: Intel(R) Xeon(R)  CPU E5-2680 v4 @ 2.40GHz
physical id	: 1
flags		: fpu vme avx2
"""
RASPBERRY = "processor\t: 0\nBogoMIPS\t: 108.00\nFeatures\t: fp asimd\n\nModel\t\t: Raspberry Pi 4 Model B Rev 1.4\n"
VIRTUAL = "model name\t: AMD EPYC\nphysical id\t: 0\nflags\t\t: fpu hypervisor avx512f\n"


def test_sockets_and_model_of_a_big_host() -> None:
    info = parse_cpuinfo(TWO_SOCKETS)
    assert info.model == "Intel(R) Xeon(R) CPU E5-2680 v4 @ 2.40GHz"
    assert info.sockets == 2
    assert not info.is_virtual


def test_machines_without_x86s_keys() -> None:
    info = parse_cpuinfo(RASPBERRY)
    assert (info.model, info.sockets, info.is_virtual) == ("Raspberry Pi 4 Model B Rev 1.4", None, False)
    assert parse_cpuinfo("").model is None
    assert parse_cpuinfo("model name\t:\nnonsense\n").model is None


def test_a_hypervisor_below_is_seen() -> None:
    assert parse_cpuinfo(VIRTUAL).is_virtual


def test_memory_is_what_the_kernel_says() -> None:
    assert parse_meminfo("MemTotal:       24684092 kB\nMemFree: 1 kB\n") == 24684092 * 1024
    assert parse_meminfo("MemFree: 1 kB\n") is None


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ('NAME="Debian"\nPRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\n', "Debian GNU/Linux 12 (bookworm)"),
        ("PRETTY_NAME=Alpine\n", "Alpine"),
        ('PRETTY_NAME=""\n', None),
        ("", None),
    ],
)
def test_the_system_has_a_name_for_people(text: str, name: str | None) -> None:
    assert parse_os_release(text) == name


def test_variables_that_matter_are_facts_and_secrets_are_not() -> None:
    facts = software_facts(
        {
            "OMP_NUM_THREADS": "1",
            "TF_XLA_FLAGS": "--x",
            "TF_TOKEN_example": "s3cret",
            "NVIDIA_API_KEY": "s3cret",
            "A": "b",
        }
    )
    assert facts["env.OMP_NUM_THREADS"].value == "1"
    assert {name for name in facts if name.startswith("env.")} == {"env.OMP_NUM_THREADS", "env.TF_XLA_FLAGS"}


def test_a_package_that_is_not_installed_is_none_with_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    assert package_version("pytest") == pytest.__version__
    monkeypatch.setattr(probe, "PACKAGES", ("surely-not-installed",))
    fact = software_facts({})["package.surely-not-installed"]
    assert (fact.value, fact.reason) == (None, "not installed")


# --- a captured host -------------------------------------------------------------------------------------------


@pytest.fixture
def captured(tmp_path: Path) -> Path:
    """The files of a host with two sockets, two NUMA nodes and 16 GB of DDR3."""
    dmi = module(8192, memory_type=0x18, configured=1600) * 2 + END
    for name, content in {
        "proc/cpuinfo": TWO_SOCKETS,
        "proc/meminfo": "MemTotal:       16303452 kB\n",
        "etc/os-release": 'PRETTY_NAME="Ubuntu 16.04.1 LTS"\n',
        "sys/devices/system/node/node0/cpulist": "0,2\n",
        "sys/devices/system/node/node1/cpulist": "1,3\n",
        "sys/devices/system/node/possible": "0-1\n",
        "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "powersave\n",
        "sys/fs/cgroup/memory.max": "8589934592\n",
        "run/.containerenv": "",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    (tmp_path / "sys/firmware/dmi/tables").mkdir(parents=True)
    (tmp_path / "sys/firmware/dmi/tables/DMI").write_bytes(dmi)
    return tmp_path


def test_a_captured_host_is_reported_whole(captured: Path) -> None:
    report = host_report("attic", captured)
    assert report.host == "attic"
    assert report.cpu.model == "Intel(R) Xeon(R) CPU E5-2680 v4 @ 2.40GHz"
    assert report.cpu.cores == tuple(sorted(os.sched_getaffinity(0)))
    assert report.cpu.numa == ((0, (0, 2)), (1, (1, 3)))
    assert report.cpu.memory_bytes == 16303452 * 1024
    assert report.cpu.memory == "16 GB 1600 MHz DDR3"
    values = {name: fact.value for name, fact in report.environment.facts}
    assert values["cpu.sockets"] == 2
    assert values["cpu.numa_nodes"] == 2
    assert values["cpu.governor"] == "powersave"
    assert values["memory.limit_bytes"] == 8 * 2**30
    assert (values["memory.type"], values["memory.speed_mts"]) == ("DDR3", 1600)
    assert (values["host.os"], values["host.container"]) == ("Ubuntu 16.04.1 LTS", "podman")


def test_modules_that_differ_have_no_speed_in_common(captured: Path) -> None:
    dmi = module(8192, configured=2133) + module(8192, configured=2400) + END
    (captured / "sys/firmware/dmi/tables/DMI").write_bytes(dmi)
    report = host_report("attic", captured)
    assert report.cpu.memory == "16 GB DDR4"
    assert report.environment.get("memory.speed_mts").reason == "the modules do not say, or differ"


@pytest.mark.parametrize("limit", ["max", "9223372036854771712"])
def test_no_limit_is_no_number(captured: Path, limit: str) -> None:
    (captured / "sys/fs/cgroup/memory.max").write_text(limit)
    fact = host_report("attic", captured).environment.get("memory.limit_bytes")
    assert (fact.value, fact.reason) == (None, "no limit")


def test_a_host_that_tells_nothing_has_a_reason_for_everything(tmp_path: Path) -> None:
    report = host_report("bare", tmp_path)
    assert report.cpu.memory_bytes is None
    assert report.cpu.memory is None
    assert report.cpu.sockets is None
    assert report.cpu.model  # the architecture, at least
    for name, fact in (*report.environment.facts, *report.condition.facts):
        assert (fact.value is None) == bool(fact.reason), name
    assert report.environment.get("memory.type").reason == "the firmware has no DMI table"


def test_a_table_that_root_alone_may_read_says_so(captured: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: Path) -> bytes:
        raise PermissionError

    monkeypatch.setattr(Path, "read_bytes", refuse)  # root, as whom tests may run, is refused nothing
    report = host_report("attic", captured)
    assert report.environment.get("memory.type").reason == "needs root"
    assert report.cpu.memory == "16 GB"


# --- this host -------------------------------------------------------------------------------------------------


def test_this_host_answers_in_one_line() -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "workers.probe", "--host", "here"], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert ended.stderr == ""
    (line,) = ended.stdout.splitlines()
    report = from_json(HostReport, line)
    assert report.host == "here"
    assert report.cpu.cores
    assert report.cpu.memory_bytes is not None
    assert bool(report.gpus) or report.gpu_reason
    assert "tensorflow" in [framework.name for framework in report.frameworks]
    for name, fact in (*report.environment.facts, *report.condition.facts):
        assert (fact.value is None) == bool(fact.reason), name


def test_probing_imports_nothing_heavy() -> None:
    code = (
        "import sys\nfrom workers.probe import host_report\nhost_report('here')\n"
        "print(sorted({name.partition('.')[0] for name in sys.modules} & "
        "{'tensorflow', 'ray', 'numpy', 'orchestrator', 'asyncio'}))"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert ended.stdout == "[]\n"
