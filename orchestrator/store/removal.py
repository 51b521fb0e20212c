"""Runs that are taken out of the store, with everything that is theirs alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import delete, select

from orchestrator.store.tables import ATTEMPTS, CASES, ENVIRONMENTS, LATE_RESULTS, LIVE, RUNS, SAMPLES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection


def remove(connection: Connection, run_ids: Sequence[str]) -> int:
    """Remove runs by their ids; return how many there were. Environments that nobody refers to any more go as well."""
    removed = 0
    for run_id in run_ids:
        cases = select(CASES.c.id).where(CASES.c.run_id == run_id)
        attempts = select(ATTEMPTS.c.id).where(ATTEMPTS.c.case_id.in_(cases))
        connection.execute(delete(SAMPLES).where(SAMPLES.c.attempt_id.in_(attempts)))
        connection.execute(delete(ATTEMPTS).where(ATTEMPTS.c.case_id.in_(cases)))
        connection.execute(delete(LATE_RESULTS).where(LATE_RESULTS.c.case_id.in_(cases)))
        connection.execute(delete(CASES).where(CASES.c.run_id == run_id))
        connection.execute(delete(LIVE).where(LIVE.c.run_id == run_id))
        removed += connection.execute(delete(RUNS).where(RUNS.c.id == run_id)).rowcount
    if removed:
        in_use = select(ATTEMPTS.c.environment_hash)
        connection.execute(delete(ENVIRONMENTS).where(ENVIRONMENTS.c.hash.not_in(in_use)))
    return removed
