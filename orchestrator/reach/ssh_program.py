"""A program on a host over SSH: a session channel of asyncssh."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from typing import Final, cast

import asyncssh

from orchestrator.reach.program import Program, happens
from orchestrator.reach.quoting import PID_LINE, login_line

#: Seconds for the other end to agree that a channel is closed; it does so once nothing holds the program's output.
_HANG_UP_S: Final = 2.0

#: Seconds for a signal to be sent; on a connection that broke it never is.
_SIGNAL_TIMEOUT_S: Final = 5.0


class SshProgram(Program, asyncssh.SSHClientSession[bytes]):
    """A program at the other end of an SSH connection."""

    def __init__(self) -> None:
        super().__init__()
        self._pid: int | None = None
        self._channel: asyncssh.SSHClientChannel[bytes] | None = None

    @property
    def is_gone(self) -> bool:
        """True when its channel is closed."""
        return self._is_silent.is_set()

    # --- asyncssh tells ---

    def connection_made(self, chan: asyncssh.SSHClientChannel[bytes]) -> None:
        """Take the channel that was opened."""
        self._channel = chan

    def data_received(self, data: bytes, datatype: int | None) -> None:
        """Take what the program said on standard output or standard error."""
        if datatype is None:
            self._on_output(data)
        else:
            self._on_complaint(data)
            self._find_pid()

    def eof_received(self) -> bool:
        """The program closed its output; its input stays open."""
        return True

    def exit_status_received(self, status: int) -> None:
        """Take the exit code."""
        self._on_exit(status)

    def exit_signal_received(self, signal: str, core_dumped: bool, msg: str, lang: str) -> None:
        """Take the signal that ended it, as a shell would."""
        self._on_exit(128 + _number(signal))

    def connection_lost(self, exc: Exception | None) -> None:
        """The channel is closed."""
        self._on_silence(None if exc is None else str(exc) or type(exc).__name__)

    # --- asyncssh is told ---

    @property
    def _opened(self) -> asyncssh.SSHClientChannel[bytes]:
        assert self._channel is not None  # made before anything else
        return self._channel

    def _send(self, data: bytes) -> None:
        self._opened.write(data)

    def _send_end(self) -> None:
        self._opened.write_eof()

    def _pause(self) -> None:
        self._opened.pause_reading()

    def _resume(self) -> None:
        self._opened.resume_reading()

    async def _terminate(self) -> None:
        await self._kill("TERM")

    async def _hang_up(self) -> None:
        if not self._has_exited.is_set():
            await self._kill("KILL")
        self._opened.close()
        if not await happens(self._opened.wait_closed(), _HANG_UP_S):
            self._opened.abort()

    # --- signals ---

    def _find_pid(self) -> None:
        if self._pid is None and (found := PID_LINE.search(self._err)):
            self._pid = int(found[1])
            del self._err[found.start() : found.end()]

    async def _kill(self, name: str) -> None:
        """Send a signal by a command of its own: OpenSSH's server sends none for root, nor before version 7.9.

        The process is ours as long as its end was not told.
        """
        if self._pid is None:
            return
        connection = cast("asyncssh.SSHClientConnection", self._opened.get_connection())
        command = login_line(["/bin/sh", "-c", f"kill -{name} {self._pid}"])
        with contextlib.suppress(asyncssh.Error, OSError, asyncio.TimeoutError):
            await asyncio.wait_for(connection.run(command, encoding=None), _SIGNAL_TIMEOUT_S)


def _number(name: str) -> int:
    try:
        return int(signal.Signals[f"SIG{name}"])
    except KeyError:  # real-time signals have no names of their own
        return 0
