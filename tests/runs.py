"""Whole runs for the tests of what is made from them."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING

from orchestrator.results import Attempt, CaseResult, Run, RunState
from tests.builders import a_case, a_device, a_result, a_workload
from workers.protocol import (
    NETWORK_PASSES,
    Compiler,
    Device,
    DeviceKind,
    Ending,
    Environment,
    Fact,
    Fetch,
    Layout,
    Pass,
    Precision,
    Verdict,
)

if TYPE_CHECKING:
    from workers.protocol import Case, FactValue

WHEN = datetime.datetime(2026, 11, 23, 14, 3, tzinfo=datetime.timezone.utc)


def an_environment(**given: FactValue) -> Environment:
    """The facts of that name, ``__`` for a dot."""
    return Environment(facts=tuple((name.replace("__", "."), Fact(value=value)) for name, value in given.items()))


def a_case_result(case: Case, **result: object) -> CaseResult:
    """A case that ended as its one attempt did."""
    only = a_result(case, 1, **result)
    attempts = (Attempt(number=1, result=only),)
    return CaseResult(case=case, position=0, verdict=only.verdict, reason=only.reason, attempts=attempts)


def a_case_without_attempt(case: Case, verdict: Verdict | None, reason: str | None = None) -> CaseResult:
    return CaseResult(case=case, position=0, verdict=verdict, reason=reason)


def a_run(*cases: CaseResult, **given: object) -> Run:
    defaults: dict[str, object] = {
        "id": "7f3a9c",
        "name": "lab",
        "created_at": WHEN,
        "finished_at": WHEN,
        "state": RunState.FINISHED,
        "config_text": "name: lab\n",
        "config_path": "lab.yaml",
        "overrides": (),
        "simulated": False,
        "muster_version": "0.1.0",
        "cases": cases,
    }
    return Run(**{**defaults, **given})  # type: ignore[arg-type]


def both_passes(
    device: Device, workload: dict[str, object], *samples: tuple[float, ...], **given: object
) -> list[CaseResult]:
    """Forward and forward-backward of a workload on a device, with a series of samples for each."""
    return [
        a_case_result(a_case(device, a_workload(**{**workload, "pass_": pass_})), **{"samples_ms": series, **given})
        for pass_, series in zip(NETWORK_PASSES, samples, strict=True)
    ]


def a_lab_run(**given: object) -> Run:
    """Every kind of row that a table can have."""
    cuda = an_environment(framework__version="2.21.0", framework__cuda="12.5", framework__cudnn="9.3")
    plain = an_environment(framework__version="2.21.0", framework__cuda=None)
    cpu = a_device("gpu01", "cpu", name="Intel(R) Xeon(R) Platinum 8481C CPU @ 2.70GHz", memory="64 GB DDR5 4800")
    gpu = a_device("gpu01", "gpu:0", name="NVIDIA H100 80GB HBM3", memory="80 GB")
    gone = Device(host="gpu02", selector="gpu:3", kind=DeviceKind.GPU, name="gpu:3", index=3)
    seed_work: dict[str, object] = {"fetch": Fetch.HOST}
    xla: dict[str, object] = {"layout": Layout.NCHW, "compiler": Compiler.XLA, "precision": Precision.BFLOAT16}
    cases = [
        *both_passes(
            cpu, seed_work, (368.2, 378.6, 373.4), (1200.0, 1296.0, 1248.0), environment=plain, peak_flops=2.4e12
        ),
        *both_passes(gpu, xla, (1.81, 1.83, 1.82), (5.4, 5.5, 5.6), environment=cuda, peak_flops=8e14),
        a_case_result(
            a_case(gpu, a_workload(batch_size=65536)),
            verdict=Verdict.OOM,
            reason="the child was killed by SIGKILL while it held 79 of 80 GB; try a smaller batch_size, or leave out "
            "the other process on this device",
            samples_ms=(),
        ),
        a_case_result(
            a_case(cpu, a_workload(batch_size=32, pass_=Pass.FORWARD_BACKWARD)),
            verdict=Verdict.NOISY,
            reason="the steps' times vary by 12 %",
            samples_ms=(280.0, 310.0, 350.0),
            environment=plain,
        ),
        *(
            a_case_without_attempt(
                a_case(gone, a_workload(pass_=pass_)), Verdict.DEVICE_MISSING, "gpu02 has 2 GPUs: gpu:0, gpu:1"
            )
            for pass_ in NETWORK_PASSES
        ),
    ]
    return a_run(*cases, **given)


def a_run_with_attempts(**given: object) -> Run:
    """Cases that were tried more than once, one of them with a result that came too late, and one never tried."""
    gpu = a_device("gpu01", "gpu:0")
    steady, lost, broken = (a_case(gpu, a_workload(batch_size=size)) for size in (64, 128, 256))
    crash = Ending(signal="SIGSEGV", stderr_tail="core dumped")
    cases = (
        CaseResult(
            case=steady,
            position=0,
            verdict=Verdict.OK,
            attempts=(
                an_attempt(steady, 1, verdict=Verdict.CRASHED, reason="SIGSEGV", samples_ms=(), ending=crash),
                an_attempt(steady, 2, ending=Ending(exit_code=0), started_at=1_800_000_060.5),
            ),
        ),
        CaseResult(
            case=lost,
            position=1,
            verdict=Verdict.OK,
            attempts=(
                # Given up from afar: nobody saw it begin or end.
                an_attempt(
                    lost,
                    1,
                    verdict=Verdict.HOST_DOWN,
                    reason="gpu01 gave no sign of life for 130 s, which is longer than limits.host_grace lets it",
                    samples_ms=(),
                    started_at=0.0,
                    duration_s=0.0,
                ),
                an_attempt(lost, 2, ending=Ending(exit_code=0)),
            ),
            superseded=(an_attempt(lost, 1, ending=Ending(exit_code=0)),),
        ),
        a_case_without_attempt(broken, Verdict.NOT_RUN, "put aside: 3 cases in a row failed on it"),
    )
    return a_run(*cases, **given)


def an_attempt(case: Case, number: int, **result: object) -> Attempt:
    return Attempt(number=number, result=a_result(case, number, **result))
