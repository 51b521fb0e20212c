"""Reads gauges beside a child while it measures, in a thread of the agent's, and gives what they told."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Final

from workers.protocol import Phase
from workers.telemetry.series import DeviceEvent, Energy, Missing, Series, Telemetry

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from workers.telemetry.base import Gauge
    from workers.telemetry.series import ForeignProcess

#: Beyond so many readings every second one is let go, and the pace halved: what is kept stays small.
MOST_READINGS: Final = 1024

#: A driver that hangs must not hold a result for longer.
_JOIN_TIMEOUT_S: Final = 5.0

_NO_COUNTER: Final = "nothing here counts energy"


class Recorder:
    """One thread that reads ``gauges`` every ``interval_s`` seconds from :meth:`start` to :meth:`stop`.

    Also where the counted steps begin and end, so that the shortest case has a reading over just its steps. Nothing
    raises: an attempt is worth more than what is known beside it.
    """

    def __init__(
        self,
        gauges: Sequence[Gauge],
        interval_s: float,
        *,
        lacking: Sequence[Missing] = (),
        load_before: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._gauges = tuple(gauges)
        self._lacking = list(lacking)
        self._interval_s = interval_s
        self._load_before = load_before
        self._clock = clock
        self._began_at = clock()
        self._child_pid = 0
        self._at_s: list[float] = []
        self._readings: list[Mapping[str, float | None]] = []
        self._latest: Mapping[str, float | None] = {}
        self._events: list[DeviceEvent] = []
        self._foreign: list[ForeignProcess] = []
        self._energies: list[Energy] = []
        self._from_s: float | None = None
        self._to_s: float | None = None
        self._cost_s = 0.0
        self._wanted: list[Callable[[], None]] = []
        self._changed = threading.Condition()
        self._is_over = False
        self._thread = threading.Thread(target=self._work, name="telemetry", daemon=True)

    def start(self, child_pid: int) -> None:
        """Begin to read beside the child of that id."""
        self._child_pid = child_pid
        self._began_at = self._clock()
        self._thread.start()

    def steps_begin(self) -> None:
        """Note that the counted steps begin now; only the first call counts."""
        with self._changed:
            if self._from_s is None:
                self._from_s = self._elapsed_s()
                self._ask(self._begin_steps)

    def steps_end(self) -> None:
        """Note that the last counted step is over; only the first call after the beginning counts."""
        with self._changed:
            if self._from_s is not None and self._to_s is None:
                self._to_s = self._elapsed_s()
                self._ask(self._end_steps)

    def entered(self, phase: Phase | None) -> None:
        """Note which phase the child is in; the same one may be told again."""
        if phase is Phase.MEASURE:
            self.steps_begin()
        elif phase is Phase.PEAK:
            self.steps_end()

    def latest(self, *names: str) -> float | None:
        """Return what was read last under the first of these names that has a value."""
        with self._changed:
            return next((value for name in names if (value := self._latest.get(name)) is not None), None)

    def stop(self) -> Telemetry:
        """End the thread and return what was read; what a gauge that hangs did not give is not in it."""
        self.steps_end()
        with self._changed:
            self._is_over = True
            self._changed.notify_all()
        if self._thread.ident is not None:
            self._thread.join(_JOIN_TIMEOUT_S)
        with self._changed:
            return self._telemetry()

    # --- the thread --------------------------------------------------------------------------------------------

    def _work(self) -> None:
        try:
            self._read(keep=False)  # shares are over the time since the last reading: there was none
            due = self._clock() + self._interval_s
            while True:
                with self._changed:
                    left_s = due - self._clock()
                    self._changed.wait_for(lambda: self._wanted or self._is_over, timeout=max(left_s, 0.0))
                    wanted, self._wanted = self._wanted, []
                    is_over = self._is_over
                for act in wanted:
                    act()
                if is_over:
                    return
                if self._clock() >= due:
                    self._read()
                    due = max(due + self._interval_s, self._clock())
        except Exception as error:  # whatever a driver or a kernel comes up with: an attempt is worth more
            with self._changed:
                self._lacking.append(Missing(name="telemetry", reason=f"{type(error).__name__}: {error}"))
        finally:
            for gauge in self._gauges:
                gauge.close()

    def _ask(self, act: Callable[[], None]) -> None:
        self._wanted.append(act)
        self._changed.notify_all()

    def _begin_steps(self) -> None:
        for gauge in self._gauges:
            gauge.begin_steps(self._child_pid)
        # What follows is over the counted steps alone.
        self._read(keep=False)

    def _end_steps(self) -> None:
        self._read(at_s=self._to_s)
        for gauge in self._gauges:
            energy, foreign = gauge.end_steps(self._child_pid)
            with self._changed:
                if energy is not None:
                    self._energies.append(energy)
                self._foreign += foreign

    def _read(self, *, keep: bool = True, at_s: float | None = None) -> None:
        cost_s = time.thread_time()
        values: dict[str, float | None] = {}
        events: list[DeviceEvent] = []
        for gauge in self._gauges:
            values.update(gauge.read(self._child_pid))
            events += [DeviceEvent(at_s=self._elapsed_s(), kind=kind, text=text) for kind, text in gauge.events()]
        with self._changed:
            self._events += events
            self._latest = values
            if keep:
                self._at_s.append(self._elapsed_s() if at_s is None else at_s)
                self._readings.append(values)
            if len(self._at_s) > MOST_READINGS:
                self._at_s, self._readings = self._at_s[::2], self._readings[::2]
                self._interval_s *= 2
            self._cost_s += time.thread_time() - cost_s

    def _elapsed_s(self) -> float:
        return round(self._clock() - self._began_at, 4)

    # --- what it gives -----------------------------------------------------------------------------------------

    def _telemetry(self) -> Telemetry:
        names = sorted({name for reading in self._readings for name in reading})
        energy = next((each for each in self._energies if each.joules is not None), next(iter(self._energies), None))
        return Telemetry(
            interval_s=self._interval_s,
            at_s=tuple(self._at_s),
            series=tuple(
                Series(name=name, values=tuple(reading.get(name) for reading in self._readings)) for name in names
            ),
            missing=(*self._lacking, *(missing for gauge in self._gauges for missing in gauge.missing())),
            measure_from_s=self._from_s,
            measure_to_s=self._to_s,
            energy=energy or Energy(joules=None, reason=_NO_COUNTER),
            events=tuple(self._events),
            foreign=tuple(self._foreign),
            load_before=self._load_before,
            cost_s=round(self._cost_s, 4),
        )
