"""What each fault cost: one line of JSON a fault, from which the table in docs/reliability.md is made."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tests.faults.running import measured_twice, missing

if TYPE_CHECKING:
    from tests.faults.running import Kept


@dataclass(frozen=True, kw_only=True, slots=True)
class Figure:
    """One fault, as it went."""

    #: The kind of fault, as the table sorts them: ``child``, ``agent``, ``host``, ``network``, ``head``, ``disk`` …
    kind: str
    fault: str
    #: Results that the store or a host's spool had when the fault came, and that were missing in the end: must be 0.
    lost: int
    #: Cases that were measured more than once with a figure.
    measured_twice: int
    #: Seconds from the fault until muster said so; ``None`` where there was nothing to notice.
    noticed_s: float | None
    #: Seconds from the fault, or from its end, until a case began or ended where it had been; ``None`` where nothing
    #: was to go on there.
    went_on_s: float | None
    #: What came of the cases that it hit, in words.
    outcome: str
    #: Processes and files of ours that were left behind.
    left: int = 0


class Figures:
    """Where figures go: a file that they are added to, or nowhere."""

    def __init__(self, path: str | None) -> None:
        self._path = None if path is None else Path(path)

    def nothing_lost(
        self,
        before: tuple[Kept, ...],
        after: tuple[Kept, ...],
        *,
        kind: str,
        fault: str,
        outcome: str,
        noticed_s: float | None = None,
        went_on_s: float | None = None,
    ) -> None:
        """See that all that was kept before a fault still is, and nothing was measured twice; write the fault down."""
        lost, twice = missing(before, after), measured_twice(after)
        assert (lost, twice) == (0, 0), f"{lost} results lost, {twice} cases measured twice"
        self.add(
            Figure(
                kind=kind,
                fault=fault,
                lost=lost,
                measured_twice=twice,
                noticed_s=noticed_s,
                went_on_s=went_on_s,
                outcome=outcome,
            )
        )

    def add(self, figure: Figure) -> None:
        """Write one down."""
        if self._path is not None:
            with self._path.open("a") as file:
                file.write(json.dumps(dataclasses.asdict(figure)) + "\n")
