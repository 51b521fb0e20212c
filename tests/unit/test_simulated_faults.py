"""What goes wrong in the simulated lab: agents that die and come back, silent hosts, results that hosts keep."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from orchestrator.dispatch.messages import (
    AcknowledgeResult,
    CancelCase,
    CaseFinished,
    CaseGranted,
    CaseMeasured,
    CaseStarted,
    CaseWaiting,
    DeviceLost,
    DeviceReady,
    HostHeard,
    HostSilent,
    PrepareDevice,
    ReleaseDevice,
    ResultRecovered,
    StartCase,
)
from orchestrator.engine.faults import Fault, Silence, merged
from orchestrator.engine.simulated import SimulatedEngine
from orchestrator.engine.timeline import Course, Timeline
from tests.builders import a_case, a_device, a_sampling, a_workload
from workers.protocol import Progress, Verdict

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestrator.engine.base import Act, Occurrence
    from workers.protocol import Case

#: Its device prepared at 0 and the case begun at 1, it starts at 5 and is measured 3.5 to 8 s later.
CASE = a_case(a_device("gpu01", "gpu:0"), sampling=a_sampling(warmup=1, min_steps=2, max_steps=2))
OTHER = a_case(CASE.device, a_workload(batch_size=1), CASE.sampling)
PREPARE = PrepareDevice(device=CASE.device)
#: A hundred milliseconds a step.
SPEED = {CASE.device.id: 1.684e12}


def an_engine(**faults: Fault) -> SimulatedEngine:
    """An engine whose device and host have these faults: ``device``, ``host``, ``case``."""
    names = {"device": CASE.device.id, "host": "gpu01", "case": CASE.key}
    return SimulatedEngine(faults={names[name]: fault for name, fault in faults.items()}, speeds=SPEED)


def play(engine: SimulatedEngine, *acts: Act, until: float = 1e6) -> list[Occurrence]:
    """Everything but progress that happens until a moment of virtual time, the acts begun together."""

    async def scene() -> list[Occurrence]:
        for act in acts:
            await engine.start(act)
        heard: list[Occurrence] = []
        while news := await engine.occurrences(until):
            heard.extend(each for each in news if not isinstance(each, Progress))
        return heard

    return asyncio.run(scene())


def kinds(heard: Sequence[Occurrence]) -> list[type[Occurrence]]:
    return [type(occurrence) for occurrence in heard]


def start(case: Case = CASE, attempt: int = 1) -> StartCase:
    return StartCase(case=case, attempt=attempt)


def silent(from_s: float, for_s: float) -> Fault:
    return Fault(silences=(Silence(from_s=from_s, for_s=for_s),))


# --- agents that die ------------------------------------------------------------------------------------------


def test_an_agent_that_died_can_be_brought_up_again_after_a_while() -> None:
    engine = an_engine(device=Fault(lost_after_s=2.0, back_after_s=10.0))
    assert kinds(play(engine, PREPARE, until=3.0)) == [DeviceReady, DeviceLost]
    too_early = play(engine, PREPARE, until=11.0)
    assert too_early == [
        DeviceLost(at=4.0, device_id=CASE.device.id, reason="simulated: no agent can be brought up"),
    ]
    play(engine, until=12.0)
    assert kinds(play(engine, PREPARE)) == [DeviceReady]


def test_an_agent_may_be_gone_for_good() -> None:
    engine = an_engine(device=Fault(lost_after_s=2.0))
    play(engine, PREPARE, until=1000.0)
    assert kinds(play(engine, PREPARE)) == [DeviceLost]


def test_several_agents_of_a_device_may_die_one_after_the_other() -> None:
    engine = an_engine(device=Fault(lost_after_s=2.0, back_after_s=0.0, losses=2))
    endings = [kinds(play(engine, PREPARE, until=engine.now() + 50.0))[-1] for _ in range(3)]
    assert endings == [DeviceLost, DeviceLost, DeviceReady]


def test_another_agent_takes_the_place_of_one_that_lives() -> None:
    engine = an_engine()
    play(engine, PREPARE, until=1.0)
    play(engine, start(), until=2.0)
    assert kinds(play(engine, PREPARE)) == [DeviceReady]
    assert list(engine.kept()) == []


# --- what hosts keep ------------------------------------------------------------------------------------------


def test_a_result_is_kept_until_it_is_acknowledged() -> None:
    engine = an_engine()
    play(engine, PREPARE, until=1.0)
    finished = play(engine, start(), until=100.0)[-1]
    assert isinstance(finished, CaseFinished)
    assert list(engine.kept()) == [finished.result]
    recovered, ready = play(engine, PREPARE, until=200.0)
    assert isinstance(recovered, ResultRecovered)
    assert (recovered.case_key, recovered.attempt, recovered.result) == (CASE.key, 1, finished.result)
    assert isinstance(ready, DeviceReady)
    acknowledged = AcknowledgeResult(device_id=CASE.device.id, case_key=CASE.key, attempt=1)
    play(engine, acknowledged, acknowledged, until=200.0)
    assert kinds(play(engine, PREPARE)) == [DeviceReady]


def test_a_result_on_its_way_outlives_its_agent() -> None:
    usual = play_through(an_engine())
    measured = usual[1]
    assert isinstance(measured, CaseMeasured)
    engine = an_engine(device=Fault(lost_after_s=measured.at + 0.01, back_after_s=0.0))
    play(engine, PREPARE, until=1.0)
    assert kinds(play(engine, start(), until=100.0)) == [CaseStarted, CaseMeasured, DeviceLost]
    assert kinds(play(engine, PREPARE)) == [ResultRecovered, DeviceReady]


def play_through(engine: SimulatedEngine) -> list[Occurrence]:
    play(engine, PREPARE, until=1.0)
    return play(engine, start(), until=100.0)


def test_an_attempt_that_was_under_way_dies_with_its_agent() -> None:
    engine = an_engine(device=Fault(lost_after_s=5.1, back_after_s=0.0))
    assert kinds(play_through(engine)) == [CaseStarted, DeviceLost]
    assert kinds(play(engine, PREPARE)) == [DeviceReady]


def test_an_attempt_that_is_asked_for_again_gives_the_result_that_is_kept() -> None:
    engine = an_engine()
    finished = play_through(engine)[-1]
    assert isinstance(finished, CaseFinished)
    (again,) = play(engine, start(), until=200.0)
    assert isinstance(again, CaseFinished)
    assert again.result == finished.result


# --- heads that die -------------------------------------------------------------------------------------------


def test_agents_finish_what_they_do_when_their_head_dies() -> None:
    engine = an_engine()
    play(engine, PREPARE, until=1.0)
    play(engine, start(), until=5.01)
    engine.abandon()
    assert play(engine, until=100.0) == []
    (kept,) = engine.kept()
    assert (kept.case_key, kept.attempt, kept.verdict) == (CASE.key, 1, Verdict.OK)
    assert kinds(play(engine, PREPARE)) == [ResultRecovered, DeviceReady]


def test_the_next_head_waits_for_the_very_attempt_that_still_goes_on() -> None:
    usual = play_through(an_engine())[-1]
    engine = an_engine()
    play(engine, PREPARE, until=1.0)
    play(engine, start(), until=1.5)
    engine.abandon()
    assert kinds(play(engine, PREPARE, until=3.0)) == [DeviceReady]
    waiting, finished = play(engine, start(), until=100.0)
    assert isinstance(waiting, CaseWaiting)
    assert isinstance(finished, CaseFinished)
    assert isinstance(usual, CaseFinished)
    assert finished == usual


def test_another_case_waits_until_the_device_is_free() -> None:
    engine = an_engine()
    play(engine, PREPARE, until=1.0)
    play(engine, start(), until=1.5)
    engine.abandon()
    play(engine, PREPARE, until=3.0)
    heard = play(engine, start(OTHER), until=100.0)
    assert kinds(heard) == [CaseWaiting, CaseGranted, CaseStarted, CaseMeasured, CaseFinished]


def test_a_child_that_hangs_is_waited_for_by_nobody() -> None:
    engine = an_engine(case=Fault(hangs=True))
    play(engine, PREPARE, until=1.0)
    play(engine, start(), until=6.0)
    engine.abandon()
    play(engine, PREPARE, until=10.0)
    assert kinds(play(engine, start(OTHER), until=100.0))[0] is CaseStarted


def test_what_a_dead_head_asked_of_a_silent_host_does_not_arrive() -> None:
    engine = an_engine(host=silent(2.0, 5.0))
    play(engine, PREPARE, until=1.0)
    play(engine, until=3.0)
    play(engine, start(), until=4.0)
    engine.abandon()
    play(engine, PREPARE, until=10.0)
    assert play(engine, until=100.0) == []


# --- hosts that are silent ------------------------------------------------------------------------------------


def test_a_host_is_told_of_after_a_while_and_what_it_said_when_it_is_heard() -> None:
    engine = an_engine(host=silent(4.5, 30.0))
    heard = play_through(engine)
    assert kinds(heard) == [HostSilent, HostHeard, CaseStarted, CaseMeasured, CaseFinished]
    assert heard[0] == HostSilent(at=16.5, host="gpu01")
    assert {occurrence.at for occurrence in heard[1:] if not isinstance(occurrence, Progress)} == {34.5}
    finished = heard[-1]
    assert isinstance(finished, CaseFinished)
    assert finished.result.duration_s < 10.0


def test_a_short_silence_is_not_told_of() -> None:
    assert kinds(play_through(an_engine(host=silent(4.5, 11.0)))) == [CaseStarted, CaseMeasured, CaseFinished]


def test_a_host_without_agents_is_not_told_of() -> None:
    assert play(an_engine(host=silent(4.5, 30.0)), until=100.0) == []


def test_agents_that_miss_their_head_for_long_finish_and_end() -> None:
    heard = play_through(engine := an_engine(host=silent(4.5, 80.0)))
    assert kinds(heard) == [HostSilent, HostHeard, DeviceLost]
    assert "heard nothing of the head for 60 s" in str(heard[-1])
    assert kinds(play(engine, PREPARE)) == [ResultRecovered, DeviceReady]


def test_what_a_silent_host_is_told_arrives_when_it_is_heard() -> None:
    engine = an_engine(host=silent(2.0, 5.0), case=Fault(hangs=True))
    play(engine, PREPARE, until=1.0)
    play(engine, start(), until=3.0)
    cancel = CancelCase(case_key=CASE.key, attempt=1, verdict=Verdict.TIMEOUT, reason="too long")
    started, finished = play(engine, cancel, until=100.0)
    assert isinstance(started, CaseStarted)
    assert isinstance(finished, CaseFinished)
    assert (started.at, finished.at, finished.result.verdict) == (7.0, 7.1, Verdict.TIMEOUT)


def test_a_result_that_was_ready_comes_before_the_agent_hears_that_it_is_released() -> None:
    engine = an_engine(host=silent(4.5, 40.0))
    play(engine, PREPARE, until=1.0)
    play(engine, start(), until=20.0)
    heard = play(engine, ReleaseDevice(device_id=CASE.device.id), until=100.0)
    assert kinds(heard) == [HostHeard, CaseStarted, CaseMeasured, CaseFinished]


def test_a_silent_host_cannot_be_prepared_unless_it_is_heard_soon() -> None:
    engine = an_engine(host=silent(0.0, 30.0))
    assert play(engine, PREPARE, until=15.0) == [
        DeviceLost(at=12.0, device_id=CASE.device.id, reason="simulated: gpu01 cannot be reached")
    ]
    play(engine, until=25.0)
    assert play(engine, PREPARE) == [DeviceReady(at=31.0, device_id=CASE.device.id)]


def test_an_agent_that_comes_up_in_a_silence_is_ready_after_it() -> None:
    assert play(an_engine(host=silent(0.5, 3.0)), PREPARE) == [DeviceReady(at=3.5, device_id=CASE.device.id)]


def test_a_cancel_of_nothing_comes_to_nothing() -> None:
    cancel = CancelCase(case_key="none", attempt=1, verdict=Verdict.TIMEOUT, reason="too long")
    assert play(an_engine(), cancel) == []


def test_silences_that_touch_are_one() -> None:
    given = [Silence(from_s=20.0, for_s=5.0), Silence(from_s=0.0, for_s=10.0), Silence(from_s=5.0, for_s=1.0)]
    assert merged([*given, Silence(from_s=25.0, for_s=2.0)]) == (
        Silence(from_s=0.0, for_s=10.0),
        Silence(from_s=20.0, for_s=7.0),
    )


# --- virtual time ---------------------------------------------------------------------------------------------


def test_happenings_come_in_order_and_void_ones_not_at_all() -> None:
    timeline: Timeline[str] = Timeline()
    void, course = Course(), Course()
    for at, what, hangs_on in ((2.0, "c", course), (1.0, "a", course), (0.5, "void", void), (1.0, "b", course)):
        timeline.expect(hangs_on, at, what)
    void.is_off = True
    found = []
    while timeline.next_at is not None:
        found.append((timeline.next_at, timeline.pop()[1]))
    assert found == [(1.0, "a"), (1.0, "b"), (2.0, "c")]
    timeline.expect(course, 3.0, "d")
    timeline.clear()
    assert timeline.next_at is None


@pytest.mark.parametrize("kind", ["kept", "told"])
def test_an_engine_that_is_closed_keeps_results_and_tells_nothing(kind: str) -> None:
    engine = an_engine()
    play_through(engine)
    asyncio.run(engine.close())
    assert (len(list(engine.kept())) == 1) if kind == "kept" else (play(engine, until=200.0) == [])
