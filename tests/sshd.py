"""A real OpenSSH server on the loopback interface: keys of its own, a home of its own, a process a connection."""

from __future__ import annotations

import contextlib
import getpass
import os
import shutil
import socket
import subprocess
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

#: Debian's and Fedora's place for it, which ordinary users have not on their path.
SSHD: Final = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")

#: Seconds for a server process to end once its connection is closed.
END_TIMEOUT_S: Final = 20.0

_CONFIG: Final = """\
HostKey {key}
AuthorizedKeysFile {authorized}
PidFile none
UsePAM no
StrictModes no
PasswordAuthentication no
KbdInteractiveAuthentication no
LoginGraceTime 60
SetEnv HOME={home}
{extra}
"""


def need_sshd() -> None:
    """Skip where there is no OpenSSH server; where tests are run for everybody, that is a failure."""
    if SSHD is None:
        assert not os.environ.get("CI"), "CI has to have sshd (Debian: apt-get install openssh-server)"
        pytest.skip("needs sshd (Debian: apt-get install openssh-server)")
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # sshd's own folder, which its service makes


def make_key(path: Path, *options: str, kind: str = "ed25519") -> str:
    """Make a key pair and return the public key, as it stands in ``known_hosts`` and ``authorized_keys``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    passphrase = () if "-N" in options else ("-N", "")
    keygen("-t", kind, *passphrase, *options, "-f", str(path))
    return " ".join(path.with_name(path.name + ".pub").read_text().split()[:2])


def keygen(*arguments: str) -> str:
    """Run ``ssh-keygen`` and return what it says."""
    done = subprocess.run(["ssh-keygen", "-q", *arguments], check=True, capture_output=True, text=True, timeout=60)
    return done.stdout


class SshServer:
    """Takes connections on a free port, and gives each to an ``sshd -i``; ``held`` makes it answer only when let."""

    def __init__(self, folder: Path, authorized: Sequence[str], *, extra: str = "", key_kind: str = "ed25519") -> None:
        folder.mkdir(parents=True)
        self.user = getpass.getuser()
        self.home = folder / "home"
        self.home.mkdir()
        self.host_key = make_key(folder / "host_key", kind=key_kind)
        self._config = folder / "sshd_config"
        self._authorized = folder / "authorized_keys"
        self._authorized.write_text("".join(f"{key}\n" for key in authorized))
        self._config.write_text(
            _CONFIG.format(key=folder / "host_key", authorized=self._authorized, home=self.home, extra=extra)
        )
        #: While this is clear, a connection is taken and gets no answer.
        self.may_answer = threading.Event()
        self.may_answer.set()
        #: How many connections were taken.
        self.taken = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._processes: list[subprocess.Popen[bytes]] = []
        self._thread = threading.Thread(target=self._serve, name="sshd", daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        """The port on 127.0.0.1."""
        return int(self._listener.getsockname()[1])

    @property
    def known_hosts_line(self) -> str:
        """What makes it known."""
        return f"[127.0.0.1]:{self.port} {self.host_key}\n"

    def cut(self) -> None:
        """End every connection, as a host does whose SSH server is killed."""
        for process in self._processes:
            process.kill()
            process.wait(END_TIMEOUT_S)
        self._processes.clear()

    def close(self) -> None:
        """Take no more connections, and end those there are."""
        self.may_answer.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join(END_TIMEOUT_S)
        self._listener.close()
        for process in self._processes:
            process.terminate()
            process.wait(END_TIMEOUT_S)

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self.taken += 1
                with connection:
                    self.may_answer.wait()
                    self._processes.append(self._answer(connection))

    def _answer(self, connection: socket.socket) -> subprocess.Popen[bytes]:
        assert SSHD is not None
        return subprocess.Popen(
            [SSHD, "-i", "-e", "-f", str(self._config)],
            stdin=connection.fileno(),
            stdout=connection.fileno(),
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )


class SshLab:
    """A person's home with a key and an SSH configuration, and servers that know the key."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.home = folder / "home"
        self.ssh = self.home / ".ssh"
        self.ssh.mkdir(parents=True, mode=0o700)
        self.key = make_key(self.ssh / "id_ed25519")
        self._servers: list[SshServer] = []

    def server(self, *, known: bool = True, extra: str = "", key_kind: str = "ed25519") -> SshServer:
        """Start a server that lets the person in; ``known`` says whether its key is in ``known_hosts``."""
        folder = self._folder / f"server{len(self._servers)}"
        server = SshServer(folder, [self.key], extra=extra, key_kind=key_kind)
        self._servers.append(server)
        if known:
            self.know(server.known_hosts_line)
        return server

    def know(self, line: str) -> None:
        """Add a line to ``~/.ssh/known_hosts``."""
        with (self.ssh / "known_hosts").open("a") as file:
            file.write(line if line.endswith("\n") else line + "\n")

    def configure(self, text: str) -> None:
        """Write ``~/.ssh/config``."""
        (self.ssh / "config").write_text(text)

    def close(self) -> None:
        """End every server."""
        for server in self._servers:
            server.close()


@contextlib.contextmanager
def ssh_lab(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SshLab]:
    """A lab under ``folder`` that this process takes for its home; it has no SSH agent."""
    need_sshd()
    lab = SshLab(folder)
    monkeypatch.setenv("HOME", str(lab.home))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    try:
        yield lab
    finally:
        lab.close()
