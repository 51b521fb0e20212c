"""The head's end of a keeper: orders go out, answers come back, one task reads."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import sys
from typing import TYPE_CHECKING, Any, Final, TypeVar

from orchestrator.errors import ClusterError, last_line
from orchestrator.reach.base import ChannelClosedError
from orchestrator.reach.code import CodeSought, first_line, packed_code
from orchestrator.reach.interpreter import REMEDY, NoInterpreterError, command, find_interpreter
from workers.codec import CodecError, event_from_json, event_to_json
from workers.orders import (
    Answer,
    EnvironmentFound,
    EnvironmentInstalled,
    Examined,
    Failed,
    Greeting,
    KeeperFound,
    Located,
    Pulse,
    RayEnded,
    RayStarted,
    RayStopped,
    TakeWheel,
    WheelTaken,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine
    from pathlib import Path

    from orchestrator.reach.base import Channel, Reach
    from workers.orders import Order, Wheel

T = TypeVar("T")

#: Seconds from the start of the interpreter to the keeper's first word; a home on the network makes it slow.
GREETING_TIMEOUT_S: Final = 60.0

#: Lines that a person's shell may print at login before our first one.
_NOISE_LINES: Final = 200

_CHUNK_BYTES: Final = 2**20

_ANSWERS: Final[tuple[type[Any], ...]] = (
    Located,
    Examined,
    EnvironmentFound,
    WheelTaken,
    EnvironmentInstalled,
    RayStarted,
    RayStopped,
    KeeperFound,
    Failed,
    RayEnded,
    Pulse,
)


class OrderFailedError(ClusterError):
    """The keeper could not carry out an order, and says why."""


class OrderTimeoutError(ClusterError):
    """The keeper did not answer in time; the order may still be carried out."""


class KeeperLostError(ClusterError):
    """The keeper has ended, the way to it broke, or what it says makes no sense."""


class Keeper:
    """A keeper that is up. Made by :func:`open_keeper`; closed once."""

    def __init__(self, channel: Channel, greeting: Greeting, *, was_code_sent: bool) -> None:
        self.greeting = greeting
        #: The host did not have our code before.
        self.was_code_sent = was_code_sent
        #: Done when Ray on the host has ended by itself, or will for the keeper is lost; never fails. Another one once
        #: Ray has been started again.
        self.ended: asyncio.Future[RayEnded] = asyncio.get_running_loop().create_future()
        self._channel = channel
        self._lost: KeeperLostError | None = None
        self._asking = asyncio.Lock()
        # Answers come in the order of the orders. Who did not wait for his leaves a place that is done.
        self._awaited: collections.deque[asyncio.Future[Answer]] = collections.deque()
        self._reader = asyncio.create_task(self._read())

    async def ask(self, order: Order, expected: type[T], *, timeout_s: float) -> T:
        """Give an order and return its answer.

        Raises :class:`OrderFailedError`, :class:`OrderTimeoutError` and :class:`KeeperLostError`.
        """
        line = _line(order)

        async def send() -> None:
            await self._channel.write(line)

        return _expected(await self._exchange(send(), type(order).__name__, timeout_s), expected)

    async def send_wheel(self, wheel: Wheel, path: Path, *, timeout_s: float) -> WheelTaken:
        """Bring the host the file ``path``, as fast as it takes it. Raises as :meth:`ask`, and ClusterError for it."""
        size = (await asyncio.to_thread(path.stat)).st_size if path.exists() else None
        if size != wheel.size:
            raise ClusterError(f"{path} is not the file of {wheel.size} bytes that it was", remedy=f"rm -f {path}")

        async def send() -> None:
            try:
                await self._channel.write(_line(TakeWheel(wheel=wheel)))
                async for chunk in _chunks(path, wheel.size):
                    await self._channel.write(chunk)
            except BaseException:
                # The keeper waits for the rest of these bytes: nothing else can be said to it any more.
                self._lose(f"{wheel.name} was sent in part")
                raise

        return _expected(await self._exchange(send(), f"TakeWheel of {wheel.name}", timeout_s), WheelTaken)

    @property
    def is_lost(self) -> bool:
        """True when nothing can be asked of it any more; it may live on."""
        return self._lost is not None

    async def close(self) -> None:
        """Let the keeper go; it ends what still runs on the host. Safe to call twice."""
        self._lose("it was let go")
        await self._channel.close()
        self._reader.cancel()
        await asyncio.gather(self._reader, return_exceptions=True)

    # --- inside ------------------------------------------------------------------------------------------------

    async def _exchange(self, sending: Coroutine[Any, Any, None], what: str, timeout_s: float) -> Answer:
        async def exchange() -> Answer:
            async with self._asking:
                self._check()
                answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
                self._awaited.append(answer)
                await sending
                return await answer

        try:
            return await asyncio.wait_for(exchange(), timeout_s)
        except asyncio.TimeoutError as error:
            raise OrderTimeoutError(f"there was no answer to {what} within {timeout_s:.0f} s") from error
        except ChannelClosedError as error:
            self._lose(error.message)
            raise self._lost or error from error
        finally:
            sending.close()

    def _check(self) -> None:
        if self._lost is not None:
            raise KeeperLostError(self._lost.message, remedy=self._lost.remedy)

    async def _read(self) -> None:
        try:
            while True:
                self._take(event_from_json(_ANSWERS, await self._channel.read_line()))
        except ChannelClosedError:
            self._lose(self._channel.complaint.strip() or "the connection was cut")
        except CodecError as error:
            self._lose(f"it said what is no answer: {error}")

    def _take(self, answer: Answer) -> None:
        if isinstance(answer, Pulse):
            return
        if isinstance(answer, RayEnded):
            if not self.ended.done():
                self.ended.set_result(answer)
            return
        if isinstance(answer, RayStarted) and self.ended.done():
            self.ended = asyncio.get_running_loop().create_future()
        if self._awaited:
            awaited = self._awaited.popleft()
            if not awaited.done():
                awaited.set_result(answer)

    def _lose(self, why: str) -> None:
        if self._lost is not None:
            return
        self._lost = KeeperLostError(f"our keeper on that host is lost: {why}")
        for awaited in self._awaited:
            if not awaited.done():
                awaited.set_exception(self._lost)
        self._awaited.clear()
        if not self.ended.done():
            self.ended.set_result(RayEnded(reason=self._lost.message))


async def open_keeper(reach: Reach, *, python: str | None, grace_s: float, patience_s: float | None = None) -> Keeper:
    """Start a keeper on a host, bringing it our code where it is not there yet.

    It runs under ``python``, or else under one of the head's minor version. Without the head it goes on for ``grace_s``
    seconds, and then until no agent is left there, but no longer than ``patience_s``. Raises ClusterError.
    """
    chosen = python or await find_interpreter(reach)
    channel = await reach.open(command(chosen))
    try:
        return await asyncio.wait_for(_greeted(channel, grace_s, patience_s or grace_s), GREETING_TIMEOUT_S)
    except ChannelClosedError as error:
        await channel.close()
        said = last_line(channel.complaint, error.message)
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        raise NoInterpreterError(
            f"{chosen} did not run our code: {said}", remedy=REMEDY.format(version=version)
        ) from error
    except asyncio.TimeoutError as error:
        await channel.close()
        raise OrderTimeoutError(f"{chosen} did not run our code within {GREETING_TIMEOUT_S:.0f} s") from error
    except BaseException:
        await channel.close()
        raise


async def _greeted(channel: Channel, grace_s: float, patience_s: float) -> Keeper:
    code = packed_code()
    await channel.write(first_line(code.key, grace_s, patience_s))
    sought = await _first_of(channel, CodeSought)
    if not sought.is_there:
        await channel.write(code.message())
    greeting = await _first_of(channel, Greeting)
    return Keeper(channel, greeting, was_code_sent=not sought.is_there)


async def _first_of(channel: Channel, expected: type[T]) -> T:
    """Return the first line that is an ``expected``, over what a person's shell prints before it."""
    for _ in range(_NOISE_LINES):
        line = await channel.read_line()
        with contextlib.suppress(CodecError):
            answer: Any = event_from_json((expected, Failed), line)
            return _expected(answer, expected)
    raise KeeperLostError("what that host prints at login hides what our code says", remedy="look at its ~/.bashrc")


def _expected(answer: object, expected: type[T]) -> T:
    if isinstance(answer, Failed):
        raise OrderFailedError(answer.reason, remedy=answer.remedy)
    if not isinstance(answer, expected):
        raise KeeperLostError(f"the keeper answered {type(answer).__name__} where {expected.__name__} was due")
    return answer


def _line(order: Order) -> bytes:
    return (event_to_json(order) + "\n").encode()


async def _chunks(path: Path, size: int) -> AsyncIterator[bytes]:
    """Yield the ``size`` bytes of a file, read in threads: some hundred are sent at once. Raises ClusterError."""
    missing = size
    with await asyncio.to_thread(path.open, "rb") as file:
        while missing:
            chunk = await asyncio.to_thread(file.read, min(missing, _CHUNK_BYTES))
            if not chunk:
                raise ClusterError(f"{path} got shorter while it was sent")
            missing -= len(chunk)
            yield chunk
