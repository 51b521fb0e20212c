"""An attempt of several devices: who is taken when, who is told what, and whose end is the attempt's."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeVar

import pytest

from orchestrator.engine.gathering import Gathering, Member
from tests.builders import a_case, a_device, a_result
from workers.protocol import (
    AttemptGranted,
    AttemptHeld,
    AttemptRequest,
    AttemptStarted,
    AttemptWaiting,
    Device,
    Ending,
    Result,
    Ring,
    Verdict,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence

    from workers.protocol import AgentEvent

CASE = a_case(a_device("a", "gpu:0"), key="sum")
T = TypeVar("T")


class Agent:
    """The agent of one device, which does what the test says; everything goes into one log."""

    def __init__(self, device: Device, rank: int, log: list[str]) -> None:
        self.device, self.rank, self.log = device, rank, log
        self.heard: Callable[[AgentEvent], None] = lambda _: None
        self.answer: asyncio.Future[Result | None] = asyncio.get_running_loop().create_future()
        self.begun = asyncio.Event()
        self.met = asyncio.Event()
        #: Ends as it is told to.
        self.obeys = True

    def member(self) -> Member:
        request = AttemptRequest(
            run_id="run",
            case=CASE,
            attempt=1,
            start_timeout_s=1.0,
            case_timeout_s=1.0,
            ring=Ring(group="group", rank=self.rank, host=self.device.host),
        )
        return Member(
            device=self.device,
            place=(self.device.host,),
            request=request,
            call=self.call,
            meet=self.meet,
            cancel=self.cancel,
        )

    async def call(self, request: AttemptRequest, heard: Callable[[AgentEvent], None]) -> Result | None:
        self.log.append(f"{self.device.host} begun")
        self.heard = heard
        self.begun.set()
        return await self.answer

    async def meet(self, addresses: Sequence[str]) -> None:
        self.log.append(f"{self.device.host} meets {' '.join(addresses)}")
        self.met.set()

    async def cancel(self, verdict: Verdict, reason: str) -> None:
        self.log.append(f"{self.device.host} told to end: {verdict.value}: {reason}")
        if self.obeys:
            self.ends(verdict, reason)

    def hold(self) -> None:
        self.heard(AttemptHeld(case_key="sum", attempt=1, address=f"{self.device.host}:1"))

    def ends(self, verdict: Verdict = Verdict.OK, reason: str | None = None, *, signal: str | None = None) -> None:
        if not self.answer.done():
            self.answer.set_result(a_result(CASE, verdict=verdict, reason=reason, ending=Ending(signal=signal)))


class Scene:
    """Three devices of three hosts, by rank b, a and c; taken in the order of their names."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.told: list[AgentEvent] = []
        self.b, self.a, self.c = (
            Agent(a_device(host, "gpu:0"), rank, self.log) for rank, host in enumerate(("b", "a", "c"))
        )
        self.gathering = Gathering([each.member() for each in (self.b, self.a, self.c)], self.told.append)
        self.result = asyncio.ensure_future(self.gathering.result())

    async def all_held(self) -> None:
        for agent in (self.a, self.b, self.c):
            await agent.begun.wait()
            agent.hold()
        await asyncio.gather(*(agent.met.wait() for agent in (self.a, self.b, self.c)))

    async def endings(self) -> list[str]:
        return sorted([device.host async for device in self.gathering.endings()])


def play(scene: Callable[[Scene], Coroutine[object, object, T]]) -> T:
    async def run() -> T:
        return await asyncio.wait_for(scene(Scene()), 20)

    return asyncio.run(run())


def test_devices_are_taken_in_one_order_and_told_of_each_other_by_rank() -> None:
    async def scene(it: Scene) -> None:
        await it.all_held()
        assert it.log == [
            "a begun",
            "b begun",
            "c begun",
            "b meets b:1 a:1 c:1",
            "a meets b:1 a:1 c:1",
            "c meets b:1 a:1 c:1",
        ]
        it.b.ends()
        result = await it.result
        assert result is not None
        assert result.verdict is Verdict.OK
        assert await it.endings() == ["a", "c"]
        assert it.log[6:] == [
            f"{host} told to end: cancelled: the device that times the case has ended its part" for host in "ac"
        ]

    play(scene)


def test_nobody_is_taken_before_the_one_before_is_held_and_who_is_waited_for_is_told() -> None:
    async def scene(it: Scene) -> None:
        await it.a.begun.wait()
        it.a.heard(AttemptWaiting(case_key="sum", attempt=1, reason="the GPU is held by alice"))
        assert it.told == [AttemptWaiting(case_key="sum", attempt=1, reason="a/gpu:0: the GPU is held by alice")]
        assert it.log == ["a begun"]
        it.a.hold()
        await it.b.begun.wait()
        it.a.heard(AttemptWaiting(case_key="sum", attempt=1, reason="for the others"))
        started = AttemptStarted(case_key="sum", attempt=1)
        it.b.heard(started)
        assert it.told[1:] == [started]
        it.result.cancel()

    play(scene)


def test_a_wait_for_another_device_ends_when_all_are_held_and_its_own_when_the_first_says_so() -> None:
    waits = AttemptWaiting(case_key="sum", attempt=1, reason="held by alice")

    async def scene(it: Scene) -> None:
        await it.a.begun.wait()
        it.a.heard(waits)
        await it.all_held()
        assert [type(event) for event in it.told] == [AttemptWaiting, AttemptGranted]
        it.result.cancel()

    async def own(it: Scene) -> None:
        for agent in (it.a, it.b):
            await agent.begun.wait()
            agent.heard(waits)
            agent.hold()
        await it.c.begun.wait()
        it.c.hold()
        await it.c.met.wait()
        assert [type(event) for event in it.told] == [AttemptWaiting, AttemptWaiting]
        it.result.cancel()

    play(scene)
    play(own)


def test_whoever_cannot_be_had_ends_the_attempt_and_lets_the_others_go() -> None:
    async def scene(it: Scene) -> None:
        await it.a.begun.wait()
        it.a.hold()
        await it.b.begun.wait()
        it.b.hold()
        await it.c.begun.wait()
        it.c.ends(Verdict.BUSY, "the GPU is held by alice, and was not free within 60 s")
        result = await it.result
        assert result is not None
        told = "c/gpu:0: the GPU is held by alice, and was not free within 60 s"
        assert (result.verdict, result.reason) == (Verdict.BUSY, told)
        assert await it.endings() == ["a", "c"]
        assert it.log[3:] == [f"b told to end: busy: {told}", f"a told to end: busy: {told}"]

    play(scene)


def test_it_ends_before_the_first_device_was_even_asked() -> None:
    async def scene(it: Scene) -> None:
        await it.a.begun.wait()
        it.gathering.stop(Verdict.CANCELLED, "Ctrl-C")
        result = await it.result
        assert result == Result(case_key="sum", attempt=1, verdict=Verdict.CANCELLED, reason="Ctrl-C")
        assert it.log == ["a begun", "a told to end: cancelled: Ctrl-C"]
        assert await it.endings() == ["a", "c"]

    play(scene)


@pytest.mark.parametrize(
    ("verdict", "signal", "expected"),
    [
        (Verdict.OOM, None, (Verdict.OOM, "c/gpu:0: because")),
        (Verdict.CRASHED, "SIGSEGV", (Verdict.CRASHED, "c/gpu:0: because")),
        (Verdict.CRASHED, None, (Verdict.CRASHED, "somebody has gone")),
    ],
)
def test_the_device_that_ended_first_says_why_the_others_did(
    verdict: Verdict, signal: str | None, expected: tuple[Verdict, str]
) -> None:
    async def scene(it: Scene) -> None:
        await it.all_held()
        it.c.ends(verdict, "because", signal=signal)
        it.b.ends(Verdict.CRASHED, "somebody has gone")
        it.a.ends(Verdict.CRASHED, "somebody has gone")
        result = await it.result
        assert result is not None
        assert (result.verdict, result.reason) == expected

    play(scene)


def test_a_first_device_that_does_not_notice_is_told_to_end() -> None:
    async def scene(it: Scene) -> None:
        await it.all_held()
        it.c.ends(Verdict.OOM, "no memory")
        result = await it.result
        assert result is not None
        assert (result.verdict, result.reason) == (Verdict.OOM, "c/gpu:0: no memory")

    play(scene)


def test_an_agent_that_is_lost_ends_it_as_a_host_that_is_down() -> None:
    async def scene(it: Scene) -> None:
        await it.all_held()
        it.a.answer.set_result(None)
        result = await it.result
        assert result is not None
        assert (result.verdict, result.reason) == (Verdict.HOST_DOWN, "a/gpu:0: its agent is gone")

    play(scene)


def test_the_first_agent_s_loss_is_told_elsewhere_and_the_others_are_let_go() -> None:
    async def scene(it: Scene) -> None:
        await it.all_held()
        it.b.answer.set_result(None)
        assert await it.result is None
        assert await it.endings() == ["a", "c"]

    play(scene)


def test_a_peer_out_of_reach_keeps_nobody_from_the_result() -> None:
    async def scene(it: Scene) -> None:
        await it.all_held()
        it.c.obeys = False
        it.b.ends()
        result = await it.result
        assert result is not None
        ending = it.gathering.endings()
        assert (await ending.__anext__()).host == "a"
        it.c.ends(Verdict.CANCELLED, "late")
        assert (await ending.__anext__()).host == "c"

    play(scene)
