"""Linux namespaces that live as long as this process wants them, and not a moment longer than it lives itself."""

from __future__ import annotations

import select
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import psutil

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

#: Seconds for the first process of a namespace to say what it has done, on a machine that is swapping.
ANSWER_TIMEOUT_S: Final = 60.0

#: Seconds for everything in a namespace to be gone after its first process.
END_TIMEOUT_S: Final = 20.0

#: `unshare`'s names of the namespaces that make a host; of them, a network switch has but one.
HOST_KINDS: Final = ("net", "mount", "pid", "uts", "ipc")
SWITCH_KINDS: Final = ("net",)


@dataclass(frozen=True, kw_only=True, slots=True)
class User:
    """Who a program runs as."""

    name: str
    uid: int
    home: str
    shell: str = "/bin/bash"


ROOT_USER: Final = User(name="root", uid=0, home="/root")


class Namespaces:
    """New namespaces with one program in them; they are gone when its standard input is closed.

    That pipe is what keeps them: the kernel closes it also when this process is killed. They have no name anywhere,
    so nothing can be left of them.
    """

    def __init__(self, argv: Sequence[str], kinds: Sequence[str]) -> None:
        flags = [f"--{kind}" for kind in kinds]
        self._kinds = kinds
        # A session of its own: Ctrl-C at a terminal is for us, and we end it.
        self._process = subprocess.Popen(
            ["unshare", *flags, "--fork", "--kill-child", "--", *argv],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        self._pid: int | None = None

    @property
    def pid(self) -> int:
        """The first process's number, as this machine counts."""
        if self._pid is None:
            children = psutil.Process(self._process.pid).children()
            if not children:
                raise RuntimeError("the first process of the namespaces has ended")
            self._pid = children[0].pid
        return self._pid

    def tell(self, line: str) -> None:
        """Send a line to the first process."""
        assert self._process.stdin is not None
        self._process.stdin.write(line.encode() + b"\n")
        self._process.stdin.flush()

    def hear(self) -> str:
        """Return the next line of the first process. Raises RuntimeError where it ends or says nothing."""
        assert self._process.stdout is not None
        if not select.select([self._process.stdout], [], [], ANSWER_TIMEOUT_S)[0]:
            raise RuntimeError(f"the first process of the namespaces said nothing for {ANSWER_TIMEOUT_S:g} s")
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("the first process of the namespaces has ended; its complaint is above")
        return line.decode().rstrip("\n")

    def entering(
        self,
        argv: Sequence[str],
        *,
        user: User = ROOT_USER,
        cwd: str | Path | None = None,
        env: Mapping[str, str] | None = None,
    ) -> list[str]:
        """Return the command that runs ``argv`` inside, with a fresh environment."""
        own = {
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": user.home,
            "USER": user.name,
            "LOGNAME": user.name,
            "SHELL": user.shell,
            "LANG": "C.UTF-8",
        }
        variables = [f"{name}={value}" for name, value in {**own, **(env or {})}.items()]
        flags = [f"--{kind}" for kind in self._kinds]
        identity = [f"--setuid={user.uid}", f"--setgid={user.uid}"] if "mount" in self._kinds else []
        place = [f"--chdir={cwd or user.home}"] if "mount" in self._kinds else []
        return [
            *("nsenter", f"--target={self.pid}", *flags, *identity, "--"),
            *("env", "--ignore-environment", *place, *variables, *argv),
        ]

    def close(self) -> None:
        """End everything inside; safe to call twice."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(END_TIMEOUT_S)
        finally:
            # Ends the first process too, and the kernel with it all the others.
            self._process.kill()
            self._process.wait()
            self._process.stdout.close()
