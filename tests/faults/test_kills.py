"""The head is killed again and again, at moments nobody chose: nothing that was told is missing, nothing is twice."""

from __future__ import annotations

import os
import random
import re
import subprocess
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import pytest

from tests.faults.figures import Figure
from tests.faults.running import kept_in, measured_twice
from tests.integration.muster import ROOT, start
from tests.integration.test_child import FAKES

if TYPE_CHECKING:
    from pathlib import Path

    from tests.faults.figures import Figures
    from tests.faults.running import Kept

#: Real Ray, real agents, real children and a real store; only the framework in the child takes no time.
CONFIG: Final = """\
version: 1
name: kills
hosts: [{name: localhost, devices: [cpu]}]
workloads: [{model: alexnet, framework: scripted, passes: forward, batch_size: [BATCHES]}]
measure: {warmup: 1, steps: 3}
policy: {busy: measure}
report: {references: []}
"""

#: Seconds within which a head's life ends: after its start, while it looks around and starts Ray; or after its first
#: case began, between two cases, in the middle of one or of a commit.
LONGEST_START_S: Final = 10.0
LONGEST_WORK_S: Final = 6.0

#: The share of lives that end in their first seconds.
YOUNG: Final = 0.3

#: Seconds until a head must have begun its first case, on a machine that has other things to do.
PATIENCE_S: Final = 120.0

_TOLD: Final = re.compile(r"alexnet forward b(\d+) float32: [\d.e+]+ ms a step")


@dataclass
class Life:
    """One head, from its start to its end."""

    told: set[int] = field(default_factory=set)
    #: ``None`` where it was killed.
    code: int | None = None


def _live(arguments: tuple[str, ...], folder: Path, *, is_young: bool, life_s: float) -> Life:
    """Run `muster` and kill it after ``life_s`` seconds: of its life where it dies young, else of its work."""
    life, has_begun = Life(), threading.Event()
    env = {"PYTHONPATH": os.pathsep.join([str(FAKES), str(ROOT)])}
    with start(*arguments, cwd=folder, **env) as head:

        def listen() -> None:
            assert head.stderr is not None
            for line in head.stderr:
                if "starting" in line and "localhost/cpu" in line:
                    has_begun.set()
                if found := _TOLD.search(line):
                    life.told.add(int(found[1]))

        listener = threading.Thread(target=listen, daemon=True)
        listener.start()
        # A table of so many rows fills a pipe that nobody reads.
        assert head.stdout is not None
        threading.Thread(target=head.stdout.read, daemon=True).start()
        if not is_young:
            has_begun.wait(PATIENCE_S)
        try:
            life.code = head.wait(life_s)
        except subprocess.TimeoutExpired:
            head.kill()
            head.wait()
        listener.join()
    return life


@pytest.mark.parametrize(
    "kills",
    [
        pytest.param(4, marks=pytest.mark.timeout(300)),
        pytest.param(50, marks=[pytest.mark.long, pytest.mark.timeout(3600)]),
    ],
)
def test_no_kill_of_the_head_costs_a_result_that_was_told(tmp_path: Path, figures: Figures, kills: int) -> None:
    chance = random.Random(20261125)
    cases = 20 * kills
    (tmp_path / "kills.yaml").write_text(CONFIG.replace("BATCHES", ", ".join(map(str, range(1, cases + 1)))))
    database = tmp_path / "muster.db"
    told: set[int] = set()
    known: set[Kept] = set()
    lost = killed = 0
    arguments: tuple[str, ...] = ("run", "kills.yaml")
    while killed < kills:
        is_young = chance.random() < YOUNG
        life_s = chance.uniform(0.0, LONGEST_START_S if is_young else LONGEST_WORK_S)
        life = _live(arguments, tmp_path, is_young=is_young, life_s=life_s)
        assert life.code is None, f"it was over, with code {life.code}, before it was killed often enough"
        killed += 1
        told |= life.told
        kept = set(kept_in(database))
        lost += len(known - kept) + len(told - {each.batch_size for each in kept if each.has_figure})
        known = kept
        if known:
            arguments = ("resume",)
    begun_at = time.monotonic()
    code = _live(("resume",), tmp_path, is_young=True, life_s=3000.0).code
    after = kept_in(database)
    assert code == 0
    assert lost == 0
    assert known <= set(after)
    assert sorted(each.batch_size for each in after if each.has_figure) == list(range(1, cases + 1))
    figures.add(
        Figure(
            kind="head",
            fault=f"the head gets SIGKILL {kills} times, at random moments of its start and of its work, each time"
            " followed by `muster resume` (this machine alone)",
            lost=lost,
            measured_twice=measured_twice(after),
            noticed_s=None,
            went_on_s=None,
            outcome=f"{len(told)} results had been told and {len(known)} kept by the last kill; all {cases} cases ok in"
            f" the end, {time.monotonic() - begun_at:.0f} s later",
        )
    )
