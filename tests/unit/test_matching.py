"""Which node of somebody else's cluster is which host."""

from __future__ import annotations

import pytest

from orchestrator.cluster.driver import RayNode
from orchestrator.cluster.matching import Sought, listed, match


def a_node(name: str, ip: str = "10.0.0.1", **labels: str) -> RayNode:
    return RayNode(
        id=f"id-{name}", ip=ip, hostname=name, labels={key.replace("_", "."): value for key, value in labels.items()}
    )


def sought(name: str, address: str | None = None, *ips: str) -> Sought:
    return Sought(name=name, address=address or name, ips=ips)


@pytest.mark.parametrize(
    "host",
    [
        sought("attic"),
        sought("anything", "10.0.0.1"),
        sought("anything", "attic.lab.example", "10.0.0.1"),
        sought("anything", "attic"),
        sought("anything", "ATTIC.lab.example"),
    ],
    ids=["hostname", "address", "resolved", "address as hostname", "with domain"],
)
def test_a_host_is_known_by(host: Sought) -> None:
    nodes = [a_node("attic"), a_node("cellar", "10.0.0.2")]
    assert match([host], nodes).nodes == {host.name: nodes[0]}


def test_a_label_outdoes_an_address_and_an_address_outdoes_a_hostname() -> None:
    labelled = a_node("one", "10.0.0.1", muster_host="attic")
    addressed = a_node("two", "10.0.0.2")
    named = a_node("attic", "10.0.0.3")
    host = sought("attic", None, "10.0.0.2")
    assert match([host], [named, addressed, labelled]).nodes == {"attic": labelled}
    assert match([host], [named, addressed]).nodes == {"attic": addressed}
    assert match([host], [named]).nodes == {"attic": named}


def test_a_whole_hostname_outdoes_one_without_its_domain() -> None:
    short, whole = a_node("attic"), a_node("attic.lab.example", "10.0.0.2")
    assert match([sought("attic.lab.example")], [short, whole]).nodes == {"attic.lab.example": whole}


def test_names_with_different_domains_are_different_hosts() -> None:
    assert match([sought("attic.lab.example")], [a_node("attic.other.example")]).nodes == {}


def test_addresses_that_begin_alike_are_different_hosts() -> None:
    assert match([sought("10.0.0.1")], [a_node("10", "10.0.0.2")]).nodes == {}


def test_a_loopback_address_is_this_machine_whatever_its_node_is_called() -> None:
    node, other = a_node("attic"), a_node("cellar", "10.0.0.2")
    host = sought("localhost", None, "::1", "127.0.0.1")
    assert match([host], [node, other], own=node.id).nodes == {"localhost": node}
    assert match([host], [node, other]).nodes == {}


def test_a_host_without_a_node_is_told_which_nodes_there_are() -> None:
    matching = match([sought("roof", "roof.lab.example", "10.0.0.9")], [a_node("attic"), a_node("cellar", "10.0.0.2")])
    called, there = "roof (roof.lab.example, 10.0.0.9)", "attic (10.0.0.1), cellar (10.0.0.2)"
    assert matching.problems == {"roof": f"no node of the cluster is {called}; there are: {there}"}


def test_several_nodes_for_a_host_are_named_and_none_is_guessed() -> None:
    twins = [a_node("attic"), a_node("attic", "10.0.0.2")]
    matching = match([sought("attic")], twins)
    assert matching.nodes == {}
    assert matching.problems == {"attic": "several nodes of the cluster are attic: attic (10.0.0.1), attic (10.0.0.2)"}


def test_two_hosts_are_never_one_node() -> None:
    matching = match([sought("attic"), sought("other", "10.0.0.1")], [a_node("attic")])
    assert list(matching.nodes) == ["attic"]
    assert matching.problems == {"other": "it is the same node as attic: attic (10.0.0.1)"}


def test_of_many_nodes_some_are_listed_and_the_others_counted() -> None:
    text = listed([a_node(f"n{i}", f"10.0.0.{i}") for i in range(100)])
    assert text.startswith("n0 (10.0.0.0), n1 (10.0.0.1), ")
    assert text.endswith(", and 88 more")
    assert listed([]) == "none at all"
