"""A cluster that stands while tests look at it, and somebody who knocks at its doors."""

from __future__ import annotations

import contextlib
import json
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from tests.lab.environments import GOOD
from tests.lab.hosts import HOME

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.integration.muster import Ended
    from tests.lab.hosts import Host, Started
    from tests.lab.lab import Lab

_INTRUDER: Final = Path(__file__).with_name("intruder.py")

#: What Ray's servers answer to those who are not let in: by gRPC, also where the method is another server's; by HTTP.
_REFUSALS: Final = ("UNAUTHENTICATED", "UNIMPLEMENTED", "401", "403")

#: Methods that change nothing, for those who are let in.
HARMLESS: Final = ("GetAllNodeInfo", "GetNodeStats", "GetCoreWorkerStats", "GetAllActorInfo")

#: The interpreter of every host that has Ray.
PYTHON: Final = f"{HOME}/{GOOD}/bin/python"

#: Seconds until a case is under way.
_START_TIMEOUT_S: Final = 120.0


def long_config(lab: Lab, names: tuple[str, ...] = ("h1", "h2"), **cluster: Any) -> str:
    """Return a config of cases that do not end by themselves, unless their head is gone for a while."""
    return lab.config(
        {name: {} for name in names},
        cluster=cluster,
        measure={"warmup": 1, "steps": 100_000},
        limits={"head_grace": "5s", "host_grace": "5s"},
        policy={"on_head_loss": "stop"},
    )


def until_measuring(lab: Lab, started: Started, names: tuple[str, ...] = ("h1", "h2")) -> None:
    """Return once the measuring process of a case is there on each of these hosts."""
    deadline = time.monotonic() + _START_TIMEOUT_S
    while not all(lab[name].find("workers.child") for name in names):
        assert started.popen.poll() is None, started.popen.communicate()
        assert time.monotonic() < deadline, "no case is under way"
        # Nothing tells the outside of a host of a new process there.
        time.sleep(0.1)


def stop_now(started: Started) -> Ended:
    """Press Ctrl-C twice, the second time once the first was heard, and return how the run ended."""
    assert started.popen.stderr is not None
    started.process.send_signal(signal.SIGINT)
    while "again to stop now" not in (line := started.popen.stderr.readline()):
        assert line, "it ended by the first Ctrl-C"
    return started.end(signal.SIGINT)


@dataclass(frozen=True, kw_only=True, slots=True)
class Door:
    """A port of a cluster that somebody listens on."""

    host: Host
    #: Where it is knocked at; one of loopback is for the host itself alone.
    address: str
    port: int

    @property
    def is_local(self) -> bool:
        return self.address.startswith("127.") or self.address == "::1"


@dataclass(frozen=True, kw_only=True, slots=True)
class Standing:
    """A cluster of the head and one host, in the midst of a case."""

    head: Host
    host: Host
    #: In the cluster's folder on the head, as the head sees it.
    folder: str
    doors: tuple[Door, ...]

    @property
    def token(self) -> str:
        return self.read("token")

    def read(self, name: str) -> str:
        return (self.head.outside / self.folder.lstrip("/") / name).read_text()


@contextlib.contextmanager
def standing(lab: Lab, **cluster: Any) -> Iterator[Standing]:
    """Let one stand on the head and ``h1`` while the context lasts; in its config are these keys of `cluster`."""
    folder = lab.write_config(long_config(lab, ("h1",), **cluster))
    lab.is_in_use = True
    try:
        with lab.start_muster("run", "lab.yaml", cwd=folder) as started:
            until_measuring(lab, started, ("h1",))
            (own,) = (path for path in (lab.head.outside / "tmp").iterdir() if (path / "token").exists())
            doors = tuple(door for host in (lab.head, lab["h1"]) for door in _doors(host))
            yield Standing(head=lab.head, host=lab["h1"], folder=f"/tmp/{own.name}", doors=doors)
            stop_now(started)
    finally:
        lab.is_in_use = False


def _doors(host: Host) -> Iterator[Door]:
    """Yield every port of a host that listens, but for sshd's."""
    found = host.run("ss", "--no-header", "--listening", "--tcp", "--numeric", root=True)
    for line in found.out.splitlines():
        address, _, port = line.split()[3].rpartition(":")
        if int(port) != host.options.port:
            bound = host.address if address in {"*", "0.0.0.0", "[::]"} else address.strip("[]")
            yield Door(host=host, address=bound.partition("%")[0], port=int(port))


#: By port of a host: how each method was answered.
Answers: TypeAlias = dict[tuple[str, int], dict[str, str]]


def knock(
    lab: Lab,
    doors: tuple[Door, ...],
    *,
    token: str | None = None,
    tls: dict[str, str] | None = None,
    only: tuple[str, ...] = (),
) -> Answers:
    """Knock from a host that is not of the cluster, and at local doors from inside."""
    answers: Answers = {}
    for (host, address), there in {(door.host.name, door.address): door for door in doors}.items():
        ports = [door.port for door in doors if (door.host.name, door.address) == (host, address)]
        asked = {"address": address, "ports": ports, "token": token, "tls": tls, "only": only}
        stand = there.host if there.is_local else lab["h4"]
        ended = stand.run(PYTHON, str(_INTRUDER), stdin=json.dumps(asked))
        assert ended.code == 0, ended.err
        answers |= {(host, int(port)): each for port, each in json.loads(ended.out).items()}
    return answers


def let_in(answers: Answers) -> dict[tuple[str, int], dict[str, str]]:
    """Return what was answered otherwise than by a refusal."""
    found = {door: {name: each for name, each in own.items() if each not in _REFUSALS} for door, own in answers.items()}
    return {door: own for door, own in found.items() if own}
