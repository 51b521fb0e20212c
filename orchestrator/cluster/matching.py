"""Which node of somebody else's cluster is which host of the config. Pure."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from orchestrator.cluster.bringup import label_of
from workers.orders import HOST_LABEL

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from orchestrator.cluster.driver import RayNode

#: Nodes that a message lists; a person who has more knows where to look.
_MAX_LISTED: Final = 12

_WITHOUT_NODES: Final = "none at all"


@dataclass(frozen=True, kw_only=True, slots=True)
class Sought:
    """A host of the config, and under which addresses it is known."""

    name: str
    #: As the config has it: the host's address, or where it has none its name.
    address: str
    #: IP addresses that ``address`` resolves to; itself where it is one already.
    ips: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Matching:
    """Every host is in one of the two."""

    nodes: Mapping[str, RayNode] = field(default_factory=dict)
    #: Why a host has no node, by its name.
    problems: Mapping[str, str] = field(default_factory=dict)


def match(hosts: Sequence[Sought], nodes: Sequence[RayNode], *, own: str | None = None) -> Matching:
    """Return the node of each host, or why it has none; no two hosts share a node.

    The first rule that fits any node decides: the label ``muster.host``, the address, the hostname with or without its
    domain. Last, a host that resolves to loopback is this machine, whose node is ``own``.
    """
    found: dict[str, RayNode] = {}
    problems: dict[str, str] = {}
    taken: dict[str, str] = {}
    for host in hosts:
        fitting = _fitting(host, nodes, own)
        if not fitting:
            problems[host.name] = f"no node of the cluster is {_called(host)}; there are: {listed(nodes)}"
        elif len(fitting) > 1:
            problems[host.name] = f"several nodes of the cluster are {_called(host)}: {listed(fitting)}"
        elif fitting[0].id in taken:
            problems[host.name] = f"it is the same node as {taken[fitting[0].id]}: {listed(fitting)}"
        else:
            found[host.name] = fitting[0]
            taken[fitting[0].id] = host.name
    return Matching(nodes=found, problems=problems)


def listed(nodes: Sequence[RayNode]) -> str:
    """Return nodes for a message: ``gpu01 (10.0.0.1), gpu02 (10.0.0.2)``."""
    shown = [f"{node.hostname} ({node.ip})" for node in nodes[:_MAX_LISTED]]
    more = len(nodes) - len(shown)
    return ", ".join([*shown, f"and {more} more"] if more else shown) or _WITHOUT_NODES


def _called(host: Sought) -> str:
    others = dict.fromkeys(text for text in (host.address, *host.ips) if text != host.name)
    return f"{host.name} ({', '.join(others)})" if others else host.name


def _fitting(host: Sought, nodes: Sequence[RayNode], own: str | None) -> list[RayNode]:
    for rule in _rules(host, own):
        fitting = [node for node in nodes if rule(node)]
        if fitting:
            return fitting
    return []


def _rules(host: Sought, own: str | None) -> Iterator[Callable[[RayNode], bool]]:
    """Yield what tells that a node is ``host``, the surest first."""
    label = label_of(host.name)
    yield lambda node: node.labels.get(HOST_LABEL) == label
    yield lambda node: node.ip == host.address
    yield lambda node: node.ip in host.ips
    yield lambda node: node.hostname.lower() == host.address.lower()
    yield lambda node: _is_same_host(node.hostname, host.address)
    yield lambda node: node.id == own and any(_is_loopback(ip) for ip in host.ips)


def _is_same_host(one: str, other: str) -> bool:
    """Return whether two names differ by nothing but that one of them lacks its domain."""
    (short, _, domain), (other_short, _, other_domain) = one.lower().partition("."), other.lower().partition(".")
    # The first part of an IP address is no name of anything.
    return short == other_short and not short.isdecimal() and not (domain and other_domain)


def _is_loopback(ip: str) -> bool:
    try:
        return ipaddress.ip_address(ip).is_loopback
    except ValueError:
        return False
