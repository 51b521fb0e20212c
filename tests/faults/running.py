"""A run on the lab that is watched from outside while something is done to it."""

from __future__ import annotations

import re
import sqlite3
import threading
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import psutil

from tests.lab.hosts import HOME

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tests.lab.hosts import Host, Started
    from tests.lab.lab import Lab

#: Seconds for anything that must come; a whole run of several hosts on two cores takes a minute or two.
PATIENCE_S: Final = 240.0

#: Cases of a few seconds each, so that a fault comes in the middle of some, after some and before others.
WORKLOADS: Final = [{"model": "alexnet", "passes": "forward", "batch_size": [1, 2, 3, 4]}]
MEASURE: Final = {"warmup": 1, "steps": 80}


@dataclass(frozen=True, kw_only=True, slots=True)
class Kept:
    """An attempt in the store."""

    device: str
    batch_size: int
    number: int
    verdict: str
    reason: str
    samples: bytes

    @property
    def has_figure(self) -> bool:
        return self.verdict == "ok"


class Watched:
    """`muster run` on the lab's head, each of its lines with the moment in which it came."""

    def __init__(self, lab: Lab, config: str | None = None, folder: str | None = None, *arguments: str) -> None:
        self.lab = lab
        self.folder = folder or lab.write_config(config or "")
        self.lines: list[tuple[float, str]] = []
        self._has_changed = threading.Condition()
        self._is_over = False
        self.started: Started = lab.start_muster(*(arguments or ("run", "lab.yaml")), cwd=self.folder)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self._out = threading.Thread(target=self._drain, daemon=True)
        self._out.start()
        self.out = ""

    def __enter__(self) -> Watched:
        return self

    def __exit__(self, *_: object) -> None:
        self.started.__exit__()

    def _read(self) -> None:
        assert self.started.popen.stderr is not None
        for line in self.started.popen.stderr:
            with self._has_changed:
                self.lines.append((time.monotonic(), line.rstrip("\n")))
                self._has_changed.notify_all()
        with self._has_changed:
            self._is_over = True
            self._has_changed.notify_all()

    def _drain(self) -> None:
        assert self.started.popen.stdout is not None
        self.out = self.started.popen.stdout.read()

    @property
    def err(self) -> str:
        return "\n".join(line for _, line in self.lines)

    def heard(self, pattern: str, *, since: float = 0.0, timeout_s: float = PATIENCE_S) -> float:
        """Return when a line came that has the pattern, at or after ``since``; wait for it."""
        found = self._awaited(lambda: self._first(pattern, since), timeout_s)
        assert found is not None, f"nobody said {pattern!r} within {timeout_s:g} s:\n{self.err}"
        return found

    def has_said(self, pattern: str, *, since: float = 0.0) -> bool:
        with self._has_changed:
            return self._first(pattern, since) is not None

    def _first(self, pattern: str, since: float) -> float | None:
        return next((at for at, line in self.lines if at >= since and re.search(pattern, line)), None)

    def _awaited(self, look: Callable[[], float | None], timeout_s: float) -> float | None:
        until = time.monotonic() + timeout_s
        with self._has_changed:
            while (found := look()) is None and not self._is_over and time.monotonic() < until:
                self._has_changed.wait(until - time.monotonic())
            return look() if found is None else found

    def kill(self) -> None:
        """End the head with SIGKILL, and reap it."""
        self.started.process.kill()
        self.started.popen.wait(PATIENCE_S)

    def end(self, timeout_s: float = PATIENCE_S) -> int:
        """Wait for its end and return its exit code."""
        code = self.started.popen.wait(timeout_s)
        self._reader.join(PATIENCE_S)
        self._out.join(PATIENCE_S)
        return code

    # --- the store ---

    def kept(self) -> tuple[Kept, ...]:
        """Every attempt that is in the store now."""
        return kept_in(self.database)

    @property
    def database(self) -> Path:
        return self.lab.head.home / Path(self.folder).relative_to(HOME) / "muster.db"

    def asked(self, question: str) -> list[Any]:
        """What the store answers to a question for one column."""
        return [value for (value,) in _asked(self.database, question)]

    @property
    def run_id(self) -> str:
        """The only run in the store."""
        ((run_id,),) = _asked(self.database, "select id from runs")
        return str(run_id)

    def verdicts(self) -> dict[tuple[str, int], str]:
        """What became of each case, by device and batch size; ``open`` while nothing has."""
        rows = _asked(self.database, "select device_id, json_extract(workload, '$.batch_size'), verdict from cases")
        return {(device, batch): verdict or "open" for device, batch, verdict in rows}

    def until_kept(self, count: int, *, of: str = "", timeout_s: float = PATIENCE_S) -> tuple[Kept, ...]:
        """Wait until so many results with a figure are in the store (of a device), and return all attempts."""
        until = time.monotonic() + timeout_s
        while True:
            kept = self.kept()
            if sum(each.has_figure and each.device.startswith(of) for each in kept) >= count:
                return kept
            assert time.monotonic() < until, f"{count} results did not come:\n{self.err}"
            # Nothing tells of a commit from outside; a line does, most of the time.
            with self._has_changed:
                self._has_changed.wait(0.1)


def kept_in(database: Path) -> tuple[Kept, ...]:
    if not database.exists():
        return ()
    rows = _asked(
        database,
        "select device_id, json_extract(workload, '$.batch_size'), number, attempts.verdict, attempts.reason, ms"
        " from attempts join cases on cases.id = case_id join samples on attempt_id = attempts.id"
        " where kind = 'measured' order by attempts.id",
    )
    return tuple(
        Kept(device=device, batch_size=batch, number=number, verdict=verdict, reason=reason or "", samples=samples)
        for device, batch, number, verdict, reason, samples in rows
    )


def _asked(database: Path, question: str) -> list[Any]:
    with sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=30.0) as connection:
        try:
            return connection.execute(question).fetchall()
        except sqlite3.OperationalError:  # there is a file, and no table yet
            return []
        finally:
            connection.commit()


def missing(before: tuple[Kept, ...], after: tuple[Kept, ...]) -> int:
    """How many attempts that were kept are not any more, or not as they were."""
    return len(set(before) - set(after))


def measured_twice(kept: tuple[Kept, ...]) -> int:
    """How many cases have more than one attempt with a figure."""
    counts = Counter((each.device, each.batch_size) for each in kept if each.has_figure)
    return sum(count > 1 for count in counts.values())


# --- what is done to whom --------------------------------------------------------------------------------------


def config(lab: Lab, *names: str, **top: Any) -> str:
    """A config of these hosts, with cases of some seconds; delays are short, for nobody has all day."""
    limits: Mapping[str, Any] = {"retry_delay": "1s", "attempts": 3, **top.pop("limits", {})}
    return lab.config(
        {name: {} for name in names},
        **{"workloads": WORKLOADS, "measure": MEASURE, "limits": limits, "report": {"references": []}, **top},
    )


def process_of(host: Host, text: str, *, timeout_s: float = PATIENCE_S) -> psutil.Process:
    """Return a process of a host that has this in its command line, once there is one."""
    until = time.monotonic() + timeout_s
    while time.monotonic() < until:
        found = [each for each in host.find(text) if each.is_running() and each.status() != psutil.STATUS_ZOMBIE]
        if found:
            return found[0]
        # Nothing tells of a new process; look again in a moment.
        time.sleep(0.05)
    raise AssertionError(f"no process of {host.name} is called {text}")


CHILD: Final = "workers.child"
AGENT: Final = "ray::DeviceAgent"
RAYLET: Final = "raylet/raylet"
GCS: Final = "gcs/gcs_server"
