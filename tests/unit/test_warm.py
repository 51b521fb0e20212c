"""What is written down of clusters that are kept."""

from __future__ import annotations

import os
import stat
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from orchestrator.cluster import warm
from orchestrator.cluster.base import ClusterHandle
from orchestrator.cluster.driver import Entrance, RayNode, TlsFiles
from orchestrator.cluster.warm import KeptCluster, Place, Record, key_of, recognise
from orchestrator.config.load import load_text
from workers.descendants import look

if TYPE_CHECKING:
    from orchestrator.config.schema import Config

_CONFIG = """\
version: 1
name: lab
cluster: {mode: ssh}
hosts:
  - {name: gpu01, address: gpu01.lab.example, devices: [gpu:all]}
  - {name: gpu02, devices: [cpu], user: bench}
workloads: [{model: alexnet, batch_size: 1}]
"""


def a_config(*overrides: str) -> Config:
    return load_text(_CONFIG, "lab.yaml", overrides=overrides).config


def a_record(**given: object) -> Record:
    own = look(os.getpid())
    assert own is not None
    defaults: dict[str, object] = {
        "pid": own.pid,
        "started": own.started,
        "since": "2026-05-01T12:00:00+00:00",
        "config_name": "lab",
        "config_path": "lab.yaml",
        "log": "/tmp/log",
    }
    return Record(**{**defaults, **given})  # type: ignore[arg-type]


def a_kept_cluster(**given: object) -> KeptCluster:
    defaults: dict[str, object] = {
        "address": "10.0.0.1:26000",
        "node_ip": "10.0.0.1",
        "token_file": None,
        "tls": None,
        "nodes": (("gpu01", "id-1"), ("gpu02", "id-2")),
    }
    return KeptCluster(**{**defaults, **given})  # type: ignore[arg-type]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    """Where the config's cluster is written down, in a home of its own."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    made = Place.of(a_config())
    made.make()
    return made


# --- the key ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "override",
    [
        "hosts.0.devices=[cpu, gpu:1]",
        "workloads.0.batch_size=[1, 2]",
        "measure.steps=7",
        "name=other",
        "limits.attempts=9",
    ],
)
def test_what_is_measured_makes_no_other_cluster(override: str) -> None:
    assert key_of(a_config(override)) == key_of(a_config())


@pytest.mark.parametrize(
    "override",
    [
        "hosts.0.name=gpu09",
        "hosts.0.address=10.0.0.7",
        "hosts.0.port=2222",
        "hosts.1.user=root",
        "defaults.python=~/bin/python",
        "defaults.install=true",
        "cluster.tls=true",
        "cluster.head_address=10.0.0.1",
    ],
)
def test_what_the_cluster_stands_on_makes_another_one(override: str) -> None:
    assert key_of(a_config(override)) != key_of(a_config())


def test_a_key_is_the_same_for_what_is_said_once_and_what_is_said_for_each_host() -> None:
    assert key_of(a_config("defaults.port=2222")) == key_of(a_config("hosts.0.port=2222", "hosts.1.port=2222"))


def test_the_order_of_hosts_makes_no_other_cluster() -> None:
    config = a_config()
    assert key_of(config.model_copy(update={"hosts": config.hosts[::-1]})) == key_of(config)


# --- the record ------------------------------------------------------------------------------------------------


def test_only_this_user_can_look_at_what_is_written_down(place: Place) -> None:
    place.write(a_record())
    assert stat.S_IMODE(place.folder.stat().st_mode) == 0o700
    assert [stat.S_IMODE(file.stat().st_mode) for file in place.folder.iterdir()] == [0o600]


def test_a_record_is_read_as_it_was_written(place: Place) -> None:
    entrance = Entrance(
        address="10.0.0.1:26000",
        node_ip="10.0.0.1",
        token_file=Path("/run/token"),
        tls=TlsFiles(ca_certificate=Path("/run/ca"), certificate=Path("/run/crt"), key=Path("/run/key")),
    )
    handle = ClusterHandle(
        address=entrance.address, token_file=entrance.token_file, nodes={"gpu01": "id-1"}, lost={"gpu02": "it is off"}
    )
    record = a_record(cluster=KeptCluster.of(handle, entrance))
    place.write(record)
    found = place.live()
    assert found == record
    assert found.cluster is not None
    assert found.cluster.entrance == entrance


def test_what_another_version_wrote_is_no_record(place: Place) -> None:
    place.write(a_record())
    (file,) = place.folder.iterdir()
    file.write_text('{"pid": 1}')
    assert place.live() is None


def test_a_process_that_got_the_id_of_a_dead_holder_is_not_taken_for_it(place: Place) -> None:
    record = a_record()
    place.write(replace(record, started=record.started - 1))
    assert place.live() is None
    assert place.read() is None, "the record of a dead holder is removed"


def test_a_dead_holders_token_goes_with_its_record(place: Place, tmp_path: Path) -> None:
    folder = tmp_path / "muster-of-the-dead"
    folder.mkdir()
    token = folder / "token"
    token.write_text("secret")
    place.write(a_record(started=1, cluster=a_kept_cluster(token_file=str(token))))
    assert place.live() is None
    assert not folder.exists()


def test_a_folder_that_muster_did_not_make_stays(place: Place, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("secret")
    place.write(a_record(started=1, cluster=a_kept_cluster(token_file=str(token))))
    assert place.live() is None
    assert token.exists()


def test_a_record_stays_while_another_process_is_at_work_on_it(place: Place) -> None:
    place.write(a_record(started=1))
    with place.held() as is_ours:
        assert is_ours
        assert place.live() is None
        assert place.read() is not None
        with place.held() as is_ours_twice:
            assert not is_ours_twice


def test_a_relative_state_home_is_ignored(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", "state")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert Place.of(a_config()).folder.parent == tmp_path / ".local" / "state" / "muster" / "clusters"


# --- for a run -------------------------------------------------------------------------------------------------


def test_a_run_finds_the_cluster_once_it_is_up(place: Place) -> None:
    assert warm.find(a_config()) is None
    place.write(a_record())
    assert warm.find(a_config()) is None, "it is still coming up"
    place.write(a_record(cluster=a_kept_cluster()))
    assert warm.find(a_config()) is not None
    assert warm.find(a_config("hosts.0.port=2222")) is None


def test_hosts_are_where_they_were_as_long_as_their_nodes_live() -> None:
    kept = a_kept_cluster(lost=(("gpu03", "no route"),))
    alive = RayNode(id="id-1", ip="10.0.0.1", hostname="x", labels={})
    matching = recognise(kept, ["gpu01", "gpu02", "gpu03", "gpu04"], [alive])
    assert matching.nodes == {"gpu01": alive}
    assert matching.problems == {
        "gpu02": "its node has left the cluster that is kept",
        "gpu03": "no route",
        "gpu04": "it was not there when the cluster was brought up",
    }
