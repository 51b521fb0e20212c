"""A host is switched off, its clock is wrong."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.faults.figures import Figure
from tests.faults.running import Watched, config, measured_twice, missing
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
    assert missing(before, after) == 0
    figures.add(
        Figure(
            kind="host",
            fault="a host is switched off (its namespaces are gone; host_grace 15 s)",
            lost=missing(before, after),
            measured_twice=measured_twice(after),
            noticed_s=noticed_at - hit_at,
            went_on_s=None,
            outcome="host_down for its cases; the other host went on",
        )
    )


def test_a_clock_that_is_an_hour_wrong_changes_no_figure_and_no_deadline(lab: Lab, figures: Figures) -> None:
    library = next(iter(sorted(Path("/usr/lib").glob("*/faketime/libfaketime*.so.1"))), None)
    if library is None:
        pytest.fail("libfaketime is not there: apt install libfaketime")
    python = lab["h1"].home / "late-python"
    shutil.copy(library, lab["h1"].home / "work/libfaketime.so")
    python.write_text(
        "#!/bin/sh\n"
        "export LD_PRELOAD=$HOME/work/libfaketime.so FAKETIME=+1h FAKETIME_DONT_FAKE_MONOTONIC=1\n"
        f'exec $HOME/{GOOD}/bin/python "$@"\n'
    )
    python.chmod(0o755)
    try:
        text = config(lab, "h1", "h2").replace("name: h1", "name: h1\n  python: ~/late-python")
        with Watched(lab, text) as run:
            assert run.end() == 0, run.err
    finally:
        python.unlink()
        (lab["h1"].home / "work/libfaketime.so").unlink()
    assert set(run.verdicts().values()) == {"ok"}
    assert run.has_said(r"h1.*clock")
    figures.add(
        Figure(
            kind="host",
            fault="a host's clock is an hour ahead, the whole run long",
            lost=0,
            measured_twice=measured_twice(run.kept()),
            noticed_s=0.0,
            went_on_s=None,
            outcome="told before the run; every case ok",
        )
    )
