"""What an agent has to tell and the head has not acknowledged: on the disk, and what it gave itself in memory too."""

from __future__ import annotations

import contextlib
import dataclasses
import threading
from typing import TYPE_CHECKING, Final

from workers.protocol import Environment, Fact
from workers.spool import Contents, Spool

if TYPE_CHECKING:
    from pathlib import Path

    from workers.protocol import Result

#: Results in memory. A head acknowledges each before it asks for the next; one that does not shall cost no memory.
MAX_IN_MEMORY: Final = 64

#: What a result says of a spool that could not take it.
SPOOL_FACT: Final = "host.spool"


class Outbox:
    """The results of one device that the head may still ask for; every method may be called from any thread.

    All are spooled under ``run_id``; without one, each under the run that it was asked for. ``folder`` is where all
    runs have their spools.
    """

    def __init__(self, device_id: str, *, run_id: str | None = None, folder: Path | None = None) -> None:
        self._device_id = device_id
        self._run_id = run_id
        self._folder = folder
        self._lock = threading.Lock()
        self._spools: dict[str, Spool] = {}
        #: By run, case and attempt, oldest first.
        self._own: dict[tuple[str, str, int], Result] = {}
        self._unwritten: set[tuple[str, str, int]] = set()
        if run_id is not None:
            self._spool(run_id).prune()

    def keep(self, run_id: str, result: Result) -> Result:
        """Keep ``result`` until it is acknowledged, whatever happens to this process; return it.

        Where it cannot be written down it is kept in memory alone, and says so among its facts.
        """
        with self._lock:
            spool, identity = self._spool(run_id), (self._run_id or run_id, result.case_key, result.attempt)
            try:
                spool.keep(self._device_id, result)
                self._unwritten.discard(identity)
            except OSError as error:
                fact = Fact(value=None, reason=f"the result cannot be kept on the host: {error}")
                environment = result.environment.merged(Environment(facts=((SPOOL_FACT, fact),)))
                result = dataclasses.replace(result, environment=environment)
                self._unwritten.add(identity)
            self._own[identity] = result
            self._make_room()
            return result

    def find(self, run_id: str, case_key: str, attempt: int) -> Result | None:
        """Return the result of an attempt that is over, ``None`` where it must be tried.

        That is one that this agent gave, or that another left which measured this device before. Of another's, what
        was merely stopped is not meant: the case was to be tried again.
        """
        with self._lock:
            own = self._own.get((self._run_id or run_id, case_key, attempt))
            if own is not None:
                return own
            found = self._spool(run_id).find(case_key, attempt)
            return found if found is not None and found.verdict.is_final else None

    def contents(self) -> Contents:
        """Return all that is not acknowledged of this device, and what of it cannot be read."""
        with self._lock:
            found = [spool.contents(self._device_id) for spool in self._spools.values()]
            unwritten = tuple(self._own[identity] for identity in self._own if identity in self._unwritten)
        return Contents(
            results=tuple(result for each in found for result in each.results) + unwritten,
            problems=tuple(problem for each in found for problem in each.problems),
        )

    def acknowledge(self, case_key: str, attempt: int) -> None:
        """Forget a result: the head has it. Nothing happens where there is none."""
        with self._lock:
            for run_id, spool in self._spools.items():
                identity = run_id, case_key, attempt
                self._own.pop(identity, None)
                self._unwritten.discard(identity)
                # What cannot be removed is told of once more, and the head knows it.
                with contextlib.suppress(OSError):
                    spool.forget(case_key, attempt)

    def write_all(self) -> bool:
        """Try once more to write down what could not be; return whether all of it is written now."""
        with self._lock:
            for identity in tuple(self._unwritten):
                with contextlib.suppress(OSError):
                    self._spool(identity[0]).keep(self._device_id, self._own[identity])
                    self._unwritten.discard(identity)
            return not self._unwritten

    def _spool(self, run_id: str) -> Spool:
        run_id = self._run_id or run_id
        if run_id not in self._spools:
            self._spools[run_id] = Spool(run_id, self._folder)
        return self._spools[run_id]

    def _make_room(self) -> None:
        """Let go of the oldest in memory, first of those that are on the disk as well."""
        while len(self._own) > MAX_IN_MEMORY:
            oldest = next(
                (identity for identity in self._own if identity not in self._unwritten), next(iter(self._own))
            )
            del self._own[oldest]
            self._unwritten.discard(oldest)
