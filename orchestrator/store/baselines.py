"""Runs that others are compared with, by names that people gave them."""

from __future__ import annotations

from sqlalchemy import Connection, delete, insert, select

from orchestrator.results import Baseline
from orchestrator.store.tables import BASELINES


def put(connection: Connection, baseline: Baseline) -> None:
    """Keep a baseline; one of the same name is replaced."""
    connection.execute(delete(BASELINES).where(BASELINES.c.name == baseline.name))
    values = {"name": baseline.name, "run_id": baseline.run_id, "set_at": baseline.set_at}
    connection.execute(insert(BASELINES).values(values))


def every(connection: Connection) -> tuple[Baseline, ...]:
    """Return all baselines, by name."""
    found = connection.execute(select(BASELINES).order_by(BASELINES.c.name))
    return tuple(Baseline(name=row.name, run_id=row.run_id, set_at=row.set_at) for row in found)


def remove(connection: Connection, name: str) -> bool:
    """Forget a name, and not its run; return whether there was one."""
    return connection.execute(delete(BASELINES).where(BASELINES.c.name == name)).rowcount == 1
