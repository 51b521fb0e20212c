"""What a source of telemetry must offer; each is a module of this folder."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping

    from workers.telemetry.series import Energy, EventKind, ForeignProcess, Missing


class Gauge(Protocol):
    """One source of readings, for one attempt; made before the child is started, in the agent's process.

    No method raises: what cannot be read is ``None``, or is named by :meth:`missing`. Reading takes a millisecond or
    so and no more, for the case is being measured meanwhile.
    """

    def missing(self) -> tuple[Missing, ...]:
        """Return what this source could never read here, and why."""

    def read(self, child_pid: int) -> Mapping[str, float | None]:
        """Return one reading, by the names of the series; shares and rates are over the time since the last one."""

    def events(self) -> tuple[tuple[EventKind, str], ...]:
        """Return what happened since the last call."""

    def begin_steps(self, child_pid: int) -> None:
        """Note counters, for the counted steps begin now."""

    def end_steps(self, child_pid: int) -> tuple[Energy | None, tuple[ForeignProcess, ...]]:
        """Return what was taken since :meth:`begin_steps`, and who else used the device or its cores meanwhile.

        ``None`` for the energy where this source has nothing to do with it.
        """

    def close(self) -> None:
        """Let go of everything; safe to call twice."""
