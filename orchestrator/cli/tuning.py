"""The rounds of `muster tune`: runs of fewer and fewer combinations with more and more steps, each of them kept."""

from __future__ import annotations

import asyncio
import sys
from collections import defaultdict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from orchestrator.analysis.halving import better_half, schedule
from orchestrator.analysis.pooling import pooled
from orchestrator.cli.execution import Order, execute
from orchestrator.cli.preparation import plan_with_estimates
from orchestrator.config.load import load_config
from orchestrator.errors import ExitCode, UsageError
from orchestrator.report.tuning import Candidate, Tuned, group_of, measured_candidate
from orchestrator.report.words import count

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from orchestrator.cli.execution import Executed
    from orchestrator.config.load import Loaded
    from orchestrator.report.tuning import Group, Objective
    from workers.protocol import Case, Workload


@dataclass(frozen=True, kw_only=True, slots=True)
class Wish:
    """What a person asked for."""

    config: Path
    sets: tuple[str, ...]
    only: tuple[str, ...]
    objective: Objective
    simulate: bool
    store_url: str | None
    quiet: bool
    #: Measure every combination with all steps at the end.
    check: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Search:
    """What came of it."""

    name: str
    tuned: tuple[Tuned, ...]
    #: Of the last round.
    steps: int
    #: Of the rounds, in order.
    run_ids: tuple[str, ...]
    store: str
    exit_code: ExitCode


def search(wish: Wish) -> Search:
    """Find the best combination for each device, model and pass. Raises :class:`orchestrator.errors.MusterError`."""
    loaded = load_config(wish.config, overrides=wish.sets, simulate=wish.simulate)
    return _Rounds(wish, loaded).search()


class _Rounds:
    """One search: what is still in it, and what was measured so far."""

    def __init__(self, wish: Wish, loaded: Loaded) -> None:
        self._wish = wish
        self._loaded = loaded
        self._steps = loaded.config.measure.sampling.max_steps
        self._known: dict[Group, dict[Workload, Candidate]] = defaultdict(dict)
        self._taken_s: dict[Group, float] = defaultdict(float)
        self._processes: dict[Group, int] = defaultdict(int)
        self._run_ids: list[str] = []
        self._store = wish.store_url or loaded.config.store

    def search(self) -> Search:
        """Run all rounds, and the whole sweep where it is wished; end early where somebody stops it."""
        everything = _groups(self._cases())
        rounds = schedule(max(map(len, everything.values())), self._steps)
        left = everything
        for number, steps in enumerate(rounds):
            is_last = number == len(rounds) - 1
            if is_last:
                left = {group: self._best(cases)[:1] for group, cases in left.items()}
            executed = self._run(left, steps, f"tune, round {number + 1} of {len(rounds)}")
            if executed.exit_code is ExitCode.INTERRUPTED:
                return self._ended(everything, ExitCode.INTERRUPTED, {})
            self._take(executed)
            if number == 0:
                self._require_scores(everything)
            left = {group: self._half(cases) for group, cases in left.items()}
        checked = {}
        if self._wish.check:
            executed = self._run(everything, self._steps, "tune, the whole sweep")
            checked = {group: max(found.values(), key=lambda one: one.score) for group, found in self._scores(executed)}
        code = ExitCode.OK if all(self._known.get(group) for group in everything) else ExitCode.INCOMPLETE
        return self._ended(everything, code, checked)

    def _cases(self) -> tuple[Case, ...]:
        wish = self._wish
        plan = asyncio.run(
            plan_with_estimates(self._loaded.config, simulate=wish.simulate, only=wish.only, store_url=self._store)
        )
        cases = tuple(case for case in plan.runnable if case.process == 1 and case.company is None and not case.peers)
        if not cases:
            raise UsageError("there is nothing to tune: no case can be run", remedy="see why: muster plan CONFIG")
        if any(case.workload.seeks_largest for case in cases):
            raise UsageError(
                "batch_size: max cannot be tuned: it is no candidate, but a search of its own",
                remedy="name batches: batch_size: [32, 64, 128]",
            )
        return cases

    def _run(self, groups: Mapping[Group, Sequence[Case]], steps: int, label: str) -> Executed:
        wish = self._wish
        sets = (
            *wish.sets,
            f"name={self._loaded.config.name} ({label})",
            f"measure.steps={steps}",
            "measure.until=null",
            "measure.processes=1",
        )
        loaded = load_config(wish.config, overrides=sets, simulate=wish.simulate)
        sampling = {host.name: loaded.config.measure_for(host).sampling for host in loaded.config.hosts}
        cases = tuple(replace(case, sampling=sampling[case.device.host]) for group in groups.values() for case in group)
        print(f"{label}: {count(len(cases), 'case')} of {steps} steps", file=sys.stderr)
        executed = execute(
            Order(
                loaded=loaded,
                only=wish.only,
                simulate=wish.simulate,
                store_url=wish.store_url,
                quiet=wish.quiet,
                cases=cases,
                overrides=sets,
            )
        )
        self._run_ids.append(executed.run.id)
        return executed

    def _take(self, executed: Executed) -> None:
        for group, found in self._scores(executed):
            self._known[group].update(found)
        for each in pooled(executed.run.cases):
            self._taken_s[group_of(each.case)] += sum(each.samples_ms) / 1e3
            self._processes[group_of(each.case)] += 1

    def _scores(self, executed: Executed) -> Iterable[tuple[Group, dict[Workload, Candidate]]]:
        found: dict[Group, dict[Workload, Candidate]] = defaultdict(dict)
        for each in pooled(executed.run.cases):
            candidate = measured_candidate(each, self._wish.objective)
            if candidate is not None:
                found[group_of(each.case)][each.workload] = candidate
        return found.items()

    def _require_scores(self, everything: Mapping[Group, object]) -> None:
        if not any(self._known.values()):
            raise UsageError(
                f"no case has {self._wish.objective.value}: none was measured, or no device counts its energy",
                remedy=f"see why: muster show {self._run_ids[-1]} --wide",
            )

    def _best(self, cases: Sequence[Case]) -> tuple[Case, ...]:
        return tuple(sorted(cases, key=lambda case: -self._known[group_of(case)][case.workload].score))

    def _half(self, cases: Sequence[Case]) -> tuple[Case, ...]:
        """Return the better half of those that have a figure; what has none is out."""
        known = [(case, self._known[group_of(case)].get(case.workload)) for case in cases]
        return better_half((case, found.score) for case, found in known if found is not None)

    def _ended(
        self, everything: Mapping[Group, Sequence[Case]], code: ExitCode, checked: Mapping[Group, Candidate]
    ) -> Search:
        return Search(
            name=self._loaded.config.name,
            tuned=tuple(self._tuned(group, cases, checked.get(group)) for group, cases in everything.items()),
            steps=self._steps,
            run_ids=tuple(self._run_ids),
            store=self._store,
            exit_code=code,
        )

    def _tuned(self, group: Group, cases: Sequence[Case], checked: Candidate | None) -> Tuned:
        known = self._known[group]
        first = next((known[case.workload] for case in cases if case.workload in known), None)
        return Tuned(
            group=group,
            winner=max(known.values(), key=lambda one: one.score, default=None),
            first=first,
            tried=len(cases),
            failed=sum(case.workload not in known for case in cases),
            taken_s=self._taken_s[group],
            processes=self._processes[group],
            whole_s=sum(one.step_s * self._steps for one in known.values()),
            checked=checked,
        )


def _groups(cases: Iterable[Case]) -> dict[Group, tuple[Case, ...]]:
    found: dict[Group, list[Case]] = defaultdict(list)
    for case in cases:
        found[group_of(case)].append(case)
    # A device's searches stand together, whatever the order in which cases are begun.
    devices = list(dict.fromkeys(device for device, *_ in found))
    return {group: tuple(found[group]) for group in sorted(found, key=lambda group: devices.index(group[0]))}
