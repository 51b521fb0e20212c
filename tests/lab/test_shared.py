"""Cases that hold devices of several hosts: real SSH, real Ray, real TensorFlow."""

from __future__ import annotations

import contextlib
import json
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.lab.lab import Lab

pytestmark = [pytest.mark.slow, pytest.mark.timeout(420)]

_RUN_TIMEOUT_S = 300.0

HOSTS: dict[str, dict[str, Any]] = {
    "h1": {"devices": ["cpu:0"]},
    "h2": {"devices": ["cpu:1"]},
    "h3": {"devices": ["cpu:0"]},
}


def config_of(lab: Lab, *names: str, steps: int = 5, numbers: int = 1000) -> str:
    return lab.config(
        {name: HOSTS[name] for name in names},
        workloads=[{"problems": f"allreduce/n{numbers}"}],
        measure={"warmup": 1, "steps": steps},
        policy={"busy": "measure"},
    )


def shown(lab: Lab, folder: str) -> list[tuple[str, str | None, str | None]]:
    """What was measured, its verdict, and why."""
    table = json.loads(lab.muster("show", "--json", cwd=folder).out)
    return [
        (row["definition"]["model"], row["cells"]["forward_ms"]["verdict"], row["cells"]["forward_ms"]["reason"])
        for row in table["rows"]
        if row["kind"] == "measured"
    ]


def has_figures(rows: list[tuple[str, str | None, str | None]]) -> bool:
    return bool(rows) and all(verdict in ("ok", "noisy", "contended") for _, verdict, _ in rows)


def test_a_sum_is_over_the_devices_of_three_hosts(lab: Lab) -> None:
    folder = lab.write_config(config_of(lab, "h1", "h2", "h3"))
    ended = lab.muster("run", "lab.yaml", cwd=folder, timeout_s=_RUN_TIMEOUT_S)
    assert ended.code == 0, ended.err
    rows = shown(lab, folder)
    assert [model for model, *_ in rows] == ["allreduce/n1000-r3"]
    assert has_figures(rows), rows
    assert "3 x " in ended.out


def test_two_musters_that_want_the_same_devices_in_another_order_both_have_them(lab: Lab) -> None:
    folders = [lab.write_config(config_of(lab, *names, steps=40)) for names in (("h1", "h2", "h3"), ("h3", "h2", "h1"))]
    with contextlib.ExitStack() as stack:
        running = [
            stack.enter_context(lab.start_muster("run", "lab.yaml", "--json", cwd=folder)).popen for folder in folders
        ]
        # Both streams are read at once: neither may wait for the other's.
        with ThreadPoolExecutor() as pool:
            told = list(pool.map(lambda each: each.communicate(timeout=_RUN_TIMEOUT_S), running))
    assert [each.returncode for each in running] == [0, 0], told
    for folder in folders:
        assert has_figures(shown(lab, folder)), shown(lab, folder)
