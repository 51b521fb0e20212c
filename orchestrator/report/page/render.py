"""A whole run as one page: table, doubts, pictures, environments, config, and how to run it again."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import jinja2

from orchestrator.analysis.pooling import pooled
from orchestrator.errors import UsageError
from orchestrator.report.build import build_table, title
from orchestrator.report.environments import environments, environments_table
from orchestrator.report.links import is_web
from orchestrator.report.plots.bars import bars
from orchestrator.report.plots.samples import samples
from orchestrator.report.plots.scaling import scaling
from orchestrator.report.plots.style import written
from orchestrator.report.printable import printable
from orchestrator.report.workloads import in_words

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from matplotlib.figure import Figure

    from orchestrator.analysis.references import Reference
    from orchestrator.report.table import Table
    from orchestrator.results import NoiseFloor, Run

_FOLDER: Final = Path(__file__).parent

#: Cases whose steps are drawn; each takes a third of a second and 50 KiB.
_MOST_DRAWN: Final = 8


@dataclass(frozen=True, kw_only=True, slots=True)
class _Picture:
    caption: str
    #: A data URI.
    source: str


def render_page(run: Run, *, references: Sequence[Reference] = (), floors: Sequence[NoiseFloor] = ()) -> str:
    """Return a run as one page of HTML. Everything that came from a config or a host is escaped."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_FOLDER), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    environment.filters["printable"] = printable
    table = build_table(run, references=references, floors=floors)
    return environment.get_template("page.html").render(
        title=title(run),
        run=run,
        table=table,
        is_link=is_web,
        wide=build_table(run, references=references, floors=floors, wide=True),
        pictures=list(_pictures(run, references)),
        environments=_environments(run),
    )


def _environments(run: Run) -> Table | None:
    found = environments(run)
    return environments_table(run, found) if found else None


def _pictures(run: Run, references: Sequence[Reference]) -> Iterator[_Picture]:
    yield from _drawn("Each figure with its 95 % interval. Shorter is faster.", lambda: bars(run, references))
    yield from _drawn("Images a second by batch, with 95 % intervals.", lambda: scaling(run))
    with_steps = [each.cases[0] for each in pooled(run.cases) if each.samples_ms]
    # What is doubtful is what people want to look at.
    with_steps.sort(key=lambda case: case.verdict is not None and not case.verdict.is_doubtful)
    for case in with_steps[:_MOST_DRAWN]:
        caption = f"{case.case.device.id}: {in_words(case.case.workload, case.case.company)}"
        yield from _drawn(caption, lambda case=case: samples(case))  # type: ignore[misc]


def _drawn(caption: str, draw: Callable[[], Figure]) -> Iterator[_Picture]:
    """Yield a picture; nothing where the run has not what it is of."""
    try:
        figure = draw()
    except UsageError:
        return
    data = base64.b64encode(written(figure, "svg")).decode("ascii")
    yield _Picture(caption=caption, source=f"data:image/svg+xml;base64,{data}")
