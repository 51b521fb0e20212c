from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from orchestrator.diagnosis import (
    Finding,
    Gap,
    Level,
    Software,
    arranged,
    clock_finding,
    compare,
    diagnose,
    gaps,
    worst,
)
from tests.builders import a_gpu, a_host_report
from workers.protocol import PROTOCOL_VERSION, Fact, GpuProcess, Verdict

if TYPE_CHECKING:
    from workers.protocol import FactValue, HostReport

GIB = 2**30
HEAD = Software(python="3.11.9", muster="0.1.0", ray="2.60.0", numpy="2.3.0", frameworks=(("tensorflow", "2.21.0"),))
FACTS: dict[str, FactValue] = {
    "python.version": "3.11.9",
    "package.muster": "0.1.0",
    "package.ray": "2.60.0",
    "package.numpy": "2.3.0",
    "package.tensorflow-cpu": "2.21.0",
    "cpu.governor": "performance",
    "memory.limit_bytes": None,
    "gpu.driver": "570.133.20",
}
CONDITION: dict[str, FactValue] = {
    "cpu.load": 0.1,
    "memory.available_bytes": 12 * GIB,
    "disk.home_free_bytes": 80 * GIB,
    "disk.tmp_free_bytes": 40 * GIB,
    "python.executable": "/opt/bench/bin/python",
}


def a_good_report(
    host: str = "lab1",
    *,
    facts: dict[str, FactValue] | None = None,
    condition: dict[str, FactValue] | None = None,
    **given: Any,
) -> HostReport:
    """A host that has what the head has and nothing to do, but for what is given."""
    return a_host_report(host, facts={**FACTS, **(facts or {})}, condition={**CONDITION, **(condition or {})}, **given)


def found(report: HostReport, check: str, head: Software = HEAD, **given: Any) -> Finding:
    (finding,) = [each for each in diagnose(report, head, **given) if each.check == check]
    return finding


def test_a_host_like_the_head_is_fine() -> None:
    findings = diagnose(a_good_report(gpus=(a_gpu(0), a_gpu(1))), HEAD, frameworks=["tensorflow"])
    assert {finding.level for finding in findings} == {Level.OK}
    assert {finding.remedy for finding in findings} == {None}
    assert {finding.host for finding in findings} == {"lab1"}
    assert [finding.check for finding in findings] == [
        "python", "ray", "numpy", "muster", "load", "governor", "memory", "disk", "gpus", "persistence", "busy",
    ]  # fmt: skip


# --- software --------------------------------------------------------------------------------------------------


def test_another_minor_of_python_stops_the_host_and_the_remedy_names_both_ways_out() -> None:
    finding = found(a_good_report(facts={"python.version": "3.10.4"}), "python")
    assert (finding.level, finding.verdict) == (Level.PROBLEM, Verdict.UNSUPPORTED)
    assert finding.text == "3.10.4, and the head has 3.11.9: Ray takes no host with another Python"
    assert finding.remedy is not None
    assert "python3.11 -m venv ~/muster" in finding.remedy
    assert "`python: python3.11`, `install: true`" in finding.remedy


def test_another_patch_of_python_is_a_warning_that_stops_nothing() -> None:
    finding = found(a_good_report(facts={"python.version": "3.11.2"}), "python")
    assert (finding.level, finding.verdict) == (Level.WARNING, None)
    assert "3.11.9" in (finding.remedy or "")


def test_a_python_that_is_not_known_is_a_warning_with_the_reason() -> None:
    finding = found(a_good_report(facts={"python.version": None}), "python")
    assert (finding.level, finding.text) == (Level.WARNING, "its version is not known: nobody looked")


@pytest.mark.parametrize(
    ("version", "text"),
    [
        ("2.9.0", "2.9.0, and the head has 2.60.0: both must be the same"),
        (None, "not installed, and the head has 2.60.0: both must be the same"),
    ],
)
def test_another_ray_stops_the_host_and_the_command_mends_the_interpreter_that_was_probed(
    version: str | None, text: str
) -> None:
    finding = found(a_good_report(facts={"package.ray": version}), "ray")
    assert (finding.level, finding.verdict, finding.text) == (Level.PROBLEM, Verdict.UNSUPPORTED, text)
    assert finding.remedy == "/opt/bench/bin/python -m pip install ray==2.60.0"


def test_a_command_is_quoted_for_a_shell() -> None:
    report = a_good_report(facts={"package.ray": None}, condition={"python.executable": "/opt/my bench/$(id)/python"})
    assert found(report, "ray").remedy == "'/opt/my bench/$(id)/python' -m pip install ray==2.60.0"


def test_an_interpreter_that_is_not_known_is_called_by_its_usual_name() -> None:
    report = a_good_report(facts={"package.ray": None}, condition={"python.executable": None})
    assert found(report, "ray", replace(HEAD, ray=None)).remedy == "python3 -m pip install ray"


@pytest.mark.parametrize("version", ["1.26.4", None])
def test_another_numpy_is_a_warning(version: str | None) -> None:
    finding = found(a_good_report(facts={"package.numpy": version}), "numpy")
    assert (finding.level, finding.verdict) == (Level.WARNING, None)
    assert finding.remedy == "/opt/bench/bin/python -m pip install numpy==2.3.0"


def test_a_head_without_a_package_asks_for_no_version_of_it() -> None:
    bare = replace(HEAD, ray=None, numpy=None)
    assert [found(a_good_report(), check, bare).level for check in ("ray", "numpy")] == [Level.OK, Level.OK]


def test_a_framework_that_is_missing_is_a_problem_only_where_it_is_asked_for() -> None:
    report = a_good_report(framework_reason="TensorFlow is not installed; type: pip install x")
    finding = found(report, "tensorflow", frameworks=["tensorflow"])
    assert (finding.level, finding.verdict) == (Level.PROBLEM, None)
    assert finding.text == "TensorFlow is not installed, and the config asks for it"
    assert finding.remedy == "pip install x"
    assert "tensorflow" not in [each.check for each in diagnose(report, HEAD, frameworks=["torch"])]
    without_remedy = a_good_report(framework_reason="it is broken")
    assert found(without_remedy, "tensorflow", frameworks=["tensorflow"]).remedy is None


def test_what_is_still_to_be_installed_is_not_missed_but_the_python_it_is_made_from_is() -> None:
    report = a_good_report(
        facts={"package.ray": None, "package.numpy": None, "python.version": "3.10.1"},
        framework_reason="not installed; type: pip install x",
    )
    told = {each.check: each.level for each in diagnose(report, HEAD, frameworks=["tensorflow"], installs=True)}
    assert not {"ray", "numpy", "tensorflow"} & set(told)
    assert told["python"] is Level.PROBLEM


def test_another_muster_is_a_warning_and_another_protocol_stops_the_host() -> None:
    older = a_good_report(facts={"package.muster": "0.0.9"})
    assert (found(older, "muster").level, found(older, "muster").verdict) == (Level.WARNING, None)
    finding = found(replace(older, protocol_version=PROTOCOL_VERSION + 1), "muster")
    assert (finding.level, finding.verdict) == (Level.PROBLEM, Verdict.UNSUPPORTED)
    assert finding.text == f"0.0.9 speaks protocol {PROTOCOL_VERSION + 1}, and the head {PROTOCOL_VERSION}"


# --- how it is doing -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("load", "cores", "level"),
    [
        (0.5, 2, Level.OK),  # logging in takes as much
        (0.6, 2, Level.WARNING),
        (6.4, 64, Level.OK),
        (6.5, 64, Level.WARNING),
    ],
)
def test_a_host_that_is_busy_with_a_tenth_of_its_cores_is_a_warning(load: float, cores: int, level: Level) -> None:
    report = a_good_report(condition={"cpu.load": load}, cores=tuple(range(cores)))
    assert found(report, "load").level is level


def test_load_is_held_against_the_whole_machine_though_we_may_use_a_part_of_it() -> None:
    report = a_good_report(condition={"cpu.load": 3.0}, cores=(0, 1), numa=((0, tuple(range(64))),))
    assert found(report, "load").level is Level.OK


def test_a_governor_that_follows_the_load_is_a_warning() -> None:
    finding = found(a_good_report(facts={"cpu.governor": "powersave"}), "governor")
    assert (finding.level, finding.remedy) == (Level.WARNING, "sudo cpupower frequency-set -g performance")


@pytest.mark.parametrize(
    ("available", "limit", "level", "text"),
    [
        (12 * GIB, None, Level.OK, "12.0 GiB of 16.0 GiB to be had"),
        (12 * GIB, 4 * GIB, Level.OK, "4.0 GiB of 16.0 GiB to be had"),
        (12 * GIB, GIB, Level.WARNING, "1.0 GiB of 16.0 GiB to be had: cases may end as oom"),
        (GIB, 4 * GIB, Level.WARNING, "1.0 GiB of 16.0 GiB to be had: cases may end as oom"),
    ],
)
def test_memory_is_what_is_free_or_what_the_control_group_allows(
    available: int, limit: int | None, level: Level, text: str
) -> None:
    report = a_good_report(condition={"memory.available_bytes": available}, facts={"memory.limit_bytes": limit})
    finding = found(report, "memory")
    assert (finding.level, finding.text) == (level, text)


def test_a_host_that_does_not_tell_its_memory_has_no_total() -> None:
    report = a_good_report()
    finding = found(replace(report, cpu=replace(report.cpu, memory_bytes=None)), "memory")
    assert finding.text == "12.0 GiB to be had"


@pytest.mark.parametrize(
    ("home", "tmp", "installs", "level"),
    [
        (80 * GIB, 80 * GIB, True, Level.OK),
        (4 * GIB, 80 * GIB, False, Level.WARNING),
        (80 * GIB, 4 * GIB, False, Level.WARNING),
        (4 * GIB, 80 * GIB, True, Level.WARNING),
        (1 * GIB, 80 * GIB, False, Level.WARNING),
        (1 * GIB, 80 * GIB, True, Level.PROBLEM),
        (80 * GIB, 1 * GIB, True, Level.WARNING),
        (None, 80 * GIB, True, Level.OK),
    ],
)
def test_little_disk_is_a_warning_and_too_little_for_an_environment_a_problem(
    home: int | None, tmp: int, installs: bool, level: Level
) -> None:
    report = a_good_report(condition={"disk.home_free_bytes": home, "disk.tmp_free_bytes": tmp})
    finding = found(report, "disk", installs=installs)
    assert finding.level is level
    assert finding.verdict is None
    assert (finding.remedy is None) == (level is Level.OK)


def test_an_environment_with_cuda_needs_more() -> None:
    report = a_good_report(condition={"disk.home_free_bytes": 8 * GIB})
    with_gpu = replace(report, gpus=(a_gpu(),))
    assert found(replace(report, gpus=()), "disk", installs=True).level is Level.OK
    assert found(with_gpu, "disk", installs=True).text.endswith("an environment needs 11.0 GiB")


def test_disk_names_both_places() -> None:
    report = a_good_report(condition={"disk.home_free_bytes": None})
    assert found(report, "disk").text == "the home not known: nobody looked, 40.0 GiB free in /tmp"
    assert found(a_good_report(), "disk").text == "80.0 GiB free in the home, 40.0 GiB free in /tmp"


@pytest.mark.parametrize(
    ("check", "facts", "condition"),
    [
        ("load", {}, {"cpu.load": None}),
        ("memory", {}, {"memory.available_bytes": None}),
        ("governor", {"cpu.governor": None}, {}),
    ],
)
def test_what_a_host_does_not_tell_is_no_complaint_but_has_its_reason(
    check: str, facts: dict[str, FactValue], condition: dict[str, FactValue]
) -> None:
    finding = found(a_good_report(facts=facts, condition=condition), check)
    assert (finding.level, finding.text) == (Level.OK, "not known: nobody looked")


# --- GPUs ------------------------------------------------------------------------------------------------------


def test_gpus_are_counted_by_kind() -> None:
    gpus = (a_gpu(0, name="NVIDIA H100"), a_gpu(1, name="NVIDIA L4"), a_gpu(2, name="NVIDIA H100"))
    assert found(a_good_report(gpus=gpus), "gpus").text == "2 x NVIDIA H100, 1 x NVIDIA L4"


def test_a_host_without_gpus_is_fine_and_says_why_there_are_none() -> None:
    finding = found(a_good_report(gpu_reason="NVML does not answer"), "gpus")
    assert (finding.level, finding.text) == (Level.OK, "none: NVML does not answer")
    assert found(a_good_report(), "gpus").text == "none: the driver lists none"


def test_gpus_of_which_one_is_lost_are_a_warning() -> None:
    finding = found(a_good_report(gpus=(a_gpu(0),), gpu_reason="GPU 1: GPU is lost"), "gpus")
    assert finding.level is Level.WARNING
    assert finding.text == "1 x NVIDIA H100 80GB HBM3; GPU 1: GPU is lost"


def test_persistence_that_is_off_is_named_gpu_by_gpu() -> None:
    off = Fact(value=False)
    report = a_good_report(gpus=(a_gpu(0, persistence=off), a_gpu(1), a_gpu(2, persistence=off)))
    finding = found(report, "persistence")
    assert (finding.level, finding.remedy) == (Level.WARNING, "sudo nvidia-smi -pm 1")
    assert finding.text.startswith("off on gpu:0, gpu:2:")


def test_persistence_that_nobody_tells_of_is_not_said_to_be_on() -> None:
    silent = a_gpu(1, persistence=Fact(value=None, reason="Not Supported"))
    assert found(a_good_report(gpus=(a_gpu(0), silent)), "persistence").text == "not known: Not Supported"
    assert found(a_good_report(gpus=(a_gpu(0),)), "persistence").text == "on"


def test_a_busy_gpu_is_a_warning_that_says_who() -> None:
    processes = (
        GpuProcess(pid=77, user="alice", name="python3", memory_bytes=3 * GIB),
        GpuProcess(pid=12),
        GpuProcess(pid=13, user="bob"),
        GpuProcess(pid=14),
        GpuProcess(pid=15),
    )
    finding = found(a_good_report(gpus=(a_gpu(0), a_gpu(1, processes=processes))), "busy")
    assert finding.level is Level.WARNING
    assert finding.text == (
        "gpu:1 is used by python3 (pid 77, alice, 3.0 GiB), a process (pid 12), a process (pid 13, bob), 2 more"
    )


@pytest.mark.parametrize(("processes", "percent", "is_busy"), [((), 10, True), (None, 99, True), ((), 9, False)])
def test_a_gpu_that_works_for_somebody_who_cannot_be_seen_is_busy(
    processes: tuple[GpuProcess, ...] | None, percent: int, is_busy: bool
) -> None:
    gpu = a_gpu(0, processes=processes, utilization=Fact(value=percent))
    assert (found(a_good_report(gpus=(gpu,)), "busy").level is Level.WARNING) == is_busy


def test_gpus_that_nobody_looked_at_are_not_busy() -> None:
    report = a_good_report(gpus=(replace(a_gpu(0), state=None),))
    assert found(report, "busy").level is Level.OK


# --- hosts beside each other -----------------------------------------------------------------------------------


def compared(check: str, *reports: HostReport, head: Software = HEAD) -> dict[str, Finding]:
    return {finding.host: finding for finding in compare(reports, head) if finding.check == check}


def with_version(host: str, version: str, **given: Any) -> HostReport:
    return a_good_report(host, framework_version=version, **given)


def test_hosts_with_the_same_versions_are_comparable() -> None:
    found = compared("tensorflow", with_version("a", "2.21.0"), with_version("b", "2.21.0"))
    assert {host: (finding.level, finding.text) for host, finding in found.items()} == {
        "a": (Level.OK, "2.21.0"),
        "b": (Level.OK, "2.21.0"),
    }


def test_the_host_that_differs_from_most_is_warned_of_and_not_the_others() -> None:
    found = compared("tensorflow", *(with_version(host, "2.21.0") for host in "ab"), with_version("c", "2.20.0"))
    assert {host: finding.level for host, finding in found.items()} == {
        "a": Level.OK,
        "b": Level.OK,
        "c": Level.WARNING,
    }
    assert found["c"].text == "2.20.0, and 2 of 3 hosts have 2.21.0: their figures are not comparable"
    assert found["c"].remedy == "/opt/bench/bin/python -m pip install tensorflow-cpu==2.21.0"


def test_hosts_that_agree_with_each_other_are_held_against_the_head() -> None:
    found = compared("tensorflow", *(with_version(host, "2.20.0") for host in "ab"), with_version("c", "2.21.0"))
    assert found["a"].text == "2.20.0, and the head has 2.21.0: their figures are not comparable"
    assert found["c"].text == "2.21.0, and 2 of 3 hosts have 2.20.0: their figures are not comparable"


def test_between_equally_many_the_head_decides_and_else_the_first() -> None:
    two = (with_version("a", "2.20.0"), with_version("b", "2.21.0"))
    assert [host for host, each in compared("tensorflow", *two).items() if each.level is Level.WARNING] == ["a"]
    bare = replace(HEAD, frameworks=())
    assert [host for host, each in compared("tensorflow", *two, head=bare).items() if each.level is Level.WARNING] == [
        "b"
    ]


def test_the_gpu_build_is_mended_as_such() -> None:
    gpu_build = with_version("b", "2.20.0", facts={"package.tensorflow-cpu": None, "package.tensorflow": "2.20.0"})
    found = compared("tensorflow", with_version("a", "2.21.0"), gpu_build)
    assert found["b"].remedy == "/opt/bench/bin/python -m pip install tensorflow==2.21.0"


def test_a_host_without_the_framework_is_not_compared() -> None:
    assert list(compared("tensorflow", with_version("a", "2.21.0"), a_good_report("b", framework_reason="no"))) == ["a"]
    assert compare([], HEAD) == ()


def test_drivers_are_compared_among_hosts_with_gpus_alone() -> None:
    def with_driver(host: str, version: str | None, *gpus: Any) -> HostReport:
        return a_good_report(host, facts={"gpu.driver": version}, gpus=gpus)

    found = compared(
        "driver",
        with_driver("a", "570", a_gpu(0)),
        with_driver("b", "570", a_gpu(0)),
        with_driver("c", "535", a_gpu(0)),
        with_driver("no-gpu", "470"),
        with_driver("silent", None, a_gpu(0)),
    )
    assert {host: finding.level for host, finding in found.items()} == {
        "a": Level.OK,
        "b": Level.OK,
        "c": Level.WARNING,
    }
    assert "NVIDIA's driver 570" in (found["c"].remedy or "")


# --- the clock -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("offset_s", "uncertainty_s", "level"),
    [
        (0.0, 0.01, Level.OK),
        (-1.0, 0.01, Level.OK),
        (1.5, 0.01, Level.WARNING),
        (-1.5, 0.01, Level.WARNING),
        (1.5, 0.6, Level.OK),  # a slow answer: it may be right
        (86_400.0, 0.6, Level.WARNING),
    ],
)
def test_a_clock_that_is_surely_off_is_a_warning(offset_s: float, uncertainty_s: float, level: Level) -> None:
    finding = clock_finding("lab1", offset_s=offset_s, uncertainty_s=uncertainty_s)
    assert (finding.host, finding.check, finding.level, finding.verdict) == ("lab1", "clock", level, None)
    assert (finding.remedy is None) == (level is Level.OK)


def test_a_clock_says_which_way_it_is_off() -> None:
    assert "3.2 s ahead of the head's, ± 0.02 s" in clock_finding("a", offset_s=3.21, uncertainty_s=0.02).text
    assert "3.2 s behind the head's" in clock_finding("a", offset_s=-3.21, uncertainty_s=0.02).text
    assert "86400 s behind the head's, ± 10 s" in clock_finding("a", offset_s=-86_400.2, uncertainty_s=10).text


# --- many findings ---------------------------------------------------------------------------------------------


def a_finding(host: str, check: str, level: Level = Level.OK, verdict: Verdict | None = None) -> Finding:
    return Finding(host=host, check=check, level=level, text=f"{check} of {host}", verdict=verdict)


def test_a_gap_is_the_first_finding_of_a_host_that_stops_it() -> None:
    findings = [
        a_finding("a", "disk", Level.PROBLEM),
        a_finding("a", "python", Level.PROBLEM, Verdict.UNSUPPORTED),
        a_finding("a", "ray", Level.PROBLEM, Verdict.CRASHED),
        a_finding("b", "login", Level.PROBLEM, Verdict.HOST_DOWN),
        a_finding("c", "python"),
    ]
    assert gaps(findings) == {
        "a": Gap(verdict=Verdict.UNSUPPORTED, reason="python: python of a"),
        "b": Gap(verdict=Verdict.HOST_DOWN, reason="login: login of b"),
    }


def test_findings_stand_in_the_order_of_hosts_and_checks_with_unknown_ones_last() -> None:
    given = [a_finding(host, check) for host in ("x", "b", "a") for check in ("devices", "new", "ray", "name")]
    assert [(each.host, each.check) for each in arranged(given, ["a", "b"])] == [
        (host, check) for host in ("a", "b", "x") for check in ("name", "ray", "devices", "new")
    ]


def test_the_worst_of_nothing_is_fine() -> None:
    assert worst([]) is Level.OK
    assert worst([a_finding("a", "x", Level.WARNING), a_finding("a", "y")]) is Level.WARNING
    assert worst([a_finding("a", "x", Level.WARNING), a_finding("a", "y", Level.PROBLEM)]) is Level.PROBLEM
