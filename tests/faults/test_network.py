"""A host's cable is pulled and put back; a network that loses packets; SSH that goes while Ray stays."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from tests.faults.figures import Figure
from tests.faults.running import Watched, config, measured_twice

if TYPE_CHECKING:
    from tests.faults.figures import Figures
    from tests.lab.lab import Lab

pytestmark = pytest.mark.timeout(600)


@pytest.mark.long
@pytest.mark.parametrize("seconds", [2, 20, 90])
def test_a_cut_that_heals_within_the_grace_costs_nothing(lab: Lab, figures: Figures, seconds: int) -> None:
    with Watched(lab, config(lab, "h1", "h2", limits={"host_grace": "3m"})) as run:
        before = run.until_kept(1, of="h1")
        run.heard(r"h1/cpu: .*starting")
        cut_at = time.monotonic()
        lab.cut("h1")
        noticed_at = run.heard(r"h1: silent", since=cut_at) if seconds >= 20 else None
        # The cut itself is what lasts so long: there is nothing to wait for.
        time.sleep(max(0.0, cut_at + seconds - time.monotonic()))
        lab.heal("h1")
        healed_at = time.monotonic()
        went_on_at = run.heard(r"h1/cpu: .*(starting|ms a step)", since=healed_at)
        assert run.end() == 0, run.err
    after = run.kept()
    assert set(run.verdicts().values()) == {"ok"}
    figures.nothing_lost(
        before,
        after,
        kind="network",
        fault=f"a host's cable is pulled for {seconds} s (host_grace 3 min)",
        noticed_s=None if noticed_at is None else noticed_at - cut_at,
        went_on_s=went_on_at - healed_at,
        outcome="every case ok",
    )


def test_a_cut_that_does_not_heal_is_host_down_for_that_host_alone(lab: Lab, figures: Figures) -> None:
    with Watched(lab, config(lab, "h1", "h2", limits={"host_grace": "15s"})) as run:
        before = run.until_kept(1, of="h1")
        cut_at = time.monotonic()
        lab.cut("h1")
        noticed_at = run.heard(r"h1: silent", since=cut_at)
        given_up_at = run.heard(r"h1/cpu.*host_down", since=cut_at)
        assert run.end() == 3, run.err
    lab.heal("h1")
    after, verdicts = run.kept(), run.verdicts()
    assert {verdict for (device, _), verdict in verdicts.items() if device == "h2/cpu"} == {"ok"}
    assert "host_down" in {verdict for (device, _), verdict in verdicts.items() if device == "h1/cpu"}
    assert given_up_at - noticed_at >= 10.0
    figures.nothing_lost(
        before,
        after,
        kind="network",
        fault="a host's cable is pulled and stays out (host_grace 15 s)",
        noticed_s=noticed_at - cut_at,
        outcome=f"host_down for its cases {given_up_at - cut_at:.0f} s after; the other host went on",
    )


def test_a_network_that_loses_and_delays_packets_only_makes_it_slower(lab: Lab, figures: Figures) -> None:
    patient = {"connect_timeout": "2m", "join_timeout": "3m", "prepare_timeout": "3m", "host_grace": "5m"}
    with (
        lab.switch.disturbed("h1", delay_ms=200.0, loss=0.2),
        Watched(lab, config(lab, "h1", "h2", limits=patient)) as run,
    ):
        assert run.end(500.0) == 0, run.err
    after = run.kept()
    assert set(run.verdicts().values()) == {"ok"}
    figures.add(
        Figure(
            kind="network",
            fault="20 % of packets lost and 200 ms delay to a host, the whole run long",
            lost=0,
            measured_twice=measured_twice(after),
            noticed_s=None,
            went_on_s=None,
            outcome="every case ok",
        )
    )


@pytest.mark.long
def test_ssh_that_goes_takes_nothing_with_it(lab: Lab, figures: Figures) -> None:
    with Watched(lab, config(lab, "h1", "h2")) as run:
        before = run.until_kept(1, of="h1")
        connections = [each for each in lab["h1"].processes() if each.name().startswith("sshd") and "@" in _title(each)]
        assert connections, "nobody is logged in"
        hit_at = time.monotonic()
        for connection in connections:
            connection.kill()
        went_on_at = run.heard(r"h1/cpu: .*(starting|ms a step)", since=hit_at)
        assert run.end() == 0, run.err
    after = run.kept()
    assert set(run.verdicts().values()) == {"ok"}
    figures.nothing_lost(
        before,
        after,
        kind="host",
        fault="the SSH connection's server process on a host gets SIGKILL",
        went_on_s=went_on_at - hit_at,
        outcome="every case ok: Ray carries what SSH began",
    )


def _title(process: object) -> str:
    return " ".join(process.cmdline())  # type: ignore[attr-defined]
