"""What every engine must do; one suite over all of them.

An engine joins by an entry in ``ENGINES``: a function of pytest's request that returns a function without arguments,
which is called inside a running event loop.
"""

from __future__ import annotations

import asyncio
import dataclasses
import os
import uuid
from typing import TYPE_CHECKING, Any, TypeVar

import pytest

from orchestrator.dispatch.messages import (
    AcknowledgeResult,
    CancelCase,
    CaseFinished,
    CaseGranted,
    CaseMeasured,
    CaseStarted,
    CaseWaiting,
    DeviceReady,
    PeerFinished,
    PrepareDevice,
    ReleaseDevice,
    ResultRecovered,
    StartCase,
)
from orchestrator.engine.simulated import Fault, SimulatedEngine
from tests.builders import a_case, a_device, a_sampling, a_workload
from workers.lease import Lease, claims_of
from workers.protocol import Progress, Verdict

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from orchestrator.cluster.base import ClusterHandle
    from orchestrator.engine.base import Engine, Occurrence
    from workers.protocol import Case, Result


def ray_engines(request: pytest.FixtureRequest) -> Callable[[], Engine]:
    from orchestrator.engine.ray import EngineLimits, RayEngine

    limits = EngineLimits(start_timeout_s=PATIENCE_S, case_timeout_s=PATIENCE_S)
    handle: ClusterHandle = request.getfixturevalue("ray_cluster")
    # A run of its own each: hosts keep what was not acknowledged, and give it to whoever asks for the same again.
    return lambda: RayEngine(run_id=uuid.uuid4().hex, limits=limits, handle=handle)


def simulated_engines(request: pytest.FixtureRequest) -> Callable[[], Engine]:
    return SimulatedEngine


ENGINES: dict[str, Callable[[pytest.FixtureRequest], Callable[[], Engine]]] = {
    "simulated": simulated_engines,
    "ray": ray_engines,
}


def held_from_ray(request: pytest.FixtureRequest) -> tuple[Callable[[], Engine], Callable[[], None]]:
    lease = Lease(claims_of(a_small_case().device, is_alone=True), run_id="another", head="elsewhere")
    assert lease.take(PATIENCE_S, pause=lambda _: True, tell=lambda _: None)
    request.addfinalizer(lease.give_back)
    return ray_engines(request), lease.give_back


def held_from_simulated(request: pytest.FixtureRequest) -> tuple[Callable[[], Engine], Callable[[], None]]:
    faults = {a_small_case().device.id: Fault(held_for_s=60.0)}
    return lambda: SimulatedEngine(faults=faults), lambda: None


#: Engines whose device somebody else has, and what makes that one let go.
HELD: dict[str, Callable[[pytest.FixtureRequest], tuple[Callable[[], Engine], Callable[[], None]]]] = {
    "simulated": held_from_simulated,
    "ray": held_from_ray,
}

#: The longest that any answer may take, on the engine's clock: a real child imports TensorFlow first.
PATIENCE_S = 120.0

T = TypeVar("T")


@pytest.fixture(params=sorted(ENGINES))
def make_engine(request: pytest.FixtureRequest) -> Callable[[], Engine]:
    return ENGINES[request.param](request)


def with_engine(make_engine: Callable[[], Engine], scene: Callable[[Engine], Awaitable[T]]) -> T:
    async def play() -> T:
        engine = make_engine()
        try:
            return await scene(engine)
        finally:
            await engine.close()

    return asyncio.run(play())


def a_small_case(**workload: Any) -> Case:
    """A case on this machine's CPU that takes a moment."""
    device = a_device("localhost", "cpu", cores=tuple(sorted(os.sched_getaffinity(0))))
    sampling = a_sampling(warmup=1, min_steps=3, max_steps=3)
    return a_case(device, a_workload(**{"batch_size": 1, **workload}), sampling)


def a_long_case() -> Case:
    """A case that would not end before it is cancelled."""
    short = a_small_case()
    return a_case(short.device, short.workload, a_sampling(warmup=1, min_steps=10**5, max_steps=10**5))


async def hear(engine: Engine, last: type[Occurrence]) -> list[Occurrence]:
    """Return what happens up to the first occurrence of the type ``last``, which must come within the patience."""
    heard: list[Occurrence] = []
    deadline = engine.now() + PATIENCE_S
    while not any(isinstance(occurrence, last) for occurrence in heard):
        news = await engine.occurrences(deadline)
        assert news, f"no {last.__name__} within {PATIENCE_S:g} s; heard {heard}"
        heard.extend(news)
    return heard


async def prepare(engine: Engine, case: Case) -> list[Occurrence]:
    await engine.start(PrepareDevice(device=case.device))
    return await hear(engine, DeviceReady)


async def measure(engine: Engine, case: Case, attempt: int = 1) -> Result:
    await engine.start(StartCase(case=case, attempt=attempt))
    return result_in(await hear(engine, CaseFinished))


def result_in(heard: list[Occurrence]) -> Result:
    (finished,) = (occurrence for occurrence in heard if isinstance(occurrence, CaseFinished))
    assert (finished.case_key, finished.attempt) == (finished.result.case_key, finished.result.attempt)
    return finished.result


def test_a_prepared_device_is_ready(make_engine: Callable[[], Engine]) -> None:
    case = a_small_case()

    async def scene(engine: Engine) -> None:
        (ready,) = await prepare(engine, case)
        assert isinstance(ready, DeviceReady)
        assert ready.device_id == case.device.id

    with_engine(make_engine, scene)


def test_a_case_is_told_from_its_start_to_its_result(make_engine: Callable[[], Engine]) -> None:
    case = a_small_case()

    async def scene(engine: Engine) -> None:
        await prepare(engine, case)
        before = engine.now()
        await engine.start(StartCase(case=case, attempt=1))
        heard = await hear(engine, CaseFinished)
        events = [occurrence for occurrence in heard if not isinstance(occurrence, Progress)]
        assert [type(event) for event in events] == [CaseStarted, CaseMeasured, CaseFinished]
        stamps = [before, *(event.at for event in events), engine.now()]
        assert stamps == sorted(stamps)
        result = result_in(heard)
        assert (result.case_key, result.attempt, result.verdict) == (case.key, 1, Verdict.OK)
        assert (len(result.warmup_ms), len(result.samples_ms)) == (1, 3)
        assert min(result.samples_ms) > 0

    with_engine(make_engine, scene)


def test_results_say_whether_they_were_invented(make_engine: Callable[[], Engine]) -> None:
    case = a_small_case()

    async def scene(engine: Engine) -> None:
        await prepare(engine, case)
        result = await measure(engine, case)
        assert (result.environment.get("simulated").value is True) is engine.simulated

    with_engine(make_engine, scene)


def test_a_device_takes_one_attempt_after_another(make_engine: Callable[[], Engine]) -> None:
    case = a_small_case()

    async def scene(engine: Engine) -> None:
        await prepare(engine, case)
        assert [(await measure(engine, case, attempt)).attempt for attempt in (1, 2)] == [1, 2]

    with_engine(make_engine, scene)


def test_nothing_happens_until_a_moment_that_was_named(make_engine: Callable[[], Engine]) -> None:
    async def scene(engine: Engine) -> None:
        until = engine.now() + 0.2
        assert list(await engine.occurrences(until)) == []
        assert engine.now() >= until
        assert list(await engine.occurrences(until - 10.0)) == []
        assert engine.now() >= until

    with_engine(make_engine, scene)


def test_what_happens_to_a_case_is_a_verdict_and_the_device_goes_on(make_engine: Callable[[], Engine]) -> None:
    impossible, possible = a_small_case(model="no-such-model"), a_small_case()

    async def scene(engine: Engine) -> None:
        await prepare(engine, impossible)
        failed = await measure(engine, impossible)
        assert failed.verdict is Verdict.UNSUPPORTED
        assert "no-such-model" in str(failed.reason)
        assert failed.samples_ms == ()
        assert (await measure(engine, possible)).verdict is Verdict.OK

    with_engine(make_engine, scene)


@pytest.mark.parametrize("wait_for_start", [True, False])
def test_a_cancelled_case_ends_as_the_cancel_says(make_engine: Callable[[], Engine], wait_for_start: bool) -> None:
    case = a_long_case()

    async def scene(engine: Engine) -> None:
        await prepare(engine, case)
        await engine.start(StartCase(case=case, attempt=1))
        if wait_for_start:
            await hear(engine, CaseStarted)
        cancel = CancelCase(case_key=case.key, attempt=1, verdict=Verdict.CANCELLED, reason="enough")
        await engine.start(cancel)
        result = result_in(await hear(engine, CaseFinished))
        assert (result.verdict, result.reason) == (Verdict.CANCELLED, "enough")
        assert len(result.samples_ms) < case.sampling.max_steps
        assert (await measure(engine, a_small_case())).verdict is Verdict.OK

    with_engine(make_engine, scene)


def test_a_cancel_that_comes_too_late_changes_nothing(make_engine: Callable[[], Engine]) -> None:
    case = a_small_case()

    async def scene(engine: Engine) -> None:
        await prepare(engine, case)
        await measure(engine, case)
        await engine.start(CancelCase(case_key=case.key, attempt=1, verdict=Verdict.TIMEOUT, reason="late"))
        assert list(await engine.occurrences(engine.now() + 0.5)) == []
        assert (await measure(engine, case, attempt=2)).verdict is Verdict.OK

    with_engine(make_engine, scene)


@pytest.mark.parametrize("engine", sorted(ENGINES))
def test_a_device_that_somebody_else_has_is_waited_for(request: pytest.FixtureRequest, engine: str) -> None:
    make_engine, let_go = HELD[engine](request)
    case = a_small_case()

    async def scene(engine: Engine) -> None:
        await prepare(engine, case)
        await engine.start(StartCase(case=case, attempt=1))
        heard = await hear(engine, CaseWaiting)
        let_go()
        heard += await hear(engine, CaseFinished)
        events = [occurrence for occurrence in heard if not isinstance(occurrence, Progress)]
        assert [type(event) for event in events] == [CaseWaiting, CaseGranted, CaseStarted, CaseMeasured, CaseFinished]
        assert [event.at for event in events] == sorted(event.at for event in events)
        assert isinstance(events[0], CaseWaiting)
        assert " is held by " in events[0].reason
        assert result_in(heard).verdict is Verdict.OK

    with_engine(make_engine, scene)


@pytest.mark.parametrize("engine", sorted(ENGINES))
def test_a_wait_for_a_device_ends_as_the_cancel_says(request: pytest.FixtureRequest, engine: str) -> None:
    make_engine, _ = HELD[engine](request)
    case = a_small_case()

    async def scene(engine: Engine) -> None:
        await prepare(engine, case)
        await engine.start(StartCase(case=case, attempt=1))
        await hear(engine, CaseWaiting)
        await engine.start(CancelCase(case_key=case.key, attempt=1, verdict=Verdict.CANCELLED, reason="enough"))
        result = result_in(await hear(engine, CaseFinished))
        assert (result.verdict, result.reason, result.samples_ms) == (Verdict.CANCELLED, "enough", ())

    with_engine(make_engine, scene)


def test_a_released_device_ends_no_case_any_more(make_engine: Callable[[], Engine]) -> None:
    case = a_long_case()

    async def scene(engine: Engine) -> None:
        await prepare(engine, case)
        await engine.start(StartCase(case=case, attempt=1))
        await hear(engine, CaseStarted)
        await engine.start(ReleaseDevice(device_id=case.device.id))
        later = await engine.occurrences(engine.now() + 2.0)
        assert not [occurrence for occurrence in later if isinstance(occurrence, CaseMeasured)]

    with_engine(make_engine, scene)


def test_a_result_is_told_of_again_until_it_is_acknowledged(make_engine: Callable[[], Engine]) -> None:
    case = a_small_case()

    async def scene(engine: Engine) -> None:
        await prepare(engine, case)
        result = await measure(engine, case)
        for _ in range(2):
            recovered, ready = await prepare(engine, case)
            assert isinstance(recovered, ResultRecovered)
            assert (recovered.case_key, recovered.attempt, recovered.result) == (case.key, 1, result)
            assert isinstance(ready, DeviceReady)
        acknowledged = AcknowledgeResult(device_id=case.device.id, case_key=case.key, attempt=1)
        for _ in range(2):
            await engine.start(acknowledged)
        await engine.occurrences(engine.now() + 2.0)
        (ready,) = await prepare(engine, case)
        assert isinstance(ready, DeviceReady)

    with_engine(make_engine, scene)


def test_what_is_kept_is_told_of_attempt_by_attempt(make_engine: Callable[[], Engine]) -> None:
    case = a_small_case()

    async def scene(engine: Engine) -> None:
        await prepare(engine, case)
        results = [await measure(engine, case, attempt) for attempt in (1, 2)]
        heard = await prepare(engine, case)
        recovered = {each.attempt: each.result for each in heard if isinstance(each, ResultRecovered)}
        assert recovered == {result.attempt: result for result in results}
        assert isinstance(heard[-1], DeviceReady)

    with_engine(make_engine, scene)


def test_a_device_that_is_prepared_again_takes_cases(make_engine: Callable[[], Engine]) -> None:
    long, short = a_long_case(), a_small_case()

    async def scene(engine: Engine) -> None:
        await prepare(engine, long)
        await engine.start(StartCase(case=long, attempt=1))
        await hear(engine, CaseStarted)
        # Its agent is not lost: another one takes its place all the same, and what it did is over.
        await prepare(engine, short)
        assert (await measure(engine, short)).verdict is Verdict.OK

    with_engine(make_engine, scene)


def test_an_attempt_that_is_asked_for_again_is_not_made_again(make_engine: Callable[[], Engine]) -> None:
    case = a_small_case()

    async def scene(engine: Engine) -> None:
        await prepare(engine, case)
        first = await measure(engine, case)
        assert await measure(engine, case) == first

    with_engine(make_engine, scene)


def test_a_device_may_be_released_before_it_is_ready_and_twice(make_engine: Callable[[], Engine]) -> None:
    case = a_small_case()

    async def scene(engine: Engine) -> None:
        await engine.start(PrepareDevice(device=case.device))
        await engine.start(ReleaseDevice(device_id=case.device.id))
        await engine.start(ReleaseDevice(device_id=case.device.id))

    with_engine(make_engine, scene)


def test_closing_twice_is_closing_once(make_engine: Callable[[], Engine]) -> None:
    case = a_long_case()

    async def scene(engine: Engine) -> None:
        await prepare(engine, case)
        await engine.start(StartCase(case=case, attempt=1))
        await engine.close()

    with_engine(make_engine, scene)


def a_shared_case() -> Case:
    """A sum over two devices of this machine."""
    first, second = (
        a_device("localhost", f"cpu:{core}", cores=(core,)) for core in sorted(os.sched_getaffinity(0))[:2]
    )
    workload = a_workload(model="allreduce/n1000-r2", batch_size=1)
    return dataclasses.replace(a_case(first, workload, a_sampling(warmup=1, min_steps=3, max_steps=3)), peers=(second,))


async def prepare_all(engine: Engine, case: Case) -> None:
    for device in case.devices:
        await engine.start(PrepareDevice(device=device))
        await hear(engine, DeviceReady)


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="takes two cores")
def test_a_case_of_two_devices_ends_on_its_own_and_then_on_the_other(make_engine: Callable[[], Engine]) -> None:
    case = a_shared_case()

    async def scene(engine: Engine) -> None:
        await prepare_all(engine, case)
        for attempt in (1, 2):
            await engine.start(StartCase(case=case, attempt=attempt))
            heard = await hear(engine, PeerFinished)
            kinds = (CaseStarted, CaseMeasured, CaseFinished, PeerFinished)
            events = [type(occurrence) for occurrence in heard if isinstance(occurrence, kinds)]
            assert events == list(kinds)
            result = result_in(heard)
            assert (result.verdict, len(result.samples_ms)) == (Verdict.OK, 3), result.reason

    with_engine(make_engine, scene)


@pytest.mark.slow
@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="takes two cores")
def test_a_case_of_two_devices_ends_as_the_cancel_says(make_engine: Callable[[], Engine]) -> None:
    short = a_shared_case()
    case = dataclasses.replace(short, sampling=a_sampling(warmup=1, min_steps=10**5, max_steps=10**5))

    async def scene(engine: Engine) -> None:
        await prepare_all(engine, case)
        await engine.start(StartCase(case=case, attempt=1))
        await hear(engine, CaseStarted)
        await engine.start(CancelCase(case_key=case.key, attempt=1, verdict=Verdict.CANCELLED, reason="enough"))
        heard = await hear(engine, PeerFinished)
        result = result_in(heard)
        assert (result.verdict, result.reason) == (Verdict.CANCELLED, "enough")
        await engine.start(StartCase(case=short, attempt=2))
        assert result_in(await hear(engine, CaseFinished)).verdict is Verdict.OK

    with_engine(make_engine, scene)
