"""What Ray says where a cluster cannot be joined, and what a person is told."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from orchestrator.cluster.driver import Entrance
from orchestrator.cluster.trial import explain, visit
from orchestrator.errors import ClusterError

ENTRANCE = Entrance(address="ray-head:6379", token_file=Path("/lab/token"))


def test_other_versions_are_told_side_by_side() -> None:
    said = """Failed to connect to Ray cluster at ray-head:6379
Version mismatch: The cluster was started with:
    Ray: 2.49.1
    Python: 3.10.2
This process on node 10.0.0.1 was started with:
    Ray: 2.60.0
    Python: 3.11.9
"""
    error = explain(said, ENTRANCE)
    assert "Ray 2.49.1 with Python 3.10.2" in error.message
    assert "Ray 2.60.0 with Python 3.11.9" in error.message
    assert error.remedy == "run muster from an environment with ray==2.49.1 and Python 3.10.2"


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (
            "W gcs_client.cc:210: RPC error: InvalidAuthToken: Authentication token is missing",
            "refused the token in /lab",
        ),
        ("Token authentication is enabled but no authentication token was found. Ensure that", "found no token"),
        ("Could not find any running Ray instance. Please specify", "no Ray cluster runs on this machine"),
        (
            "No node info found matching attributes: '' when trying to resolve node",
            "not a part of the cluster at ray-head",
        ),
        (
            "E core_worker_process.cc:1029: Failed to get the system config from raylet because",
            "not a part of the cluster",
        ),
        ("first line\nwhat nobody has seen before", "cannot be joined: what nobody has seen before"),
        ("", "cannot be joined: Ray ended without a word"),
    ],
)
def test_what_ray_says_becomes_one_sentence_and_what_to_do(said: str, told: str) -> None:
    error = explain(said, ENTRANCE)
    assert told in error.message
    assert "\n" not in error.message
    assert error.remedy


def test_a_cluster_that_wants_a_token_that_was_not_named_says_so() -> None:
    assert "asks for a token" in explain("InvalidAuthToken", Entrance(address="ray-head:6379")).message


@pytest.mark.parametrize("address", ["ray-head", "ray-head:", "ray-head:http", ":"])
def test_an_address_without_a_port_is_refused_before_anything_is_started(address: str) -> None:
    with pytest.raises(ClusterError, match=f"cluster.address {address} is no address") as caught:
        asyncio.run(visit(Entrance(address=address), timeout_s=5.0))
    assert "6379" in (caught.value.remedy or "")
