"""One cluster coming up: a token, certificates, the head first, then every host at once."""

from __future__ import annotations

import asyncio
import hashlib
import re
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Final

from orchestrator.cluster.driver import LOOPBACK, OBJECT_STORE_BYTES, Entrance, TlsFiles, process_token
from orchestrator.errors import ClusterError
from workers.orders import CA_FILE, CERTIFICATE_FILE, HOST_LABEL, KEY_FILE, StartRay

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from orchestrator.cluster.base import Stage
    from orchestrator.cluster.certificates import Authority
    from orchestrator.cluster.session import HostSession
    from orchestrator.config.schema import ClusterConfig, LimitsConfig
    from workers.orders import RayStarted, TlsMaterial

#: Label of a Ray node that counts the GPUs that it has in this cluster.
GPUS_LABEL: Final = "muster.gpus"

#: Seconds that agents have to end beyond their own deadlines: the child's SIGTERM and SIGKILL, a slow disk.
_ALONE_MARGIN_S: Final = 60.0

#: What Ray takes as the value of a label.
_LABEL: Final = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?", re.ASCII)


def label_of(host: str) -> str:
    """Return the value of a host's label: its name, or where Ray does not take that one a digest of it."""
    return host if _LABEL.fullmatch(host) else f"muster-{hashlib.sha256(host.encode()).hexdigest()[:16]}"


def longest_alone_s(limits: LimitsConfig) -> float:
    """Return the seconds that a host's agents may need without the head: to notice, to measure, to write it down."""
    measuring_s = limits.start_timeout_s + limits.case_timeout_s + limits.collect_timeout_s
    return max(limits.head_grace_s, limits.host_grace_s) + measuring_s + _ALONE_MARGIN_S


class BringUp:
    """What the hosts of one cluster have in common while it comes up."""

    def __init__(self, cluster: ClusterConfig, limits: LimitsConfig, stage: Stage) -> None:
        self._cluster = cluster
        self._limits = limits
        self._stage = stage
        self._token = process_token()
        self._authority = _authority() if cluster.tls else None
        self._head: RayStarted | None = None
        self._ip = LOOPBACK

    async def start_head(self, head: HostSession, sessions: Sequence[HostSession], *, python: str) -> Entrance:
        """Start Ray on this machine and return how its drivers get in. Raises ClusterError."""
        self._stage("starting Ray", 0, len(sessions) + 1)
        if not await head.reach():
            raise ClusterError(f"this machine cannot be the head: {head.findings[-1].text}")
        self._ip = await self._find_ip([session for session in sessions if not session.is_here])
        tls = self._certificate("head", self._ip)
        started = await head.start_ray(self._order(None, self._ip, head.name, python=python, gpus=0, tls=tls))
        self._head = started
        folder = Path(started.folder)
        files = TlsFiles(ca_certificate=folder / CA_FILE, certificate=folder / CERTIFICATE_FILE, key=folder / KEY_FILE)
        return Entrance(
            address=started.address,
            node_ip=self._ip,
            token_file=Path(started.token_file),
            tls=None if tls is None else files,
        )

    async def start_hosts(self, sessions: Sequence[HostSession], gpus: Mapping[str, int]) -> dict[str, str]:
        """Start Ray on every host over SSH at once; return why it could not be, by host. ``gpus`` counts a host's."""
        others = [session for session in sessions if not session.is_here]
        lost: dict[str, str] = {}
        starting = [asyncio.create_task(self._join(session, gpus[session.name], lost)) for session in others]
        for done, task in enumerate(asyncio.as_completed(starting), start=1):
            await task
            self._stage("starting Ray", done + 1, len(others) + 1)
        return lost

    async def start_host(self, session: HostSession, gpus: int) -> None:
        """Start Ray on one host, which joins the head's. Raises ClusterError."""
        located = await session.locate(self._ip)
        if located.node_ip is None or self._head is None or session.python is None:
            raise ClusterError(f"it has no way to the head at {self._ip}: {located.reason}")
        tls = self._certificate(session.name, located.node_ip)
        await session.start_ray(
            self._order(self._head.address, located.node_ip, session.name, python=session.python, gpus=gpus, tls=tls)
        )

    async def _join(self, session: HostSession, gpus: int, lost: dict[str, str]) -> None:
        try:
            await self.start_host(session, gpus)
        except ClusterError as error:
            lost[session.name] = error.message if error.remedy is None else f"{error.message}: {error.remedy}"

    def _order(
        self, join: str | None, node_ip: str, host: str, *, python: str, gpus: int, tls: TlsMaterial | None
    ) -> StartRay:
        first_port, last_port = self._cluster.ports
        return StartRay(
            python=python,
            join=join,
            node_ip=node_ip,
            labels=((HOST_LABEL, label_of(host)), (GPUS_LABEL, str(gpus))),
            first_port=first_port,
            last_port=last_port,
            gpus=gpus,
            object_store_bytes=OBJECT_STORE_BYTES,
            timeout_s=self._limits.join_timeout_s,
            token=self._token,
            tls=tls,
            silence_s=self._limits.host_grace_s,
            alone_s=longest_alone_s(self._limits),
        )

    def _certificate(self, host: str, ip: str) -> TlsMaterial | None:
        return None if self._authority is None else self._authority.issue(host, (ip,))

    async def _find_ip(self, others: Sequence[HostSession]) -> str:
        """Return the address under which the hosts reach this machine. Raises ClusterError."""
        named = self._cluster.head_address
        if named is not None:
            return await _resolved(named)
        if not others:
            return LOOPBACK
        seen = next((session.local_ip for session in others if session.local_ip is not None), None)
        if seen is None:
            raise ClusterError(
                "no host was reached without a jump, so nobody can tell under which address they reach this machine",
                remedy="say it in the config: `cluster: {mode: ssh, head_address: ...}`",
            )
        return seen


def _authority() -> Authority:
    # Loads OpenSSL's bindings, so only where there is something to encrypt.
    from orchestrator.cluster.certificates import Authority

    return Authority()


async def _resolved(name: str) -> str:
    """Return the first IP address of a name."""
    try:
        found = await asyncio.get_running_loop().getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except OSError as error:
        raise ClusterError(
            f"cluster.head_address {name} does not resolve: {error.strerror}",
            remedy="name this machine as the hosts know it, or give its IP address",
        ) from error
    return str(found[0][4][0])
