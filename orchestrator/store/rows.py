"""From values to rows and back, a table at a time."""

from __future__ import annotations

import dataclasses
import statistics
import struct
import zlib
from typing import TYPE_CHECKING, Any, Final, TypeVar

from orchestrator.results import (
    Attempt,
    CaseResult,
    Imported,
    NewRun,
    Pace,
    Quarantine,
    Run,
    RunState,
    RunSummary,
    environment_hash,
)
from workers import codec
from workers.protocol import (
    Case,
    Company,
    Device,
    Ending,
    Environment,
    PhaseTiming,
    Result,
    Sampling,
    StoppedBy,
    Verdict,
    Workload,
)
from workers.telemetry.series import Doubt, Telemetry

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy import Row

T = TypeVar("T")

WARMUP: Final = "warmup"
MEASURED: Final = "measured"


class Reader:
    """Turns stored JSON into values; text that was read before gives the same value again."""

    def __init__(self) -> None:
        self._seen: dict[tuple[Any, str], Any] = {}

    def __call__(self, kind: type[T], text: str) -> T:
        """Return the ``kind`` that ``text`` holds; raises CodecError."""
        if (kind, text) not in self._seen:
            self._seen[kind, text] = codec.from_json(kind, text)
        value: T = self._seen[kind, text]
        return value


# --- values to rows --------------------------------------------------------------------------------------------


def legible(text: str | None) -> str | None:
    """Return text that every database takes: half of a surrogate pair, from a file name, and NUL become escapes."""
    return text and text.encode("utf-8", "backslashreplace").decode().replace("\0", "\\x00")


def storable(result: Result) -> Result:
    """Return the result as it will come back; raises ValueError for NaN and infinities, which are no figures."""
    codec.to_json(result)
    return dataclasses.replace(
        result,
        reason=legible(result.reason),
        peak_reason=legible(result.peak_reason),
        copy_reason=legible(result.copy_reason),
    )


def run_values(new: NewRun | Run) -> Mapping[str, object]:
    """Return the row of a run that has just begun."""
    return {
        "id": new.id,
        "name": new.name,
        "created_at": new.created_at,
        "state": RunState.RUNNING.value,
        "config_text": new.config_text,
        "config_path": legible(new.config_path),
        "overrides": codec.to_json(new.overrides),
        "simulated": new.simulated,
        "muster_version": new.muster_version,
        "rerun_of": new.rerun_of,
        "schedule": new.schedule,
    }


def imported_values(run: Run, imported: Imported) -> Mapping[str, object]:
    """Return the row of a run that was made elsewhere."""
    return {
        **run_values(run),
        "state": run.state.value,
        "finished_at": run.finished_at,
        "imported_from": legible(imported.source),
        "imported_at": imported.at,
    }


def case_values(run_id: str, position: int, case: Case) -> Mapping[str, object]:
    """Return the row of a planned case."""
    return {
        "run_id": run_id,
        "position": position,
        "key": case.key,
        "device_id": case.device.id,
        "device": codec.to_json(case.device),
        "workload": codec.to_json(case.workload),
        "sampling": codec.to_json(case.sampling),
        "method_version": case.method_version,
        "process": case.process,
        "company": case.company and case.company.value,
        "peers": codec.to_json(case.peers) if case.peers else None,
    }


def environment_values(environment: Environment) -> Mapping[str, str]:
    """Return the row of an environment, under the sha256 of its canonical JSON."""
    return {"hash": environment_hash(environment), "json": codec.to_json(environment)}


def attempt_values(result: Result) -> Mapping[str, object]:
    """Return the row of an attempt, but for what it refers to."""
    return {
        "number": result.attempt,
        "verdict": result.verdict.value,
        "reason": result.reason,
        "batch_size": result.batch_size,
        "stopped_by": result.stopped_by and result.stopped_by.value,
        "peak_flops": result.peak_flops,
        "peak_reason": result.peak_reason,
        "copy_bytes_per_s": result.copy_bytes_per_s,
        "copy_reason": result.copy_reason,
        "phases": codec.to_json(result.phases),
        "ending": codec.to_json(result.ending),
        "started_at": result.started_at,
        "duration_s": result.duration_s,
        "doubts": codec.to_json(result.doubts),
        "telemetry": result.telemetry and zlib.compress(codec.to_json(result.telemetry).encode()),
    }


def sample_values(attempt_id: int, result: Result) -> Sequence[Mapping[str, object]]:
    """Return the rows of an attempt's samples."""
    return [
        {"attempt_id": attempt_id, "kind": kind, "count": len(ms), "ms": struct.pack(f"<{len(ms)}d", *ms)}
        for kind, ms in ((WARMUP, result.warmup_ms), (MEASURED, result.samples_ms))
    ]


def late_values(case_id: int, result: Result) -> Mapping[str, object]:
    """Return the row of a result that came too late, but for when it came."""
    return {"case_id": case_id, "number": result.attempt, "result": codec.to_json(result)}


def quarantine_values(quarantine: Quarantine, *, simulated: bool) -> Mapping[str, object]:
    """Return the row of what is put aside."""
    return {
        "target": quarantine.target,
        "simulated": simulated,
        "since": quarantine.since,
        "until": quarantine.until,
        "failures": quarantine.failures,
        "reason": legible(quarantine.reason),
        "run_id": quarantine.run_id,
    }


# --- rows to values; each raises CodecError for what no muster has written ---------------------------------------


def summary(row: Row[Any], running: frozenset[str]) -> RunSummary:
    """Return one line of ``muster runs``; ``running`` has the id of the run that holds the store."""
    return RunSummary(
        id=row.id,
        name=row.name,
        created_at=row.created_at,
        finished_at=row.finished_at,
        state=state(row, running),
        simulated=row.simulated,
        cases=row.cases,
        figures=row.figures,
        rerun_of=row.rerun_of,
        imported=_imported(row),
        schedule=row.schedule,
    )


def run(row: Row[Any], cases: tuple[CaseResult, ...], running: frozenset[str]) -> Run:
    """Return a run, whole; ``running`` has the id of the run that holds the store."""
    return Run(
        id=row.id,
        name=row.name,
        created_at=row.created_at,
        finished_at=row.finished_at,
        state=state(row, running),
        config_text=row.config_text,
        config_path=row.config_path,
        overrides=codec.from_json(tuple[str, ...], row.overrides),
        simulated=row.simulated,
        muster_version=row.muster_version,
        cases=cases,
        rerun_of=row.rerun_of,
        imported=_imported(row),
        schedule=row.schedule,
    )


def case_result(
    read: Reader, row: Row[Any], attempts: tuple[Attempt, ...], superseded: tuple[Attempt, ...]
) -> CaseResult:
    """Return a case and how it ended."""
    case = Case(
        key=row.key,
        device=read(Device, row.device),
        workload=read(Workload, row.workload),
        sampling=read(Sampling, row.sampling),
        method_version=row.method_version,
        process=row.process,
        company=None if row.company is None else codec.from_data(Company, row.company),
        peers=() if row.peers is None else read(tuple[Device, ...], row.peers),
    )
    verdict = None if row.verdict is None else codec.from_data(Verdict, row.verdict)
    return CaseResult(
        case=case,
        position=row.position,
        verdict=verdict,
        reason=row.reason,
        attempts=attempts,
        superseded=superseded,
    )


def result(read: Reader, row: Row[Any]) -> Result:
    """Return what an attempt gave, every figure as it was."""
    return Result(
        case_key=row.case_key,
        attempt=row.number,
        verdict=codec.from_data(Verdict, row.verdict),
        reason=row.reason,
        batch_size=row.batch_size,
        warmup_ms=_samples(row.warmup_count, row.warmup_ms),
        samples_ms=_samples(row.measured_count, row.measured_ms),
        stopped_by=None if row.stopped_by is None else codec.from_data(StoppedBy, row.stopped_by),
        peak_flops=row.peak_flops,
        peak_reason=row.peak_reason,
        copy_bytes_per_s=row.copy_bytes_per_s,
        copy_reason=row.copy_reason,
        phases=read(tuple[PhaseTiming, ...], row.phases),
        environment=read(Environment, row.environment),
        ending=read(Ending, row.ending),
        started_at=row.started_at,
        duration_s=row.duration_s,
        telemetry=_telemetry(row.telemetry),
        doubts=read(tuple[Doubt, ...], row.doubts),
    )


def late_attempt(row: Row[Any]) -> Attempt:
    """Return a result that came too late, as the attempt that it was of."""
    return Attempt(number=row.number, result=codec.from_json(Result, row.result))


def quarantine(row: Row[Any]) -> Quarantine:
    """Return what is put aside."""
    return Quarantine(
        target=row.target,
        since=row.since,
        until=row.until,
        failures=row.failures,
        reason=row.reason,
        run_id=row.run_id,
    )


def pace(row: Row[Any]) -> Pace:
    """Return how fast an attempt with samples went: whatever was not a step was start-up."""
    warmup, measured = _samples(row.warmup_count, row.warmup_ms), _samples(row.measured_count, row.measured_ms)
    steps_s = (sum(warmup) + sum(measured)) / 1000
    # The two were taken by different clocks: a short attempt may seem shorter than its steps.
    return Pace(startup_s=max(0.0, row.duration_s - steps_s), step_ms=statistics.median(measured))


def _telemetry(packed: bytes | None) -> Telemetry | None:
    if packed is None:
        return None
    try:
        text = zlib.decompress(packed).decode()
    except (zlib.error, UnicodeDecodeError) as error:
        raise codec.CodecError(f"telemetry that cannot be unpacked: {error}") from error
    return codec.from_json(Telemetry, text)


def _samples(count: int, packed: bytes) -> tuple[float, ...]:
    try:
        return struct.unpack(f"<{count}d", packed)
    except struct.error as error:
        raise codec.CodecError(f"{count} samples in {len(packed)} bytes") from error


def _imported(row: Row[Any]) -> Imported | None:
    return None if row.imported_at is None else Imported(source=row.imported_from or "", at=row.imported_at)


def state(row: Any, running: frozenset[str]) -> RunState:
    """Return where a run is; one that was never finished and that nobody works on has been cut off."""
    kept = codec.from_data(RunState, row.state)
    return RunState.INTERRUPTED if kept is RunState.RUNNING and row.id not in running else kept
