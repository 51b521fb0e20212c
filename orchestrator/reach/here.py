"""The very machine that this runs on: the head, and a host that goes by ``localhost`` alone."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Final, cast

from orchestrator.errors import ClusterError
from orchestrator.reach.program import Program, happens, run_to_end
from orchestrator.reach.quoting import posix_line

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestrator.reach.base import Channel, Completed, Destination

#: Seconds for a process to be gone after SIGKILL.
_KILL_WAIT_S: Final = 5.0

_STDOUT: Final = 1


async def connect(destination: Destination) -> HereReach:
    """Return the way to this machine; it cannot fail."""
    return HereReach(destination)


class HereReach:
    """The machine that this runs on."""

    def __init__(self, destination: Destination) -> None:
        self.destination = destination
        self._programs: set[LocalProgram] = set()

    @property
    def local_ip(self) -> str | None:
        """``None``: nothing was connected."""
        return None

    @property
    def is_insecure(self) -> bool:
        """False: nobody is on the way."""
        return False

    async def run(self, argv: Sequence[str], *, stdin: bytes = b"", timeout_s: float) -> Completed:
        """Run a program to its end. Raises ClusterError, also past ``timeout_s``."""
        return await run_to_end(await self._start(argv), argv, stdin=stdin, timeout_s=timeout_s)

    async def open(self, argv: Sequence[str]) -> Channel:
        """Start a program and return the channel to it. Raises ClusterError."""
        return await self._start(argv)

    async def close(self) -> None:
        """End what was opened and still runs; safe to call twice."""
        await asyncio.gather(*(program.close() for program in self._programs))
        self._programs.clear()

    async def _start(self, argv: Sequence[str]) -> LocalProgram:
        # As over SSH: by the shell that replaces itself, in the home, and in a session that Ctrl-C does not reach.
        command = ("/bin/sh", "-c", posix_line(argv))
        home = Path.home()
        try:
            _, program = await asyncio.get_running_loop().subprocess_exec(
                LocalProgram, *command, start_new_session=True, cwd=home if home.is_dir() else "/"
            )
        except OSError as error:
            raise ClusterError(f"{argv[0]} could not be started: {error}") from error
        self._programs = {one for one in self._programs if not one.is_gone} | {program}
        return program


class LocalProgram(Program, asyncio.SubprocessProtocol):
    """A process of this machine."""

    def __init__(self) -> None:
        super().__init__()
        self._transport: asyncio.SubprocessTransport | None = None

    @property
    def is_gone(self) -> bool:
        """True when it has ended and all its pipes are closed."""
        return self._is_silent.is_set()

    # --- asyncio tells ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the process that was started."""
        self._transport = cast("asyncio.SubprocessTransport", transport)

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        """Take what it said on standard output or standard error."""
        if fd == _STDOUT:
            self._on_output(data)
        else:
            self._on_complaint(data)

    def pipe_connection_lost(self, fd: int, exc: Exception | None) -> None:
        """A pipe is closed; if it is standard input, nothing is sent any more, and nobody has to wait for room."""
        self.resume_writing()

    def process_exited(self) -> None:
        """Take its end; its pipes may still hold something."""
        code = self._process.get_returncode()
        assert code is not None  # it has ended
        self._on_exit(code if code >= 0 else 128 - code)

    def connection_lost(self, exc: Exception | None) -> None:
        """The process has ended, and everything that it said was taken."""
        self._on_silence()

    # --- asyncio is told ---

    @property
    def _process(self) -> asyncio.SubprocessTransport:
        assert self._transport is not None  # made before anything else
        return self._transport

    def _send(self, data: bytes) -> None:
        pipe = self._stdin
        if pipe.is_closing():
            raise BrokenPipeError
        pipe.write(data)

    def _send_end(self) -> None:
        # Once everything is written.
        self._stdin.close()

    def _pause(self) -> None:
        self._stdout.pause_reading()

    def _resume(self) -> None:
        self._stdout.resume_reading()

    async def _terminate(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGTERM)

    async def _hang_up(self) -> None:
        # Sends SIGKILL where it is needed.
        self._process.close()
        await happens(self._is_silent.wait(), _KILL_WAIT_S)

    @property
    def _stdin(self) -> asyncio.WriteTransport:
        return cast("asyncio.WriteTransport", self._process.get_pipe_transport(0))

    @property
    def _stdout(self) -> asyncio.ReadTransport:
        return cast("asyncio.ReadTransport", self._process.get_pipe_transport(_STDOUT))
