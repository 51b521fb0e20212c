"""Every step as a row, for other programs."""

from __future__ import annotations

import builtins
import csv
import io
from typing import Any

import pytest

from orchestrator.bundle.samples import COLUMNS, as_csv, as_parquet, rows
from orchestrator.errors import BundleError
from tests.builders import a_case, a_device, a_workload
from tests.runs import a_case_result, a_run, a_run_with_attempts
from workers.protocol import Company


def test_each_step_of_each_attempt_is_a_row() -> None:
    case = a_case(a_device("a", "gpu:1"), a_workload(batch_size=32), company=Company.TOGETHER)
    found = list(rows(a_run(a_case_result(case, warmup_ms=(9.0,), samples_ms=(1.25, 1.5)))))
    assert [(row["warmup"], row["step"], row["ms"]) for row in found] == [
        (True, 1, 9.0),
        (False, 1, 1.25),
        (False, 2, 1.5),
    ]
    assert {row["company"] for row in found} == {"together"}
    assert all(list(row) == list(COLUMNS) for row in found)


def test_late_results_are_in_no_figure() -> None:
    run = a_run_with_attempts()
    attempts = {(row["case_key"], row["attempt"]) for row in rows(run)}
    with_steps = {
        (each.case.key, attempt.number)
        for each in run.cases
        for attempt in each.attempts
        if attempt.result.samples_ms or attempt.result.warmup_ms
    }
    assert attempts == with_steps


def test_of_the_largest_batch_it_tells_the_one_that_was_found() -> None:
    case = a_case(workload=a_workload(seeks_largest=True))
    assert next(rows(a_run(a_case_result(case, batch_size=192))))["batch_size"] == 192
    assert next(rows(a_run(a_case_result(case))))["batch_size"] is None


def test_csv_is_for_any_program_and_for_no_formula() -> None:
    case = a_case(a_device("a", "gpu:1", name="=cmd()|x\n", uuid=None))
    (first, *_) = csv.DictReader(io.StringIO(as_csv(a_run(a_case_result(case, warmup_ms=(), samples_ms=(0.1,))))))
    assert (first["ms"], first["warmup"], first["device_uuid"], first["step"]) == ("0.1", "false", "", "1")
    assert first["device_name"].startswith("'=cmd()|x")
    assert "\n" not in first["device_name"]


def test_parquet_has_the_same_rows_with_their_types() -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    run = a_run_with_attempts()
    table = parquet.read_table(io.BytesIO(as_parquet(run)))
    assert table.to_pylist() == list(rows(run))
    assert {field.name: str(field.type) for field in table.schema} == COLUMNS
    assert parquet.read_table(io.BytesIO(as_parquet(a_run()))).num_rows == 0


def test_without_pyarrow_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def refused(name: str, *given: Any, **named: Any) -> Any:
        if name.startswith("pyarrow"):
            raise ImportError(name)
        return real(name, *given, **named)

    monkeypatch.setattr(builtins, "__import__", refused)
    with pytest.raises(BundleError, match="pyarrow is not installed"):
        as_parquet(a_run())
