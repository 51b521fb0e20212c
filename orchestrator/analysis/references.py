"""Published figures as data: one YAML file a table in ``data/``, each with its sources and its definition.

The file is its own registration: ``data/seed.yaml`` answers to ``seed``.
"""

from __future__ import annotations

import importlib.resources
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import yaml

from orchestrator.errors import UsageError
from workers.protocol import Pass

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_DATA: Final = importlib.resources.files("orchestrator.analysis") / "data"

#: ``70 +/- 0.1``, or a mean alone.
_FIGURE: Final = re.compile(r"(?P<mean>\d+(\.\d+)?)( \+/- (?P<sd>\d+(\.\d+)?))?")


@dataclass(frozen=True, kw_only=True, slots=True)
class Definition:
    """What the figures of a reference are of: all that must agree before two rows may be compared."""

    model: str
    batch_size: int
    #: Side of the square input image, pixels.
    image_size: int
    precision: str
    framework: str
    fetch: str


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
    forward: PublishedFigure | None
    forward_backward: PublishedFigure | None
    details: str
    links: tuple[SourceLink, ...] = ()
    #: What must be known before this row is compared with.
    caveat: str | None = None
    #: The same for the table as a whole.
    table_caveats: tuple[str, ...] = ()

    def figure(self, pass_: Pass) -> PublishedFigure | None:
        """Return what was published of a pass."""
        return {Pass.FORWARD: self.forward, Pass.FORWARD_BACKWARD: self.forward_backward}.get(pass_)


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


def _rows(name: str) -> tuple[Reference, ...]:
    table = yaml.safe_load((_DATA / f"{name}.yaml").read_text(encoding="utf-8"))
    definition = Definition(**table["definition"])
    return tuple(_row(name, table, definition, row) for row in table["rows"])


def _row(name: str, table: Mapping[str, Any], definition: Definition, row: Mapping[str, Any]) -> Reference:
    return Reference(
        table=name,
        table_title=table["title"],
        source=table["source"],
        definition=definition,
        device=row["device"],
        memory=row.get("memory"),
        forward=_figure(row.get("forward_ms")),
        forward_backward=_figure(row.get("forward_backward_ms")),
        details=row["details"],
        links=tuple(SourceLink(**link) for link in row.get("links", ())),
        caveat=row.get("caveat"),
        table_caveats=tuple(table.get("caveats", ())),
    )


def _figure(written: str | float | None) -> PublishedFigure | None:
    # A mean alone is a number to YAML.
    return None if written is None else parse_figure(str(written))
