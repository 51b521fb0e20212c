"""Another Ray cluster of the same user on a lab host, as somebody has it who never heard of muster."""

from __future__ import annotations

import contextlib
import os
import secrets
import select
import sys
import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator

    from tests.lab.hosts import Host, Started

#: Seconds for Ray to start on a machine that does other things too.
_START_TIMEOUT_S: Final = 90.0

#: Seconds for an actor that is there to answer.
_ANSWER_TIMEOUT_S: Final = 30.0

#: Everything is as Ray has it by default: port 6379, folder /tmp/ray, the token where Ray looks for it.
_START: Final = """
import sys
from ray.scripts.scripts import main
sys.argv = ["ray", "start", "--head", "--num-cpus=1", "--include-dashboard=false", "--disable-usage-stats",
            "--object-store-memory=80000000"]
main()
"""

#: Answers every line with the number of the actor's process and that of the nodes that are alive.
_DRIVER: Final = """
import os, sys, ray
ray.init(address="auto", log_to_driver=False)
@ray.remote(num_cpus=0)
class Someone:
    def pid(self):
        return os.getpid()
someone = Someone.remote()
print("ready", ray.get(someone.pid.remote()), flush=True)
for line in sys.stdin:
    alive = sum(node["Alive"] for node in ray.nodes())
    print(line.strip(), ray.get(someone.pid.remote(), timeout=20), alive, flush=True)
"""

_ENVIRONMENT: Final = {"RAY_AUTH_MODE": "token", "RAY_USAGE_STATS_ENABLED": "0"}


class Bystander:
    """A Ray cluster that is to live on, whatever muster does."""

    def __init__(self, host: Host, driver: Started, lines: _Lines, actor: str) -> None:
        self.host = host
        self._driver = driver
        self._lines = lines
        self._actor = actor

    def is_well(self, timeout_s: float = _ANSWER_TIMEOUT_S) -> bool:
        """Whether the actor that it had from the start still answers in time, and its one node is alive."""
        question = secrets.token_hex(4)
        try:
            assert self._driver.popen.stdin is not None
            self._driver.popen.stdin.write(f"{question}\n")
            self._driver.popen.stdin.flush()
        except BrokenPipeError:
            return False
        deadline = time.monotonic() + timeout_s
        while (answer := self._lines.next(deadline)) is not None:
            # One that came too late for an earlier question is passed over.
            if answer.startswith(question):
                return answer == f"{question} {self._actor} 1"
        return False


@contextlib.contextmanager
def bystander(host: Host) -> Iterator[Bystander]:
    """Start one on ``host``, where from now on it counts as the host's own; it ends with the host."""
    token = secrets.token_hex(32)
    host.run("sh", "-c", "umask 077; mkdir -p ~/.ray && cat > ~/.ray/auth_token", stdin=token)
    started = host.run(sys.executable, "-c", _START, env=_ENVIRONMENT, timeout_s=_START_TIMEOUT_S)
    assert started.code == 0, started.err
    driver = host.start(sys.executable, "-c", _DRIVER, env=_ENVIRONMENT)
    try:
        lines = _Lines(driver.popen)
        said = lines.next(time.monotonic() + _START_TIMEOUT_S)
        assert said is not None, "its driver does not start"
        assert host.watch is not None
        host.watch.accept()
        yield Bystander(host, driver, lines, said.removeprefix("ready "))
    finally:
        driver.process.kill()
        driver.popen.communicate()


class _Lines:
    """What a program says, line by line, each waited for no longer than one likes."""

    def __init__(self, popen: subprocess.Popen[str]) -> None:
        assert popen.stdout is not None
        self._descriptor = popen.stdout.fileno()
        self._rest = b""

    def next(self, deadline: float) -> str | None:
        """Return the next line; ``None`` where there is none in time, or no other ever."""
        while b"\n" not in self._rest:
            left_s = max(0.0, deadline - time.monotonic())
            ready, _, _ = select.select([self._descriptor], [], [], left_s)
            read = os.read(self._descriptor, 4096) if ready else b""
            if not read:
                return None
            self._rest += read
        line, _, self._rest = self._rest.partition(b"\n")
        return line.decode()
