"""What `muster check` and `muster devices` show of a lab, drawn from made-up reports."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

import pytest
from rich.text import Text

from orchestrator.cli import checkup, tree
from orchestrator.config.schema import HostConfig
from orchestrator.diagnosis import Finding, Level, Software, arranged, clock_finding, compare, diagnose, gaps
from orchestrator.inventory import Inventory, device_findings, take_inventory
from tests.builders import a_gpu, a_host_report
from tests.goldens import assert_golden
from workers.protocol import Fact, GpuProcess, Verdict

if TYPE_CHECKING:
    from workers.protocol import HostReport

GIB = 2**30
HEAD: Final = Software(
    python="3.11.9", muster="0.1.0", ray="2.60.0", numpy="2.3.0", frameworks=(("tensorflow", "2.21.0"),)
)


def a_report(host: str, **facts: str) -> HostReport:
    """A host with two GPUs and 64 cores on two nodes that is fine, but for what is given (``__`` is a dot)."""
    first, second = tuple(range(32)), tuple(range(32, 64))
    return a_host_report(
        host,
        cores=first + second,
        numa=((0, first), (1, second)),
        gpus=(a_gpu(0), a_gpu(1, numa_node=Fact(value=1))),
        facts={
            "cpu.governor": "performance",
            "gpu.driver": "570.133.20",
            "memory.limit_bytes": None,
            "package.muster": "0.1.0",
            "package.numpy": "2.3.0",
            "package.ray": "2.60.0",
            "package.tensorflow": "2.21.0",
            "python.version": "3.11.9",
            **{name.replace("__", "."): value for name, value in facts.items()},
        },
        condition={
            "cpu.load": 0.2,
            "disk.home_free_bytes": 80 * GIB,
            "disk.tmp_free_bytes": 40 * GIB,
            "memory.available_bytes": 12 * GIB,
            "python.executable": "/home/bench/muster/bin/python",
        },
    )


def reached(host: str) -> list[Finding]:
    texts = {
        "name": f"{host}.lab.example is known",
        "port": "an SSH server answers",
        "key": "the host's key is the known one",
        "login": "logged in as bench",
    }
    way = [Finding(host=host, check=check, level=Level.OK, text=text) for check, text in texts.items()]
    return [*way, clock_finding(host, offset_s=0.012, uncertainty_s=0.003)]


def examined(
    hosts: list[HostConfig], reports: list[HostReport], on_the_way: list[Finding]
) -> tuple[Inventory, tuple[Finding, ...]]:
    """Put together what `check` puts together."""
    told = [*on_the_way, *(each for report in reports for each in diagnose(report, HEAD)), *compare(reports, HEAD)]
    inventory = take_inventory(hosts, reports, gaps(told))
    findings = [*told, *device_findings(inventory, told=gaps(told))]
    return inventory, arranged(findings, [host.name for host in hosts])


def a_small_lab() -> tuple[Inventory, tuple[Finding, ...]]:
    """Four hosts: one that is fine, one with a bit of everything, one with a wrong Ray, one that is down."""
    hosts = [
        HostConfig.model_validate({"name": name, "devices": devices})
        for name, devices in {
            "gpu01": ["gpu:all", "cpu:numa1"],
            "gpu02": ["gpu:0", "gpu:7", "cpu"],
            "old": ["gpu:all"],
            "attic": ["cpu", "gpu:all"],
        }.items()
    ]
    busy = a_gpu(
        0,
        persistence=Fact(value=False),
        processes=(GpuProcess(pid=4711, user="alice", name="python3", memory_bytes=31 * GIB),),
    )
    second = a_report("gpu02", cpu__governor="powersave", gpu__driver="535.54.03")
    reports = [
        a_report("gpu01"),
        replace(second, gpus=(busy, *second.gpus[1:])),
        a_report("old", package__ray="2.9.0"),
    ]
    refused = [
        Finding(host="attic", check="name", level=Level.OK, text="attic.lab.example is known"),
        Finding(
            host="attic",
            check="port",
            level=Level.PROBLEM,
            text="10.77.0.4 port 22: connection refused: no SSH server is listening there",
            remedy="sudo systemctl start ssh",
            verdict=Verdict.HOST_DOWN,
        ),
    ]
    way = [finding for host in ("gpu01", "gpu02", "old") for finding in reached(host)]
    return examined(hosts, reports, [*way, *refused])


def a_large_lab() -> tuple[Inventory, tuple[Finding, ...]]:
    """A hundred hosts of which one is to be warned of."""
    names = [f"gpu{number:03}" for number in range(1, 101)]
    hosts = [HostConfig.model_validate({"name": name, "devices": ["gpu:all"]}) for name in names]
    reports = [a_report(name, cpu__governor="powersave" if name == "gpu042" else "performance") for name in names]
    return examined(hosts, reports, [finding for name in names for finding in reached(name)])


def hosts_of(inventory: Inventory) -> list[str]:
    return list(dict.fromkeys(entry.device.host for entry in inventory.declared))


# --- check -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "width"), [("check-80", 80), ("check", None)])
def test_a_small_lab_is_shown_in_full(name: str, width: int | None) -> None:
    inventory, findings = a_small_lab()
    assert_golden(f"cli/{name}.txt", checkup.draw(findings, hosts_of(inventory), width=width, color=False))


def test_in_a_large_lab_hosts_that_are_fine_are_a_line_each() -> None:
    inventory, findings = a_large_lab()
    told = checkup.draw(findings, hosts_of(inventory), width=80, color=False)
    assert_golden("cli/check-large.txt", told)
    assert len(told.splitlines()) < 110


def test_in_a_large_lab_everything_is_shown_on_demand() -> None:
    inventory, findings = a_large_lab()
    told = checkup.draw(findings, hosts_of(inventory), width=80, color=False, verbose=True)
    assert sum(line.startswith("  ok ") for line in told.splitlines()) == len(findings) - 1
    assert "--verbose" not in told


def test_checks_have_the_same_words_without_colours() -> None:
    inventory, findings = a_small_lab()
    hosts = hosts_of(inventory)
    colored = checkup.draw(findings, hosts, width=80, color=True)
    assert "\x1b[" in colored
    assert Text.from_ansi(colored).plain.rstrip() == checkup.draw(findings, hosts, width=80, color=False).rstrip()


def test_a_remedy_is_never_broken_for_it_is_to_be_copied() -> None:
    remedy = "python -m pip install " + " ".join(["something"] * 20)
    finding = Finding(host="a", check="ray", level=Level.PROBLEM, text="word " * 40, remedy=remedy)
    lines = checkup.draw([finding], ["a"], width=60, color=False).splitlines()
    (line,) = [line for line in lines if "→" in line]
    assert line.endswith(remedy)
    assert max(len(each) for each in lines if each != line) <= 60


def test_nothing_that_a_host_says_steers_the_terminal() -> None:
    finding = Finding(
        host="a", check="busy", level=Level.WARNING, text="used by \x1b[2Jevil\nname", remedy="ask \x1b[31mevil"
    )
    told = checkup.draw([finding], ["a"], width=None, color=False)
    assert "\x1b" not in told
    assert r"used by \x1b[2Jevil name" in told


def test_a_host_of_which_nothing_is_known_is_named() -> None:
    assert checkup.draw([], ["a"], width=80, color=False) == "a\n\n1 host: 1 fine\n"


# --- before a run ----------------------------------------------------------------------------------------------


def test_before_a_run_problems_come_first_and_hosts_with_the_same_warning_are_told_together() -> None:
    _, findings = a_small_lab()
    assert checkup.warnings(findings) == [
        "problem: gpu02: devices: gpu:7 is not there; the host's GPUs are: gpu:0"
        " (GPU-0a1b2c3d-0000-1111-2222-333344445550), gpu:1 (GPU-0a1b2c3d-0000-1111-2222-333344445551)",
        "problem: old: ray: 2.9.0, and the head has 2.60.0: both must be the same",
        "problem: attic: port: 10.77.0.4 port 22: connection refused: no SSH server is listening there",
        "warning: gpu02: governor: powersave: the CPU's clock follows its load",
        "warning: gpu02: driver: 535.54.03, and 2 of 3 hosts have 570.133.20: their figures are not comparable",
        "warning: gpu02: persistence: off on gpu:0: the driver is loaded anew for each case",
        "warning: gpu02: busy: gpu:0 is used by python3 (pid 4711, alice, 31.0 GiB)",
        "  → muster check CONFIG says what mends this",
    ]


@pytest.mark.parametrize(
    ("number", "told"),
    [(4, "h0, h1, h2, h3"), (5, "h0, h1, h2, h3 and 1 more host"), (99, "h0, h1, h2, h3 and 95 more hosts")],
)
def test_before_a_run_a_large_lab_with_one_warning_has_one_line(number: int, told: str) -> None:
    findings = [Finding(host=f"h{i}", check="governor", level=Level.WARNING, text="x\x1b") for i in range(number)]
    assert checkup.warnings(findings)[0] == rf"warning: {told}: governor: x\x1b"


def test_before_a_run_a_lab_that_is_fine_has_nothing_to_tell() -> None:
    assert checkup.warnings([Finding(host="a", check="ray", level=Level.OK, text="2.60.0")]) == []


# --- devices ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "width"), [("devices-80", 80), ("devices", None)])
def test_a_lab_is_shown_as_a_tree(name: str, width: int | None) -> None:
    told = tree.draw("lab-alexnet", a_small_lab()[0], width=width, color=False)
    assert_golden(f"cli/{name}.txt", told)
    assert width is None or max(len(line) for line in told.splitlines()) <= width


@pytest.mark.parametrize("width", [50, 61, 80, 120])
def test_no_line_of_a_tree_is_wider_than_the_terminal(width: int) -> None:
    hosts = [HostConfig.model_validate({"name": "a", "devices": ["gpu:0", "cpu"]})]
    reason = f"no GPU can be seen: {' '.join(['word'] * 60)}"
    told = tree.draw("lab", take_inventory(hosts, [a_host_report("a", gpu_reason=reason)]), width=width, color=False)
    assert max(len(line) for line in told.splitlines()) <= width
    assert told.count("word") == 60
    (column,) = (line.index("device_missing") for line in told.splitlines() if "device_missing" in line)
    assert {line.index("word") for line in told.splitlines() if "word" in line} >= {column}
    assert {line[:column].strip("│ ") for line in told.splitlines() if "word" in line} <= {"", "├── gpu:0"}


def test_a_tree_has_the_same_words_without_colours() -> None:
    inventory, _ = a_small_lab()
    colored = tree.draw("lab", inventory, width=80, color=True)
    assert "\x1b[" in colored
    plain = tree.draw("lab", inventory, width=80, color=False)
    assert [line.rstrip() for line in Text.from_ansi(colored).plain.splitlines()] == [
        line.rstrip() for line in plain.splitlines()
    ]


def test_no_name_of_a_device_steers_the_terminal() -> None:
    report = a_host_report("a", gpus=(a_gpu(0, name="GPU \x1b[2J"),), facts={"host.os": "\x1b]0;evil\x07"})
    hosts = [HostConfig.model_validate({"name": "a", "devices": ["gpu:0"]})]
    assert "\x1b" not in tree.draw("lab", take_inventory(hosts, [report]), width=80, color=False)


def test_a_gpu_that_nobody_looked_at_has_its_uuid_at_least() -> None:
    gpu = replace(a_gpu(0), state=None)
    hosts = [HostConfig.model_validate({"name": "a", "devices": ["gpu:0"]})]
    told = tree.draw("lab", take_inventory(hosts, [a_host_report("a", gpus=(gpu,))]), width=None, color=False)
    assert f"gpu:0  NVIDIA H100 80GB HBM3, 80GB, {gpu.uuid}\n" in told
