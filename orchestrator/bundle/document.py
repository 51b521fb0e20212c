"""A run as one JSON document: the published shape, and the way from a run to it and back.

Within :data:`SCHEMA_VERSION` keys are only ever added, each with a default. Times of the head are ISO 8601 with their
zone; everything else is in the unit that its name ends with. :mod:`orchestrator.bundle.schema` has it as JSON Schema.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from orchestrator.bundle.checks import a_time, check, check_numbers
from orchestrator.errors import BundleError
from orchestrator.results import Attempt, CaseResult, NoiseFloor, Run, RunState, environment_hash
from workers import codec
from workers.protocol import Case, Ending, Environment, Fact, PhaseTiming, Result, StoppedBy, Verdict, Workload
from workers.telemetry.series import Doubt, Telemetry  # noqa: TC001  # read when documents are

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

FORMAT: Final = "muster run"
SCHEMA_VERSION: Final = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class RunFacts:
    """What is known of the run as a whole."""

    id: str
    name: str
    created_at: str
    #: ``null`` for a run that was cut off.
    finished_at: str | None
    state: RunState
    #: The config as it was written, and where it lay.
    config_text: str
    config_path: str
    #: ``--set`` and ``--only`` as they were typed.
    overrides: tuple[str, ...]
    #: Whether every figure is invented.
    simulated: bool
    muster_version: str
    rerun_of: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class EnvironmentDocument:
    """Where figures were taken, once for all attempts that share it."""

    #: SHA-256 of the facts as canonical JSON.
    hash: str
    facts: tuple[tuple[str, Fact], ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class AttemptDocument:
    """One try of a case, with every sample."""

    #: From 1 within its case.
    number: int
    verdict: Verdict
    #: The hash of one of the document's environments.
    environment: str
    reason: str | None = None
    #: The batch that was measured, where it was searched for.
    batch_size: int | None = None
    #: A time for each step, in order.
    warmup_ms: tuple[float, ...] = ()
    samples_ms: tuple[float, ...] = ()
    stopped_by: StoppedBy | None = None
    #: FLOP/s of a large matrix product.
    peak_flops: float | None = None
    peak_reason: str | None = None
    #: Bytes per second of a large array, read and written in place.
    copy_bytes_per_s: float | None = None
    copy_reason: str | None = None
    phases: tuple[PhaseTiming, ...] = ()
    ending: Ending = dataclasses.field(default_factory=Ending)
    #: Seconds since the epoch, on the clock of the device's host.
    started_at: float = 0.0
    duration_s: float = 0.0
    telemetry: Telemetry | None = None
    doubts: tuple[Doubt, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class CaseDocument:
    """One workload on one device, and how it ended."""

    case: Case
    verdict: Verdict | None = None
    reason: str | None = None
    attempts: tuple[AttemptDocument, ...] = ()
    #: Results that came after their attempt had been given up; in no figure.
    superseded: tuple[AttemptDocument, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class FloorDocument:
    """What a figure must differ by to be another, on one device."""

    device_id: str
    device_uuid: str | None
    workload: Workload
    measured_at: str
    run_id: str
    processes: int
    #: Standard deviations as shares of the mean.
    between_sd: float
    within_sd: float


@dataclass(frozen=True, kw_only=True, slots=True)
class RunDocument:
    """A run, whole."""

    format: str
    schema_version: int
    run: RunFacts
    environments: tuple[EnvironmentDocument, ...]
    #: In the plan's order.
    cases: tuple[CaseDocument, ...]
    noise_floors: tuple[FloorDocument, ...] = ()


# --- from a run --------------------------------------------------------------------------------------------------


def document_of(run: Run, floors: Sequence[NoiseFloor] = ()) -> RunDocument:
    """Return the document of a run, with those of ``floors`` that its own devices have."""
    environments: dict[str, EnvironmentDocument] = {}
    cases = tuple(
        CaseDocument(
            case=each.case,
            verdict=each.verdict,
            reason=each.reason,
            attempts=tuple(_attempt(attempt, environments) for attempt in each.attempts),
            superseded=tuple(_attempt(attempt, environments) for attempt in each.superseded),
        )
        for each in run.cases
    )
    return RunDocument(
        format=FORMAT,
        schema_version=SCHEMA_VERSION,
        run=RunFacts(
            **_shared(run, RunFacts, "created_at", "finished_at"),
            created_at=run.created_at.isoformat(),
            finished_at=None if run.finished_at is None else run.finished_at.isoformat(),
        ),
        environments=tuple(environments.values()),
        cases=cases,
        noise_floors=tuple(
            FloorDocument(**_shared(floor, FloorDocument, "measured_at"), measured_at=floor.measured_at.isoformat())
            for floor in own_floors(run, floors)
        ),
    )


def own_floors(run: Run, floors: Iterable[NoiseFloor]) -> tuple[NoiseFloor, ...]:
    """Return the noise floors of a run's own devices: of another card in the same slot it has none."""
    devices = {(each.case.device.id, each.case.device.uuid) for each in run.cases}
    return tuple(floor for floor in floors if (floor.device_id, floor.device_uuid) in devices)


def written(document: RunDocument) -> str:
    """Return the document as JSON; equal documents are equal text."""
    return json.dumps(codec.to_data(document), sort_keys=True, indent=1, allow_nan=False) + "\n"


def _attempt(attempt: Attempt, environments: dict[str, EnvironmentDocument]) -> AttemptDocument:
    result = attempt.result
    name = environment_hash(result.environment)
    environments.setdefault(name, EnvironmentDocument(hash=name, facts=result.environment.facts))
    shared = _shared(result, AttemptDocument, "number", "environment")
    return AttemptDocument(number=attempt.number, environment=name, **shared)


def _shared(value: object, kind: type, *but: str) -> dict[str, Any]:
    """Return what ``value`` has of the fields that ``kind`` names, all of them but those that are not the same."""
    names = (field.name for field in dataclasses.fields(kind))
    return {name: getattr(value, name) for name in names if name not in but}


# --- to a run ----------------------------------------------------------------------------------------------------


def read(text: bytes, place: str) -> RunDocument:
    """Return the document that JSON holds; raises BundleError, which names ``place`` and where in it.

    Nothing of it is taken on trust: kinds of values, finite numbers, texts that can be stored and shown, environments
    by their hashes, unique cases.
    """
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{place}: not JSON: {error}") from None
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise BundleError(f"{place}: not a run of muster's", remedy="Make one with: muster export RUN -o FILE")
    version = data.get("schema_version")
    if version != SCHEMA_VERSION:
        raise BundleError(
            f"{place}: has schema version {version!r}, and this muster reads {SCHEMA_VERSION}",
            remedy="Update muster here, or export it anew with this version there.",
        )
    check_numbers(data, place)
    try:
        document = codec.from_data(RunDocument, data)
    except (codec.CodecError, RecursionError) as error:
        raise BundleError(f"{place}: {error}", remedy="It is damaged, or of a newer muster.") from None
    check(document, place)
    return document


def run_of(document: RunDocument, place: str) -> tuple[Run, tuple[NoiseFloor, ...]]:
    """Return the run of a document and its devices' noise floors; raises BundleError for times that are none."""
    facts, environments = document.run, {each.hash: Environment(facts=each.facts) for each in document.environments}
    run = Run(
        **_shared(facts, RunFacts, "created_at", "finished_at"),
        created_at=a_time(facts.created_at, place),
        finished_at=None if facts.finished_at is None else a_time(facts.finished_at, place),
        cases=tuple(
            CaseResult(
                case=each.case,
                position=position,
                verdict=each.verdict,
                reason=each.reason,
                attempts=tuple(_result(each.case, one, environments) for one in each.attempts),
                superseded=tuple(_result(each.case, one, environments) for one in each.superseded),
            )
            for position, each in enumerate(document.cases)
        ),
    )
    floors = tuple(
        NoiseFloor(**_shared(floor, FloorDocument, "measured_at"), measured_at=a_time(floor.measured_at, place))
        for floor in document.noise_floors
    )
    return run, floors


def _result(case: Case, one: AttemptDocument, environments: dict[str, Environment]) -> Attempt:
    shared = _shared(one, AttemptDocument, "number", "environment")
    result = Result(case_key=case.key, attempt=one.number, environment=environments[one.environment], **shared)
    return Attempt(number=one.number, result=result)
