"""A run without the names of people, hosts, addresses and folders: for those who may show figures and no more.

What is known to be of the machine is kept, everything else is left out, or is put in other words. Figures, verdicts,
telemetry and what a device is stay as they are.
"""

from __future__ import annotations

import hashlib
import ipaddress
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import yaml

from orchestrator.bundle.document import own_floors
from orchestrator.config.load import load_text
from orchestrator.config.overrides import from_typed
from orchestrator.errors import ConfigError
from orchestrator.planning import case_key
from workers import models, works
from workers.protocol import Environment, Fact

if TYPE_CHECKING:
    from collections.abc import Mapping

    from orchestrator.config.schema import Config
    from orchestrator.results import Attempt, CaseResult, NoiseFloor, Run
    from workers.protocol import Case, Device, Result
    from workers.telemetry.series import Telemetry

#: Facts that tell what a machine is and how it was set, and of no person or place.
_KEPT_FACTS: Final = (
    "cgroup.", "company.", "cpu.", "framework.", "gpu.", "host.container", "host.kernel", "host.os", "host.virtual",
    "library.", "memory.", "muster.commit", "package.", "process.affinity", "process.env.", "python.version", "search.",
    "simulated",
)  # fmt: skip
#: Of those, the ones that tell which card it is.
_LEFT_OUT_FACTS: Final = ("gpu.uuid", "process.env.CUDA_VISIBLE_DEVICES")

_LEFT_OUT: Final = "left out: names of people, hosts and places"

#: Sections of the config that say what was measured and shown, and how; no names but that in `report.relative_to`.
_KEPT_SECTIONS: Final = {"workloads", "measure", "limits", "policy", "quality", "report"}

NAME: Final = "lab"

#: Of a config that cannot be read and has no cases: it must measure something to be one.
DEFAULT_MODEL: Final = "alexnet"

#: What may be an address of IPv6, and may be the time of day.
_COLONS: Final = re.compile(r"(?<![\w:.])[0-9a-f:]*:[0-9a-f:]*:[0-9a-f:.]*", re.IGNORECASE)

#: What in a text is the name of somebody or of some place, by its look.
_PATTERNS: Final = (
    (re.compile(r"[^\s,;:()]+ \(pid \d+[^)]*\)"), "a process"),
    (re.compile(r"\bpid \d+(?: of [^\s,;:()]+)?"), "a process"),
    (re.compile(r"\bGPU-[0-9a-f-]{8,}", re.IGNORECASE), "GPU"),
    (re.compile(r"\b[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}\b", re.IGNORECASE), "UUID"),
    (re.compile(r"[\w.+-]+@[\w.-]+"), "USER"),
    (re.compile(r"\bon host [^\s,;:()]+"), "on a host"),
    (re.compile(r"(?<![\w.])\d{1,3}(?:\.\d{1,3}){3}(?:/\d+)?(?![\w.])"), "ADDRESS"),
    (re.compile(r"""(?<![\w/])(?:~|\.{1,2}|[A-Za-z]:)?[/\\](?:[^\s'",;:()]*[\w-])"""), "PATH"),
)


def anonymous(run: Run, floors: tuple[NoiseFloor, ...] = ()) -> tuple[Run, tuple[NoiseFloor, ...]]:
    """Return the run and its devices' noise floors under other names: a run of its own, by its id."""
    config, floors = _config(run), own_floors(run, floors)
    names = _Names.of(run, config)
    cases = tuple(names.case_result(each) for each in run.cases)
    found = replace(
        run,
        id=names.run_id,
        name=NAME,
        config_text=_config_text(cases, config, names),
        config_path=f"{NAME}.yaml",
        overrides=(),
        cases=cases,
        rerun_of=None,
        imported=None,
    )
    return found, tuple(names.floor(floor) for floor in floors)


def _config(run: Run) -> Config | None:
    sets, _ = from_typed(run.overrides)
    try:
        return load_text(run.config_text, run.config_path, overrides=sets, simulate=True).config
    except ConfigError:  # of another muster
        return None


def _config_text(cases: tuple[CaseResult, ...], config: Config | None, names: _Names) -> str:
    """Return a config that measures the same on devices of the same names: valid, and made anew."""
    hosts: dict[str, dict[str, None]] = {}
    for each in cases:
        hosts.setdefault(each.case.device.host, {})[each.case.device.selector] = None
    data: dict[str, Any] = {"version": 1, "name": NAME}
    if hosts:
        data["hosts"] = [{"name": name, "devices": list(selectors)} for name, selectors in hosts.items()]
    if config is not None:
        data |= config.model_dump(mode="json", by_alias=True, exclude_defaults=True, include=_KEPT_SECTIONS)
        if (relative_to := config.report.relative_to) is not None:  # may be a device of a host
            data["report"]["relative_to"] = names.text(relative_to)
    works_of = dict.fromkeys(each.case.workload.model for each in cases) or {DEFAULT_MODEL: None}
    data.setdefault("workloads", [_workload(name) for name in works_of])
    return yaml.safe_dump(data, sort_keys=False)


def _workload(name: str) -> dict[str, str]:
    """Return what measures a network, a layer of one, or an operation."""
    if works.is_operation(name):
        return {"problems": name}
    network, _, layer = name.partition(models.SEPARATOR)
    return {"model": network, "layers": layer} if layer else {"model": network}


@dataclass(frozen=True, kw_only=True, slots=True)
class _Names:
    """What is called otherwise."""

    run_id: str
    hosts: Mapping[str, str]
    #: Finds any name of a host, an address or a person that the run tells.
    known: re.Pattern[str] | None
    words: Mapping[str, str]

    @classmethod
    def of(cls, run: Run, config: Config | None) -> _Names:
        found = dict.fromkeys(each.case.device.host for each in run.cases)
        hosts = {name: f"host{number}" for number, name in enumerate(found, start=1)}
        words = {**dict.fromkeys(_people(run, config), "NAME"), **hosts}
        longest_first = sorted(words, key=len, reverse=True)
        pattern = "|".join(re.escape(word) for word in longest_first)
        return cls(
            # The same each time, so that it is taken in once; not to be turned back.
            run_id=hashlib.sha256(f"anonymous {run.id} {run.created_at}".encode()).hexdigest()[:12],
            hosts=hosts,
            known=re.compile(rf"(?<![\w-])(?:{pattern})(?![\w-])") if words else None,
            words=words,
        )

    def text(self, text: str | None) -> str | None:
        """Return a text without names."""
        if text is None:
            return None
        for pattern, instead in _PATTERNS:
            text = pattern.sub(instead, text)
        text = _COLONS.sub(lambda match: "ADDRESS" if _is_address(match[0].rstrip(":.")) else match[0], text)
        return text if self.known is None else self.known.sub(lambda match: self.words[match[0]], text)

    def device(self, device: Device) -> Device:
        return replace(device, host=self.hosts[device.host], uuid=None)

    def case(self, case: Case) -> Case:
        device = self.device(case.device)
        key = case_key(device, case.workload, case.sampling, process=case.process, company=case.company)
        return replace(case, key=key, device=device)

    def case_result(self, each: CaseResult) -> CaseResult:
        case = self.case(each.case)
        return replace(
            each,
            case=case,
            reason=self.text(each.reason),
            attempts=tuple(self.attempt(case, attempt) for attempt in each.attempts),
            superseded=tuple(self.attempt(case, attempt) for attempt in each.superseded),
        )

    def attempt(self, case: Case, attempt: Attempt) -> Attempt:
        return replace(attempt, result=self.result(case, attempt.result))

    def result(self, case: Case, result: Result) -> Result:
        return replace(
            result,
            case_key=case.key,
            reason=self.text(result.reason),
            peak_reason=self.text(result.peak_reason),
            copy_reason=self.text(result.copy_reason),
            environment=self.environment(result.environment),
            # What a program wrote may be anything.
            ending=replace(result.ending, stderr_tail="", oom_evidence=self.text(result.ending.oom_evidence)),
            telemetry=None if result.telemetry is None else self.telemetry(result.telemetry),
            doubts=tuple(replace(doubt, text=self.text(doubt.text) or "") for doubt in result.doubts),
        )

    def environment(self, environment: Environment) -> Environment:
        return Environment(facts=tuple((name, self.fact(name, fact)) for name, fact in environment.facts))

    def fact(self, name: str, fact: Fact) -> Fact:
        if not name.startswith(_KEPT_FACTS) or name in _LEFT_OUT_FACTS:
            return Fact(value=None, reason=_LEFT_OUT)
        value = self.text(fact.value) if isinstance(fact.value, str) else fact.value
        return Fact(value=value, reason=self.text(fact.reason))

    def telemetry(self, telemetry: Telemetry) -> Telemetry:
        return replace(
            telemetry,
            missing=tuple(replace(each, reason=self.text(each.reason) or "") for each in telemetry.missing),
            energy=telemetry.energy and replace(telemetry.energy, reason=self.text(telemetry.energy.reason)),
            events=tuple(replace(event, text=self.text(event.text) or "") for event in telemetry.events),
            foreign=tuple(
                replace(process, pid=number, user=None, name=None)
                for number, process in enumerate(telemetry.foreign, start=1)
            ),
        )

    def floor(self, floor: NoiseFloor) -> NoiseFloor:
        host, _, selector = floor.device_id.partition("/")
        return replace(floor, device_id=f"{self.hosts[host]}/{selector}", device_uuid=None, run_id=self.run_id)


def _is_address(text: str) -> bool:
    try:
        ipaddress.IPv6Address(text)
    except ValueError:
        return False
    return True


def _people(run: Run, config: Config | None) -> list[str]:
    """Return the names and addresses that the config and the results tell, but for the hosts' own."""
    found: list[str | None] = [run.id, run.rerun_of]
    if config is not None:
        found += [config.cluster.head_address, config.cluster.address, config.defaults.user]
        found += [name for host in config.hosts for name in (host.address, host.user)]
    for each in run.cases:
        for attempt in (*each.attempts, *each.superseded):
            facts = attempt.result.environment
            found += [str(facts.get(name).value) for name in ("host.name", "host.user") if facts.get(name).value]
            telemetry = attempt.result.telemetry
            found += [process.user for process in telemetry.foreign] if telemetry is not None else []
    # One letter is no name worth hiding, and would spoil every text; nor is what every machine has.
    return sorted({name for name in found if name and len(name) > 1} - {"localhost", "root"})
