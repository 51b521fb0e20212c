"""The first process of a lab host: makes the host's file system, starts its sshd, and reaps what others leave behind.

Runs in new mount, PID, UTS and network namespaces with a pipe as its standard input. The first line says in JSON what
to make; the second one, whatever it holds, that the network cable is in. The host lives until the pipe is closed: with
its first process the kernel ends every other one. Standard library only, for it runs without site packages.
"""

from __future__ import annotations

import ctypes
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
from json import loads
from pathlib import Path
from typing import Any, Final

_LIBC: Final = ctypes.CDLL(None, use_errno=True)

#: From ``linux/mount.h``.
_READ_ONLY: Final = 1
_REMOUNT: Final = 32
_BIND: Final = 4096
_RECURSIVE: Final = 16384
_DETACH: Final = 2

#: Seconds for sshd to listen.
_SSHD_TIMEOUT_S: Final = 20.0


def main() -> None:
    """Be a host until standard input ends."""
    host = loads(_read_line())
    socket.sethostname(host["name"])
    make_root(host)
    _say("built")
    _read_line()
    subprocess.run(["ip", "-batch", "-"], input="\n".join(host["network"]), text=True, check=True)
    if host["sshd"] is not None:
        start_sshd(host["sshd"], Path("/var/log/sshd.log"))
    _say("up")
    reap_until_end()


def _say(word: str) -> None:
    sys.stdout.write(f"{word}\n")
    sys.stdout.flush()


def _read_line() -> bytes:
    # Unbuffered: the rest of the pipe is waited for with `select`.
    line = bytearray()
    while not line.endswith(b"\n"):
        byte = os.read(0, 1)
        if not byte:
            sys.exit(0)
        line += byte
    return bytes(line)


# --- its file system -------------------------------------------------------------------------------------------


def make_root(host: dict[str, Any]) -> None:
    """Make a root of memory with the machine's programs read-only in it, and what a host has for itself; go there."""
    root = Path(host["root"])
    _mount("tmpfs", root, "tmpfs", data="mode=755")
    for name, target in host["links"].items():
        (root / name).symlink_to(target)
    for folder in ("proc", "sys", "dev", "tmp", "run/sshd", "var/tmp", "var/log", "var/empty", "root", "old"):
        (root / folder).mkdir(parents=True)
    for folder in ("tmp", "var/tmp"):
        (root / folder).chmod(0o1777)
    _mount("proc", root / "proc", "proc")
    # Of its own network, with the machine's limits of memory and processors.
    _mount("sysfs", root / "sys", "sysfs")
    _mount("/sys/fs/cgroup", root / "sys/fs/cgroup", flags=_BIND | _RECURSIVE)
    _mount("/dev", root / "dev", flags=_BIND | _RECURSIVE)
    for folder in ("tmp", "dev/shm"):
        _mount("tmpfs", root / folder, "tmpfs", data="mode=1777")
    for shown in host["shown"]:
        _show(Path(shown), root / shown.lstrip("/"), read_only=True)
    for target, source in host["own"].items():
        _show(Path(source), root / target.lstrip("/"), read_only=False)
    _enter(root)


def _show(source: Path, target: Path, *, read_only: bool) -> None:
    target.mkdir(parents=True, exist_ok=True)
    _mount(str(source), target, flags=_BIND | _RECURSIVE)
    if read_only:
        _mount("none", target, flags=_BIND | _REMOUNT | _READ_ONLY)


def _enter(root: Path) -> None:
    # A changed root alone would not do: who enters these namespaces from outside would see the machine's.
    if _LIBC.pivot_root(os.fsencode(root), os.fsencode(root / "old")) != 0:
        raise _error("pivot_root")
    os.chdir("/")
    if _LIBC.umount2(b"/old", _DETACH) != 0:
        raise _error("umount2 /old")
    Path("/old").rmdir()


def _mount(source: str, target: Path, kind: str | None = None, *, flags: int = 0, data: str | None = None) -> None:
    texts = (source, os.fspath(target), kind)
    first, second, third = (None if text is None else os.fsencode(text) for text in texts)
    if _LIBC.mount(first, second, third, ctypes.c_ulong(flags), None if data is None else data.encode()) != 0:
        raise _error(f"mount {source} on {target}")


def _error(what: str) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, f"{what}: {os.strerror(number)}")


# --- its sshd --------------------------------------------------------------------------------------------------


def start_sshd(sshd: dict[str, Any], log: Path) -> None:
    """Start OpenSSH's sshd and return once it listens; a slow one answers some seconds after it was called."""
    program = shutil.which("sshd", path="/usr/sbin:/usr/local/sbin:/sbin")
    if program is None:
        raise FileNotFoundError("sshd")
    with log.open("ab", buffering=0) as stream:
        if sshd["delay_s"]:
            _start_doorman(program, sshd, stream.fileno())
            return
        # -e: its log goes to standard error. The number is read by whoever reaps, so no Popen object waits for it.
        os.posix_spawn(program, [program, "-D", "-e"], dict(os.environ), file_actions=_output_to(stream.fileno()))
    deadline = time.monotonic() + _SSHD_TIMEOUT_S
    while not _listens(sshd["address"], sshd["port"]):
        if time.monotonic() > deadline:
            raise TimeoutError(f"sshd does not listen: {log.read_text()}")
        # Nothing tells when it does.
        time.sleep(0.01)


def _output_to(descriptor: int) -> list[tuple[int, ...] | tuple[int, int, str, int, int]]:
    nothing = (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0)
    return [nothing, *((os.POSIX_SPAWN_DUP2, descriptor, number) for number in (1, 2))]


def _listens(address: str, port: int) -> bool:
    """Whether the kernel lists a listening socket there: a connection would be an entry in sshd's log."""
    wanted = f"{int.from_bytes(socket.inet_aton(address), sys.byteorder):08X}:{port:04X}"
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    return any(line.split()[1] == wanted and line.split()[3] == "0A" for line in lines)


def _start_doorman(program: str, sshd: dict[str, Any], log: int) -> None:
    listener = socket.create_server((sshd["address"], sshd["port"]))
    if os.fork() == 0:
        # The children here are nobody's business but the kernel's.
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        while True:
            visitor, _ = listener.accept()
            if os.fork() == 0:
                _answer_late(program, visitor, sshd["delay_s"], log)
            visitor.close()


def _answer_late(program: str, visitor: socket.socket, delay_s: float, log: int) -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    time.sleep(delay_s)
    for number in (0, 1):
        os.dup2(visitor.fileno(), number)
    os.dup2(log, 2)
    os.execv(program, [program, "-i", "-e"])


# --- its life --------------------------------------------------------------------------------------------------


def reap_until_end() -> None:
    """Reap every orphan of the host, until standard input ends."""
    reader, writer = os.pipe()
    for end in (reader, writer):
        os.set_blocking(end, False)
    signal.set_wakeup_fd(writer)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    while True:
        _reap()
        ready, _, _ = select.select([0, reader], [], [])
        if 0 in ready:
            return
        os.read(reader, 4096)


def _reap() -> None:
    try:
        while os.waitpid(-1, os.WNOHANG)[0] != 0:
            pass
    except ChildProcessError:
        return


if __name__ == "__main__":
    main()
