"""The hosts that faults are done to."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.faults.figures import Figures
from tests.lab.lab import Lab
from tests.lab.needs import what_is_missing

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def figures() -> Figures:
    """What was found, for the table in docs/reliability.md where MUSTER_FAULTS names a file."""
    return Figures(os.environ.get("MUSTER_FAULTS"))


@pytest.fixture(scope="session")
def hosts() -> Iterator[Lab]:
    """Four hosts with real SSH servers, and a head."""
    missing = what_is_missing()
    if missing is not None and os.environ.get("CI") == "true":
        pytest.fail(f"faults must be tried in CI: {missing}")
    if missing is not None:
        pytest.skip(missing)
    with Lab(4) as up:
        yield up


@pytest.fixture
def lab(hosts: Lab) -> Iterator[Lab]:
    """The same, left by each test as it was found: no process, token, lease or folder of ours, and every cable in."""
    yield hosts
    for host in hosts.ordinary:
        hosts.heal(host.name)
    # A host that was cut off ends what it holds when it has waited for the head long enough.
    left = hosts.leftovers(timeout_s=180.0)
    if left:
        hosts.forgive()
    assert left == {}
