"""Whatever happens in a run, its picture fits the terminal, leaves nobody out and stands still."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from orchestrator.cli.progress.drawing import Drawing, Symbols
from orchestrator.cli.progress.news import Teller
from orchestrator.cli.progress.picture import Activity, Picture
from orchestrator.dispatch.messages import PrepareDevice, PutAside, RecordVerdict
from orchestrator.dispatch.settings import DispatchSettings, HostConcurrency
from orchestrator.engine.simulated import Fault, Silence, SimulatedEngine
from orchestrator.runner import Runner
from tests.builders import a_case, a_device, a_sampling, a_workload

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestrator.cli.progress.drawing import Line
    from orchestrator.dispatch.messages import Command, Event
    from orchestrator.runner import Outcome
    from workers.protocol import Case, Progress, Result, Verdict

#: Wide enough for the line that counts, so that its numbers can be read.
ENOUGH_COLUMNS = 120

faults = st.sampled_from(
    [
        Fault(),
        Fault(crash_on_attempts=(1,)),
        Fault(crash_on_attempts=(1, 2)),
        Fault(hangs=True),
        Fault(hangs=True, ignores_cancel=True),
        Fault(oom_above_batch_size=4),
        Fault(held_for_s=30.0),
        Fault(never_prepares=True),
        Fault(lost_after_s=8.0),
        Fault(lost_after_s=8.0, back_after_s=3.0),
        Fault(lost_after_s=8.0, back_after_s=40.0, losses=3),
    ]
)

#: Hosts, each with its devices and what is wrong with each.
labs = st.lists(
    st.dictionaries(st.sampled_from(["cpu", "gpu:0", "gpu:1", "gpu:2"]), faults, min_size=1), min_size=1, max_size=5
)


class Nowhere:
    """Keeps nothing."""

    def save_attempt(self, run_id: str, result: Result) -> None:
        pass

    def save_verdict(self, run_id: str, case_key: str, verdict: Verdict, reason: str | None) -> None:
        pass

    def save_late(self, run_id: str, result: Result) -> bool:
        return True

    def put_aside(self, run_id: str, command: PutAside) -> None:
        pass


class Watcher:
    """Looks at the picture after everything that is heard."""

    def __init__(self, engine: SimulatedEngine, cases: Sequence[Case], width: int, height: int) -> None:
        self.picture = Picture(engine.now)
        self.picture.expect(cases, {case.key: 5.0 for case in cases[::2]})
        self._teller = Teller(self.picture.cases)
        self._drawing = Drawing(self.picture, Symbols())
        self._width, self._height = width, height
        self._before: dict[str, int] = {}
        self.verdicts = 0
        self.told: list[str] = []

    def heard(self, news: Event | Progress | Command) -> None:
        self.picture.heard(news)
        self.told += [told.text for told in self._teller.heard(news)]
        self.verdicts += isinstance(news, RecordVerdict)
        lines = self._drawing.lines(self._width, self._height)
        self.check_fits(lines)
        self.check_adds_up()
        if isinstance(news, PrepareDevice) or self.picture.has_begun:
            self.check_devices(self._drawing.lines(ENOUGH_COLUMNS, self._height))

    def check_fits(self, lines: Sequence[Line]) -> None:
        assert len(lines) <= self._height
        for line in lines:
            assert cell_len("".join(text for text, _ in line)) <= self._width
            assert "\n" not in "".join(text for text, _ in line)

    def check_adds_up(self) -> None:
        picture = self.picture
        assert picture.done == self.verdicts
        assert sum(picture.counts.values()) == len(picture.devices)
        for activity, number in picture.counts.items():
            assert number == sum(seen.activity is activity for seen in picture.devices.values())
        assert set(picture.busy) == {name for name, seen in picture.devices.items() if seen.is_busy}
        assert all(seen.unknown >= 0 for seen in picture.devices.values())

    def check_devices(self, lines: Sequence[Line]) -> None:
        """Hold every device against the lines: each is shown or counted, the busy first, and those stand still."""
        if self._height < 2:
            return
        devices = self.picture.devices
        shown = {line[0][0].strip(): place for place, line in enumerate(lines[1:]) if line[0][0].strip() in devices}
        counted = 0
        if lines[-1][0][0].strip() not in devices:
            counted = sum(int(number) for number in re.findall(r"\d+", lines[-1][0][0]))
        assert len(shown) + counted == len(devices)
        if any(not devices[name].is_busy for name in shown):
            assert set(self.picture.busy) <= set(shown)
        for name, place in shown.items():
            assert not devices[name].is_busy or self._before.get(name, place) == place
        self._before = {name: place for name, place in shown.items() if devices[name].is_busy}


@given(
    lab=labs,
    each=st.integers(1, 3),
    silences=st.lists(st.sampled_from([None, 5.0, 20.0, 90.0]), min_size=5, max_size=5),
    width=st.integers(1, 130),
    height=st.integers(1, 14),
    concurrency=st.sampled_from(HostConcurrency),
)
def test_a_picture_of_any_run_fits_leaves_nobody_out_and_stands_still(
    lab: list[dict[str, Fault]],
    each: int,
    silences: list[float | None],
    width: int,
    height: int,
    concurrency: HostConcurrency,
) -> None:
    devices = {
        a_device(f"höst{number}", selector): fault
        for number, host in enumerate(lab)
        for selector, fault in host.items()
    }
    sampling = a_sampling(warmup=1, min_steps=4, max_steps=4)
    cases = [
        a_case(device, a_workload(batch_size=2 ** (number + 1)), sampling)
        for device in devices
        for number in range(each)
    ]
    faulty = {device.id: fault for device, fault in devices.items()}
    for number, for_s in enumerate(silences):
        if for_s is not None:
            faulty[f"höst{number}"] = Fault(silences=(Silence(from_s=6.0, for_s=for_s),))
    engine = SimulatedEngine(faults=faulty)
    watcher = Watcher(engine, cases, width, height)
    runner = Runner(
        run_id="run",
        cases=cases,
        settings=DispatchSettings(host_concurrency=concurrency),
        engine=engine,
        recorder=Nowhere(),
        listeners=(watcher,),
    )
    outcome: Outcome = asyncio.run(runner.run())

    picture = watcher.picture
    assert picture.done == len(cases)
    failures = [ended for ended in outcome.cases if ended.verdict is not None and not ended.verdict.has_figure]
    assert picture.failed == len(failures)
    assert picture.counts[Activity.DONE] + picture.counts[Activity.LOST] == len(devices)
    assert not picture.busy
    assert all(abs(seen.known_s) < 1e-6 and seen.unknown == 0 for seen in picture.devices.values())
