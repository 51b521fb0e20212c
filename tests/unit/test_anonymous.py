"""A run that may be shown: the figures stay, and no name does."""

from __future__ import annotations

from dataclasses import replace

import pytest

from orchestrator.bundle.anonymous import anonymous
from orchestrator.bundle.archive import packed, unpacked
from orchestrator.bundle.document import document_of, written
from orchestrator.config.load import load_text
from orchestrator.report.page.render import render_page
from orchestrator.results import Imported, NoiseFloor, Run
from tests.builders import a_case, a_device, a_telemetry, a_workload
from tests.runs import WHEN, a_case_result, a_lab_run, a_run, an_environment
from workers.protocol import Ending, Verdict
from workers.telemetry.series import DeviceEvent, Doubt, DoubtKind, Energy, EventKind, ForeignProcess, Missing

#: Everything that nobody may see; each is somewhere in the run.
SECRETS = (
    "acme", "hopper", "10.11.12.13", "2001:db8::7", "bob", "mallory", "carol", "GPU-4b8f", "alphafold", "4242", "/home",
    "cathedral", "gateway", "swordfish", "7f3a9c",
)  # fmt: skip

CONFIG = """\
# of the acme lab, ask carol
version: 1
name: acme-nightly
cluster: {mode: ssh, head_address: 2001:db8::7}
defaults: {user: bob}
hosts: [{name: hopper, address: gateway, devices: ["gpu:0", "gpu:1"]}]
workloads: [{model: alexnet, batch_size: [32, 64], passes: forward}]
measure: {steps: 20, warmup: 3}
limits: {case_timeout: 5m}
quality: {max_others: 3%}
report: {references: [], relative_to: hopper/gpu:0}
"""

REASON = (
    "contended: alphafold (pid 4242, mallory) was on the GPU as well; hopper at 10.11.12.13 and 2001:db8::7 said"
    " 'no weights in /home/bob/cathedral' to carol@gateway at 12:30:45; GPU-4b8f1c22-aaaa-bbbb-cccc-0123456789ab"
    " of hopper/gpu:0, 12 % of 3.5 images/s"
)


def a_secret_run() -> Run:
    environment = an_environment(
        host__name="hopper", host__user="bob", cpu__model="Xeon", gpu__uuid="GPU-4b8f", framework__version="2.21.0",
        env__LD_PRELOAD="/home/bob/swordfish.so", process__env__CUDA_VISIBLE_DEVICES="GPU-4b8f",
        host__kernel="6.18", host__spool="/home/bob/spool",
    )  # fmt: skip
    telemetry = replace(
        a_telemetry(window_s=(10.0, 14.0), gpu__clock_mhz=[1980.0, 1970.0]),
        foreign=(ForeignProcess(pid=4242, user="mallory", name="alphafold", cores=1.5),),
        missing=(Missing(name="rapl", reason="/home/bob/rapl: no"),),
        events=(DeviceEvent(at_s=1.0, kind=EventKind.XID, text="pid 4242 of mallory"),),
        energy=Energy(joules=None, reason="hopper does not tell"),
    )
    device = a_device("hopper", "gpu:0", uuid="GPU-4b8f")
    cases = [
        a_case_result(
            a_case(device, a_workload(batch_size=size)), verdict=Verdict.CONTENDED, reason=REASON,
            samples_ms=(1.25, 1.5), environment=environment, telemetry=telemetry, peak_reason="/home/bob/x",
            ending=Ending(exit_code=1, stderr_tail="swordfish", oom_evidence="hopper: oom"),
            doubts=(Doubt(kind=DoubtKind.CONTENDED, text=REASON, value=0.12),),
        )
        for size in (32, 64)
    ]  # fmt: skip
    late = replace(cases[1], superseded=cases[1].attempts)
    return a_run(
        cases[0], late, name="acme-nightly", config_text=CONFIG, config_path="/home/carol/acme.yaml",
        overrides=("--set measure.steps=30", "--only host=hopper"), rerun_of="7f3a9c",
        imported=Imported(source="acme.zip", at=WHEN),
    )  # fmt: skip


def a_floor() -> NoiseFloor:
    return NoiseFloor(
        device_id="hopper/gpu:0", device_uuid="GPU-4b8f", workload=a_workload(), measured_at=WHEN, run_id="7f3a9c",
        processes=5, between_sd=0.01, within_sd=0.02,
    )  # fmt: skip


def test_no_name_is_left_anywhere() -> None:
    run, floors = anonymous(a_secret_run(), (a_floor(),))
    page = render_page(run, floors=floors)
    whole = written(document_of(run, floors)) + page
    whole += packed(run, page, floors, is_anonymous=True).decode("latin-1")
    assert [secret for secret in SECRETS if secret in whole] == []
    assert [secret for secret in SECRETS if secret not in written(document_of(a_secret_run(), (a_floor(),)))] == []


def test_what_was_measured_stays() -> None:
    (first, second), (given, _) = anonymous(a_secret_run())[0].cases, a_secret_run().cases
    assert first.case.device.id == "host1/gpu:0"
    assert first.case.device.name == given.case.device.name
    assert first.case.workload == given.case.workload
    assert first.case.key != second.case.key != given.case.key
    assert first.result is not None
    assert first.result.case_key == first.case.key
    assert first.result.samples_ms == (1.25, 1.5)
    facts = first.result.environment
    assert (facts.get("cpu.model").value, facts.get("framework.version").value) == ("Xeon", "2.21.0")
    assert facts.get("host.name").reason == "left out: names of people, hosts and places"
    telemetry = first.result.telemetry
    assert telemetry is not None
    assert telemetry.measured("gpu.clock_mhz") == (1980.0, 1970.0)
    assert telemetry.foreign == (ForeignProcess(pid=1, cores=1.5),)
    assert first.result.doubts[0].value == 0.12
    assert first.reason == (
        "contended: a process was on the GPU as well; host1 at ADDRESS and ADDRESS said 'no weights in PATH' to USER at"
        " 12:30:45; GPU of host1/gpu:0, 12 % of 3.5 images/s"
    )


def test_its_config_measures_the_same() -> None:
    run, _ = anonymous(a_secret_run())
    config = load_text(run.config_text, run.config_path, simulate=True).config
    before = load_text(CONFIG, "x", overrides=["measure.steps=30"], simulate=True).config
    assert config.report.references == before.report.references == ()
    assert config.report.relative_to == "host1/gpu:0"
    assert (config.workloads, config.measure, config.limits, config.quality) == (
        before.workloads,
        before.measure,
        before.limits,
        before.quality,
    )
    (host,) = config.hosts
    assert host.name == "host1"
    assert list(map(str, host.devices)) == ["gpu:0"]


def test_it_is_a_run_of_its_own_and_always_the_same_one() -> None:
    run, floors = anonymous(a_secret_run(), (a_floor(),))
    assert run.id != a_secret_run().id
    assert (run, floors) == anonymous(a_secret_run(), (a_floor(),))
    assert (floors[0].device_id, floors[0].run_id) == ("host1/gpu:0", run.id)
    assert unpacked(packed(run, "", floors, is_anonymous=True), "x").floors == floors


@pytest.mark.parametrize("run", [a_lab_run(), a_run(), a_lab_run(config_text="of: another muster\n")])
def test_any_run_can_be_shown(run: Run) -> None:
    found, _ = anonymous(run)
    assert [each.verdict for each in found.cases] == [each.verdict for each in run.cases]
    load_text(found.config_text, found.config_path, simulate=True)
    assert "gpu01" not in written(document_of(found))
