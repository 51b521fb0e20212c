"""Every step of a run as a row of a long table: for spreadsheets, pandas and the like.

CSV for any program, Parquet (with pyarrow, an extra) for many million rows. Both have the same columns.
"""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING, Any, Final

from orchestrator.errors import BundleError
from orchestrator.report.printable import for_spreadsheet
from orchestrator.results import environment_hash

if TYPE_CHECKING:
    from collections.abc import Iterator

    from orchestrator.results import Attempt, CaseResult, Run

#: Columns and their types in Parquet; ``ms`` is milliseconds, ``started_at`` seconds since the epoch.
COLUMNS: Final = {
    "run_id": "string",
    "simulated": "bool",
    "host": "string",
    "device": "string",
    "device_name": "string",
    "device_uuid": "string",
    "model": "string",
    "pass": "string",
    "batch_size": "int64",
    "precision": "string",
    "layout": "string",
    "compiler": "string",
    "onednn": "string",
    "threads": "int64",
    "framework": "string",
    "fetch": "string",
    "company": "string",
    "process": "int64",
    "case_key": "string",
    "attempt": "int64",
    "verdict": "string",
    "started_at": "double",
    "environment": "string",
    "warmup": "bool",
    "step": "int64",
    "ms": "double",
}

_PARQUET: Final = "Parquet needs pyarrow: pip install 'muster-bench[parquet]'"


def rows(run: Run) -> Iterator[dict[str, Any]]:
    """Yield a row for each step, warm-up first, in the plan's order; late results are not among them."""
    for case in run.cases:
        for attempt in case.attempts:
            shared = _shared(run, case, attempt)
            for warmup, series in ((True, attempt.result.warmup_ms), (False, attempt.result.samples_ms)):
                for step, ms in enumerate(series, start=1):
                    yield {**shared, "warmup": warmup, "step": step, "ms": ms}


def as_csv(run: Run) -> str:
    """Return the rows as CSV with a header; what is not known is empty, truth is ``true`` or ``false``."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(COLUMNS), lineterminator="\n")
    writer.writeheader()
    for row in rows(run):
        writer.writerow({name: _for_csv(value) for name, value in row.items()})
    return text.getvalue()


def as_parquet(run: Run) -> bytes:
    """Return the rows as Parquet; raises BundleError where pyarrow is not installed."""
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise BundleError("pyarrow is not installed", remedy=_PARQUET) from None
    schema = pyarrow.schema([(name, pyarrow.type_for_alias(kind)) for name, kind in COLUMNS.items()])
    columns: dict[str, list[Any]] = {name: [] for name in COLUMNS}
    for row in rows(run):
        for name, value in row.items():
            columns[name].append(value)
    whole = io.BytesIO()
    parquet.write_table(pyarrow.table(columns, schema=schema), whole, compression="zstd")
    return whole.getvalue()


def _shared(run: Run, case: CaseResult, attempt: Attempt) -> dict[str, Any]:
    planned, result = case.case, attempt.result
    device, workload = planned.device, planned.workload
    return {
        "run_id": run.id,
        "simulated": run.simulated,
        "host": device.host,
        "device": device.selector,
        "device_name": device.name,
        "device_uuid": device.uuid,
        "model": workload.model,
        "pass": workload.pass_.value,
        "batch_size": result.batch_size or (None if workload.seeks_largest else workload.batch_size),
        "precision": workload.precision.value,
        "layout": workload.layout.value,
        "compiler": workload.compiler.value,
        "onednn": workload.onednn and workload.onednn.value,
        "threads": workload.threads,
        "framework": workload.framework,
        "fetch": workload.fetch.value,
        "company": planned.company and planned.company.value,
        "process": planned.process,
        "case_key": planned.key,
        "attempt": attempt.number,
        "verdict": result.verdict.value,
        "started_at": result.started_at,
        "environment": environment_hash(result.environment),
    }


def _for_csv(value: Any) -> Any:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return for_spreadsheet(value) if isinstance(value, str) else value
