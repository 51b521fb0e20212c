"""Diagnosis, for whatever hosts tell."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.diagnosis import CHECKS, Finding, Level, Software, arranged, compare, diagnose, gaps, worst
from tests.builders import a_gpu, a_host_report
from workers.protocol import Fact, GpuProcess, HostReport, Verdict

HEAD: Final = Software(
    python="3.11.9", muster="0.1.0", ray="2.60.0", numpy="2.3.0", frameworks=(("tensorflow", "2.21.0"),)
)

VERSIONS: Final = st.sampled_from(["3.11.9", "3.11.2", "3.10.1", "2.60.0", "2.21.0", "2.3.0", "0.1.0", "", "x", None])
#: What is mostly found, so that hosts are often fine but for one thing.
USUAL: Final = {
    "python.version": "3.11.9",
    "package.ray": "2.60.0",
    "package.numpy": "2.3.0",
    "package.muster": "0.1.0",
    "gpu.driver": "570",
    "cpu.governor": "performance",
}
BYTES: Final = st.none() | st.integers(0, 2**44)
FLAGS: Final = st.sampled_from([Fact(value=True), Fact(value=False), Fact(value=None, reason="Not Supported")])
PROCESSES: Final = st.none() | st.lists(
    st.builds(GpuProcess, pid=st.integers(1, 99), user=st.none() | st.text(), memory_bytes=BYTES), max_size=5
).map(tuple)


@st.composite
def reports(draw: st.DrawFn, host: str = "h") -> HostReport:
    gpus = [
        a_gpu(index, persistence=draw(FLAGS), processes=draw(PROCESSES)) for index in range(draw(st.integers(0, 3)))
    ]
    report = a_host_report(
        host,
        gpus=tuple(gpus),
        gpu_reason=draw(st.none() | st.just("GPU 7: is lost")),
        framework_version=draw(st.sampled_from(["2.20.0", "2.21.0"])),
        framework_reason=draw(st.none() | st.just("not installed; type: pip install x")),
        facts={
            **{name: draw(st.just(usual) | VERSIONS) for name, usual in USUAL.items()},
            "memory.limit_bytes": draw(BYTES),
        },
        condition={
            "cpu.load": draw(st.none() | st.floats(0, 500)),
            "disk.home_free_bytes": draw(BYTES),
            "disk.tmp_free_bytes": draw(BYTES),
            "memory.available_bytes": draw(BYTES),
        },
    )
    return replace(report, protocol_version=draw(st.sampled_from([report.protocol_version, 99])))


def labs() -> st.SearchStrategy[list[HostReport]]:
    return st.integers(0, 5).flatmap(lambda size: st.tuples(*(reports(f"h{i}") for i in range(size)))).map(list)


@given(reports(), st.booleans())
def test_every_check_is_told_once_with_words_and_what_stops_a_host_with_a_remedy(
    report: HostReport, installs: bool
) -> None:
    findings = diagnose(report, HEAD, frameworks=["tensorflow"], installs=installs)
    checks = [finding.check for finding in findings]
    assert len(checks) == len(set(checks))
    assert set(checks) <= set(CHECKS)
    for finding in findings:
        assert finding.text
        assert finding.remedy != ""
        assert finding.level is not Level.OK or (finding.remedy is None and finding.verdict is None)
        assert finding.level is not Level.PROBLEM or finding.remedy is not None
        assert finding.verdict is None or finding.level is Level.PROBLEM


@given(labs())
def test_a_lab_is_comparable_where_nobody_is_warned_of(lab: list[HostReport]) -> None:
    findings = [each for each in compare(lab, HEAD) if each.check == "tensorflow"]
    versions = {each.version for report in lab for each in report.frameworks if each.reason is None}
    assert (worst(findings) is Level.OK) == (versions <= {"2.21.0"})
    # However the versions are spread, never a majority is told to follow a minority of hosts.
    by_hosts = [each for each in findings if each.level is Level.WARNING and "hosts have" in each.text]
    assert 2 * len(by_hosts) <= len(findings)


@given(labs(), st.data())
def test_arranging_loses_nothing_whatever_the_order_was(lab: list[HostReport], data: st.DataObject) -> None:
    findings = [finding for report in lab for finding in diagnose(report, HEAD)]
    hosts = [report.host for report in lab]
    shuffled = data.draw(st.permutations(findings))
    assert arranged(shuffled, hosts) == arranged(findings, hosts)
    assert sorted(map(repr, arranged(shuffled, hosts))) == sorted(map(repr, findings))


@given(labs())
def test_exactly_the_hosts_with_a_verdict_have_a_gap(lab: list[HostReport]) -> None:
    findings: list[Finding] = [each for report in lab for each in diagnose(report, HEAD, frameworks=["tensorflow"])]
    assert set(gaps(findings)) == {finding.host for finding in findings if finding.verdict is not None}
    assert {gap.verdict for gap in gaps(findings).values()} <= {Verdict.UNSUPPORTED}
