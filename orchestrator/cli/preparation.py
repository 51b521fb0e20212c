"""What `check`, `devices`, `plan` and `run` have in common: reach the hosts, take the inventory, make the plan."""

from __future__ import annotations

import contextlib
import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from orchestrator.cli.software import head_software
from orchestrator.cluster.base import no_stage
from orchestrator.config.sweep import expand
from orchestrator.diagnosis import arranged, compare, diagnose, gaps
from orchestrator.inventory import take_inventory
from orchestrator.planning import make_plan

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

    from orchestrator.cluster.base import Cluster, Stage
    from orchestrator.config.schema import Config
    from orchestrator.diagnosis import Finding
    from orchestrator.inventory import Inventory
    from orchestrator.planning import Plan
    from orchestrator.results import Pace
    from workers.protocol import Case, Workload


@dataclass(frozen=True, kw_only=True, slots=True)
class Examination:
    """What is known of a lab before a run."""

    inventory: Inventory
    #: Host by host, in the config's order; comparisons among hosts stand with the host that differs.
    findings: tuple[Finding, ...]


@contextlib.asynccontextmanager
async def reaching(config: Config, *, stage: Stage = no_stage) -> AsyncIterator[Cluster]:
    """Give the way to the config's hosts, and let them go at the end.

    It is the cluster that `muster cluster up` keeps, where there is one; else the module of ``orchestrator.cluster``
    that is named like the config's mode.
    """
    from orchestrator.cluster import warm

    cluster: Cluster | None = warm.find(config, stage)
    if cluster is None:
        module = importlib.import_module(f"orchestrator.cluster.{config.cluster.mode.value}")
        cluster = module.connect(config, stage)
    try:
        yield cluster
    finally:
        await cluster.close()


async def examine(config: Config, *, simulate: bool, stage: Stage = no_stage) -> Examination:
    """Reach the hosts, or make them up, and say what they have and what is wrong with them; changes nothing there."""
    if simulate:
        return simulated(config)
    async with reaching(config, stage=stage) as cluster:
        return await examine_through(cluster, config, install=False)


async def examine_through(cluster: Cluster, config: Config, *, install: bool) -> Examination:
    """The same over a cluster that is open; with ``install``, environments that the config asks for are made."""
    survey = await cluster.survey(install=install)
    frameworks = dict.fromkeys(workload.framework for entry in config.workloads for workload in expand([entry]))
    head = head_software(frameworks)
    own = (
        finding
        for report in survey.reports
        for finding in diagnose(report, head, frameworks=frameworks, installs=report.host in survey.to_install)
    )
    findings = arranged((*survey.findings, *own, *compare(survey.reports, head)), [host.name for host in config.hosts])
    return Examination(inventory=take_inventory(config.hosts, survey.reports, gaps(findings)), findings=findings)


def simulated(config: Config) -> Examination:
    """Return what is known of a lab that is made up: it has what the config asks for, and nothing is wrong with it."""
    from orchestrator.cluster.simulated import reports

    return Examination(inventory=take_inventory(config.hosts, reports(config.hosts)), findings=())


async def plan_with_estimates(config: Config, *, simulate: bool, only: Sequence[str], store_url: str) -> Plan:
    """Return the plan, with time estimates where the store remembers."""
    inventory = (await examine(config, simulate=simulate)).inventory
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
