"""The head is killed, put to sleep, has a double: the hosts keep what is theirs, and one command goes on."""

from __future__ import annotations

import signal
import time
from typing import TYPE_CHECKING

import pytest

from tests.faults.figures import Figure
from tests.faults.running import Watched, config, measured_twice

if TYPE_CHECKING:
    from tests.faults.figures import Figures
    from tests.lab.lab import Lab

pytestmark = pytest.mark.timeout(900)


@pytest.mark.long
def test_a_head_that_is_killed_is_gone_on_with_by_one_command(lab: Lab, figures: Figures) -> None:
    with Watched(lab, config(lab, "h1", "h2")) as run:
        before = run.until_kept(2)
        run.kill()
        killed_at = time.monotonic()
    with Watched(lab, None, run.folder, "resume") as resumed:
        went_on_at = resumed.heard(r"h[12]/cpu: .*(starting|ms a step|waiting)", since=killed_at)
        assert resumed.end() == 0, resumed.err
    after = resumed.kept()
    assert set(resumed.verdicts().values()) == {"ok"}
    figures.nothing_lost(
        before,
        after,
        kind="head",
        fault="the head gets SIGKILL, then `muster resume`",
        went_on_s=went_on_at - killed_at,
        outcome="every case ok, under the same id",
    )


@pytest.mark.long
def test_hosts_finish_what_they_measure_and_keep_it_when_the_head_is_gone(lab: Lab, figures: Figures) -> None:
    limits = {"head_grace": "10s", "host_grace": "1s"}
    with Watched(lab, config(lab, "h1", limits=limits, measure={"warmup": 1, "steps": 1500})) as run:
        before = run.until_kept(1)
        run.heard(r"h1/cpu: .*b2.*starting")
        run.kill()
        killed_at = time.monotonic()
    # The orphans end by themselves, and the result of what ran then lies on the host.
    left = lab.leftovers(timeout_s=120.0)
    ended_at = time.monotonic()
    assert left == {}
    spooled = sorted((lab["h1"].home / ".local/state/muster/spool" / run.run_id).glob("*.json"))
    assert len(spooled) == 1, spooled
    with Watched(lab, None, run.folder, "resume") as resumed:
        assert resumed.end() == 0, resumed.err
    after = resumed.kept()
    assert set(resumed.verdicts().values()) == {"ok"}
    assert [each.number for each in after] == [1] * 4, "the spooled attempt was measured again"
    figures.nothing_lost(
        before,
        after,
        kind="head",
        fault="the head gets SIGKILL and stays away (head_grace 10 s): the agent finishes its case and ends",
        noticed_s=ended_at - killed_at,
        outcome="the result waited in the host's spool for `muster resume`; the host was left clean",
    )


@pytest.mark.long
def test_a_head_that_sleeps_for_a_minute_wakes_up_to_all_of_its_results(lab: Lab, figures: Figures) -> None:
    with Watched(lab, config(lab, "h1", "h2")) as run:
        before = run.until_kept(2)
        run.started.process.suspend()
        # The sleep itself is what lasts so long: there is nothing to wait for.
        time.sleep(60.0)
        woken_at = time.monotonic()
        # By way of what stands between: it has stopped with its child, and wakes it.
        run.started.popen.send_signal(signal.SIGCONT)
        went_on_at = run.heard(r"h[12]/cpu: .*(starting|ms a step)", since=woken_at)
        assert run.end() == 0, run.err
    after = run.kept()
    assert set(run.verdicts().values()) == {"ok"}
    figures.nothing_lost(
        before,
        after,
        kind="head",
        fault="the head sleeps for 60 s (SIGSTOP)",
        went_on_s=went_on_at - woken_at,
        outcome="every case ok",
    )


def test_two_heads_on_the_same_devices_wait_for_each_other(lab: Lab, figures: Figures) -> None:
    short = {"workloads": [{"model": "alexnet", "passes": "forward", "batch_size": [1, 2]}]}
    with Watched(lab, config(lab, "h1", **short)) as first, Watched(lab, config(lab, "h1", **short)) as second:
        assert (first.end(), second.end()) == (0, 0), first.err + second.err
    assert set(first.verdicts().values()) | set(second.verdicts().values()) == {"ok"}
    waited = first.has_said("waiting: .*held by") or second.has_said("waiting: .*held by")
    assert waited
    figures.add(
        Figure(
            kind="head",
            fault="two heads want the same device",
            lost=0,
            measured_twice=measured_twice(first.kept()) + measured_twice(second.kept()),
            noticed_s=None,
            went_on_s=None,
            outcome="they take turns, case by case; every case of both ok",
        )
    )


@pytest.mark.long
def test_ctrl_c_once_lets_the_running_cases_end_and_resume_does_the_rest(lab: Lab, figures: Figures) -> None:
    with Watched(lab, config(lab, "h1", "h2")) as run:
        run.until_kept(1)
        run.heard(r"h1/cpu: .*starting")
        asked_at = time.monotonic()
        run.started.process.send_signal(signal.SIGINT)
        code = run.end()
        ended_at = time.monotonic()
    assert code == 130, run.err
    before = run.kept()
    assert {each.verdict for each in before} == {"ok"}
    assert "not_run" in run.verdicts().values()
    with Watched(lab, None, run.folder, "resume") as resumed:
        assert resumed.end() == 0, resumed.err
    after = resumed.kept()
    assert set(resumed.verdicts().values()) == {"ok"}
    figures.nothing_lost(
        before,
        after,
        kind="head",
        fault="Ctrl-C, once, then `muster resume`",
        noticed_s=ended_at - asked_at,
        outcome="what ran was measured to its end; the rest by resume",
    )
