"""The measuring child is killed, crashes, hangs, runs out of memory: that costs one attempt."""

from __future__ import annotations

import signal
import time
from typing import TYPE_CHECKING

import pytest

from tests.faults.running import CHILD, Watched, config, process_of

if TYPE_CHECKING:
    from tests.faults.figures import Figures
    from tests.lab.lab import Lab

pytestmark = pytest.mark.timeout(400)


def _ended_all_ok(run: Watched) -> None:
    assert run.end() == 0, run.err
    assert set(run.verdicts().values()) == {"ok"}


@pytest.mark.parametrize("number", [signal.SIGKILL, pytest.param(signal.SIGSEGV, marks=pytest.mark.long)])
def test_a_child_that_a_signal_ends_costs_one_attempt(lab: Lab, figures: Figures, number: signal.Signals) -> None:
    with Watched(lab, config(lab, "h1", "h2")) as run:
        before = run.until_kept(1, of="h1")
        child = process_of(lab["h1"], CHILD)
        hit_at = time.monotonic()
        child.send_signal(number)
        noticed_at = run.heard(r"h1/cpu.*attempt 1 crashed.*" + number.name, since=hit_at)
        went_on_at = run.heard(r"h1/cpu.*starting", since=hit_at)
        _ended_all_ok(run)
    after = run.kept()
    (crashed,) = (each for each in after if each.verdict == "crashed")
    assert crashed.device == "h1/cpu"
    assert number.name in crashed.reason
    figures.nothing_lost(
        before,
        after,
        kind="child",
        fault=f"the measuring child gets {number.name}",
        noticed_s=noticed_at - hit_at,
        went_on_s=went_on_at - hit_at,
        outcome="crashed, then ok at its second attempt",
    )


def test_a_child_that_hangs_is_ended_at_its_deadline(lab: Lab, figures: Figures) -> None:
    limits = {"case_timeout": "25s", "start_timeout": "60s"}
    with Watched(lab, config(lab, "h1", limits=limits)) as run:
        before = run.until_kept(1, of="h1")
        child = process_of(lab["h1"], CHILD)
        hit_at = time.monotonic()
        child.suspend()
        noticed_at = run.heard(r"h1/cpu.*timeout", since=hit_at)
        went_on_at = run.heard(r"h1/cpu.*starting", since=hit_at)
        assert run.end() == 3, run.err
    after = run.kept()
    assert sorted(run.verdicts().values()) == ["ok", "ok", "ok", "timeout"]
    figures.nothing_lost(
        before,
        after,
        kind="child",
        fault="the measuring child hangs (SIGSTOP; start_timeout 60 s, case_timeout 25 s)",
        noticed_s=noticed_at - hit_at,
        went_on_s=went_on_at - hit_at,
        outcome="timeout: it is not tried again",
    )


def test_a_child_without_memory_is_oom_and_larger_batches_are_not_tried(lab: Lab, figures: Figures) -> None:
    workloads = [{"model": "alexnet", "passes": "forward", "batch_size": [1, 64, 512, 4096]}]
    with Watched(lab, config(lab, "h1", workloads=workloads)) as run:
        before = run.until_kept(1, of="h1")
        child = process_of(lab["h1"], CHILD)
        hit_at = time.monotonic()
        # What it has so far it keeps; not one page more, so that its next real allocation fails.
        held = child.memory_info().vms
        limited = lab["h1"].run("prlimit", f"--pid={_inner_pid(child.pid)}", f"--as={held}")
        assert limited.code == 0, limited.err
        noticed_at = run.heard(r"h1/cpu.*oom", since=hit_at)
        assert run.end() == 3, run.err
    after, verdicts = run.kept(), run.verdicts()
    assert verdicts[("h1/cpu", 1)] == "ok"
    assert verdicts[("h1/cpu", 4096)] == "oom"
    assert "oom" in verdicts.values()
    figures.nothing_lost(
        before,
        after,
        kind="child",
        fault="the measuring child gets no more memory (RLIMIT_AS at what it has)",
        noticed_s=noticed_at - hit_at,
        outcome="oom, and so inferred for the larger batches of the workload",
    )


def _inner_pid(pid: int) -> int:
    """Return a process's number in its own host."""
    with open(f"/proc/{pid}/status") as file:  # noqa: PTH123  # not a file that has a path worth naming
        line = next(line for line in file if line.startswith("NSpid:"))
    return int(line.split()[-1])
