"""What `devices`, `plan` and `run` have in common: reach the hosts, take the inventory, make the plan."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from orchestrator.inventory import take_inventory
from orchestrator.planning import make_plan

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from orchestrator.cluster.base import Cluster
    from orchestrator.config.schema import Config
    from orchestrator.inventory import Inventory
    from orchestrator.planning import Plan
    from orchestrator.results import Pace
    from workers.protocol import Case, HostReport, Workload


def cluster_of(config: Config) -> Cluster:
    """Return the way to the config's hosts: the module of ``orchestrator.cluster`` named like its mode."""
    module = importlib.import_module(f"orchestrator.cluster.{config.cluster.mode.value}")
    cluster: Cluster = module.connect(config.hosts[0].name)
    return cluster


async def take(config: Config, *, simulate: bool) -> Inventory:
    """Probe the hosts, or make them up, and hold what they have against the config."""
    return take_inventory(config.hosts, await _reports(config, simulate=simulate))


async def plan_with_estimates(config: Config, *, simulate: bool, only: Sequence[str], store_url: str) -> Plan:
    """Return the plan, with time estimates where the store remembers."""
    inventory = await take(config, simulate=simulate)
    plan = make_plan(config, inventory, only=only)
    paces = remembered(store_url, plan.runnable, simulated=simulate)
    return make_plan(config, inventory, only=only, paces=paces) if paces else plan


def remembered(store_url: str, cases: Sequence[Case], *, simulated: bool) -> Mapping[tuple[str, Workload], Pace]:
    """Return what earlier runs tell of ``cases``; nothing where there is no store yet."""
    from orchestrator.store.location import locate

    path = locate(store_url).path
    if path is None or not path.exists():
        return {}
    # SQLAlchemy takes longer to import than all the rest of `plan`: only with something to look up.
    from orchestrator.store import open_store

    with open_store(store_url, create=False) as store:
        return store.paces(cases, simulated=simulated)


async def _reports(config: Config, *, simulate: bool) -> Sequence[HostReport]:
    if simulate:
        from orchestrator.cluster.simulated import reports

        return reports(config.hosts)
    return await cluster_of(config).probe()
