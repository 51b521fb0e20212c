"""Fixtures that several kinds of test share."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import TYPE_CHECKING

import hypothesis
import pytest

from orchestrator.cluster.driver import TOKEN_ENVIRONMENT
from orchestrator.cluster.local import LocalCluster
from tests.builders import a_device
from workers import lease, spool

if TYPE_CHECKING:
    from collections.abc import Iterator

    from orchestrator.cluster.base import ClusterHandle

# `MUSTER_HYPOTHESIS=storm make test` looks much longer. No deadline an example: these machines are shared.
hypothesis.settings.register_profile("fast", deadline=None, max_examples=50)
hypothesis.settings.register_profile("ci", deadline=None, max_examples=100, derandomize=True)
hypothesis.settings.register_profile("storm", deadline=None, max_examples=5000)
hypothesis.settings.load_profile(os.environ.get("MUSTER_HYPOTHESIS", "ci" if os.environ.get("CI") else "fast"))

# Started in the background by a shell, this process ignores Ctrl-C, and what tests start would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Ray reads these once, when it is imported, and some test modules import it.
os.environ.update(TOKEN_ENVIRONMENT)


@pytest.fixture(scope="session", autouse=True)
def _leases_of_our_own(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Tests wait for nobody else on this machine; whatever they start inherits this."""
    os.environ[lease.FOLDER_VARIABLE] = str(tmp_path_factory.mktemp("leases"))


@pytest.fixture(scope="session", autouse=True)
def _spools_of_our_own(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Tests leave no results in this user's home, and find none there."""
    os.environ[spool.FOLDER_VARIABLE] = str(tmp_path_factory.mktemp("spool"))


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[ClusterHandle]:
    """Real Ray on this machine, which goes by the names of eight hosts with a CPU device each."""
    cores = tuple(sorted(os.sched_getaffinity(0)))
    devices = [a_device("localhost", "cpu", cores=cores), *(a_device(f"h{i}", "cpu", cores=cores) for i in range(7))]
    context = LocalCluster("localhost").running(devices)
    loop = asyncio.new_event_loop()
    try:
        yield loop.run_until_complete(context.__aenter__())
        loop.run_until_complete(context.__aexit__(None, None, None))
    finally:
        loop.close()
