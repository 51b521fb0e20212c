from __future__ import annotations

import asyncio

import pytest

from orchestrator.reach.base import UnreachableError
from orchestrator.reach.ssh_jumps import Hop, Shared, last_hop


@pytest.mark.parametrize(
    ("way", "expected"),
    [
        ("bastion", Hop(host="bastion")),
        ("me@bastion:2222", Hop(host="bastion", user="me", port=2222)),
        ("ssh://me@bastion:2222/", Hop(host="bastion", user="me", port=2222)),
        ("ssh://bastion", Hop(host="bastion")),
        ("[fd00::1]:2222", Hop(host="fd00::1", port=2222)),
        ("me@[fd00::1]", Hop(host="fd00::1", user="me")),
        ("fd00::1", Hop(host="fd00::1")),
        ("one, me@two:22,three", Hop(host="three", before="one, me@two:22")),
    ],
)
def test_the_last_host_of_a_way_is_read_as_ssh_reads_it(way: str, expected: Hop) -> None:
    assert last_hop(way) == expected


@pytest.mark.parametrize("way", ["", "one,", "me@", "host:port", "[fd00::1"])
def test_a_way_without_a_host_is_an_error(way: str) -> None:
    with pytest.raises(ValueError, match="names no host"):
        last_hop(way)


class _Thing:
    def __init__(self) -> None:
        self.is_broken = False
        self.closed = 0

    async def close(self) -> None:
        self.closed += 1


def test_what_is_shared_is_made_once_and_closed_by_the_last_one() -> None:
    made: list[_Thing] = []

    async def make() -> _Thing:
        made.append(_Thing())
        return made[-1]

    async def scene() -> None:
        shared: Shared[_Thing] = Shared()
        async with shared.lease("a", make, needed_by=None, timeout_s=60) as first:
            async with shared.lease("a", make, needed_by=None, timeout_s=60) as second:
                assert first is second
            assert not first.closed
            first.is_broken = True
            async with shared.lease("a", make, needed_by=None, timeout_s=60) as third:
                assert third is not first
        assert [thing.closed for thing in made] == [1, 1]

    asyncio.run(scene())


def test_one_who_gives_up_waiting_takes_nothing_from_the_others() -> None:
    async def scene() -> None:
        shared: Shared[_Thing] = Shared()
        ready = asyncio.Event()

        async def make() -> _Thing:
            await ready.wait()
            return _Thing()

        async def use() -> _Thing:
            async with shared.lease("a", make, needed_by=None, timeout_s=60) as thing:
                assert not thing.closed
                return thing

        impatient, patient = asyncio.ensure_future(use()), asyncio.ensure_future(use())
        await asyncio.sleep(0)
        impatient.cancel()
        ready.set()
        thing = await patient
        assert thing.closed == 1
        assert impatient.cancelled()
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(scene())


def test_ways_that_need_one_another_are_an_error_and_no_wait_for_ever() -> None:
    async def scene() -> list[object]:
        shared: Shared[_Thing] = Shared()

        async def through(key: str, other: str) -> _Thing:
            async def make_other() -> _Thing:
                return await through(other, key)

            async with shared.lease(other, make_other, needed_by=key, timeout_s=60):
                return _Thing()

        async def use(key: str, other: str) -> _Thing:
            async with shared.lease(key, lambda: through(key, other), needed_by=None, timeout_s=60) as thing:
                return thing

        return list(await asyncio.gather(use("a", "b"), use("b", "a"), return_exceptions=True))

    outcomes = asyncio.run(scene())
    assert any(isinstance(outcome, UnreachableError) and "circle" in outcome.message for outcome in outcomes)


def test_the_wait_for_what_is_shared_has_a_deadline() -> None:
    async def never() -> _Thing:
        await asyncio.Event().wait()
        return _Thing()

    async def scene() -> None:
        shared: Shared[_Thing] = Shared()
        with pytest.raises(UnreachableError, match="not reached within"):
            async with shared.lease("a", never, needed_by=None, timeout_s=0.01):
                pass
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(scene())
