"""Clusters that `muster cluster up` keeps between runs: where they are written down, and how a run gets into one.

Each has a folder below ``$XDG_STATE_HOME/muster/clusters`` (else ``~/.local/state``), named by what makes the cluster,
with the record of the process that holds it (:mod:`orchestrator.cluster.holder`). A record whose process is gone is
removed by whoever finds it.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from orchestrator.cluster.base import no_stage
from orchestrator.cluster.driver import Entrance, TlsFiles
from orchestrator.cluster.joining import JoinedCluster
from orchestrator.cluster.matching import Matching
from orchestrator.config.schema import ClusterMode
from orchestrator.errors import ClusterError
from workers import codec
from workers.descendants import Process, look, still_there

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from orchestrator.cluster.base import ClusterHandle, Stage
    from orchestrator.cluster.driver import RayNode
    from orchestrator.config.schema import Config

#: Of a host's connection, what makes a difference to the cluster that stands on it.
_CONNECTION: Final = frozenset({"user", "port", "python", "install"})

_NEVER_THERE: Final = "it was not there when the cluster was brought up"
_GONE: Final = "its node has left the cluster that is kept"


@dataclass(frozen=True, kw_only=True, slots=True)
class KeptCluster:
    """A cluster that is up, and how other processes of this machine get into it."""

    address: str
    node_ip: str | None
    token_file: str | None
    #: Paths of the authority's certificate, our certificate and its key; ``None`` for a cluster in the clear.
    tls: tuple[str, str, str] | None
    #: Ray's node id by host name.
    nodes: tuple[tuple[str, str], ...]
    #: Why a host of the config is not in it, by its name.
    lost: tuple[tuple[str, str], ...] = ()

    @classmethod
    def of(cls, handle: ClusterHandle, entrance: Entrance) -> KeptCluster:
        """Return what is written down of a cluster."""
        tls = entrance.tls
        return cls(
            address=entrance.address,
            node_ip=entrance.node_ip,
            token_file=None if entrance.token_file is None else str(entrance.token_file),
            tls=None if tls is None else (str(tls.ca_certificate), str(tls.certificate), str(tls.key)),
            nodes=tuple(handle.nodes.items()),
            lost=tuple(handle.lost.items()),
        )

    @property
    def entrance(self) -> Entrance:
        """How a driver gets in."""
        return Entrance(
            address=self.address,
            node_ip=self.node_ip,
            token_file=None if self.token_file is None else Path(self.token_file),
            tls=None
            if self.tls is None
            else TlsFiles(ca_certificate=Path(self.tls[0]), certificate=Path(self.tls[1]), key=Path(self.tls[2])),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Record:
    """What is written down of a cluster that is kept, or that is on its way up."""

    pid: int
    #: When the process started, in the kernel's ticks since boot: its id alone may be somebody else's by now.
    started: int
    #: ISO 8601, UTC.
    since: str
    #: Of the config that it was brought up for.
    config_name: str
    config_path: str
    log: str
    #: ``None`` until it is up.
    cluster: KeptCluster | None = field(default=None)

    @property
    def holder(self) -> Process | None:
        """The process that holds it; ``None`` where that one is gone, whoever has its id now."""
        found = look(self.pid)
        return found if found is not None and found.started == self.started and still_there(found) else None


# --- where it is written down ----------------------------------------------------------------------------------


def key_of(config: Config) -> str:
    """Return what makes a config's cluster, as 16 hexadecimal digits; devices and workloads are no part of it."""
    hosts = sorted(
        (
            host.name,
            host.address or host.name,
            sorted(host.connection(config.defaults).model_dump(mode="json", include=set(_CONNECTION)).items()),
        )
        for host in config.hosts
    )
    parts = {"cluster": config.cluster.model_dump(mode="json"), "hosts": hosts}
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


class Place:
    """The folder of one cluster, which this user alone can look into."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = folder / "log"
        self.order = folder / "order.json"
        self._record = folder / "state.json"
        self._lock = folder / "lock"

    @classmethod
    def of(cls, config: Config) -> Place:
        """Return where a config's cluster is written down; the folder need not be there."""
        return cls(_root() / key_of(config))

    def make(self) -> None:
        """Make the folder. Raises ClusterError."""
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise ClusterError(
                f"{self.folder} cannot be made: {error.strerror}",
                remedy="name another place: export XDG_STATE_HOME=...",
            ) from error

    def read(self) -> Record | None:
        """Return the record; ``None`` where there is none, or one of another version of muster."""
        try:
            return codec.from_json(Record, self._record.read_bytes())
        except (OSError, codec.CodecError):
            return None

    def write(self, record: Record) -> None:
        """Write the record down, whole or not at all."""
        write_private(self._record, codec.to_json(record))

    @contextlib.contextmanager
    def held(self) -> Iterator[bool]:
        """Hold the folder against every other process; gives whether that succeeded."""
        try:
            descriptor = os.open(self._lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except FileNotFoundError:
            yield False
            return
        try:
            yield self._is_taken(descriptor)
        finally:
            os.close(descriptor)

    def _is_taken(self, descriptor: int) -> bool:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        # Whoever had it before may have removed the folder: then this is the lock of nothing.
        return os.fstat(descriptor).st_nlink > 0

    def live(self) -> Record | None:
        """Return the record of a holder that lives; remove that of one that has died without a word."""
        record = self.read()
        if record is None or record.holder is not None:
            return record
        with self.held() as is_ours:
            if is_ours:
                self._bury(record)
        return None

    def remove(self) -> None:
        """Remove the folder and all in it."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def forget(self) -> None:
        """Remove the record; the log stays."""
        self._record.unlink(missing_ok=True)
        self.order.unlink(missing_ok=True)

    def _bury(self, record: Record) -> None:
        """Remove what a dead holder left on this machine; Ray's processes end with it."""
        token = None if record.cluster is None else record.cluster.token_file
        if token is not None and _is_ours(Path(token).parent):
            shutil.rmtree(Path(token).parent, ignore_errors=True)
        self.forget()


def _is_ours(folder: Path) -> bool:
    """Return whether muster made a folder for a cluster of this user."""
    with contextlib.suppress(OSError):
        return folder.name.startswith("muster-") and folder.lstat().st_uid == os.getuid()
    return False


def write_private(path: Path, text: str) -> None:
    """Write a file that this user alone can read, whole or not at all."""
    beside = path.with_name(f"{path.name}.{os.getpid()}")
    beside.unlink(missing_ok=True)
    with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "w") as file:
        file.write(text)
    beside.replace(path)


def _root() -> Path:
    named = os.environ.get("XDG_STATE_HOME", "")
    # Relative ones are to be ignored: XDG Base Directory Specification 0.8.
    state = Path(named) if Path(named).is_absolute() else Path.home() / ".local" / "state"
    return state / "muster" / "clusters"


# --- for a run -------------------------------------------------------------------------------------------------


def find(config: Config, stage: Stage = no_stage) -> JoinedCluster | None:
    """Return the config's cluster where one is kept; it goes on being kept. ``None`` where there is none."""
    if config.cluster.mode is ClusterMode.ADDRESS:
        return None
    record = Place.of(config).live()
    if record is None or record.cluster is None:
        return None
    kept, hosts = record.cluster, [host.name for host in config.hosts]

    async def among(nodes: Sequence[RayNode], own: str) -> Matching:
        return recognise(kept, hosts, nodes)

    return JoinedCluster(
        hosts,
        kept.entrance,
        among,
        connect_timeout_s=config.limits.connect_timeout_s,
        join_timeout_s=config.limits.join_timeout_s,
        remedy=f"muster cluster down {record.config_path}, and up again",
        stage=stage,
    )


def recognise(kept: KeptCluster, hosts: Sequence[str], nodes: Sequence[RayNode]) -> Matching:
    """Return where hosts are by what was written down, as far as their nodes still live. Pure."""
    alive, known, lost = {node.id: node for node in nodes}, dict(kept.nodes), dict(kept.lost)
    found = {host: alive[known[host]] for host in hosts if known.get(host) in alive}
    return Matching(
        nodes=found,
        problems={
            host: _GONE if host in known else lost.get(host, _NEVER_THERE) for host in hosts if host not in found
        },
    )
