"""Published figures as data: one YAML file a table in ``data/``, each with its sources and its definition.

The file is its own registration: ``data/seed.yaml`` answers to ``seed``. A table has ``rows``; or ``devices`` and
``figures``, a line for each operation with the times of all devices. What a row does not say of its definition, its
table says.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib.resources
import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import yaml

from orchestrator.errors import UsageError
from workers import ops
from workers.protocol import Pass

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from workers.ops.base import Operation

_DATA: Final = importlib.resources.files("orchestrator.analysis") / "data"

#: ``70 +/- 0.1``, or a mean alone.
_FIGURE: Final = re.compile(r"(?P<mean>\d+(\.\d+)?)( \+/- (?P<sd>\d+(\.\d+)?))?")


@dataclass(frozen=True, kw_only=True, slots=True)
class Definition:
    """What the figures of a reference are of: all that must agree before two rows may be compared."""

    model: str
    batch_size: int
    precision: str
    framework: str
    fetch: str
    #: Side of the square input image, pixels; ``None`` where the model says it.
    image_size: int | None = None
    #: What a step has besides: an optimiser's update.
    beyond: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class PublishedFigure:
    """A step time as it was published."""

    #: To the letter: ``70 +/- 0.1``.
    text: str
    mean_ms: float
    #: ``None`` where only a mean was published.
    sd_ms: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceLink:
    """Words of the details that lead somewhere."""

    text: str
    url: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Reference:
    """One published row."""

    #: The name of its table: ``seed``.
    table: str
    #: What people call that table: ``the seed's table``.
    table_title: str
    #: Where the table was published.
    source: str
    definition: Definition
    device: str
    memory: str | None
    #: Of the passes that were published.
    figures: tuple[tuple[Pass, PublishedFigure], ...]
    details: str
    links: tuple[SourceLink, ...] = ()
    #: What must be known before this row is compared with.
    caveat: str | None = None
    #: The same for the table as a whole.
    table_caveats: tuple[str, ...] = ()

    def figure(self, pass_: Pass) -> PublishedFigure | None:
        """Return what was published of a pass."""
        return dict(self.figures).get(pass_)


#: The same as yaml.safe_load, in C where it was built: the largest table has thousands of figures.
_LOADER: Final = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

_DEFINED: Final = frozenset(field.name for field in dataclasses.fields(Definition))


def names() -> tuple[str, ...]:
    """Return the name of every table of references, sorted."""
    return tuple(sorted(entry.name.removesuffix(".yaml") for entry in _DATA.iterdir() if entry.name.endswith(".yaml")))


def load(wanted: Sequence[str]) -> tuple[Reference, ...]:
    """Return the rows of the tables of those names, in that order; each table once.

    Raises :class:`orchestrator.errors.UsageError` for a name that no table has.
    """
    known = names()
    for name in wanted:
        if name not in known:
            raise UsageError(f"no references are called {name!r}", remedy=f"there are: {', '.join(known)}")
    return tuple(row for name in dict.fromkeys(wanted) for row in _rows(name))


def parse_figure(text: str) -> PublishedFigure:
    """Return the figure that ``text`` shows, such as ``70 +/- 0.1`` or ``26``; raises ValueError for anything else."""
    match = _FIGURE.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is not a published figure: expected 'MEAN +/- SD' or 'MEAN'")
    sd = match["sd"]
    return PublishedFigure(text=text, mean_ms=float(match["mean"]), sd_ms=None if sd is None else float(sd))


@functools.cache
def _rows(name: str) -> tuple[Reference, ...]:
    table = yaml.load((_DATA / f"{name}.yaml").read_text(encoding="utf-8"), Loader=_LOADER)  # a safe one
    rows = table.get("rows") or _rows_by_operation(table["devices"], table["figures"])
    return tuple(_row(name, table, row) for row in rows)


def _rows_by_operation(
    devices: Mapping[str, Mapping[str, Any]], figures: Mapping[str, Mapping[str, Any]]
) -> Iterator[Mapping[str, Any]]:
    """Give a row for each operation on each device, in the order of the operations."""
    for model, by_device in figures.items():
        operation = ops.get(model)
        for device, times in by_device.items():
            figures_ms = _figures_ms(operation, times if isinstance(times, list) else [times])
            yield {**devices[device], "model": model, "batch_size": operation.batch_size, **figures_ms}


def _figures_ms(operation: Operation, times: Sequence[float | None]) -> dict[str, str]:
    """Return the time of each pass; of a recurrent layer the sum of all three is that of its forward-backward pass."""
    named = dict(zip((Pass.FORWARD, Pass.BACKWARD_DATA, Pass.BACKWARD_WEIGHTS), times, strict=False))
    if Pass.FORWARD_BACKWARD in operation.passes:
        whole = None if None in times else math.fsum(time for time in times if time is not None)
        named = {Pass.FORWARD: times[0], Pass.FORWARD_BACKWARD: whole}
    return {f"{pass_.value}_ms": f"{time:.6g}" for pass_, time in named.items() if time is not None}


def _row(name: str, table: Mapping[str, Any], row: Mapping[str, Any]) -> Reference:
    given = {**table["definition"], **{key: row[key] for key in _DEFINED if key in row}}
    definition = Definition(**given)
    return Reference(
        table=name,
        table_title=table["title"],
        source=table["source"],
        definition=definition,
        device=row["device"],
        memory=row.get("memory"),
        figures=tuple(_figures(row, definition)),
        details=row["details"],
        links=tuple(SourceLink(**link) for link in row.get("links", ())),
        caveat=row.get("caveat"),
        table_caveats=tuple(table.get("caveats", ())),
    )


def _figures(row: Mapping[str, Any], definition: Definition) -> Iterator[tuple[Pass, PublishedFigure]]:
    for pass_ in Pass:
        if (written := row.get(f"{pass_.value}_ms")) is not None:
            # A mean alone is a number to YAML.
            yield pass_, parse_figure(str(written))
        elif (rate := row.get(f"{pass_.value}_images_per_s")) is not None:
            mean_ms = definition.batch_size * 1e3 / rate
            yield pass_, PublishedFigure(text=f"{mean_ms:.4g} ({rate} images/s)", mean_ms=mean_ms, sd_ms=None)
