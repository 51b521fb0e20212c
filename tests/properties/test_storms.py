"""Random storms over simulated labs: whatever goes wrong at once, nothing is lost and every run ends.

``MUSTER_STORMS=10000`` has so many of them, one lab in a hundred with a thousand devices; ``make storms`` says what
they were like.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections import Counter
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from orchestrator.dispatch.settings import DispatchSettings, HostConcurrency
from tests.properties.storm import Ending, Storm, Weather, brave

if TYPE_CHECKING:
    from collections.abc import Iterator

STORMS = int(os.environ.get("MUSTER_STORMS", "150"))
#: Of so many storms one is over a thousand devices.
LARGE_EVERY = 1000

dispatch_settings = st.builds(
    DispatchSettings,
    host_concurrency=st.sampled_from(HostConcurrency),
    attempts=st.integers(1, 3),
    prepare_timeout_s=st.sampled_from([5.0, 60.0]),
    lease_timeout_s=st.sampled_from([20.0, 600.0]),
    start_timeout_s=st.sampled_from([10.0, 120.0]),
    case_timeout_s=st.sampled_from([10.0, 600.0]),
    collect_timeout_s=st.just(5.0),
    cancel_timeout_s=st.just(10.0),
    retry_delay_s=st.sampled_from([0.0, 5.0]),
    queue_timeout_s=st.sampled_from([100.0, 5000.0, 5000.0]),
    host_grace_s=st.sampled_from([0.0, 30.0, 60.0, 300.0]),
    quarantine_after=st.sampled_from([0, 0, 2, 3]),
)

endings = st.builds(
    Ending, after_steps=st.integers(1, 400), kind=st.sampled_from(["kill", "kill", "kill", "stop", "stop now"])
)


def storms(hosts: st.SearchStrategy[int], devices: st.SearchStrategy[int]) -> st.SearchStrategy[Weather]:
    return st.builds(
        Weather,
        seed=st.integers(0, 2**32),
        hosts=hosts,
        devices_each=devices,
        cases_each=st.integers(1, 3),
        wrong=st.sampled_from([0.1, 0.3, 0.6, 1.0]),
        heads=st.lists(endings, max_size=4).map(tuple),
        settings=dispatch_settings,
    )


@pytest.fixture(scope="module")
def seen() -> Iterator[Counter[str]]:
    """What storms were like; told at the end where there are many."""
    counted: Counter[str] = Counter()
    yield counted
    if STORMS >= LARGE_EVERY:
        sys.stdout.write("".join(f"\n{number:>12,}  {what}" for what, number in sorted(counted.items())))


@pytest.mark.timeout(60 + STORMS)
@settings(max_examples=STORMS, deadline=None, suppress_health_check=list(HealthCheck))
@given(weather=storms(st.integers(1, 5), st.integers(1, 5)))
def test_nothing_is_lost_in_a_storm_and_it_ends(seen: Counter[str], weather: Weather) -> None:
    asyncio.run(brave(Storm(weather), seen))


@pytest.mark.timeout(60 + STORMS)
@settings(
    max_examples=max(1, STORMS // 50),
    deadline=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)
@given(weather=storms(st.integers(10, 60), st.integers(1, 4)))
def test_nor_in_a_larger_one(seen: Counter[str], weather: Weather) -> None:
    asyncio.run(brave(Storm(weather), seen))


@pytest.mark.parametrize("seed", range(max(1, STORMS // LARGE_EVERY)))
@pytest.mark.timeout(600)
def test_nor_with_a_thousand_devices(seen: Counter[str], seed: int) -> None:
    kinds = ("kill", "stop", "kill", "stop now", "kill")
    heads = tuple(Ending(after_steps=2500 * (seed % 7 + 1) + 17 * at, kind=kinds[at]) for at in range(seed % 4 + 1))
    given = DispatchSettings(attempts=2, retry_delay_s=5.0, quarantine_after=3, host_grace_s=60.0, queue_timeout_s=5e3)
    weather = Weather(seed=seed, hosts=250, devices_each=4, cases_each=2, wrong=0.3, heads=heads, settings=given)
    asyncio.run(brave(Storm(weather), seen))
