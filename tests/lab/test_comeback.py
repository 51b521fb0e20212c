"""What a run lives through: the way to a host breaks, Ray there is killed, the head is."""

from __future__ import annotations

import json
import signal
import time
from typing import TYPE_CHECKING, Final

import psutil
import pytest

from tests.lab.standing import long_config, until_measuring

if TYPE_CHECKING:
    from tests.lab.hosts import Host, Started
    from tests.lab.lab import Lab

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

_RUN_TIMEOUT_S: Final = 300.0

#: Some ten seconds of measuring each, on a machine that does other things too.
_MEASURE: Final = {"warmup": 1, "steps": 400}


def _started(lab: Lab, *, tls: bool = False) -> Started:
    config = lab.config(
        {"h1": {}, "h2": {}},
        cluster={"tls": tls},
        measure=_MEASURE,
        workloads=[{"model": "alexnet", "batch_size": [1, 2], "passes": "forward"}],
        limits={"host_grace": "2m", "head_grace": "3m"},
    )
    return lab.start_muster("run", "lab.yaml", "--json", cwd=lab.write_config(config))


def _verdicts(started: Started) -> list[tuple[str, str]]:
    """Return the devices and what became of each case there, once the run has ended."""
    out, err = started.popen.communicate(timeout=_RUN_TIMEOUT_S)
    assert out, err
    measured = [row for row in json.loads(out)["rows"] if row["kind"] == "measured"]
    return sorted((row["definition"]["device_id"], row["cells"]["forward_ms"]["verdict"]) for row in measured)


#: Two cases on each of two devices.
_ALL_WELL: Final = [("h1/cpu", "ok"), ("h1/cpu", "ok"), ("h2/cpu", "ok"), ("h2/cpu", "ok")]


def _kill(host: Host, name: str) -> None:
    found = [process for process in host.processes() if process.name() == name]
    assert found, [process.name() for process in host.processes()]
    for process in found:
        process.kill()


@pytest.mark.parametrize("tls", [False, pytest.param(True, marks=pytest.mark.long)])
def test_a_host_whose_ray_is_killed_is_brought_back_and_measured(lab: Lab, tls: bool) -> None:
    with _started(lab, tls=tls) as started:
        until_measuring(lab, started)
        _kill(lab["h1"], "raylet")
        assert _verdicts(started) == _ALL_WELL
    assert lab.leftovers() == {}


def test_a_connection_that_breaks_ends_nothing_on_its_host(lab: Lab) -> None:
    with _started(lab) as started:
        until_measuring(lab, started)
        before = lab["h1"].find("raylet/raylet")
        sessions = [each for each in lab["h1"].processes() if each.name() == "sshd" and each.username() != "root"]
        assert sessions
        for session in sessions:
            session.kill()
        # Longer than a keeper waits where nobody needs it.
        assert psutil.wait_procs(before, timeout=15.0)[1] == list(before)
        assert _verdicts(started) == _ALL_WELL
    assert lab.leftovers() == {}


def test_a_cable_that_is_out_for_a_while_costs_nothing(lab: Lab) -> None:
    with _started(lab) as started:
        until_measuring(lab, started)
        children = {each.pid for each in lab["h1"].find("workers.child")}
        lab.cut("h1")
        try:
            # Until the head must have noticed; nothing tells the outside.
            time.sleep(20.0)
        finally:
            lab.heal("h1")
        assert children
        assert _verdicts(started) == _ALL_WELL
    assert lab.leftovers() == {}


def test_what_an_agent_measures_while_its_head_is_dead_is_kept_until_somebody_asks(lab: Lab) -> None:
    folder = lab.write_config(
        lab.config(
            {"h1": {}},
            measure=_MEASURE,
            limits={"head_grace": "5s", "host_grace": "5s"},
            policy={"on_head_loss": "finish"},
        )
    )
    with lab.start_muster("run", "lab.yaml", cwd=folder) as started:
        until_measuring(lab, started, ("h1",))
        started.end(signal.SIGKILL)
    # The agent ends its case, keeps the result, and goes; then the keeper ends Ray.
    assert lab.leftovers(timeout_s=120.0) == {}
    resumed = lab.muster("resume", cwd=folder)
    shown = json.loads(lab.muster("show", "--json", cwd=folder).out)

    assert resumed.code == 0, resumed.err
    (row,) = [row for row in shown["rows"] if row["kind"] == "measured"]
    assert row["cells"]["forward_ms"]["verdict"] == "ok"


@pytest.mark.long
def test_a_head_that_is_killed_twice_leaves_nothing_behind(lab: Lab) -> None:
    for _ in range(2):
        with lab.start_muster("run", "lab.yaml", cwd=lab.write_config(long_config(lab))) as started:
            until_measuring(lab, started)
            started.end(signal.SIGKILL)
    assert lab.leftovers(timeout_s=90.0) == {}
