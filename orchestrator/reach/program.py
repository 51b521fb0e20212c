"""A program while it runs on a host: what every way to a host does alike, from the first byte to the exit code."""

from __future__ import annotations

import abc
import asyncio
import contextlib
from typing import TYPE_CHECKING, Final

from orchestrator.errors import ClusterError
from orchestrator.reach.base import ChannelClosedError, Completed

if TYPE_CHECKING:
    from collections.abc import Awaitable, Sequence

#: Output that nobody waits for is taken until there are this many bytes of it; then the program has to wait.
HIGH_WATER_BYTES: Final = 2**20

#: What is kept of the end of a program's standard error, and how many lines of that are a complaint.
STDERR_TAIL_BYTES: Final = 64 * 2**10
COMPLAINT_LINES: Final = 20

#: Seconds that a program has to end after its standard input, and after SIGTERM.
END_GRACE_S: Final = 5.0
TERM_GRACE_S: Final = 10.0

#: Seconds of the latter for a program that has had its time.
_LATE_GRACE_S: Final = 2.0

#: Bytes that are handed to a transport at once.
_PIECE_BYTES: Final = 256 * 2**10


class Program(abc.ABC):
    """A program that runs on a host, and its standard input and output; one task may read, and one write.

    The transport tells it what happens through the methods ``_on_...``; it tells the transport what to do through those
    that are abstract here.
    """

    def __init__(self) -> None:
        self._out = bytearray()
        #: So much of the output is known to hold no end of a line.
        self._scanned = 0
        self._err = bytearray()
        self._exit_code: int | None = None
        #: Why the way to the program broke, if it did.
        self._breakage: str | None = None
        self._has_exited = asyncio.Event()
        #: Set when nothing more can come.
        self._is_silent = asyncio.Event()
        self._has_room = asyncio.Event()
        self._has_room.set()
        self._reader: asyncio.Future[None] | None = None
        self._is_paused = False
        self._is_closed = False

    # --- what one does with it ---

    async def write(self, data: bytes) -> None:
        """Send ``data``; returns when the transport has room for more. Raises ChannelClosedError."""
        await self._has_room.wait()
        for start in range(0, len(data), _PIECE_BYTES):
            if self._is_closed or self._is_silent.is_set():
                raise self._closed()
            try:
                self._send(data[start : start + _PIECE_BYTES])
            except OSError as error:
                raise self._closed() from error
            await self._has_room.wait()

    async def read_line(self) -> bytes:
        """Return the next line without its end, of any length; one that was not ended is none.

        Raises ChannelClosedError at the end.
        """
        while (end := self._out.find(b"\n", self._scanned)) < 0:
            self._scanned = len(self._out)
            await self._more()
        line = bytes(self._out[:end])
        del self._out[: end + 1]
        self._scanned = 0
        return line

    async def finish(self, stdin: bytes) -> Completed:
        """Give the program all of its input and wait for its end. Raises ChannelClosedError."""
        feeding = asyncio.ensure_future(self._feed(stdin))
        try:
            with contextlib.suppress(ChannelClosedError):
                while True:
                    await self._more()
        finally:
            feeding.cancel()
            await asyncio.gather(feeding, return_exceptions=True)
        if self._exit_code is None:
            raise self._closed()
        return Completed(exit_code=self._exit_code, out=bytes(self._out), err=bytes(self._err))

    @property
    def complaint(self) -> str:
        """The last lines of the program's standard error."""
        return "\n".join(self._err.decode(errors="replace").splitlines()[-COMPLAINT_LINES:])

    async def close(self, *, grace_s: float = END_GRACE_S, term_grace_s: float = TERM_GRACE_S) -> None:
        """Close its standard input and wait a moment for it to end; then ask it to, and give the channel up.

        What it still says is dropped. Safe to call twice.
        """
        if self._is_closed:
            return
        self._is_closed = True
        self._has_room.set()
        self._out.clear()
        self._flow()
        try:
            with contextlib.suppress(OSError):
                self._send_end()
            if not await happens(self._has_exited.wait(), grace_s):
                await self._terminate()
                await happens(self._has_exited.wait(), term_grace_s)
        finally:
            await self._hang_up()

    # --- what the transport tells ---

    def _on_output(self, data: bytes) -> None:
        if self._is_closed:
            return
        self._out += data
        self._wake()
        if len(self._out) > HIGH_WATER_BYTES and self._reader is None and not self._is_paused:
            self._is_paused = True
            self._pause()

    def _on_complaint(self, data: bytes) -> None:
        self._err += data
        del self._err[:-STDERR_TAIL_BYTES]

    def _on_exit(self, code: int) -> None:
        """Take a shell's idea of an exit code: 128 and the number of a signal."""
        self._exit_code = code
        self._has_exited.set()

    def _on_silence(self, breakage: str | None = None) -> None:
        """Nothing more will come: the program has ended, or the way to it broke."""
        self._breakage = breakage
        self._is_silent.set()
        self._has_exited.set()
        self._has_room.set()
        self._wake()

    def pause_writing(self) -> None:
        """Called by the transport when it has enough to send for now."""
        self._has_room.clear()

    def resume_writing(self) -> None:
        """Called by the transport when it has room again."""
        self._has_room.set()

    # --- what the transport is told ---

    @abc.abstractmethod
    def _send(self, data: bytes) -> None:
        """Write to standard input. Raises OSError."""

    @abc.abstractmethod
    def _send_end(self) -> None:
        """Close standard input. Raises OSError."""

    @abc.abstractmethod
    def _pause(self) -> None:
        """Take no more output."""

    @abc.abstractmethod
    def _resume(self) -> None:
        """Take output again."""

    @abc.abstractmethod
    async def _terminate(self) -> None:
        """Send SIGTERM."""

    @abc.abstractmethod
    async def _hang_up(self) -> None:
        """Send SIGKILL if it still runs, and give everything back."""

    # --- within ---

    async def _more(self) -> None:
        """Wait for more output. Raises ChannelClosedError where there is no more."""
        if self._is_silent.is_set() or self._is_closed:
            raise self._closed()
        self._reader = asyncio.get_running_loop().create_future()
        try:
            self._flow()  # may bring something at once
            await self._reader
        finally:
            self._reader = None

    def _flow(self) -> None:
        if self._is_paused:
            self._is_paused = False
            self._resume()

    def _wake(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)

    async def _feed(self, stdin: bytes) -> None:
        # A program need not read what it is given.
        with contextlib.suppress(ChannelClosedError, OSError):
            await self.write(stdin)
            self._send_end()

    def _closed(self) -> ChannelClosedError:
        if self._breakage is not None:
            return ChannelClosedError(f"the connection broke: {self._breakage}")
        if self._exit_code is None:
            return ChannelClosedError("the channel to the program is closed")
        last = self.complaint.rpartition("\n")[2]
        ended = f"the program ended with exit code {self._exit_code}"
        return ChannelClosedError(f"{ended}: {last}" if last else ended)


async def run_to_end(program: Program, argv: Sequence[str], *, stdin: bytes, timeout_s: float) -> Completed:
    """Return what ``program``, started as ``argv``, came to; it is ended if it takes longer than ``timeout_s``."""
    try:
        completed = await asyncio.wait_for(program.finish(stdin), timeout_s)
    except asyncio.TimeoutError:
        await program.close(grace_s=0, term_grace_s=_LATE_GRACE_S)
        raise ClusterError(f"{argv[0]} did not end within {timeout_s:g} s") from None
    except BaseException:
        await program.close(grace_s=0, term_grace_s=_LATE_GRACE_S)
        raise
    await program.close()
    return completed


async def happens(what: Awaitable[object], within_s: float) -> bool:
    """Return whether ``what`` comes to its end in time; it is cancelled if not."""
    try:
        await asyncio.wait_for(what, within_s)
    except asyncio.TimeoutError:
        return False
    return True
