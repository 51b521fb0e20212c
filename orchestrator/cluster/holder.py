"""The process that keeps a cluster between runs: it brings it up, waits until it is told to go, and takes it down.

    python -m orchestrator.cluster.holder FOLDER

FOLDER is a :class:`orchestrator.cluster.warm.Place`. Until the cluster is up, standard output is a pipe to
:func:`orchestrator.cluster.keeping.bring_up`, one JSON line a message; who closes it early wants no cluster any more.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import importlib
import os
import signal
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from orchestrator.cluster.warm import KeptCluster, Place, Record
from orchestrator.config.load import load_text
from orchestrator.diagnosis import Finding, Level
from orchestrator.errors import ClusterError, MusterError
from orchestrator.inventory import take_inventory
from workers import codec
from workers.descendants import look
from workers.protocol import Verdict  # noqa: TC001  # the codec reads annotations when called

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestrator.cluster.base import Cluster, Survey
    from orchestrator.config.schema import Config
    from workers.protocol import Device


@dataclass(frozen=True, kw_only=True, slots=True)
class Order:
    """What the holder is to hold."""

    text: str
    path: str
    overrides: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Staged:
    """What goes on: see :data:`orchestrator.cluster.base.Stage`."""

    text: str
    done: int | None
    total: int | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """A :class:`~orchestrator.diagnosis.Finding` on its way."""

    host: str
    check: str
    level: Level
    text: str
    remedy: str | None
    verdict: Verdict | None

    @classmethod
    def of(cls, finding: Finding) -> Found:
        """Return it as it travels."""
        return cls(
            host=finding.host,
            check=finding.check,
            level=finding.level,
            text=finding.text,
            remedy=finding.remedy,
            verdict=finding.verdict,
        )

    @property
    def finding(self) -> Finding:
        """What arrives."""
        return Finding(
            host=self.host,
            check=self.check,
            level=self.level,
            text=self.text,
            remedy=self.remedy,
            verdict=self.verdict,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Up:
    """The cluster is up, and the record says how to get in."""


@dataclass(frozen=True, kw_only=True, slots=True)
class NotUp:
    """It will not be; the holder ends."""

    message: str
    remedy: str | None


Message: TypeAlias = Staged | Found | Up | NotUp


def main(arguments: Sequence[str]) -> int:
    """Hold the cluster of the place named by the only argument; return the exit code."""
    place = Place(Path(arguments[0]))
    with place.held() as is_ours:
        if not is_ours:
            _tell(NotUp(message="another process is bringing this cluster up, or taking it down", remedy=None))
            return 1
        try:
            asyncio.run(_hold(place))
        except MusterError as error:
            # The log stays, and says more.
            place.forget()
            _tell(NotUp(message=error.message, remedy=error.remedy))
            return 1
        except (asyncio.CancelledError, BrokenPipeError):
            # Told to go, or nobody waits for the cluster any more.
            pass
        place.remove()
    return 0


async def _hold(place: Place) -> None:
    order = codec.from_json(Order, place.order.read_bytes())
    loaded = load_text(order.text, order.path, overrides=order.overrides)
    config = loaded.config
    record = _new_record(place, config.name, order.path)
    place.write(record)
    farewell = _Farewell()
    module = importlib.import_module(f"orchestrator.cluster.{config.cluster.mode.value}")
    cluster: Cluster = module.connect(
        config, lambda text, done, total: _tell(Staged(text=text, done=done, total=total))
    )
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(cluster.close)
        devices = _devices(config, await cluster.survey(install=True))
        handle = await stack.enter_async_context(cluster.running(devices))
        if handle.entrance is None:
            raise ClusterError(f"a cluster of mode {config.cluster.mode.value} cannot be kept")
        # Once more: Ray may have put handlers of its own in the place of ours.
        farewell.listen()
        place.write(replace(record, cluster=KeptCluster.of(handle, handle.entrance)))
        _tell(Up())
        _say_no_more()
        await asyncio.get_running_loop().create_future()


def _new_record(place: Place, name: str, path: str) -> Record:
    own = look(os.getpid())
    if own is None:
        raise ClusterError("/proc cannot be read, and tells which process is which")
    since = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
    return Record(pid=own.pid, started=own.started, since=since, config_name=name, config_path=path, log=str(place.log))


def _devices(config: Config, survey: Survey) -> list[Device]:
    """Tell what was found, and return every device of every host that answered: later runs may ask for any of them."""
    for finding in survey.findings:
        _tell(Found.of(finding))
    stopped = {finding.host for finding in survey.findings if finding.verdict is not None}
    inventory = take_inventory(config.hosts, survey.reports)
    declared = [entry.device for entry in inventory.declared if entry.gap is None]
    devices = [device for device in (*declared, *inventory.undeclared) if device.host not in stopped]
    if not devices:
        raise ClusterError("no host can be used", remedy=f"muster check says why: {config.name}")
    return devices


class _Farewell:
    """Has SIGTERM and SIGINT end the task that makes this, whatever it waits for; further ones do not disturb that."""

    def __init__(self) -> None:
        self._task = asyncio.current_task()
        self.listen()

    def listen(self) -> None:
        """Take the signals."""
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, self._go)

    def _go(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            task.cancel()


def _tell(message: Message) -> None:
    """Pass a message on; a pipe that is closed says that nobody waits for this cluster any more."""
    sys.stdout.write(codec.event_to_json(message) + "\n")
    sys.stdout.flush()


def _say_no_more() -> None:
    """Close the pipe: what is printed from now on goes to the log."""
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
