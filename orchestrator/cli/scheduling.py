"""The scheduler in the foreground: leads or waits to lead, begins firings as processes, ends them when it is ended."""

from __future__ import annotations

import contextlib
import datetime
import json
import signal
import subprocess
import sys
import tempfile
import threading
import time
from typing import IO, TYPE_CHECKING, Any, Final

from orchestrator.errors import ExitCode, StoreBusyError
from orchestrator.schedules.service import LEADER, Scheduler
from orchestrator.schedules.state import schedule_of
from orchestrator.store import open_store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from orchestrator.results import Firing
    from orchestrator.store.repository import Store

#: Seconds between two looks at the calendar, and at whether the other scheduler still leads.
TICK_S: Final = 1.0
FOLLOW_S: Final = 2.0

#: Seconds that runs have to end when the scheduler is ended.
END_S: Final = 110.0


class Log:
    """Structured lines on stderr: ``key=value``, or JSON."""

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json

    def __call__(self, event: str, **said: Any) -> None:
        """Write one line."""
        now = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="milliseconds")
        if self._as_json:
            line = json.dumps({"at": now, "event": event, **said}, ensure_ascii=False)
        else:
            line = " ".join((now, event, *(f"{key}={_value(value)}" for key, value in said.items())))
        print(line, file=sys.stderr, flush=True)


def _value(value: Any) -> str:
    text = str(value)
    return json.dumps(text, ensure_ascii=False) if not text or set(text) & set(' "=\n') else text


def serve(store_url: str, log: Callable[..., None]) -> int:
    """Be the scheduler of a store until SIGTERM or Ctrl-C: then runs are stopped, and gone on with the next time."""
    stop = threading.Event()
    with open_store(store_url) as store, _heard(stop):
        is_told = False
        while not stop.is_set():
            reason = _led(store, store_url, stop, log)
            if reason is not None and not is_told:
                log("another scheduler leads", reason=reason)
                is_told = True
            stop.wait(FOLLOW_S)
    log("ended by a signal")
    return int(ExitCode.OK)


def _led(store: Store, store_url: str, stop: threading.Event, log: Callable[..., None]) -> str | None:
    """Lead until the end; return why not, where somebody else does."""
    try:
        with store.written_by(LEADER):
            log("leading", store=store.place)
            _lead(store, store_url, stop, log)
    except StoreBusyError as error:
        return error.message
    return None


def fire_command(firing_id: int, store_url: str) -> list[str]:
    """Return the command of a firing's process."""
    return [sys.executable, "-m", "orchestrator.cli", "schedule", "fire", str(firing_id), "--store", store_url]


class _Child:
    """A firing's process; what it says on stderr is kept for its last line."""

    def __init__(self, command: list[str]) -> None:
        self._said: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  # as long as the process
        # A session of its own: Ctrl-C at the terminal is for the scheduler, which passes it on.
        self.popen = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=self._said, start_new_session=True
        )

    def poll(self) -> int | None:
        return self.popen.poll()

    def last_line(self) -> str:
        self._said.seek(0)
        lines = self._said.read().decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else ""


def _lead(store: Store, store_url: str, stop: threading.Event, log: Callable[..., None]) -> None:
    children: list[_Child] = []

    def spawn(firing: Firing) -> _Child:
        child = _Child(fire_command(firing.id, store_url))
        children.append(child)
        return child

    scheduler = Scheduler(
        store.schedules,
        now=lambda: datetime.datetime.now(datetime.timezone.utc),
        schedule_of=schedule_of,
        spawn=spawn,
        at_work=store.at_work,
        log=log,
    )
    while not stop.is_set():
        scheduler.tick()
        _tell_of_ended(children, log)
        stop.wait(TICK_S)
    _end(children, log)


def _tell_of_ended(children: list[_Child], log: Callable[..., None]) -> None:
    for child in [each for each in children if each.poll() is not None]:
        children.remove(child)
        if line := child.last_line():
            log("said", pid=child.popen.pid, line=line)


def _end(children: list[_Child], log: Callable[..., None]) -> None:
    """Have every run stopped, and wait for its end; whoever scheduler comes next goes on with it."""
    for child in children:
        log("stopping", pid=child.popen.pid)
        child.popen.terminate()
    until = time.monotonic() + END_S
    while time.monotonic() < until and any(child.poll() is None for child in children):
        time.sleep(0.1)
    for child in children:
        if child.poll() is None:
            log("does not end", pid=child.popen.pid)


@contextlib.contextmanager
def _heard(stop: threading.Event) -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in before:
        signal.signal(number, lambda *_: stop.set())
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
