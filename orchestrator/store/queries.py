"""The questions that the repository asks more than one table at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import and_, func, select

from orchestrator.store.rows import MEASURED, WARMUP
from orchestrator.store.tables import ATTEMPTS, CASES, ENVIRONMENTS, LATE_RESULTS, RUNS, SAMPLES
from workers.protocol import Verdict

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Select

#: The verdicts of cases that have a figure.
WITH_FIGURE: Final = tuple(verdict.value for verdict in Verdict if verdict.has_figure)

NEWEST_FIRST: Final = (RUNS.c.created_at.desc(), RUNS.c.id.desc())

#: Every run with the number of its cases, and of those that ended with a figure.
SUMMARIES: Final = (
    select(
        RUNS,
        func.count(CASES.c.id).label("cases"),
        func.count(CASES.c.id).filter(CASES.c.verdict.in_(WITH_FIGURE)).label("figures"),
    )
    .select_from(RUNS.outerjoin(CASES, CASES.c.run_id == RUNS.c.id))
    .group_by(RUNS.c.id)
    .order_by(*NEWEST_FIRST)
)

_WARMUP_STEPS: Final = SAMPLES.alias("warmup")
_MEASURED_STEPS: Final = SAMPLES.alias("measured")

#: Attempts in order, each with its case, environment and samples.
ATTEMPTS_WHOLE: Final = (
    select(
        ATTEMPTS,
        CASES.c.key.label("case_key"),
        CASES.c.device_id,
        CASES.c.workload,
        ENVIRONMENTS.c.json.label("environment"),
        _WARMUP_STEPS.c.count.label("warmup_count"),
        _WARMUP_STEPS.c.ms.label("warmup_ms"),
        _MEASURED_STEPS.c.count.label("measured_count"),
        _MEASURED_STEPS.c.ms.label("measured_ms"),
    )
    .select_from(ATTEMPTS)
    .join(CASES, ATTEMPTS.c.case_id == CASES.c.id)
    .join(ENVIRONMENTS, ATTEMPTS.c.environment_hash == ENVIRONMENTS.c.hash)
    .join(_WARMUP_STEPS, and_(_WARMUP_STEPS.c.attempt_id == ATTEMPTS.c.id, _WARMUP_STEPS.c.kind == WARMUP))
    .join(_MEASURED_STEPS, and_(_MEASURED_STEPS.c.attempt_id == ATTEMPTS.c.id, _MEASURED_STEPS.c.kind == MEASURED))
    .order_by(ATTEMPTS.c.case_id, ATTEMPTS.c.number)
)


#: Results that came too late, in the order in which they came.
LATE_IN_ORDER: Final = (
    select(LATE_RESULTS).join(CASES, LATE_RESULTS.c.case_id == CASES.c.id).order_by(LATE_RESULTS.c.id)
)


def latest_figures(device_ids: Sequence[str], *, simulated: bool) -> Select[Any]:
    """Return the question for the last attempt with a figure of each workload on each of these devices.

    Last means last written: hosts' clocks differ.
    """
    latest = (
        select(func.max(ATTEMPTS.c.id))
        .select_from(ATTEMPTS)
        .join(CASES, ATTEMPTS.c.case_id == CASES.c.id)
        .join(RUNS, CASES.c.run_id == RUNS.c.id)
        .join(SAMPLES, and_(SAMPLES.c.attempt_id == ATTEMPTS.c.id, SAMPLES.c.kind == MEASURED, SAMPLES.c.count > 0))
        .where(CASES.c.device_id.in_(device_ids), RUNS.c.simulated == simulated)
        # What is called localhost elsewhere is another machine.
        .where(RUNS.c.imported_at.is_(None))
        .where(ATTEMPTS.c.verdict.in_(WITH_FIGURE))
        .group_by(CASES.c.device_id, CASES.c.workload)
    )
    return ATTEMPTS_WHOLE.where(ATTEMPTS.c.id.in_(latest))
