"""The one process of ours on a host while a cluster lasts: takes orders as JSON lines, and ends what it started.

``python -m workers.keeper`` reads orders (:mod:`workers.orders`) from standard input and answers on standard output.
When its input ends, because the head has let go or the way to it broke, it waits a grace, then until no agent is left
below it (they finish, or go on over Ray's own connections, and end by themselves when nobody beats them), and ends; at
once where nothing of Ray runs, or on SIGTERM, SIGHUP and SIGINT. What it has started ends with it, whatever ended it:
see :mod:`workers.guard`. Standard library only.
"""

from __future__ import annotations

import argparse
import contextlib
import getpass
import ipaddress
import math
import os
import platform
import select
import signal
import socket
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final, NoReturn

from workers.codec import CodecError, event_from_json, event_to_json, from_json
from workers.descendants import end_with, look
from workers.guard import ENDING_SIGNALS, Will, guarded
from workers.orders import (
    Answer,
    ClearUp,
    Examine,
    Examined,
    Failed,
    FindEnvironment,
    FindKeeper,
    Greeting,
    InstallEnvironment,
    KeeperFound,
    KeeperIdentity,
    Locate,
    Located,
    Order,
    Pulse,
    StartRay,
    StopRay,
    TakeWheel,
)
from workers.process import ChildProcess
from workers.protocol import HostReport
from workers.raynode import RayNode, clear_up_after, python_path

if TYPE_CHECKING:
    from collections.abc import Sequence

#: Seconds that a run may go on without the head, so that it can end by itself.
GRACE_S: Final = 10.0

#: Seconds between two signs of life to the head. A head that ended while the network was cut could say no farewell; the
#: first of them that reaches its machine afterwards is answered with an end of the connection.
PULSE_S: Final = 15.0

#: Seconds between two looks for agents, once the grace is over.
_LOOK_S: Final = 2.0

_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")

#: Seconds that the probe may take; it answers in a fifth of one.
PROBE_TIMEOUT_S: Final = 30.0

#: Any port will do: a connected UDP socket sends nothing.
_ANY_PORT: Final = 9

_ORDERS: Final[tuple[type[Any], ...]] = (
    Locate,
    Examine,
    FindEnvironment,
    TakeWheel,
    InstallEnvironment,
    StartRay,
    StopRay,
    FindKeeper,
    ClearUp,
)


class OrderError(Exception):
    """An order cannot be carried out."""

    def __init__(self, reason: str, remedy: str | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.remedy = remedy


def main(arguments: Sequence[str]) -> int:
    """Keep this host until the head lets go; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m workers.keeper", description="Take orders as JSON lines.")
    parser.add_argument("--grace", type=float, default=GRACE_S, help="seconds to go on without the head")
    parser.add_argument("--patience", type=float, default=GRACE_S, help="the same, while there are agents")
    parser.add_argument("--pulse", type=float, default=PULSE_S, help="seconds between two signs of life")
    given = parser.parse_args(arguments)
    return keep(grace_s=given.grace, patience_s=given.patience, pulse_s=given.pulse)


def keep(*, grace_s: float, patience_s: float, pulse_s: float = PULSE_S) -> int:
    """Keep this host until the head lets go, talking over descriptors 0 and 1; return the exit code.

    Nothing may have been read from descriptor 0 beyond what has been used: it is taken over as it is.
    """

    def child(guard: int, will: Will) -> NoReturn:
        end_with(guard)
        Keeper(_channel(), guard=guard, will=will, grace_s=grace_s, patience_s=patience_s, pulse_s=pulse_s).serve()

    return guarded(child)


def _channel() -> tuple[BinaryIO, BinaryIO]:
    """Take orders and answers away from descriptors 0 and 1, so that nothing else, here or below, can get at them."""
    orders, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb", buffering=0)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    return orders, answers


class Keeper:
    """Takes orders in one thread, and waits in the main one for what ends it."""

    def __init__(
        self,
        channel: tuple[BinaryIO, BinaryIO],
        *,
        guard: int,
        will: Will,
        grace_s: float,
        patience_s: float,
        pulse_s: float,
    ) -> None:
        self._orders, self._answers = channel
        self._answering = threading.Lock()
        self._grace_s = grace_s
        self._patience_s = patience_s
        self._pulse_s = pulse_s
        self._guard = guard
        self._ended = threading.Event()
        self._waker, self._wake = os.pipe()
        os.set_blocking(self._wake, False)
        code = Path(__file__).resolve().parents[1]
        self._code = code
        self._ray = RayNode(guard=guard, will=will, code=code, on_end=self._on_ray_end)

    def serve(self) -> NoReturn:
        """Work until the head lets go or a signal says so, and leave the rest to the guard."""
        self._take_signals()
        threading.Thread(target=self._obey, name="orders", daemon=True).start()
        self._await_end()
        if os.getppid() != self._guard:  # somebody has killed the guard: then nobody else will clear up
            self._ray.stop()
        os._exit(0)  # and no word to threads that may be in the middle of an order

    # --- the end -----------------------------------------------------------------------------------------------

    def _take_signals(self) -> None:
        for number in ENDING_SIGNALS:
            signal.signal(number, lambda *_: None)  # the number comes by the pipe
        signal.set_wakeup_fd(self._wake)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING_SIGNALS)

    def _await_end(self) -> None:
        """Return when a signal has come, or the input has ended and Ray has too or nobody needs it any more."""
        poll = select.poll()
        poll.register(self._waker, select.POLLIN)
        # Tells of the end also while an order is carried out and nobody reads.
        poll.register(self._orders.fileno(), select.POLLRDHUP)
        alone_since = math.inf
        while not (self._ended.is_set() and not self._ray.is_running):
            remaining_s = alone_since + self._grace_s - time.monotonic()
            if remaining_s <= 0:
                if not self._is_needed(alone_since + self._patience_s):
                    return
                remaining_s = _LOOK_S
            for descriptor, _ in poll.poll(None if math.isinf(remaining_s) else remaining_s * 1000):
                if descriptor == self._waker:
                    if any(os.read(self._waker, 64)):  # signals have numbers; we ring with a zero
                        return
                else:
                    poll.unregister(descriptor)
                    alone_since = min(alone_since, time.monotonic())
            if self._ended.is_set():
                alone_since = min(alone_since, time.monotonic())

    def _is_needed(self, until: float) -> bool:
        """Return whether agents live below, whose Ray this is; past ``until`` they have had time enough."""
        return time.monotonic() < until and self._ray.has_agents()

    def _ring(self) -> None:
        with contextlib.suppress(BlockingIOError):  # a full pipe has rung already
            os.write(self._wake, b"\0")

    # --- orders ------------------------------------------------------------------------------------------------

    def _obey(self) -> None:
        self._answer(greeting(self._guard))
        threading.Thread(target=self._give_signs_of_life, name="pulse", daemon=True).start()
        while (line := self._orders.readline()).endswith(b"\n"):
            if line.strip():
                self._answer(self._obeyed(line))
        self._ended.set()
        self._ring()

    def _obeyed(self, line: bytes) -> Answer:
        try:
            return self._carry_out(event_from_json(_ORDERS, line))
        except CodecError as error:
            # Not what was found in its place: orders carry secrets.
            return Failed(reason=f"this is no order: {str(error).partition(', found ')[0]}")
        except Exception as error:  # the keeper dies of no order, and the head shall know what happened
            reason = getattr(error, "reason", None) or f"{type(error).__name__}: {error}"
            return Failed(reason=str(reason), remedy=getattr(error, "remedy", None))

    def _carry_out(self, order: Order) -> Answer:
        match order:
            case Locate():
                return located(order)
            case Examine():
                return Examined(report=examined(order, self._code))
            case StartRay():
                return self._ray.start(order)
            case StopRay():
                return self._ray.stop()
            case ClearUp():
                return clear_up_after(Path(order.folder))
            case FindKeeper():
                return KeeperFound(is_there=identity_of(order.keeper.pid) == order.keeper)
            case _:
                return self._install(order)

    def _install(self, order: FindEnvironment | TakeWheel | InstallEnvironment) -> Answer:
        # Most keepers never need it.
        from workers import installation

        match order:
            case FindEnvironment():
                return installation.find_environment(order)
            case TakeWheel():
                return installation.take_wheel(order, self._orders)
            case InstallEnvironment():
                return installation.install_environment(order)

    def _give_signs_of_life(self) -> None:
        while not self._ended.wait(self._pulse_s):
            self._answer(Pulse())

    def _on_ray_end(self, ended: Answer) -> None:
        self._answer(ended)
        self._ring()

    def _answer(self, answer: Answer) -> None:
        data = memoryview((event_to_json(answer) + "\n").encode())
        # A head that has gone does not read; that it has gone is noticed elsewhere.
        with self._answering, contextlib.suppress(BrokenPipeError):
            while data:
                data = data[self._answers.write(data) :]


# --- what needs no keeper --------------------------------------------------------------------------------------


def greeting(guard: int) -> Greeting:
    """Return who and where this process is, whose guard has that id."""
    return Greeting(
        hostname=socket.gethostname(),
        python=sys.executable,
        python_version=platform.python_version(),
        user=_user(),
        pid=os.getpid(),
        machine=platform.machine(),
        has_nvidia_driver=Path("/proc/driver/nvidia/version").exists(),
        identity=identity_of(guard),
    )


def identity_of(guard: int) -> KeeperIdentity | None:
    """Return who the keeper is that a guard watches; ``None`` where there is no process of that id."""
    found = look(guard)
    if found is None or found.is_zombie:
        return None
    try:
        boot_id = _BOOT_ID.read_text().strip()
    except OSError:  # some containers hide it; the time since boot has to do
        boot_id = ""
    return KeeperIdentity(pid=guard, started=found.started, boot_id=boot_id)


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container may run under an id that has no name
        return str(os.getuid())


def located(order: Locate) -> Located:
    """Return by which address this host would reach another, and its clock."""
    if not order.toward:
        return Located(node_ip=None, clock_s=time.time(), reason="no address was asked for")
    try:
        found = socket.getaddrinfo(order.toward, _ANY_PORT, type=socket.SOCK_DGRAM)
        family, _, _, _, address = min(found, key=lambda each: each[0] != socket.AF_INET)
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect(address)
            ip = str(probe.getsockname()[0])
    except (OSError, UnicodeError) as error:  # a name may be too long or empty between dots
        reason = f"there is no way to {order.toward}: {getattr(error, 'strerror', None) or error}"
        return Located(node_ip=None, clock_s=time.time(), reason=reason)
    return Located(node_ip=str(ipaddress.ip_address(ip.partition("%")[0])), clock_s=time.time())


def examined(order: Examine, code: Path) -> HostReport:
    """Return what the probe finds under the interpreter that will measure. Raises :class:`OrderError`."""
    python = os.path.expanduser(order.python)  # noqa: PTH111  # a Path would lose what `./python` says
    argv = [python, "-m", "workers.probe", f"--host={order.host}"]
    variables = {**os.environ, "PYTHONPATH": python_path(os.environ, code)}
    try:
        child = ChildProcess(argv, env=variables, cwd=code)
    except OSError as error:
        raise OrderError(f"{python} cannot be run: {error.strerror}", f"ls -l {python}") from error
    with child:
        line = child.next_line(time.monotonic() + PROBE_TIMEOUT_S)
        if isinstance(line, bytes):
            return _report(line, python)
        child.stop()
        ending = child.ending()
    said = ending.stderr_tail.strip().splitlines()
    how = f"exit {ending.exit_code}" if ending.signal is None else ending.signal
    raise OrderError(
        f"the probe under {python} gave no report ({line.value}, {how}): {said[-1] if said else 'it said nothing'}",
        f"{python} --version",
    )


def _report(line: bytes, python: str) -> HostReport:
    try:
        return from_json(HostReport, line)
    except CodecError as error:
        raise OrderError(f"the probe under {python} gave something else than a report: {error}") from error


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
