"""Ray on one host: its daemons come up below the keeper in a folder of their own, are watched, and end without a trace.

Only what descends from the guard is ever ended; ``ray stop``, which ends every Ray of the user, is not used. Standard
library only: Ray is run, never imported.
"""

from __future__ import annotations

import contextlib
import math
import os
import re
import shutil
import subprocess
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from workers import portblock
from workers.clusterfolder import ClusterFolder, is_ours
from workers.descendants import Process, await_one, below, end, every, still_there
from workers.guard import AGENT, FIRST_TO_END
from workers.orders import (
    CA_FILE,
    CERTIFICATE_FILE,
    DASHBOARD_AGENT_GRPC_PORT,
    DASHBOARD_AGENT_LISTEN_PORT,
    FIRST_WORKER_PORT,
    GCS_PORT,
    KEY_FILE,
    METRICS_PORT,
    NODE_MANAGER_PORT,
    OBJECT_MANAGER_PORT,
    PORTS_IN_BLOCK,
    RUNTIME_ENV_AGENT_PORT,
    TOKEN_FILE,
    RayEnded,
    RayStarted,
    RayStopped,
    StartRay,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from workers.guard import Will

#: Runs the command ``ray`` through our own module.
RAY: Final = ("-m", "workers.raystart")

#: Ray's settings come by environment: its daemons inherit them.
SETTINGS: Final = {
    "RAY_AUTH_MODE": "token",
    "RAY_USAGE_STATS_ENABLED": "0",
    # Otherwise Ray tries to rebuild the environment on each worker when it was started under `uv run`.
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    # Ray would end an agent where a case takes the memory; the kernel ends the case, and that is what is recorded.
    "RAY_memory_monitor_refresh_ms": "0",
    # Nobody collects these, and a host that is measured shall do nothing else.
    "RAY_enable_metrics_collection": "0",
    "RAY_event_stats": "0",
}

#: Seconds between two questions of Ray's control service to a host, where it is refused an answer at once. One that
#: gets no answer at all waits ten seconds longer.
_HEALTH_CHECK_S: Final = 3.0

#: Seconds that Ray waits longer than we do: a host that Ray has given up must start it anew to come back, and whatever
#: is measured there is lost.
_SILENCE_MARGIN_S: Final = 60.0

#: Daemons without which there is no Ray, by the names that the kernel knows them under.
DAEMONS: Final = ("gcs_server", "raylet")

#: Ray's own folder, which it opens to every user; token and keys lie outside it.
_RAY_FOLDER: Final = "ray"
_OUTPUT_FILE: Final = "start.log"

#: Where Ray's daemons say why they ended, the most telling first.
_LOGS: Final = ("raylet.err", "raylet.out", "gcs_server.err", "gcs_server.out", "dashboard.err")
_LOG_TAIL_BYTES: Final = 2**14

#: Seconds after which the watcher looks whether it is still wanted, if nothing ends before.
_WATCH_S: Final = 3600.0

#: A line of a daemon's log: ``[2026-11-23 21:42:29,769 E 1234 1234] (raylet) main.cc:12: what is wrong``.
_STAMPED: Final = re.compile(r"\[[-0-9]+ [0-9:,]+ (?P<severity>[A-Z]) \d+ \d+\] (\(\S+\) )?(\S+:\d+: )?(?P<text>.*)")

#: What ``ray start`` says when all is well: ``2026-11-23 21:43:28,712 INFO scripts.py:1043 -- Local node IP``.
_FINE: Final = re.compile(r"[-0-9]+ [0-9:,]+\s+(INFO|SUCC)\b")

_ESCAPES: Final = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class RayNodeError(Exception):
    """Ray could not be started here."""

    def __init__(self, reason: str, remedy: str | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.remedy = remedy


class RayNode:
    """Ray's daemons on this host, none or one set of them."""

    def __init__(self, *, guard: int, will: Will, code: Path, on_end: Callable[[RayEnded], None]) -> None:
        self._guard = guard
        self._will = will
        self._code = code
        self._on_end = on_end
        # Held while daemons come or go: they may end by themselves while an order is carried out.
        self._lock = threading.Lock()
        self._starter: subprocess.Popen[bytes] | None = None
        #: What was there when Ray was up.
        self._started: tuple[Process, ...] = ()
        self._folder: ClusterFolder | None = None
        self._claim: portblock.Claim | None = None

    @property
    def is_running(self) -> bool:
        """True from the start of the daemons until nothing of them is left."""
        return self._folder is not None

    def start(self, order: StartRay) -> RayStarted:
        """Start Ray's daemons and return when they are up.

        Raises :class:`RayNodeError` and :class:`workers.portblock.PortsTakenError`.
        """
        with self._lock:
            if self.is_running:
                raise RayNodeError("Ray runs here already, started by the same keeper", "end it first")
            self._claim = claim = portblock.claim(order.first_port, order.last_port)
            try:
                folder = self._make_folder(order)
                self._run_starter(order, claim.first_port, folder)
                self._started = self._find()
                daemons = self._daemons(is_head=order.join is None)
            except BaseException:
                self._clear()
                raise
            threading.Thread(target=self._watch, args=(daemons,), name="ray-watch", daemon=True).start()
            return RayStarted(
                address=order.join or endpoint(order.node_ip, claim.first_port + GCS_PORT),
                first_port=claim.first_port,
                folder=str(folder),
                token_file=str(folder / TOKEN_FILE),
            )

    def has_agents(self) -> bool:
        """Return whether any agent lives below the guard."""
        return any(process.name == AGENT for process in below(every(), self._guard))

    def stop(self) -> RayStopped:
        """End everything that :meth:`start` started and remove its folder; also where nothing runs."""
        with self._lock:
            return RayStopped(survivors=tuple(process.pid for process in self._clear()))

    # --- coming up ---------------------------------------------------------------------------------------------

    def _make_folder(self, order: StartRay) -> Path:
        self._folder = ClusterFolder.make()
        folder = self._folder.path
        self._will.add(folder)
        _write_secret(folder / TOKEN_FILE, order.token)
        if order.tls is not None:
            _write_secret(folder / CA_FILE, order.tls.ca_certificate)
            _write_secret(folder / CERTIFICATE_FILE, order.tls.certificate)
            _write_secret(folder / KEY_FILE, order.tls.key)
        return folder

    def _run_starter(self, order: StartRay, first_port: int, folder: Path) -> None:
        """Run ``ray start``, which returns when the daemons are up and leaves them behind."""
        python = os.path.expanduser(order.python)  # noqa: PTH111  # a Path would lose what `./python` says
        argv = [python, "-u", *RAY, *arguments(order, first_port, folder / _RAY_FOLDER)]
        # A file and not a pipe: what it leaves behind might hold the pipe open for ever.
        with (folder / _OUTPUT_FILE).open("wb") as output:
            try:
                self._starter = subprocess.Popen(
                    argv,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    env=environment(os.environ, folder, order, code=self._code, first_port=first_port),
                    cwd=folder,
                    start_new_session=True,
                )
            except OSError as error:
                raise RayNodeError(f"{python} cannot be run: {error.strerror}", f"ls -l {python}") from error
        try:
            code = self._starter.wait(order.timeout_s)
        except subprocess.TimeoutExpired:
            raise self._failure(f"Ray was not up within {order.timeout_s:.0f} s", order, folder) from None
        if code != 0:
            raise self._failure("Ray did not start", order, folder)
        self._starter = None

    def _failure(self, what: str, order: StartRay, folder: Path) -> RayNodeError:
        said = last_words(_tail(folder / _OUTPUT_FILE)), _last_log_line(folder)
        text = "; ".join(part for part in said if part) or "it said nothing"
        return RayNodeError(f"{what}: {text.replace(order.token, '(token)')}")

    def _daemons(self, *, is_head: bool) -> tuple[Process, ...]:
        found = tuple(process for process in self._started if process.name in DAEMONS)
        missing = set(DAEMONS if is_head else ("raylet",)) - {process.name for process in found}
        if missing:
            raise RayNodeError(f"Ray said that it had started, and {', '.join(sorted(missing))} is not there")
        return found

    # --- going -------------------------------------------------------------------------------------------------

    def _find(self) -> tuple[Process, ...]:
        """Return Ray's processes: orphans that the guard has adopted, whatever is below them, and the starter's."""
        everything = every()
        found = [process for process in below(everything, self._guard) if process.pid != os.getpid()]
        mine = {process.pid for process in below(everything, os.getpid())}
        starters = () if self._starter is None else (self._starter.pid, *_pids_below(everything, self._starter.pid))
        known = {process.identity: process for process in found if process.pid not in mine or process.pid in starters}
        # Should the guard have been killed, its orphans have gone to somebody else; these are still known by name.
        known |= {process.identity: process for process in self._started if still_there(process)}
        return tuple(known.values())

    def _clear(self) -> tuple[Process, ...]:
        if self._folder is None:
            self._release()
            return ()
        survivors = end(self._find, first=FIRST_TO_END)
        if self._starter is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._starter.wait(1.0)
            self._starter = None
        self._started = ()
        self._folder.remove()
        self._folder = None
        self._release()
        return survivors

    def _release(self) -> None:
        if self._claim is not None:
            self._claim.release()
            self._claim = None

    def _watch(self, daemons: tuple[Process, ...]) -> None:
        """Wait until one of the daemons ends; if nobody has ended it, clear up what is left and tell."""
        while not await_one(daemons, time.monotonic() + _WATCH_S):
            pass
        with self._lock:
            if self._folder is None or not set(daemons) <= set(self._started):
                return
            ended = [process.name for process in daemons if not still_there(process)]
            why = _last_log_line(self._folder.path)
            self._clear()
        self._on_end(RayEnded(reason=f"{' and '.join(ended)} ended by itself" + (f": {why}" if why else "")))


def clear_up_after(folder: Path) -> RayStopped:
    """End Ray's processes of a folder whose keeper and guard were killed, and what is below them; remove the folder."""
    if not is_ours(folder):
        return RayStopped()
    everything = every()
    serving = [each for each in everything if _serves(each, folder)]
    found = [process for each in serving for process in (each, *below(everything, each.pid))]
    survivors = end(lambda: [process for process in found if still_there(process)], first=FIRST_TO_END)
    shutil.rmtree(folder, ignore_errors=True)
    return RayStopped(survivors=tuple(process.pid for process in survivors))


def _serves(process: Process, folder: Path) -> bool:
    """Return whether a process was told of the folder as Ray tells its own: ``--temp-dir=/tmp/muster-x/ray``."""
    try:
        return b"=%s/%s" % (os.fsencode(folder), _RAY_FOLDER.encode()) in _command_line(process)
    except OSError:
        return False


def _command_line(process: Process) -> bytes:
    return Path(f"/proc/{process.pid}/cmdline").read_bytes()


def _pids_below(processes: tuple[Process, ...], root: int) -> Iterator[int]:
    return (process.pid for process in below(processes, root))


# --- what Ray is given -----------------------------------------------------------------------------------------


def arguments(order: StartRay, first_port: int, folder: Path) -> tuple[str, ...]:
    """Return what ``ray`` is called with."""
    role: tuple[str, ...] = (f"--address={order.join}",)
    if order.join is None:
        role = ("--head", f"--port={first_port + GCS_PORT}", "--include-dashboard=false", "--no-monitor")
    labels = ",".join(f"{name}={value}" for name, value in order.labels)
    return (
        "start",
        *role,
        f"--node-ip-address={order.node_ip}",
        f"--temp-dir={folder}",
        "--include-log-monitor=false",
        "--disable-usage-stats",
        f"--node-manager-port={first_port + NODE_MANAGER_PORT}",
        f"--object-manager-port={first_port + OBJECT_MANAGER_PORT}",
        f"--runtime-env-agent-port={first_port + RUNTIME_ENV_AGENT_PORT}",
        f"--dashboard-agent-listen-port={first_port + DASHBOARD_AGENT_LISTEN_PORT}",
        f"--dashboard-agent-grpc-port={first_port + DASHBOARD_AGENT_GRPC_PORT}",
        f"--metrics-export-port={first_port + METRICS_PORT}",
        f"--min-worker-port={first_port + FIRST_WORKER_PORT}",
        f"--max-worker-port={first_port + PORTS_IN_BLOCK - 1}",
        # Agents ask for no CPU. Ray starts as many workers ahead as it has CPUs, as soon as there is a driver: one for
        # each agent to come (0.1 s to the first answer and not 0.8).
        f"--num-cpus={max(1, order.gpus)}",
        f"--num-gpus={order.gpus}",
        f"--object-store-memory={order.object_store_bytes}",
        *((f"--labels={labels}",) if labels else ()),
    )


def environment(
    inherited: Mapping[str, str], folder: Path, order: StartRay, *, code: Path, first_port: int
) -> dict[str, str]:
    """Return Ray's environment: the inherited one without what the person has told Ray, and with what we tell it.

    The token is in a file, which only its name is given of.
    """
    kept = {name: value for name, value in inherited.items() if not name.startswith("RAY_")}
    told = SETTINGS | {
        "RAY_AUTH_TOKEN_PATH": str(folder / TOKEN_FILE),
        "PYTHONPATH": python_path(inherited, code),
        portblock.FIRST_PORT_VARIABLE: str(first_port),
        # Daemons and agents would end themselves where the cluster's control service is out of reach for a minute: the
        # cable is pulled, or the head is gone while a case is measured. As a rule the keeper ends them before.
        "RAY_gcs_rpc_server_reconnect_timeout_s": str(math.ceil(order.alone_s)),
        # Of 5 by default, which are over after 62 s.
        "RAY_health_check_failure_threshold": str(math.ceil((order.silence_s + _SILENCE_MARGIN_S) / _HEALTH_CHECK_S)),
    }
    if order.tls is not None:
        told |= {
            "RAY_USE_TLS": "1",
            "RAY_TLS_CA_CERT": str(folder / CA_FILE),
            "RAY_TLS_SERVER_CERT": str(folder / CERTIFICATE_FILE),
            "RAY_TLS_SERVER_KEY": str(folder / KEY_FILE),
        }
    return kept | told


def python_path(inherited: Mapping[str, str], code: Path) -> str:
    """Return where Python looks for packages: our code first, then where the person wants it to."""
    return os.pathsep.join(filter(None, (str(code), inherited.get("PYTHONPATH"))))


def endpoint(ip: str, port: int) -> str:
    """Return ``IP:port``, with brackets where the address has colons of its own."""
    return f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}"


def _write_secret(path: Path, secret: str) -> None:
    path.touch(mode=0o600, exist_ok=False)
    path.write_text(secret, encoding="ascii")


# --- what Ray says ---------------------------------------------------------------------------------------------


def last_words(text: str) -> str:
    """Return the last line that tells of something wrong, without colours and stamps; empty where there is none."""
    lines = [_ESCAPES.sub("", line).strip() for line in text.splitlines()]
    stamped = [found for line in lines if (found := _STAMPED.match(line))]
    if stamped:  # a daemon's log, in which all else are tables and stack traces
        telling = [found["text"] for found in stamped if found["severity"] in "EFC"]
    else:
        telling = [line for line in lines if any(map(str.isalnum, line)) and not _FINE.match(line)]
    return telling[-1] if telling else ""


def _last_log_line(folder: Path) -> str:
    for name in _LOGS:
        for path in sorted((folder / _RAY_FOLDER).glob(f"session_2*/logs/{name}")):
            if words := last_words(_tail(path)):
                return words
    return ""


def _tail(path: Path) -> str:
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - _LOG_TAIL_BYTES))
            return file.read().decode(errors="replace")
    except OSError:
        return ""
