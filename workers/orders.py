"""What the head tells the keeper of a host, and what the keeper answers: one JSON line each, over one channel.

The keeper (:mod:`workers.keeper`) answers every order with one answer, in order. Two things may come unasked:
:class:`RayEnded`, and nothing at all once the channel is closed. Secrets travel inside orders, over the channel's
standard input alone, and no ``repr`` shows them. Standard library only.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, TypeAlias

from workers.protocol import HostReport  # noqa: TC001  # the codec reads it

#: Ports that one host's Ray takes, from the first of a block: the documented range is cut into blocks of this many.
PORTS_IN_BLOCK: Final = 100

#: Where in a block each of Ray's ports is; worker processes (agents and drivers) have those from the last one on.
GCS_PORT: Final = 0
NODE_MANAGER_PORT: Final = 1
OBJECT_MANAGER_PORT: Final = 2
RUNTIME_ENV_AGENT_PORT: Final = 3
DASHBOARD_AGENT_LISTEN_PORT: Final = 4
DASHBOARD_AGENT_GRPC_PORT: Final = 5
METRICS_PORT: Final = 6
FIRST_WORKER_PORT: Final = 10

#: Label of a Ray node that holds the host's name in the config.
HOST_LABEL: Final = "muster.host"

#: Files in the folder of a host's Ray, all of them for its user alone (mode 0600); the last three with TLS only.
TOKEN_FILE: Final = "token"
CA_FILE: Final = "ca.pem"
CERTIFICATE_FILE: Final = "certificate.pem"
KEY_FILE: Final = "key.pem"


# --- orders ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class Locate:
    """Say who you are, and by which address you would reach ``toward`` (a name or an IP address; empty for none)."""

    toward: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Examine:
    """Probe the host with the interpreter ``python`` (``~`` is the home), under the name that the config gives it."""

    host: str
    python: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Wheel:
    """A file of a wheelhouse."""

    #: Its name, as pip wants it: ``numpy-2.2.6-cp311-cp311-manylinux_2_17_x86_64.whl``.
    name: str
    #: Of its bytes, hexadecimal: what it is kept under.
    sha256: str
    size: int


@dataclass(frozen=True, kw_only=True, slots=True)
class FindEnvironment:
    """Say whether the environment ``key`` is there, and which of its wheels are not."""

    key: str
    wheels: tuple[Wheel, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class TakeWheel:
    """Keep a wheel: its ``size`` bytes follow this line."""

    wheel: Wheel


@dataclass(frozen=True, kw_only=True, slots=True)
class InstallEnvironment:
    """Make the environment ``key`` of these wheels, all of which are there, without any index."""

    key: str
    wheels: tuple[Wheel, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class TlsMaterial:
    """What one host needs to encrypt: PEM texts."""

    ca_certificate: str
    certificate: str
    key: str = field(repr=False)


@dataclass(frozen=True, kw_only=True, slots=True)
class StartRay:
    """Start Ray's daemons with the interpreter ``python``, as descendants of the keeper, in a folder of their own."""

    python: str
    #: ``IP:port`` of the cluster's control service; ``None`` to be the head.
    join: str | None
    node_ip: str
    labels: tuple[tuple[str, str], ...]
    #: First and last port of the documented range; the first free block of it is taken.
    first_port: int
    last_port: int
    gpus: int
    object_store_bytes: int
    #: Seconds until it must be up.
    timeout_s: float
    token: str = field(repr=False)
    tls: TlsMaterial | None = None
    #: Seconds that a host may be silent before Ray itself may give it up.
    silence_s: float = 60.0
    #: Seconds that Ray may go on there without the cluster's control service, should nobody end it.
    alone_s: float = 3600.0


@dataclass(frozen=True, kw_only=True, slots=True)
class StopRay:
    """End everything that ``StartRay`` started, and remove its folder."""


@dataclass(frozen=True, kw_only=True, slots=True)
class KeeperIdentity:
    """One keeper among all that there ever were on a host."""

    #: Of its guard, which lives until everything is ended and removed.
    pid: int
    #: When the guard started, in the kernel's ticks since boot.
    started: int
    #: The kernel's own word for the time since it was booted.
    boot_id: str


@dataclass(frozen=True, kw_only=True, slots=True)
class FindKeeper:
    """Say whether an earlier keeper of this host is still there, or what it has to clear up."""

    keeper: KeeperIdentity


@dataclass(frozen=True, kw_only=True, slots=True)
class ClearUp:
    """End the Ray that has this folder, should it still run although its keeper is gone, and remove the folder."""

    folder: str


Order: TypeAlias = (
    Locate | Examine | FindEnvironment | TakeWheel | InstallEnvironment | StartRay | StopRay | FindKeeper | ClearUp
)


# --- answers ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class Greeting:
    """The keeper's first word, before any order."""

    hostname: str
    #: The interpreter that the keeper runs under.
    python: str
    python_version: str
    user: str
    pid: int
    #: The processor's family as the kernel calls it: ``x86_64``.
    machine: str
    #: NVIDIA's driver is loaded (``/proc/driver/nvidia/version``), whatever Python knows of it.
    has_nvidia_driver: bool
    #: Who this keeper is; ``None`` where ``/proc`` does not tell.
    identity: KeeperIdentity | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Located:
    """Answers :class:`Locate`."""

    #: ``None`` where ``toward`` was empty or there is no route.
    node_ip: str | None
    #: Seconds since the epoch on the host's clock, as this answer was written.
    clock_s: float
    #: Why there is no address.
    reason: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Examined:
    """Answers :class:`Examine`."""

    report: HostReport


@dataclass(frozen=True, kw_only=True, slots=True)
class EnvironmentFound:
    """Answers :class:`FindEnvironment`."""

    #: Its interpreter; ``None`` where it is not there, or not whole.
    python: str | None
    #: SHA-256 of the wheels that are not there; empty where the environment is.
    missing: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class WheelTaken:
    """Answers :class:`TakeWheel`: the bytes had the right hash and are kept."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EnvironmentInstalled:
    """Answers :class:`InstallEnvironment`."""

    python: str
    seconds: float


@dataclass(frozen=True, kw_only=True, slots=True)
class RayStarted:
    """Answers :class:`StartRay`."""

    #: ``IP:port`` of the cluster's control service.
    address: str
    #: First port of the block that was free.
    first_port: int
    #: The folder of token, certificates, logs and sockets.
    folder: str
    #: The file (mode 0600) that holds the token, on this host.
    token_file: str


@dataclass(frozen=True, kw_only=True, slots=True)
class RayStopped:
    """Answers :class:`StopRay` and :class:`ClearUp`, also where nothing ran."""

    #: Processes that not even SIGKILL ended.
    survivors: tuple[int, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class KeeperFound:
    """Answers :class:`FindKeeper`."""

    is_there: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Failed:
    """Answers any order that could not be carried out."""

    reason: str
    #: What mends it, to be typed on that host; ``None`` where nobody knows.
    remedy: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class RayEnded:
    """Comes unasked: Ray's daemon on this host has ended by itself."""

    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Pulse:
    """Comes unasked, again and again: only who says something hears that nobody is at the other end any more."""


Answer: TypeAlias = (
    Greeting
    | Located
    | Examined
    | EnvironmentFound
    | WheelTaken
    | EnvironmentInstalled
    | RayStarted
    | RayStopped
    | KeeperFound
    | Failed
    | RayEnded
    | Pulse
)
