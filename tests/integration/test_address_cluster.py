"""A cluster that somebody else runs: joined, used, and left as it was."""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from orchestrator.cluster.driver import Entrance
from orchestrator.cluster.trial import visit
from orchestrator.errors import ClusterError
from tests.integration import foreign
from tests.integration.leaks import assert_no_more_than, held
from tests.integration.muster import environment

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.integration.foreign import Foreign

pytestmark = pytest.mark.slow

_CONFIG = """\
version: 1
name: theirs
cluster: {{mode: address, address: "{address}", token_file: {token_file}}}
hosts: {hosts}
workloads: [{{model: alexnet, batch_size: 1}}]
policy: {{busy: measure}}
limits: {{connect_timeout: 60s, join_timeout: 90s}}
"""

_BENCH = "[{name: bench, devices: [cpu]}]"


@pytest.fixture(scope="module")
def theirs() -> Iterator[Foreign]:
    with foreign.running() as cluster:
        yield cluster


def _joined(folder: Path, cluster: Foreign, hosts: str = _BENCH, **given: object) -> dict[str, Any]:
    """Return what the joiner saw there."""
    config = folder / "theirs.yaml"
    config.write_text(
        _CONFIG.format(**{"address": cluster.address, "token_file": cluster.token_file, "hosts": hosts, **given})
    )
    clean = {name: value for name, value in environment().items() if not name.startswith("RAY_")}
    ended = subprocess.run(
        [sys.executable, "-m", "tests.integration.joiner", str(config)],
        capture_output=True,
        text=True,
        env={**clean, "XDG_STATE_HOME": str(folder)},
        # Ray would let hosts import from the folder that a driver is in, which here is the same machine's.
        cwd=folder,
        timeout=170,
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr == "", "Ray's own words are for nobody"
    seen: dict[str, Any] = json.loads(ended.stdout)
    return seen


def _ours(cluster: Foreign) -> list[psutil.Process]:
    """Return the agents and children that run there."""
    found = []
    for process in cluster.processes():
        with contextlib.suppress(psutil.NoSuchProcess):
            if any(sign in " ".join(process.cmdline()) for sign in ("DeviceAgent", "workers.")):
                found.append(process)
    return found


def test_a_case_is_measured_on_hosts_without_muster_and_the_cluster_is_left_as_it_was(
    theirs: Foreign, tmp_path: Path
) -> None:
    before = theirs.observed()
    seen = _joined(tmp_path, theirs)
    assert seen["reports"] == seen["hosts"] == ["bench"]
    assert [check for _, check, level, _ in seen["findings"] if level != "ok"] == []
    assert seen["results"] == [["ok", 3, None]]
    (code,) = seen["code"]
    assert "py_modules_files" in code, "the hosts have the package from Ray and from nowhere else"
    assert theirs.observed() == before
    assert before["actors"] == before["jobs"] == 0
    assert psutil.wait_procs(_ours(theirs), timeout=30)[1] == []


def test_a_host_that_the_cluster_does_not_have_is_a_finding_and_the_others_are_measured(
    theirs: Foreign, tmp_path: Path
) -> None:
    seen = _joined(
        tmp_path, theirs, "[{name: bench, devices: [cpu]}, {name: attic, address: 10.255.0.1, devices: [cpu]}]"
    )
    assert seen["hosts"] == ["bench"]
    (problem,) = [finding for finding in seen["findings"] if finding[2] == "problem"]
    assert problem[:2] == ["attic", "name"]
    assert f"({foreign.IP})" in problem[3]
    assert seen["lost"] == {"attic": problem[3]}
    assert [result[0] for result in seen["results"]] == ["ok"]


def test_a_wrong_token_is_refused_in_one_sentence(theirs: Foreign, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong"
    wrong.touch(mode=0o600)
    wrong.write_text("0" * 64)
    seen = _joined(tmp_path, theirs, token_file=wrong)
    assert seen["message"] == f"the cluster at {theirs.address} refused the token in {wrong}"
    assert "token_file" in seen["remedy"]


def test_a_token_that_others_can_read_is_used_with_a_warning(theirs: Foreign, tmp_path: Path) -> None:
    open_to_all = tmp_path / "open"
    open_to_all.write_text(theirs.token_file.read_text())
    open_to_all.chmod(0o644)
    seen = _joined(tmp_path, theirs, token_file=open_to_all)
    (warning,) = [finding for finding in seen["findings"] if finding[2] == "warning"]
    assert warning[:2] == ["bench", "token"]
    assert "0644" in warning[3]
    assert [result[0] for result in seen["results"]] == ["ok"]


@pytest.mark.parametrize(("make", "told"), [(None, "No such file"), ("", "is empty")])
def test_a_token_file_that_is_none_is_refused_before_anything_is_asked(
    theirs: Foreign, tmp_path: Path, make: str | None, told: str
) -> None:
    from orchestrator.cluster.address import connect
    from orchestrator.config.load import load_text

    token_file = tmp_path / "token"
    if make is not None:
        token_file.write_text(make)
    text = _CONFIG.format(address=theirs.address, token_file=token_file, hosts=_BENCH)
    with pytest.raises(ClusterError, match=told) as caught:
        connect(load_text(text, "theirs.yaml").config)
    assert str(token_file) in caught.value.message


def test_a_machine_that_is_no_node_of_the_cluster_is_told_to_go_to_one(theirs: Foreign) -> None:
    elsewhere = Entrance(address=theirs.address, token_file=theirs.token_file, node_ip="127.0.0.99")
    before = held()
    with pytest.raises(ClusterError, match="this machine is not a part of the cluster") as caught:
        asyncio.run(visit(elsewhere, timeout_s=60.0))
    assert "on one of the cluster's nodes" in (caught.value.remedy or "")
    assert_no_more_than(before)


def test_an_address_where_nobody_listens_is_told_at_once(theirs: Foreign) -> None:
    with pytest.raises(ClusterError, match=f"nobody answers at {foreign.IP}:28999") as caught:
        asyncio.run(visit(Entrance(address=f"{foreign.IP}:28999"), timeout_s=30.0))
    assert caught.value.remedy


def test_a_visit_sees_the_nodes_and_leaves_no_process(theirs: Foreign) -> None:
    before = held()
    (node,) = asyncio.run(visit(Entrance(address=theirs.address, token_file=theirs.token_file), timeout_s=60.0))
    assert (node.ip, node.labels["muster.host"]) == (foreign.IP, "bench")
    assert theirs.observed()["jobs"] == 0
    assert_no_more_than(before)


def test_ray_still_words_other_versions_as_we_read_it() -> None:
    import ray
    from ray._private.utils import check_version_info

    from orchestrator.cluster.trial import explain

    with pytest.raises(RuntimeError) as caught:
        check_version_info({"ray_version": "2.49.1", "python_version": "3.10.2"}, "node")
    error = explain(str(caught.value), Entrance(address="ray-head:6379"))
    assert f"runs Ray 2.49.1 with Python 3.10.2, and muster here Ray {ray.__version__}" in error.message
