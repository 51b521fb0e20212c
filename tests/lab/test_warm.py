"""A cluster that is kept between runs, encrypted, over SSH."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.lab.lab import Lab

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


def test_a_cluster_is_kept_used_and_ended(lab: Lab) -> None:
    cwd = lab.write_config(lab.config({"h1": {}, "h2": {}, "down": {}}, cluster={"tls": True}))

    up = lab.muster("cluster", "up", "lab.yaml", cwd=cwd)
    assert up.code == 3, up.err  # one host is down
    try:
        again = lab.muster("cluster", "up", "lab.yaml", cwd=cwd)
        status = json.loads(lab.muster("cluster", "status", "lab.yaml", "--json", cwd=cwd).out)
        daemons = {name: {each.pid for each in lab[name].find("raylet")} for name in ("h1", "h2")}
        ran = lab.muster("run", "lab.yaml", "--json", cwd=cwd)
        kept = {name: {each.pid for each in lab[name].find("raylet")} for name in ("h1", "h2")}
    finally:
        down = lab.muster("cluster", "down", "lab.yaml", cwd=cwd)

    assert "up" in again.out
    assert {host["name"]: host["alive"] for host in status["hosts"]} == {"h1": True, "h2": True, "down": False}
    measured = [row for row in json.loads(ran.out)["rows"] if row["kind"] == "measured"]
    rows = {row["definition"]["device_id"].partition("/")[0]: row["cells"]["forward_ms"]["verdict"] for row in measured}
    assert (ran.code, rows) == (3, {"h1": "ok", "h2": "ok", "down": "host_down"})
    assert daemons == kept
    assert all(daemons.values())
    assert down.code == 0, down.err
    assert lab.leftovers() == {}
