"""What the store knows over several runs: which devices there were, and how a workload on one went from run to run.

Imported runs are in none of it: what is called localhost elsewhere is another machine.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import and_, func, or_, select

from orchestrator.results import DeviceSeen, History
from orchestrator.store import rows
from orchestrator.store.queries import NEWEST_FIRST, WITH_FIGURE
from orchestrator.store.tables import CASES, RUNS
from workers import codec
from workers.protocol import Company

if TYPE_CHECKING:
    import datetime
    from collections.abc import Sequence

    from sqlalchemy import ColumnElement, Connection, Row

    from workers.protocol import Workload

#: A case of one device alone is comparable with others of its kind.
_NOT_TOGETHER: Final = or_(CASES.c.company.is_(None), CASES.c.company != Company.TOGETHER.value)


def _own(*, simulated: bool) -> ColumnElement[bool]:
    return and_(RUNS.c.simulated == simulated, RUNS.c.imported_at.is_(None))


def _of(device_id: str, workload: Workload) -> ColumnElement[bool]:
    return and_(CASES.c.device_id == device_id, CASES.c.workload == codec.to_json(workload))


def devices(connection: Connection, *, simulated: bool) -> tuple[DeviceSeen, ...]:
    """Return every device that a run had a case for, as the latest one has it, by id."""
    latest = (
        select(func.max(CASES.c.id))
        .join(RUNS, CASES.c.run_id == RUNS.c.id)
        .where(_own(simulated=simulated))
        .group_by(CASES.c.device_id)
    )
    wanted = (
        select(CASES, RUNS.c.created_at)
        .join(RUNS, CASES.c.run_id == RUNS.c.id)
        .where(CASES.c.id.in_(latest))
        .order_by(CASES.c.device_id)
    )
    read = rows.Reader()
    return tuple(_seen(read, row) for row in connection.execute(wanted))


def _seen(read: rows.Reader, row: Row[Any]) -> DeviceSeen:
    known = rows.case_result(read, row, (), ())
    return DeviceSeen(
        device=known.case.device, run_id=row.run_id, at=row.created_at, verdict=known.verdict, reason=known.reason
    )


def every(connection: Connection, *, simulated: bool) -> tuple[History, ...]:
    """Return each workload on each device of which there is a figure: by device and workload."""
    groups = (
        select(
            func.max(CASES.c.id).label("latest"),
            func.count(CASES.c.run_id.distinct()).label("runs"),
            func.max(RUNS.c.created_at).label("last_at"),
        )
        .join(RUNS, CASES.c.run_id == RUNS.c.id)
        .where(_own(simulated=simulated), CASES.c.verdict.in_(WITH_FIGURE), _NOT_TOGETHER)
        .group_by(CASES.c.device_id, CASES.c.workload)
        .subquery()
    )
    wanted = (
        select(CASES, groups.c.runs, groups.c.last_at)
        .join(groups, CASES.c.id == groups.c.latest)
        .order_by(CASES.c.device_id, CASES.c.workload)
    )
    read = rows.Reader()
    return tuple(
        History(case=rows.case_result(read, row, (), ()).case, runs=row.runs, last_at=row.last_at)
        for row in connection.execute(wanted)
    )


def runs_of(
    connection: Connection, device_id: str, workload: Workload, last: int, *, simulated: bool
) -> Sequence[tuple[str, datetime.datetime]]:
    """Return the last runs that have a figure of a workload on a device, oldest first: id, and when it began."""
    wanted = (
        select(RUNS.c.id, RUNS.c.created_at)
        .join(CASES, CASES.c.run_id == RUNS.c.id)
        .where(_own(simulated=simulated), _of(device_id, workload), CASES.c.verdict.in_(WITH_FIGURE), _NOT_TOGETHER)
        .group_by(RUNS.c.id, RUNS.c.created_at)
        .order_by(*NEWEST_FIRST)
        .limit(last)
    )
    return [(row.id, row.created_at) for row in connection.execute(wanted)][::-1]


def cases_of(run_id: str, device_id: str, workload: Workload) -> ColumnElement[bool]:
    """Return the condition for a run's cases of a workload on a device."""
    return and_(CASES.c.run_id == run_id, _of(device_id, workload), _NOT_TOGETHER)
