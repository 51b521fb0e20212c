"""One host of the lab: what is odd about it, how a program runs there, and what it holds."""

from __future__ import annotations

import contextlib
import enum
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import psutil

from tests.integration.muster import Ended
from tests.lab.leftovers import SETTLE_TIMEOUT_S, Leftovers, Watch, command_line
from tests.lab.namespaces import HOST_KINDS, ROOT_USER, Namespaces, User

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

INIT: Final = Path(__file__).with_name("init.py")

#: The ordinary user of every host. The number belongs to nobody else; it is seen from outside.
UID: Final = 7710
USER: Final = "bench"
HOME: Final = "/home/bench"

#: Seconds for a program that is run to its end.
RUN_TIMEOUT_S: Final = 120.0


class KnownKey(enum.Enum):
    """What the head's ``known_hosts`` says of a host."""

    RIGHT = "right"
    MISSING = "missing"
    CHANGED = "changed"


@dataclass(frozen=True, kw_only=True, slots=True)
class HostOptions:
    """What is odd about a host; nothing, as a rule."""

    name: str
    port: int = 22
    #: Seconds from the connection to sshd's first word.
    banner_delay_s: float = 0.0
    known_key: KnownKey = KnownKey.RIGHT
    #: The lab's key is in its ``authorized_keys``.
    lets_in: bool = True
    #: The host through which alone its sshd is reached; Ray's ports are open to all.
    behind: str | None = None
    shell: str = "/bin/bash"
    #: Switched off: nothing has its address.
    is_down: bool = False
    #: The head is reached by nobody.
    has_sshd: bool = True


#: One host of every kind that a lab has to live with, each named after what is odd about it.
ODD: Final = (
    HostOptions(name="port", port=2222),
    HostOptions(name="slow", banner_delay_s=8.0),
    HostOptions(name="behind", behind="h1"),
    HostOptions(name="dash", shell="/bin/dash"),
    HostOptions(name="unknown", known_key=KnownKey.MISSING),
    HostOptions(name="changed", known_key=KnownKey.CHANGED),
    HostOptions(name="refused", lets_in=False),
    HostOptions(name="down", is_down=True),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Started:
    """A program that runs on a host."""

    #: Stands outside; it ends as the program does, and its streams are the program's.
    popen: subprocess.Popen[str]
    #: The program itself, as this machine counts: what a signal is sent to.
    process: psutil.Process

    def __enter__(self) -> Started:
        return self

    def __exit__(self, *_: object) -> None:
        """Kill it, if it still runs."""
        with contextlib.suppress(psutil.NoSuchProcess):
            self.process.kill()
        self.popen.wait(RUN_TIMEOUT_S)
        for stream in (self.popen.stdin, self.popen.stdout, self.popen.stderr):
            if stream is not None:
                stream.close()

    def end(self, number: int, timeout_s: float = RUN_TIMEOUT_S) -> Ended:
        """Send it a signal and return how it ended. Raises psutil.NoSuchProcess where it has ended before."""
        self.process.send_signal(number)
        out, err = self.popen.communicate(timeout=timeout_s)
        return Ended(code=self.popen.returncode, out=out, err=err)


class Host:
    """A host that is up, or one that is down from the start."""

    def __init__(self, options: HostOptions, *, folder: Path, address: str, sshd_address: str) -> None:
        self.options = options
        self.name = options.name
        #: Of its network card; everybody in the lab reaches it, but see ``sshd_address``.
        self.address = address
        #: Where its sshd listens.
        self.sshd_address = sshd_address
        self.folder = folder
        self.user = User(name=USER, uid=UID, home=HOME, shell=options.shell)
        self._namespaces: Namespaces | None = None
        self.watch: Watch | None = None

    # --- from outside ---

    @property
    def is_up(self) -> bool:
        return self._namespaces is not None

    @property
    def namespaces(self) -> Namespaces:
        if self._namespaces is None:
            raise RuntimeError(f"host {self.name} is down")
        return self._namespaces

    @property
    def home(self) -> Path:
        """Its user's home, as this machine sees it."""
        return self.folder / "home"

    @property
    def outside(self) -> Path:
        """Its root folder, as this machine sees it."""
        return Path(f"/proc/{self.namespaces.pid}/root")

    @property
    def log(self) -> str:
        """What its sshd has said so far."""
        return (self.outside / "var/log/sshd.log").read_text()

    def processes(self) -> tuple[psutil.Process, ...]:
        """Every process of the host."""
        return () if self.watch is None else self.watch.processes()

    def find(self, text: str) -> tuple[psutil.Process, ...]:
        """Every process of the host with this in its command line."""
        return tuple(each for each in self.processes() if text in command_line(each))

    def leftovers(self) -> Leftovers:
        """What is on the host now that was not there when it came up; caches of ours aside."""
        return Leftovers() if self.watch is None else self.watch.leftovers()

    def settled(self, timeout_s: float = SETTLE_TIMEOUT_S) -> Leftovers:
        """The same, once what is on its way out has ended."""
        return Leftovers() if self.watch is None else self.watch.settled(timeout_s)

    # --- life ---

    def build(self, *, etc: Path, network: Sequence[str], shown: Sequence[Path]) -> None:
        """Begin to bring it up; :meth:`await_built` comes next, for many hosts build side by side."""
        self._wipe()
        for name in ("root", "etc"):
            (self.folder / name).mkdir()
        self._namespaces = Namespaces([sys.executable, "-I", "-S", str(INIT)], HOST_KINDS)
        own = {HOME: str(self.home), "/etc": str(self.folder / "etc")}
        shutil.copytree(etc, self.folder / "etc", symlinks=True, dirs_exist_ok=True)
        (self.folder / "etc/hostname").write_text(f"{self.name}\n")
        _write_passwd(self.folder / "etc", self.user)
        if self.options.has_sshd:
            _write_sshd_config(self.folder, self.options.port, self.sshd_address)
        sshd = {"address": self.sshd_address, "port": self.options.port, "delay_s": self.options.banner_delay_s}
        description = {
            "name": self.name,
            "root": str(self.folder / "root"),
            "links": {path.name: str(path.readlink()) for path in Path("/").iterdir() if path.is_symlink()},
            "shown": [str(path) for path in shown],
            "own": own,
            "network": ["link set lo up", *network, "link set eth0 up"],
            "sshd": sshd if self.options.has_sshd else None,
        }
        self._namespaces.tell(json.dumps(description))

    def _wipe(self) -> None:
        """Remove what it had when it was up before, but for its home and its key."""
        key = self.folder / "etc/ssh/host_key"
        if key.exists():
            shutil.move(key, self.folder / "host_key")
        for name in ("root", "etc"):
            shutil.rmtree(self.folder / name, ignore_errors=True)

    def await_built(self) -> None:
        self._expect("built")

    def plug_in(self) -> None:
        """Say that its network card is there; :meth:`await_up` comes next."""
        self.namespaces.tell("go")

    def await_up(self) -> None:
        self._expect("up")
        self.watch = Watch(self.namespaces.pid, self.home)

    def _expect(self, word: str) -> None:
        said = self.namespaces.hear()
        assert said == word, f"host {self.name} said {said!r}"

    def close(self) -> None:
        """Switch it off, as a power cut does; safe to call twice."""
        if self._namespaces is not None:
            self._namespaces.close()
            self._namespaces = None
            self.watch = None

    # --- inside ---

    def start(
        self,
        *argv: str,
        user: User | None = None,
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
    ) -> Started:
        """Start a program there with pipes for its streams."""
        popen = subprocess.Popen(
            self.namespaces.entering(argv, user=user or self.user, cwd=cwd, env=env),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        return Started(popen=popen, process=_only_child(popen))

    def run(
        self,
        *argv: str,
        root: bool = False,
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
        stdin: str = "",
        timeout_s: float = RUN_TIMEOUT_S,
    ) -> Ended:
        """Run a program there to its end; as its ordinary user, unless ``root``."""
        popen = subprocess.Popen(
            self.namespaces.entering(argv, user=ROOT_USER if root else self.user, cwd=cwd, env=env),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        try:
            out, err = popen.communicate(stdin, timeout=timeout_s)
        except BaseException:
            _kill(popen)
            raise
        return Ended(code=popen.returncode, out=out, err=err)


def _only_child(popen: subprocess.Popen[str]) -> psutil.Process:
    """Return the program behind `nsenter`, once that has forked."""
    outer = psutil.Process(popen.pid)
    while popen.poll() is None:
        children = outer.children()
        if children:
            return children[0]
    return outer


def _kill(popen: subprocess.Popen[str]) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):
        for process in psutil.Process(popen.pid).children(recursive=True):
            process.kill()
    popen.kill()
    popen.communicate()


# --- its files -------------------------------------------------------------------------------------------------


def _write_passwd(etc: Path, user: User) -> None:
    users = (
        "root:x:0:0:root:/root:/bin/bash",
        "nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin",
        "sshd:x:7700:65534::/run/sshd:/usr/sbin/nologin",
        f"{user.name}:x:{user.uid}:{user.uid}::{user.home}:{user.shell}",
    )
    groups = ("root:x:0:", "nogroup:x:65534:", "tty:x:5:", f"{user.name}:x:{user.uid}:")
    (etc / "passwd").write_text("\n".join(users) + "\n")
    (etc / "group").write_text("\n".join(groups) + "\n")
    # No password opens any account; a "!" would lock out the key as well.
    (etc / "shadow").write_text("".join(f"{line.split(':')[0]}:*:20000::::::\n" for line in users))
    (etc / "shadow").chmod(0o600)


def _write_sshd_config(folder: Path, port: int, address: str) -> None:
    ssh = folder / "etc/ssh"
    ssh.mkdir()
    shutil.move(folder / "host_key", ssh / "host_key")
    lines = [
        f"Port {port}",
        f"ListenAddress {address}",
        "HostKey /etc/ssh/host_key",
        "PidFile none",
        "UsePAM no",
        "PasswordAuthentication no",
        "KbdInteractiveAuthentication no",
        "PermitRootLogin no",
        f"AllowUsers {USER}",
        "MaxStartups 100",
        "Subsystem sftp internal-sftp",
        *_patience(),
    ]
    (ssh / "sshd_config").write_text("\n".join(lines) + "\n")


def _patience() -> Iterator[str]:
    """Yield what keeps newer servers from shutting out a head that was refused a few times by the tests' wish."""
    version = subprocess.run(["sshd", "-o", "PerSourcePenalties=no", "-G", "-f", os.devnull], capture_output=True)
    if version.returncode == 0:
        yield "PerSourcePenalties no"
