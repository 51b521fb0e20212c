"""What every way to a cluster must do; one suite over those that need nothing but this machine.

A cluster joins by an entry in ``CLUSTERS``: a context that gives a config's text and the variables that its users need.
Each goes its way in a process of its own, as commands do: Ray has one driver a process.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from tests.integration import foreign
from tests.integration.muster import environment, muster, survivors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

pytestmark = pytest.mark.slow

_CONFIG = """\
version: 1
name: contract
hosts: [{name: bench, devices: [cpu, "gpu:77"]}]
workloads: [{model: alexnet, batch_size: 1}]
limits: {connect_timeout: 60s, join_timeout: 90s}
"""


@contextlib.contextmanager
def _local(folder: Path) -> Iterator[str]:
    yield _CONFIG


@contextlib.contextmanager
def _kept(folder: Path) -> Iterator[str]:
    (folder / "kept.yaml").write_text(_CONFIG)
    ended = muster("cluster", "up", "kept.yaml", cwd=folder, XDG_STATE_HOME=str(folder))
    assert ended.code == 0, ended.err
    try:
        yield _CONFIG
    finally:
        muster("cluster", "down", "kept.yaml", cwd=folder, XDG_STATE_HOME=str(folder))


@contextlib.contextmanager
def _address(folder: Path) -> Iterator[str]:
    with foreign.running() as theirs:
        place = f'{{mode: address, address: "{theirs.address}", token_file: {theirs.token_file}}}'
        yield f"{_CONFIG}cluster: {place}\n"


CLUSTERS: dict[str, Callable[[Path], AbstractContextManager[str]]] = {
    "local": _local,
    "kept": _kept,
    "address": _address,
}


@dataclass(frozen=True, slots=True)
class Visit:
    """What a process saw that went to a cluster."""

    seen: dict[str, Any]
    said: str
    #: Processes that it had below it at its end, and that have not gone since.
    left: list[psutil.Process]


@pytest.fixture(scope="module", params=sorted(CLUSTERS))
def visit(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Visit]:
    folder = tmp_path_factory.mktemp(request.param)
    with CLUSTERS[request.param](folder) as config:
        (folder / "lab.yaml").write_text(config)
        clean = {name: value for name, value in environment().items() if not name.startswith("RAY_")}
        with subprocess.Popen(
            [sys.executable, "-m", "tests.integration.joiner", str(folder / "lab.yaml"), "--wait"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**clean, "XDG_STATE_HOME": str(folder)},
            cwd=folder,
        ) as process:
            assert process.stdout is not None
            seen = json.loads(process.stdout.readline() or "{}")
            below = psutil.Process(process.pid).children(recursive=True)
            _, said = process.communicate("\n", timeout=150)
        yield Visit(seen, said, survivors(below))


def test_the_hosts_go_by_the_configs_names(visit: Visit) -> None:
    assert visit.seen["reports"] == visit.seen["hosts"] == ["bench"], visit.said
    assert visit.seen["lost"] == {}


def test_a_host_that_is_there_has_the_node_that_it_had(visit: Visit) -> None:
    assert visit.seen["rejoined"] == [True]


def test_a_device_that_is_there_can_be_measured(visit: Visit) -> None:
    assert visit.seen["results"] == [["ok", 3, None]]


def test_nothing_is_wrong_with_a_host_that_is_there(visit: Visit) -> None:
    assert [finding for finding in visit.seen["findings"] if finding[2] != "ok"] == []


def test_ray_has_nothing_to_say_to_a_person(visit: Visit) -> None:
    assert visit.said == ""


def test_nothing_is_left_of_it(visit: Visit) -> None:
    assert visit.left == []
