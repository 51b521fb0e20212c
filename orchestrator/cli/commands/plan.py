"""`muster plan`: the cases that a config would run, and how long."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.cli import options

if TYPE_CHECKING:
    from orchestrator.planning import Plan, PlannedCase


def plan(
    config: options.ConfigPath,
    overrides: options.Set = None,
    only: options.Only = None,
    simulate: options.Simulate = False,
    store: options.StoreUrl = None,
    json: options.Json = False,
) -> None:
    """Show the cases that a config would run, in order, and how long they take."""
    import asyncio

    from orchestrator.cli.output import print_data
    from orchestrator.cli.preparation import plan_with_estimates
    from orchestrator.config.load import load_config

    loaded = load_config(config, overrides=overrides or (), simulate=simulate)
    store_url = store or loaded.config.store
    made = asyncio.run(plan_with_estimates(loaded.config, simulate=simulate, only=only or (), store_url=store_url))
    if json:
        print_data(_data(made))
        return
    for line in _lines(made):
        print(line)


def _lines(made: Plan) -> list[str]:
    from orchestrator.report.words import seconds
    from orchestrator.report.workloads import in_place, in_words

    several = {planned.case.device.id for planned in made.cases if planned.case.process > 1}
    rows = [
        (
            str(number),
            in_place(planned.case),
            in_words(planned.case.workload, planned.case.company) + _which_process(planned, several),
            _steps(planned),
            seconds(planned.estimate_s) if planned.estimate_s is not None else _why_not(planned),
        )
        for number, planned in enumerate(made.cases, start=1)
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    lines = [
        "  ".join((*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[4])) for row in rows
    ]
    return [*lines, _total(made)]


def _which_process(planned: PlannedCase, several: set[str]) -> str:
    return f" process {planned.case.process}" if planned.case.device.id in several else ""


def _steps(planned: PlannedCase) -> str:
    sampling = planned.case.sampling
    if sampling.relative_ci is None:
        return f"{sampling.warmup}+{sampling.max_steps} steps"
    return f"{sampling.warmup}+{sampling.min_steps}..{sampling.max_steps} steps until {sampling.relative_ci:.2%}"


def _why_not(planned: PlannedCase) -> str:
    return "not measured before" if planned.gap is None else f"{planned.gap.verdict.value}: {planned.gap.reason}"


def _total(made: Plan) -> str:
    from orchestrator.report.words import count, seconds

    cases = f"{count(len(made.runnable), 'case')} on {count(len(made.devices), 'device')}"
    skipped = len(made.cases) - len(made.runnable)
    parts = [cases if not skipped else f"{cases}, {skipped} that cannot be run"]
    if made.known_s:
        parts.append(f"at most {seconds(made.known_s)} by what earlier runs tell")
    if made.unknown:
        parts.append(f"{made.unknown} without an estimate" if made.known_s else "no estimate: nothing was measured yet")
    return "; ".join(parts)


def _data(made: Plan) -> dict[str, object]:
    from workers import codec

    return {
        "cases": [
            {
                "case": codec.to_data(planned.case),
                "estimate_s": planned.estimate_s,
                "verdict": planned.gap.verdict.value if planned.gap else None,
                "reason": planned.gap.reason if planned.gap else None,
            }
            for planned in made.cases
        ],
        "devices": [device.id for device in made.devices],
        "total": {"known_s": made.known_s, "without_estimate": made.unknown},
    }
