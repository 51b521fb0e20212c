"""Hosts and nodes in every combination."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.cluster.driver import RayNode
from orchestrator.cluster.matching import Sought, match

_NAMES = st.sampled_from(["a", "b", "a.lab", "b.lab", "A", "10.0.0.1", "localhost"])
_IPS = st.sampled_from(["10.0.0.1", "10.0.0.2", "127.0.0.1", "127.0.1.1"])


@st.composite
def _nodes(draw: st.DrawFn) -> list[RayNode]:
    labels = st.one_of(st.just({}), st.builds(lambda name: {"muster.host": name}, _NAMES))
    return [
        RayNode(id=str(number), ip=draw(_IPS), hostname=draw(_NAMES), labels=draw(labels))
        for number in range(draw(st.integers(0, 5)))
    ]


@st.composite
def _hosts(draw: st.DrawFn) -> list[Sought]:
    return [
        Sought(name=name, address=draw(_NAMES), ips=tuple(draw(st.lists(_IPS, max_size=2))))
        for name in draw(st.lists(_NAMES, unique=True, max_size=5))
    ]


@given(_hosts(), _nodes(), st.one_of(st.none(), st.sampled_from("01234")))
def test_every_host_has_a_node_of_its_own_or_the_reason_why_not(
    hosts: list[Sought], nodes: list[RayNode], own: str | None
) -> None:
    matching = match(hosts, nodes, own=own)
    assert matching.nodes.keys() | matching.problems.keys() == {host.name for host in hosts}
    assert not matching.nodes.keys() & matching.problems.keys()
    assert all(node in nodes for node in matching.nodes.values())
    assert len({node.id for node in matching.nodes.values()}) == len(matching.nodes)
    assert all(matching.problems.values())


@given(_hosts(), _nodes(), st.randoms(use_true_random=False))
def test_the_order_of_nodes_decides_nothing(hosts: list[Sought], nodes: list[RayNode], random: object) -> None:
    shuffled = list(nodes)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert match(hosts, nodes).nodes == match(hosts, shuffled).nodes
