"""Fixtures that several kinds of test share."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

import pytest

from orchestrator.cluster.local import RAY_ENVIRONMENT, connect
from tests.builders import a_device

if TYPE_CHECKING:
    from collections.abc import Iterator

    from orchestrator.cluster.base import ClusterHandle

# Ray reads these once, when it is imported, and some test modules import it.
os.environ.update(RAY_ENVIRONMENT)


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[ClusterHandle]:
    """Real Ray on this machine, with one CPU device and seven that share it."""
    cores = tuple(sorted(os.sched_getaffinity(0)))
    devices = [a_device("localhost", "cpu", cores=cores), *(a_device(f"h{i}", "cpu", cores=cores) for i in range(7))]
    context = connect("localhost").running(devices)
    loop = asyncio.new_event_loop()
    try:
        yield loop.run_until_complete(context.__aenter__())
        loop.run_until_complete(context.__aexit__(None, None, None))
    finally:
        loop.close()
