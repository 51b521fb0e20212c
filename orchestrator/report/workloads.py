"""A workload in words, on one line."""

from __future__ import annotations

from typing import TYPE_CHECKING

from workers import works
from workers.protocol import Compiler, Fetch

if TYPE_CHECKING:
    from workers.protocol import Case, Company, Workload


def in_place(case: Case) -> str:
    """Return where a case is measured: ``gpu01/gpu:0``, or of several devices ``gpu01/gpu:0 and 3 more``."""
    return f"{case.device.id} and {len(case.peers)} more" if case.peers else case.device.id


def in_words(workload: Workload, company: Company | None = None) -> str:
    """Return what is measured: ``alexnet forward batch 128 float32 NHWC``, and what is not as usual."""
    parts = (
        workload.model,
        workload.pass_.value,
        _batch(workload),
        workload.precision.value,
        workload.layout.value,
        *unusual(workload),
        None if company is None else company.value,
    )
    return " ".join(part for part in parts if part is not None)


def _batch(workload: Workload) -> str | None:
    if works.is_operation(workload.model):
        return None
    return f"batch max (from {workload.batch_size})" if workload.seeks_largest else f"batch {workload.batch_size}"


def unusual(workload: Workload) -> tuple[str, ...]:
    """Return what of a workload goes without saying where it is as in the published script, and is otherwise."""
    parts = (
        None if workload.framework == "tensorflow" else workload.framework,
        None if workload.compiler is Compiler.NONE else workload.compiler.value,
        None if workload.onednn is None else f"oneDNN {workload.onednn.value}",
        None if workload.threads is None else in_threads(workload.threads),
        None if workload.fetch is Fetch.DEVICE else f"fetch {workload.fetch.value}",
    )
    return tuple(part for part in parts if part is not None)


def in_threads(threads: int) -> str:
    """Return a number of threads in words."""
    return "1 thread" if threads == 1 else f"{threads} threads"
