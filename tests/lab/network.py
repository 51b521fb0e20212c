"""The lab's network: one switch that is connected to nothing else."""

from __future__ import annotations

import contextlib
import hashlib
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tests.lab.namespaces import SWITCH_KINDS, Namespaces

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

#: Everybody in the lab; there is no route out of it.
NETWORK: Final = "10.77.0.0/16"
HEAD_ADDRESS: Final = "10.77.0.1"

_CABLE: Final = Path(__file__).with_name("cable.py")

#: Seconds for a change of the network.
_TIMEOUT_S: Final = 20.0


def address_of(number: int) -> str:
    """Return the address of the host with this number, counted from 1."""
    return f"10.77.{number // 250 + 1}.{(number - 1) % 250 + 1}"


def management_address(number: int) -> str:
    """Return where a host's sshd is that only its jump reaches."""
    return f"10.78.{number // 250 + 1}.{(number - 1) % 250 + 1}"


def _card_of(name: str) -> str:
    """Return the hardware address of a host's network card, which is the same after each boot: others remember it."""
    return ":".join(["02", *(f"{byte:02x}" for byte in hashlib.sha256(name.encode()).digest()[:5])])


class Switch:
    """A bridge in a network namespace of its own; the cables have the hosts' names."""

    def __init__(self) -> None:
        self._namespaces = Namespaces(["sh", "-c", "echo up && exec cat"], SWITCH_KINDS)

    def power_on(self) -> None:
        assert self._namespaces.hear() == "up"
        self._do(["link add lab type bridge", "link set lab up"])

    def plug_in(self, cables: Iterable[tuple[str, int]]) -> None:
        """Lay a cable for each name to the network namespace of a process, where it is ``eth0``."""
        lines = []
        for name, pid in cables:
            lines += [
                f"link add name {name} type veth peer name eth0 address {_card_of(name)} netns {pid}",
                f"link set dev {name} master lab up",
            ]
        self._do(lines)

    def cut(self, name: str) -> None:
        """Pull a host's cable."""
        self._do([f"link set dev {name} down"])

    def heal(self, name: str) -> None:
        """Put it back."""
        self._do([f"link set dev {name} up"])

    @contextlib.contextmanager
    def disturbed(self, name: str, *, delay_ms: float = 0.0, loss: float = 0.0) -> Iterator[None]:
        """Put a bad cable between a host and the switch: late by so much each way, and so large a share is lost."""
        inner, outer = f"{name}-in", f"{name}-out"
        self._do(
            [
                f"link add name {inner} type veth peer name {outer}",
                f"link set dev {name} nomaster",
                f"link set dev {outer} master lab up",
                f"link set dev {inner} up",
            ]
        )
        argv = [sys.executable, "-I", str(_CABLE), name, inner, f"--delay-ms={delay_ms}", f"--loss={loss}"]
        cable = subprocess.Popen(
            self._namespaces.entering(argv), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        try:
            assert cable.stdout is not None
            assert cable.stdout.readline() == "up\n"
            yield
        finally:
            cable.communicate("", timeout=_TIMEOUT_S)
            self._do([f"link del dev {inner}", f"link set dev {name} master lab"])

    def close(self) -> None:
        self._namespaces.close()

    def _do(self, lines: list[str]) -> None:
        subprocess.run(
            self._namespaces.entering(["ip", "-batch", "-"]),
            input="\n".join(lines),
            text=True,
            check=True,
            timeout=_TIMEOUT_S,
        )
