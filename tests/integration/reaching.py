"""A host over SSH in tests: connect, do something, and see that nothing is left."""

from __future__ import annotations

import asyncio
import socket
import subprocess
from typing import TYPE_CHECKING, Any, TypeVar

import psutil
import pytest

from orchestrator.reach.base import Destination, UnreachableError
from orchestrator.reach.ssh import SshReach, connect
from tests.integration.leaks import assert_no_more_than, held
from tests.integration.muster import survivors

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

T = TypeVar("T")

#: Seconds within which things happen that happen at once.
SOON_S = 60.0


def at(port: int | None, address: str = "127.0.0.1", **more: Any) -> Destination:
    return Destination(name="h1", address=address, port=port, **{"timeout_s": SOON_S, **more})


async def greeting(reach: SshReach) -> str:
    done = await reach.run(["/bin/sh", "-c", "echo hello"], timeout_s=SOON_S)
    return done.out.decode().strip()


def reached(destination: Destination, act: Callable[[SshReach], Coroutine[Any, Any, T]], *, servers: int = 0) -> T:
    """Return what ``act`` does with the host; nothing may be left of the connection afterwards.

    ``servers`` is how many connections servers within this process still hold then.
    """

    async def scene() -> T:
        try:
            reach = await connect(destination)
            try:
                return await asyncio.wait_for(act(reach), SOON_S)
            finally:
                await reach.close()
        finally:
            assert asyncio.all_tasks() == {asyncio.current_task()}

    before, children = held(), set(psutil.Process().children())
    try:
        return asyncio.run(scene())
    finally:
        assert_no_more_than(before._replace(descriptors=before.descriptors + servers))
        # The servers' processes are of this process too; they end with the connection.
        assert survivors(list(set(psutil.Process().children()) - children - servers_running())) == []


def servers_running() -> set[psutil.Process]:
    return {one for one in psutil.Process().children() if "sshd" in one.name()}


def says_hello(destination: Destination) -> bool:
    return reached(destination, greeting) == "hello"


def failure(destination: Destination, *, servers: int = 0) -> UnreachableError:
    with pytest.raises(UnreachableError) as caught:
        reached(destination, greeting, servers=servers)
    assert not caught.value.message.startswith("h1")
    return caught.value


def remedied(remedy: str | None, after: str) -> None:
    """Do what the last part of a remedy says, as somebody would who pastes it."""
    assert remedy is not None
    command = remedy.split(after, 1)[1]
    # `sh` expands `~` by HOME, as the person's shell does; ssh's own programs read it from the account.
    subprocess.run(["sh", "-c", command], check=True, capture_output=True, timeout=60)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])
