"""The lab that all tests of this folder share, and the demand that each leaves it as it was."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.lab.bystander import Bystander, bystander
from tests.lab.hosts import ODD
from tests.lab.lab import Lab
from tests.lab.needs import what_is_missing

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def lab() -> Iterator[Lab]:
    """Four hosts, and one of each odd kind."""
    missing = what_is_missing()
    if missing is not None and os.environ.get("CI") == "true":
        pytest.fail(f"the lab's tests must run in CI: {missing}")
    if missing is not None:
        pytest.skip(missing)
    with Lab(4, ODD) as up:
        yield up


@pytest.fixture(scope="session")
def neighbour(lab: Lab) -> Iterator[Bystander]:
    """Somebody else's Ray cluster on one of the hosts."""
    with bystander(lab["h2"]) as there:
        yield there


@pytest.fixture(autouse=True)
def _left_as_it_was(request: pytest.FixtureRequest) -> Iterator[None]:
    """No process, token, lease or folder of ours on any host; the bystander's cluster still answers."""
    yield
    if "lab" in request.fixturenames:
        lab: Lab = request.getfixturevalue("lab")
        left = {} if lab.is_in_use else lab.leftovers()
        if left:
            lab.forgive()
        assert left == {}
    if "neighbour" in request.fixturenames:
        assert request.getfixturevalue("neighbour").is_well()
