"""Somebody else's cluster: hosts are found among its nodes, and it is left as it was."""

from __future__ import annotations

import asyncio
import ipaddress
import shlex
import socket
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Final

from orchestrator.cluster.base import no_stage
from orchestrator.cluster.driver import Entrance
from orchestrator.cluster.joining import JoinedCluster
from orchestrator.cluster.matching import Matching, Sought, match
from orchestrator.cluster.trial import AUTO
from orchestrator.diagnosis import Finding, Level
from orchestrator.errors import ClusterError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestrator.cluster.base import Stage
    from orchestrator.cluster.driver import RayNode
    from orchestrator.config.schema import Config, HostConfig

_REMEDY: Final = (
    "in the config: give the host its node's name or IP address as `address`;"
    " or start Ray there with `--labels muster.host=NAME`"
)


def connect(config: Config, stage: Stage = no_stage) -> JoinedCluster:
    """Return the cluster at the config's address. Raises ClusterError where its token cannot be read."""
    token_file = None if config.cluster.token_file is None else Path(config.cluster.token_file).expanduser().absolute()

    async def find(nodes: Sequence[RayNode], own: str) -> Matching:
        sought = await asyncio.gather(*(_sought(host, config.limits.connect_timeout_s) for host in config.hosts))
        return match(sought, nodes, own=own)

    return JoinedCluster(
        [host.name for host in config.hosts],
        Entrance(address=config.cluster.address or AUTO, token_file=token_file),
        find,
        connect_timeout_s=config.limits.connect_timeout_s,
        join_timeout_s=config.limits.join_timeout_s,
        remedy=_REMEDY,
        findings=() if token_file is None else _checked(token_file, config.hosts[0].name),
        stage=stage,
    )


def _checked(token_file: Path, host: str) -> tuple[Finding, ...]:
    """Return what is wrong with the file, as far as it can be used, under the name of ``host``. Raises ClusterError."""
    try:
        with token_file.open("rb") as file:
            mode = stat.S_IMODE(token_file.stat().st_mode)
            is_empty = not file.read(1)
    except OSError as error:
        raise ClusterError(
            f"cluster.token_file {token_file} cannot be read: {error.strerror}",
            remedy="copy the token from the cluster's head, where it is in ~/.ray/auth_token",
        ) from error
    if is_empty:
        raise ClusterError(f"cluster.token_file {token_file} is empty")
    if not mode & (stat.S_IRWXG | stat.S_IRWXO):
        return ()
    return (
        Finding(
            host=host,
            check="token",
            level=Level.WARNING,
            text=f"{token_file} can be read by others (mode {mode:04o}): who has it can run anything on the cluster",
            remedy=f"on this machine: chmod 600 {shlex.quote(str(token_file))}",
        ),
    )


async def _sought(host: HostConfig, timeout_s: float) -> Sought:
    address = host.address or host.name
    return Sought(name=host.name, address=address, ips=await _resolved(address, timeout_s))


async def _resolved(address: str, timeout_s: float) -> tuple[str, ...]:
    """Return the IP addresses of a name; none where nobody knows it, for the cluster may."""
    try:
        return (str(ipaddress.ip_address(address)),)
    except ValueError:
        pass
    loop = asyncio.get_running_loop()
    try:
        found = await asyncio.wait_for(loop.getaddrinfo(address, None, type=socket.SOCK_STREAM), timeout_s)
    except (OSError, UnicodeError, asyncio.TimeoutError):
        return ()
    return tuple(dict.fromkeys(str(entry[4][0]) for entry in found))
