"""Ray's processes on a host are killed: the agent, its daemon, the control service of the head."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from tests.faults.running import AGENT, GCS, RAYLET, Watched, config, process_of

if TYPE_CHECKING:
    from tests.faults.figures import Figures
    from tests.lab.lab import Lab

pytestmark = pytest.mark.timeout(500)


@pytest.mark.parametrize(
    ("who", "fault"),
    [(AGENT, "a device's agent"), pytest.param(RAYLET, "Ray's daemon on a host", marks=pytest.mark.long)],
)
def test_a_host_whose_ray_is_killed_comes_back_and_goes_on(lab: Lab, figures: Figures, who: str, fault: str) -> None:
    with Watched(lab, config(lab, "h1", "h2")) as run:
        before = run.until_kept(1, of="h1")
        victim = process_of(lab["h1"], who)
        hit_at = time.monotonic()
        victim.kill()
        noticed_at = run.heard(r"h1(/cpu)?: (away|lost)", since=hit_at)
        went_on_at = run.heard(r"h1/cpu: .*starting", since=noticed_at)
        assert run.end() == 0, run.err
    after = run.kept()
    assert set(run.verdicts().values()) == {"ok"}
    figures.nothing_lost(
        before,
        after,
        kind="agent" if who == AGENT else "host",
        fault=f"{fault} gets SIGKILL",
        noticed_s=noticed_at - hit_at,
        went_on_s=went_on_at - hit_at,
        outcome="a new agent; the attempt is host_down, then ok",
    )


def test_the_control_service_of_the_head_is_killed(lab: Lab, figures: Figures) -> None:
    with Watched(lab, config(lab, "h1", "h2", limits={"host_grace": "20s"})) as run:
        before = run.until_kept(2)
        victim = process_of(lab.head, GCS)
        hit_at = time.monotonic()
        victim.kill()
        noticed_at = run.heard("Ray on the head is gone: gcs_server ended by itself", since=hit_at)
        code = run.end()
        ended_at = time.monotonic()
    after, verdicts = run.kept(), set(run.verdicts().values())
    assert code in (0, 3), run.err
    assert "open" not in verdicts
    measured_at = max(at for at, line in run.lines if "ms a step" in line)
    figures.nothing_lost(
        before,
        after,
        kind="head",
        fault="the head's control service (GCS) gets SIGKILL (host_grace 20 s)",
        noticed_s=noticed_at - hit_at,
        outcome=f"{', '.join(sorted(verdicts))}: agents answer the head without it; letting go of Ray took"
        f" {ended_at - max(hit_at, measured_at):.0f} s",
    )
