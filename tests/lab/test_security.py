"""Who has no token gets into a cluster by none of its ports."""

from __future__ import annotations

import contextlib
import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from tests.lab.standing import HARMLESS, PYTHON, Standing, knock, let_in, standing

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.lab.lab import Lab

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def cluster(lab: Lab) -> Iterator[Standing]:
    with standing(lab) as up:
        yield up
    assert lab.leftovers() == {}


def test_ray_listens_in_the_documented_range_alone(cluster: Standing) -> None:
    open_doors = [door for door in cluster.doors if not door.is_local]

    assert len(open_doors) >= 8
    assert [door for door in open_doors if not 26_000 <= door.port <= 26_999] == []


@pytest.mark.parametrize("token", [None, "0" * 64])
def test_no_port_lets_anybody_in_without_the_token(lab: Lab, cluster: Standing, token: str | None) -> None:
    answers = knock(lab, cluster.doors, token=token)

    assert len(answers) == len(cluster.doors)
    assert let_in(answers) == {}
    # Some method of each server was one of its own.
    assert all({"UNAUTHENTICATED", "401", "403"} & set(own.values()) for own in answers.values()), answers


def test_with_the_token_the_same_knock_opens(lab: Lab, cluster: Standing) -> None:
    answers = knock(lab, cluster.doors, token=cluster.token, only=HARMLESS)

    opened = let_in(answers)
    assert all("OK" in answers[door].values() for door in opened if "GET /" not in answers[door])
    assert len(opened) >= 6


#: Takes twenty seconds to be refused, as `join` does, which is always tried.
_LONG: Final = "list and submit"

#: Real clients of Ray, which the cluster's address is given to.
_CLIENTS: Final = {
    _LONG: "import ray, sys; ray.init(address=sys.argv[1]); print(ray.nodes())",
    "list": "import ray, sys; from ray._raylet import GcsClient;"
    " print(GcsClient(address=sys.argv[1]).get_all_node_info(timeout=5))",
    "join": "import sys; from ray.scripts.scripts import main; address = sys.argv[1];"
    " sys.argv = ['ray', 'start', '--disable-usage-stats', '--temp-dir=/tmp/intruder', f'--address={address}']; main()",
}


@pytest.mark.parametrize(
    "client", [pytest.param(name, marks=[pytest.mark.long] if name == _LONG else []) for name in _CLIENTS]
)
def test_ray_s_own_clients_are_refused_without_the_token(lab: Lab, cluster: Standing, client: str) -> None:
    address = f"{lab.head.address}:{min(door.port for door in cluster.doors if door.host is lab.head)}"
    wrong = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32), "RAY_USAGE_STATS_ENABLED": "0"}
    try:
        ended = lab["h4"].run(PYTHON, "-c", _CLIENTS[client], address, env=wrong, timeout_s=120)
    finally:
        lab["h4"].run("rm", "-rf", "/tmp/intruder", "/tmp/ray")

    assert ended.code != 0
    assert "nauthenticated" in ended.err + ended.out or "InvalidAuthToken" in ended.err + ended.out


def test_the_token_is_in_files_of_its_user_alone(cluster: Standing) -> None:
    for host in (cluster.head, cluster.host):
        found = host.run("grep", "-rlF", cluster.token, "/tmp", "/dev/shm", "/home/bench", "/run", root=True)
        for path in found.out.split():
            assert (host.outside / path.lstrip("/")).stat().st_mode & 0o077 == 0, path
        assert f"{cluster.folder}/token" in found.out or host is cluster.host


def test_the_token_is_on_no_command_line_and_in_no_environment(cluster: Standing) -> None:
    for host in (cluster.head, cluster.host):
        for process in host.processes():
            for name in ("cmdline", "environ"):
                with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                    assert cluster.token.encode() not in Path(f"/proc/{process.pid}/{name}").read_bytes()


def test_the_token_is_in_no_log(cluster: Standing) -> None:
    for host in (cluster.head, cluster.host):
        found = host.run("sh", "-c", f"grep -rlF {cluster.token} /tmp/*/ray /var/log; true", root=True)
        assert found.out == ""
