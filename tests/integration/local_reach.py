"""A way to this very machine: the smallest :class:`orchestrator.reach.base.Reach`, with an environment of its own."""

from __future__ import annotations

import asyncio
import contextlib
import os
from typing import TYPE_CHECKING

from orchestrator.reach.base import ChannelClosedError, Completed, Destination

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

#: Never reached unless something is broken.
DEADLINE_S = 30.0


class LocalChannel:
    def __init__(self, process: asyncio.subprocess.Process, complaints: Path) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self.process, self._stdin, self._stdout = process, process.stdin, process.stdout
        self._complaints = complaints

    async def write(self, data: bytes) -> None:
        try:
            self._stdin.write(data)
            await self._stdin.drain()
        except ConnectionError as error:
            raise ChannelClosedError("the program has ended") from error

    async def read_line(self) -> bytes:
        line = await self._stdout.readline()
        if not line.endswith(b"\n"):
            raise ChannelClosedError("the program has ended")
        return line[:-1]

    @property
    def complaint(self) -> str:
        return self._complaints.read_text()

    async def close(self) -> None:
        self._stdin.close()
        with contextlib.suppress(ConnectionError):
            await self._stdin.wait_closed()
        await asyncio.wait_for(self.process.wait(), DEADLINE_S)


class LocalReach:
    """Runs programs with ``home`` as their home."""

    destination = Destination(name="here", address="localhost")
    local_ip = None

    def __init__(self, home: Path, **variables: str) -> None:
        self._home = home
        self._variables = {"HOME": str(home), "PATH": os.environ["PATH"], **variables}
        self.opened: list[LocalChannel] = []

    async def run(self, argv: Sequence[str], *, stdin: bytes = b"", timeout_s: float) -> Completed:
        process = await self._start(argv, asyncio.subprocess.PIPE)
        out, err = await asyncio.wait_for(process.communicate(stdin), timeout_s)
        assert process.returncode is not None
        return Completed(exit_code=process.returncode, out=out, err=err)

    async def open(self, argv: Sequence[str]) -> LocalChannel:
        complaints = self._home / f"complaints-{len(self.opened)}"
        with complaints.open("wb") as file:
            channel = LocalChannel(await self._start(argv, file), complaints)
        self.opened.append(channel)
        return channel

    async def close(self) -> None:
        for channel in self.opened:
            await channel.close()

    async def _start(self, argv: Sequence[str], stderr: object) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *argv,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=stderr,  # type: ignore[arg-type]  # a pipe or a file
            env=self._variables,
            cwd=self._home,
            limit=2**24,
        )
