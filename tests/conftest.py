"""Fixtures that several kinds of test share."""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
from typing import TYPE_CHECKING

import hypothesis
import pynvml
import pytest

from orchestrator.cluster.driver import TOKEN_ENVIRONMENT
from orchestrator.cluster.local import LocalCluster
from tests import nvml
from tests import postgresql as server
from tests.builders import a_device
from workers import lockfiles, spool

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

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
    os.environ[lockfiles.FOLDER_VARIABLE] = str(tmp_path_factory.mktemp("leases"))


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


@pytest.fixture(scope="session")
def postgresql() -> Iterator[server.Server]:
    """A real PostgreSQL server."""
    try:
        context = server.running()
        started = context.__enter__()
    except server.MissingServerError as missing:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(missing))
    try:
        yield started
    finally:
        context.__exit__(None, None, None)


@pytest.fixture(scope="session")
def _stub_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    try:
        return nvml.compiled(tmp_path_factory.mktemp("nvml"))
    except LookupError as missing:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(missing))


@pytest.fixture
def stub_nvml(_stub_library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> nvml.StubNvml:
    """Four cards that are none, which nvidia-ml-py finds in this process until the test is over."""
    stub = nvml.StubNvml(_stub_library, tmp_path / "nvml.txt")
    monkeypatch.setenv(nvml.STATE, stub.environment[nvml.STATE])
    monkeypatch.setattr(pynvml, "nvmlLib", ctypes.CDLL(str(stub.library)))
    monkeypatch.setattr(pynvml, "_nvmlGetFunctionPointer_cache", {})
    return stub
