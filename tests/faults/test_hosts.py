"""A host is switched off, its clock is wrong."""

from __future__ import annotations

import shutil
import time
from typing import TYPE_CHECKING, Final

import pytest

from tests.faults.figures import Figure
from tests.faults.running import Watched, config, measured_twice
from tests.lab.environments import GOOD
from tests.lab.lab import Lab

if TYPE_CHECKING:
    from tests.faults.figures import Figures

pytestmark = pytest.mark.timeout(600)


def test_a_host_that_is_switched_off_costs_its_own_rows(hosts: Lab, figures: Figures) -> None:
    with Lab(2) as lab, Watched(lab, config(lab, "h1", "h2", limits={"host_grace": "15s"})) as run:
        before = run.until_kept(1, of="h1")
        hit_at = time.monotonic()
        lab["h1"].close()
        noticed_at = run.heard(r"h1(/cpu)?: (silent|away|lost)", since=hit_at)
        assert run.end() == 3, run.err
        after, verdicts = run.kept(), run.verdicts()
    assert {verdict for (device, _), verdict in verdicts.items() if device == "h2/cpu"} == {"ok"}
    assert {verdict for (device, _), verdict in verdicts.items() if device == "h1/cpu"} == {"ok", "host_down"}
    figures.nothing_lost(
        before,
        after,
        kind="host",
        fault="a host is switched off (its namespaces are gone; host_grace 15 s)",
        noticed_s=noticed_at - hit_at,
        outcome="host_down for its cases; the other host went on",
    )


#: No namespace has a clock of its own for the calendar, and libraries that fake it for whole processes break their
#: sleeps. So it is Python's that is wrong, in all of ours on the host: keeper, probe, agents, children. Ray's is right.
_LATE: Final = "import time; _of, _ns = time.time, time.time_ns; time.time = lambda: _of() + 3600; "
_LATE_NS: Final = "time.time_ns = lambda: _ns() + 3600 * 10**9"


def test_a_clock_that_is_an_hour_wrong_changes_no_figure_and_no_deadline(lab: Lab, figures: Figures) -> None:
    (site,) = (lab["h1"].home / GOOD).glob("lib/python*/site-packages")
    (site / "late_clock.py").write_text(_LATE + _LATE_NS)
    (site / "late_clock.pth").write_text("import late_clock\n")
    try:
        with Watched(lab, config(lab, "h1", "h2")) as run:
            assert run.end() == 0, run.err
    finally:
        (site / "late_clock.pth").unlink()
        (site / "late_clock.py").unlink()
        shutil.rmtree(site / "__pycache__")
    assert set(run.verdicts().values()) == {"ok"}
    assert run.has_said("h1: clock: 3[56][0-9]{2} s ahead of the head's")
    began = {
        each.device: started_at
        for each, started_at in zip(run.kept(), run.asked("select started_at from attempts order by id"), strict=True)
    }
    assert 3000 < began["h1/cpu"] - began["h2/cpu"] < 4200
    figures.add(
        Figure(
            kind="host",
            fault="a host's calendar clock is an hour ahead, the whole run long (in Python; Ray's own is right)",
            lost=0,
            measured_twice=measured_twice(run.kept()),
            noticed_s=0.0,
            went_on_s=None,
            outcome="told before the run; every case ok",
        )
    )
