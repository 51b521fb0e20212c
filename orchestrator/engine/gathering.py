"""An attempt that holds several devices: each has an agent of its own, and they begin together.

Devices are taken one after the other, in an order that every head sees alike, so that two heads which want the same
ones never wait for each other in a circle. Whoever is held waits; once all are, each is told where the others listen,
and their children start. The first device times the steps, the others take part for as long as it does.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

from workers.protocol import AttemptGranted, AttemptHeld, AttemptWaiting, Result, Verdict

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

    from workers.protocol import AgentEvent, AttemptRequest, Device

#: Seconds that the first device has to end by itself once another one's part has ended: the other may have ended
#: because it did.
AFTER_A_PEER_S: Final = 3.0

_OVER: Final = "the device that times the case has ended its part"


@dataclass(kw_only=True, eq=False)
class Member:
    """One device of the attempt, and how its agent is spoken to."""

    device: Device
    #: What devices are taken in the order of, the same for every head.
    place: tuple[object, ...]
    request: AttemptRequest
    #: Runs the attempt; ``None`` where the agent is lost, which is told elsewhere. Never raises.
    call: Callable[[AttemptRequest, Callable[[AgentEvent], None]], Awaitable[Result | None]]
    meet: Callable[[Sequence[str]], Awaitable[None]]
    cancel: Callable[[Verdict, str], Awaitable[None]]
    answer: asyncio.Future[Result | None] | None = None
    address: str | None = None
    held: asyncio.Event = field(default_factory=asyncio.Event)
    #: We had it ended: what it says then tells nothing.
    is_ended: bool = False


class Gathering:
    """The attempt as a whole: ``members`` by rank, and ``tell``, which hears what the head should know of it."""

    def __init__(self, members: Sequence[Member], tell: Callable[[AgentEvent], None]) -> None:
        self._members = tuple(members)
        self._first = self._members[0]
        self._tell = tell
        #: Why it was ended from outside, or by one of its devices, before the first one could say anything.
        self._stop: tuple[Verdict, str] | None = None
        self._has_stopped = asyncio.Event()
        #: For whose device it waits, as was told last; the first one tells of the end of its own wait itself.
        self._waiting_for: Member | None = None
        #: What is being said to devices.
        self._saying: set[asyncio.Future[None]] = set()

    async def result(self) -> Result | None:
        """Return what the attempt gave; ``None`` where the first device's agent is lost."""
        if await self._hold_all():
            self._introduce()
            await self._wait_for_first()
        return await self._outcome()

    def stop(self, verdict: Verdict, reason: str) -> None:
        """End the attempt: its result has this verdict and reason, unless the first device was done."""
        if self._stop is None:
            self._stop = (verdict, reason)
        self._has_stopped.set()
        for each in self._members:
            self._end(each, verdict, reason)

    async def endings(self) -> AsyncIterator[Device]:
        """End what the other devices still do, and give each as it has ended its part. Call it after the result."""
        ending = {asyncio.ensure_future(self._ended(peer)) for peer in self._members[1:]}
        for each in asyncio.as_completed(ending):
            yield await each

    # --- all of them -------------------------------------------------------------------------------------------

    async def _hold_all(self) -> bool:
        """Take one device after the other; return False where one of them could not be had."""
        for member in sorted(self._members, key=lambda each: each.place):
            if self._stop is not None:
                return False
            member.answer = asyncio.ensure_future(
                member.call(member.request, lambda event, member=member: self._hear(member, event))  # type: ignore[misc]
            )
            await _first_of(member.answer, member.held.wait(), self._has_stopped.wait())
            if not member.held.is_set():
                self._blame(member)
                return False
        return True

    def _hear(self, member: Member, event: AgentEvent) -> None:
        if isinstance(event, AttemptHeld):
            member.address = event.address
            member.held.set()
        elif member is self._first:
            self._waiting_for = member if isinstance(event, AttemptWaiting) else self._waiting_for
            self._waiting_for = None if isinstance(event, AttemptGranted) else self._waiting_for
            self._tell(event)
        elif isinstance(event, AttemptWaiting) and not member.held.is_set():
            self._waiting_for = member
            self._tell(replace(event, reason=f"{member.device.id}: {event.reason}"))

    def _introduce(self) -> None:
        """Tell every device where the others listen, and whoever heard of a wait for another one that it is over."""
        request = self._first.request
        if self._waiting_for is not None and self._waiting_for is not self._first:
            self._tell(AttemptGranted(case_key=request.case.key, attempt=request.attempt))
        for each in self._members:
            self._say(each.meet([other.address or "" for other in self._members]))

    async def _wait_for_first(self) -> None:
        """Return when the first device has ended its part; have it ended where another one has, and it does not."""
        answers = [each.answer for each in self._members if each.answer is not None]
        await asyncio.wait(answers, return_when=asyncio.FIRST_COMPLETED)
        first = self._first.answer
        if first is None or first.done():
            return
        await asyncio.wait({first}, timeout=AFTER_A_PEER_S)
        if not first.done():
            self._blame(next(each for each in self._members if each.answer is not None and each.answer.done()))

    def _blame(self, member: Member) -> None:
        """End the attempt because of what one of its devices came to, unless somebody has ended it already."""
        found = member.answer.result() if member.answer is not None and member.answer.done() else None
        if self._stop is None and member is not self._first:
            verdict = Verdict.HOST_DOWN if found is None else found.verdict
            reason = "its agent is gone" if found is None else found.reason
            self.stop(verdict, f"{member.device.id}: {reason}")
        elif self._stop is None:
            self.stop(Verdict.CANCELLED, _OVER)

    async def _outcome(self) -> Result | None:
        """Return the first device's result, with the reason of another one's where that explains it."""
        if self._first.answer is None:
            verdict, reason = self._stop or (Verdict.CANCELLED, "it was not begun")
            request = self._first.request
            return Result(case_key=request.case.key, attempt=request.attempt, verdict=verdict, reason=reason)
        found = await self._first.answer
        if found is None or found.verdict is not Verdict.CRASHED:
            return found
        # The first device's process ends as well when another one does, and knows only that somebody has gone.
        peers = [each.answer for each in self._members[1:] if each.answer is not None]
        if peers:
            await asyncio.wait(peers, timeout=AFTER_A_PEER_S)
        culprit = next((each for each in self._members[1:] if _explains(each)), None)
        if culprit is None or culprit.answer is None or (cause := culprit.answer.result()) is None:
            return found
        return replace(found, verdict=cause.verdict, reason=f"{culprit.device.id}: {cause.reason}")

    # --- one of them -------------------------------------------------------------------------------------------

    def _end(self, member: Member, verdict: Verdict, reason: str) -> None:
        if member.answer is not None and not member.answer.done():
            member.is_ended = True
            self._say(member.cancel(verdict, reason))

    def _say(self, saying: Awaitable[None]) -> None:
        """Tell a device something, and wait for nothing: its host may be out of reach."""
        said = asyncio.ensure_future(saying)
        self._saying.add(said)
        said.add_done_callback(self._saying.discard)

    async def _ended(self, member: Member) -> Device:
        self._end(member, Verdict.CANCELLED, _OVER)
        if member.answer is not None:
            await member.answer
        return member.device


def _explains(member: Member) -> bool:
    """Return whether a device's end is why the others ended: by a signal, or by a reason of its own."""
    if member.is_ended or member.answer is None or not member.answer.done():
        return False
    found = member.answer.result()
    return found is not None and (found.verdict is not Verdict.CRASHED or found.ending.signal is not None)


async def _first_of(*awaitables: Awaitable[object]) -> None:
    """Return when one of these has come; the others are waited for no more, unless somebody else holds them."""
    tasks = [asyncio.ensure_future(each) for each in awaitables]
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in tasks[1:]:
        task.cancel()
