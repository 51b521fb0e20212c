"""The fresh process that measures one case: ``python -m workers.child``.

One :class:`~workers.protocol.AttemptRequest` as JSON on stdin; one JSON line an event on stdout: ``PhaseEntered``,
``Started``, ``SampleBatch``, and ``Finished`` as the last. Whatever else is printed goes to stderr.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import os
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final, NoReturn

from workers import frameworks, works
from workers.codec import CodecError, event_to_json, from_json
from workers.company import Company, CompanyLateError, CompanyMissingError
from workers.cpulist import format_cpulist
from workers.frameworks.base import UnsupportedError, WrongDeviceError
from workers.gpufacts import library_facts
from workers.headroom import limit_data
from workers.measure import Measurement, measure
from workers.peak import best_bytes_per_s, best_flops
from workers.protocol import (
    PROTOCOL_VERSION,
    AttemptRequest,
    DeviceKind,
    Environment,
    Fact,
    Finished,
    Phase,
    PhaseEntered,
    PhaseTiming,
    Started,
    Verdict,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from workers.frameworks.base import Framework
    from workers.protocol import Case, ChildEvent, Device

#: ``prctl`` option: the signal that the kernel sends when the parent's thread ends (linux/prctl.h).
_PR_SET_PDEATHSIG: Final = 1

#: What the kernel's out-of-memory killer takes first (proc(5)); raising it needs no privilege.
_OOM_SCORE_ADJ: Final = 1000

#: Thread pools below a framework; Ray leaves ``OMP_NUM_THREADS=1`` in its workers, which would cripple CPU rows.
_THREAD_VARIABLES: Final = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")

_REASON_CHARACTERS: Final = 300


class DeviceMissingError(Exception):
    """The device, or a part of it, is not there for this process."""


#: Errors of our own, whose messages are whole sentences for people, by what they mean.
_UNSUPPORTED: Final = (UnsupportedError, frameworks.UnknownFrameworkError, *works.UNKNOWN)
_DEVICE_MISSING: Final = (WrongDeviceError, DeviceMissingError, CompanyMissingError)
_TIMEOUT: Final = (CompanyLateError,)

#: A large matrix product beside the work of others tells nothing of the device.
_NO_PEAK: Final = "not measured beside other devices at work"

#: Of the time that a case may take: until when the others must be ready to begin, and until when they are stayed for.
_BEGIN_SHARE: Final = 0.5
_STAY_SHARE: Final = 0.9


def main(arguments: Sequence[str]) -> int:
    """Measure the case on stdin, tell of it on stdout; 0 if there was a last word, whatever it was."""
    lines = _take_stdout()
    parser = argparse.ArgumentParser(prog="python -m workers.child", description=__doc__)
    parser.add_argument("--parent", type=int, default=os.getppid(), help="process id whose end is ours too")
    _join_fate(parser.parse_args(arguments).parent)
    _reset_signals()
    _offer_to_oom_killer()

    def emit(event: ChildEvent) -> None:
        lines.write(event_to_json(event) + "\n")
        lines.flush()

    try:
        request = from_json(AttemptRequest, sys.stdin.buffer.read())
    except CodecError as error:
        emit(Finished(verdict=Verdict.CRASHED, reason=f"the request cannot be read: {error}"))
        return 0
    emit(run(request, emit))
    return 0


def run(request: AttemptRequest, emit: Callable[[ChildEvent], None]) -> Finished:
    """Measure the request's case in this process, telling ``emit`` of it; return the last word.

    Binds the process to the case's device for good. Never raises for what happens to a case: that is the verdict.
    """
    phases = _Phases(emit)
    framework: Framework | None = None
    try:
        _check_version(request)
        if request.memory_bytes is not None:
            limit_data(request.memory_bytes)
        process = bind_process(request.case.device, request.case.workload.threads)
        with _company_of(request) as company:
            phases.enter(Phase.IMPORT)
            framework = _load(request.case.workload.framework)
            framework.prepare(request.case.device, request.case.workload)
            phases.enter(Phase.BUILD)
            measurement = _measure(request, framework, process, company, phases, emit)
    except Exception as error:  # frameworks raise anything, and all of it is this case's verdict
        traceback.print_exc()
        return Finished(verdict=_verdict_of(error, framework), reason=_reason_of(error), phases=phases.timings())
    peak_flops, peak_reason, copy_bytes_per_s, copy_reason = _peaks(request.case, framework, company)
    found = _libraries(request.case.device)
    return Finished(
        verdict=Verdict.OK,
        reason=None if company is None else company.reason,
        stopped_by=measurement.stopped_by,
        peak_flops=peak_flops,
        peak_reason=peak_reason,
        copy_bytes_per_s=copy_bytes_per_s,
        copy_reason=copy_reason,
        phases=phases.timings(),
        environment=found if company is None else found.merged(company.facts()),
    )


@contextlib.contextmanager
def _company_of(request: AttemptRequest) -> Iterator[Company | None]:
    """Join those that are measured at once, if the case is to be; leave them at the end."""
    if request.together is None:
        yield None
        return
    company = Company(request.together, request.case.device.selector)
    try:
        company.join()
        yield company
    finally:
        company.close()


def bind_process(device: Device, threads: int | None = None) -> Environment:
    """Bind this process to ``device`` before a framework looks: affinity, visible GPUs, threads; return what was set.

    Raises :class:`DeviceMissingError` where a core of a CPU device may not be used.
    """
    if device.kind is DeviceKind.CPU and device.cores:
        _set_affinity(device)
    cores = sorted(os.sched_getaffinity(0))
    variables = {
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
        "CUDA_VISIBLE_DEVICES": _visible_gpu(device),
        **dict.fromkeys(_THREAD_VARIABLES, str(threads or len(cores))),
    }
    os.environ.update(variables)
    facts = {f"process.env.{name}": Fact(value=value) for name, value in variables.items()}
    facts["process.affinity"] = Fact(value=format_cpulist(cores))
    return Environment(facts=tuple(sorted(facts.items())))


def _set_affinity(device: Device) -> None:
    try:
        os.sched_setaffinity(0, device.cores)
        missing = set(device.cores) - os.sched_getaffinity(0)  # the kernel drops what a cpuset forbids
    except OSError:
        missing = set(device.cores) - os.sched_getaffinity(0) or set(device.cores)
    if missing:
        raise DeviceMissingError(f"CPU {format_cpulist(sorted(missing))} may not be used by this process")


def _visible_gpu(device: Device) -> str:
    if device.kind is DeviceKind.CPU:
        return "-1"  # an empty value means "unset" to some readers; no GPU has this index
    if device.uuid is None:
        raise DeviceMissingError(f"{device.selector} has no UUID to be found by")
    return device.uuid


def _libraries(device: Device) -> Environment:
    """Return the versions of the libraries that a GPU's steps have loaded: which ones, shows only afterwards."""
    if device.kind is DeviceKind.CPU:
        return Environment()
    return Environment(facts=tuple(sorted(library_facts().items())))


def _check_version(request: AttemptRequest) -> None:
    if request.protocol_version != PROTOCOL_VERSION:
        raise UnsupportedError(
            f"the head speaks protocol {request.protocol_version}, this host {PROTOCOL_VERSION}: "
            "install the same muster on both"
        )


def _load(name: str) -> Framework:
    framework = frameworks.load(name)
    reason = framework.available()
    if reason is not None:
        raise UnsupportedError(reason)
    return framework


def _measure(
    request: AttemptRequest,
    framework: Framework,
    process: Environment,
    company: Company | None,
    phases: _Phases,
    emit: Callable[[ChildEvent], None],
) -> Measurement:
    """Measure the case; in company, begin with the others and go on, uncounted, until they are done as well."""
    case = request.case
    work = works.find(case.workload.model)
    if request.ring is None:
        step = framework.build(work, case.workload, case.device)
    else:
        step = framework.build_collective(work, case.workload, case.device, request.ring)
    emit(Started(environment=process.merged(step.environment)))
    if request.ring is not None and request.ring.rank > 0:
        _serve(step, phases)
    until = time.monotonic() + _STAY_SHARE * request.case_timeout_s

    def begin() -> None:
        if company is not None:
            company.begin(step, timeout_s=_BEGIN_SHARE * request.case_timeout_s)

    measurement = measure(
        step, case.sampling, clock=time.perf_counter, on_samples=emit, on_phase=phases.enter, on_warm=begin
    )
    # A child that is ended from here on has measured its case already.
    phases.enter(Phase.PEAK)
    if company is not None:
        company.stay(step, timeout_s=until - time.monotonic())
    return measurement


def _serve(step: Callable[[], None], phases: _Phases) -> NoReturn:
    """Take part in every step of the first device, for as long as that one takes steps: it alone knows how many.

    Ends with this process, or by what the framework raises when the first device's process has gone.
    """
    phases.enter(Phase.MEASURE)
    while True:
        step()


def _peaks(
    case: Case, framework: Framework, company: Company | None
) -> tuple[float | None, str | None, float | None, str | None]:
    """Return the device's attainable FLOP/s and bytes per second, each with why there is no figure."""
    if company is not None or case.peers:
        return None, _NO_PEAK, None, _NO_PEAK
    workload, device = case.workload, case.device
    flops = _peak(lambda: best_flops(lambda rows: framework.product(rows, workload, device), device.kind))
    copied = _peak(lambda: best_bytes_per_s(lambda count: framework.update(count, device), device.kind))
    return *flops, *copied


def _peak(measured: Callable[[], float]) -> tuple[float | None, str | None]:
    """Return a figure, or ``None`` and why not; what goes wrong here never spoils the case."""
    try:
        return measured(), None
    except Exception as error:  # as above: anything, and it only costs the peak
        traceback.print_exc()
        return None, _reason_of(error)


class _Phases:
    """Tells when each phase begins and how long each took."""

    def __init__(self, emit: Callable[[ChildEvent], None]) -> None:
        self._emit = emit
        self._past: list[PhaseTiming] = []
        self._current: Phase | None = None
        self._since = 0.0

    def enter(self, phase: Phase) -> None:
        self._leave()
        self._emit(PhaseEntered(phase=phase))
        self._current, self._since = phase, time.perf_counter()

    def timings(self) -> tuple[PhaseTiming, ...]:
        """End the current phase and return all."""
        self._leave()
        return tuple(self._past)

    def _leave(self) -> None:
        if self._current is not None:
            self._past.append(PhaseTiming(phase=self._current, seconds=time.perf_counter() - self._since))
            self._current = None


def _verdict_of(error: Exception, framework: Framework | None) -> Verdict:
    if isinstance(error, _UNSUPPORTED):
        return Verdict.UNSUPPORTED
    if isinstance(error, _DEVICE_MISSING):
        return Verdict.DEVICE_MISSING
    if isinstance(error, MemoryError):
        return Verdict.OOM
    if isinstance(error, _TIMEOUT):
        return Verdict.TIMEOUT
    return Verdict.CRASHED if framework is None else framework.verdict_of(error)


def _reason_of(error: Exception) -> str:
    """Return one line for people: the first of the message, under the error's class unless the error is ours."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = lines[0] if lines else "no message"
    if not isinstance(error, _UNSUPPORTED + _DEVICE_MISSING + _TIMEOUT):
        text = f"{type(error).__name__}: {text}"
    return text if len(text) <= _REASON_CHARACTERS else text[: _REASON_CHARACTERS - 1] + "…"


# --- the first lines of the process ----------------------------------------------------------------------------


def _take_stdout() -> IO[str]:
    """Return the real stdout, and point descriptor 1 at stderr, so that no framework's chatter mixes with events."""
    lines = os.fdopen(os.dup(1), "w", encoding="ascii")
    os.dup2(2, 1)
    return lines


def _join_fate(parent: int) -> None:
    """Die when the parent does, even by SIGKILL; leave at once if it is gone already.

    The kernel means the thread that started us, so an agent starts a child in the thread that waits for its end.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    if os.getppid() != parent:
        raise SystemExit("the parent is gone")


def _reset_signals() -> None:
    """Undo what a parent with threads may have blocked or ignored, so that TERM ends this process."""
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    for number in (signal.SIGTERM, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)


def _offer_to_oom_killer() -> None:
    """Make the kernel's out-of-memory killer take this process and not Ray or the head."""
    try:
        Path("/proc/self/oom_score_adj").write_text(str(_OOM_SCORE_ADJ))
    except OSError as error:  # some sandboxes forbid it; then the kernel chooses by size, which is us as well
        sys.stderr.write(f"oom_score_adj stays as it is: {error}\n")


if __name__ == "__main__":
    status = main(sys.argv[1:])
    sys.stderr.flush()
    # Nothing is left to do, and frameworks have been seen to hang or crash while they are taken down.
    os._exit(status)
