"""One host over SSH, from the first packet to its report, and its part in a cluster."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import sys
import time
from typing import TYPE_CHECKING, Any, Final, TypeVar

from orchestrator.cluster.bringup import longest_alone_s
from orchestrator.diagnosis import Finding, Level, clock_finding
from orchestrator.diagnosis.software import minor
from orchestrator.errors import ClusterError
from orchestrator.reach.base import Destination, Step, UnreachableError
from orchestrator.reach.choice import is_here, reach_of
from orchestrator.reach.keeper import open_keeper
from workers.orders import (
    ClearUp,
    EnvironmentFound,
    EnvironmentInstalled,
    Examine,
    Examined,
    FindEnvironment,
    FindKeeper,
    InstallEnvironment,
    KeeperFound,
    Locate,
    Located,
    RayStarted,
    RayStopped,
    StartRay,
    StopRay,
)
from workers.protocol import FrameworkReport, Verdict

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from orchestrator.cluster.base import Stage
    from orchestrator.config.schema import HostDefaults, LimitsConfig
    from orchestrator.reach.base import Reach
    from orchestrator.reach.keeper import Keeper
    from orchestrator.reach.wheelhouse import Wheelhouse
    from workers.orders import KeeperIdentity, RayEnded
    from workers.protocol import HostReport

T = TypeVar("T")

#: Seconds for an order that is answered at once.
ANSWER_TIMEOUT_S: Final = 20.0

#: Seconds for a probe on a host that is starting to swap; it takes a fifth of one.
PROBE_TIMEOUT_S: Final = 40.0

#: Seconds that a host goes on without the head, at least; longer while agents live there, which end by themselves.
ORPHAN_GRACE_S: Final = 10.0

#: Seconds for Ray's daemons to end.
STOP_TIMEOUT_S: Final = 20.0


class HostSession:
    """A host of the config: reached once, examined, given its part of the cluster, let go."""

    def __init__(self, name: str, address: str, connection: HostDefaults, limits: LimitsConfig, stage: Stage) -> None:
        self.name = name
        self._connection = connection
        self._limits = limits
        self._stage = stage
        self.destination = Destination(
            name=name,
            address=address,
            user=connection.user,
            port=connection.port,
            insecure_host_keys=connection.insecure_host_keys,
            timeout_s=limits.connect_timeout_s,
        )
        self.findings: list[Finding] = []
        self.report: HostReport | None = None
        #: The environment that muster makes is there.
        self.is_installed = False
        #: The interpreter that runs Ray and the cases there.
        self.python: str | None = None
        self._reach: Reach | None = None
        self._keeper: Keeper | None = None
        #: Ray was started there, and nobody has said that it has ended.
        self._has_ray = False
        #: Its folder there.
        self._folder = ""
        #: Who keeps it, where the way to that keeper broke and another one was started.
        self._former: KeeperIdentity | None = None

    @property
    def is_here(self) -> bool:
        """True where this is the head's own machine, reached without SSH."""
        return is_here(self.destination)

    @property
    def installs(self) -> bool:
        """True where the environment is made by muster."""
        return self._connection.install

    @property
    def local_ip(self) -> str | None:
        """The address of this machine that the host sees; ``None`` where nobody knows."""
        return None if self._reach is None or self.is_here else self._reach.local_ip

    # --- reaching ---

    async def reach(self) -> bool:
        """Log in and start the keeper; return whether both went well. What did not is a finding."""
        try:
            self._reach = await reach_of(self.destination)
        except UnreachableError as error:
            self._passed(*_steps_before(error.step))
            self._problem(error.step.value, error, Verdict.HOST_DOWN)
            return False
        is_insecure = self.destination.insecure_host_keys and not self.is_here
        self._passed(*(step for step in Step if not (is_insecure and step is Step.HOST_KEY)))
        if is_insecure:
            self._find(
                "key",
                Level.WARNING,
                "INSECURE: its key was not checked; anybody on the way can read and change everything",
                remedy=f"put its key into ~/.ssh/known_hosts and take insecure_host_keys away from {self.name}",
            )
        try:
            self._keeper = await self._new_keeper(self._reach)
        except ClusterError as error:
            self._problem("python", error, Verdict.UNSUPPORTED)
            return False
        return True

    async def _new_keeper(self, reach: Reach) -> Keeper:
        patience_s = longest_alone_s(self._limits)
        return await open_keeper(reach, python=self._base_python, grace_s=ORPHAN_GRACE_S, patience_s=patience_s)

    @property
    def _base_python(self) -> str | None:
        """The interpreter that the keeper runs under; with `install`, Ray and TensorFlow need not be in it."""
        return self._connection.python or (sys.executable if self.is_here else None)

    async def locate(self, toward: str) -> Located:
        """Ask for the host's address on the way to ``toward``, and its clock. Raises ClusterError."""
        return await self._opened.ask(Locate(toward=toward), Located, timeout_s=ANSWER_TIMEOUT_S)

    async def check_clock(self) -> None:
        """Compare the host's clock with this machine's."""
        before = time.time()
        located = await self.locate("")
        after = time.time()
        offset_s, uncertainty_s = located.clock_s - (before + after) / 2, (after - before) / 2
        self.findings.append(clock_finding(self.name, offset_s=offset_s, uncertainty_s=uncertainty_s))

    # --- the environment and the report ---

    @property
    def has_gpu_driver(self) -> bool:
        """True where the host has NVIDIA's driver loaded, whatever Python knows of it."""
        return self._opened.greeting.has_nvidia_driver

    @property
    def python_minor(self) -> str:
        """Version of the interpreter that the keeper runs under: ``3.11``."""
        return minor(self._opened.greeting.python_version)

    @property
    def machine(self) -> str:
        """The processor's family, as the kernel calls it: ``x86_64``."""
        return self._opened.greeting.machine

    async def install(self, wheelhouse: Wheelhouse) -> None:
        """Bring the host what it lacks of a wheelhouse, and make the environment. Raises ClusterError."""
        keeper, wheels = self._opened, wheelhouse.wheels
        found = await keeper.ask(
            FindEnvironment(key=wheelhouse.key, wheels=wheels), EnvironmentFound, timeout_s=ANSWER_TIMEOUT_S
        )
        self.python = found.python
        if found.python is not None:
            self.is_installed = True
            self._find("environment", Level.OK, f"{found.python} is there")
            return
        missing = [wheel for wheel in wheels if wheel.sha256 in found.missing]
        total, sent = sum(wheel.size for wheel in missing), 0
        for wheel in missing:
            self._stage(f"bringing wheels to {self.name}", sent // 2**20, total // 2**20)
            await keeper.send_wheel(wheel, wheelhouse.folder / wheel.name, timeout_s=self._limits.install_timeout_s)
            sent += wheel.size
        self._stage(f"installing on {self.name}", None, None)
        installed = await keeper.ask(
            InstallEnvironment(key=wheelhouse.key, wheels=wheels),
            EnvironmentInstalled,
            timeout_s=self._limits.install_timeout_s,
        )
        self.python, self.is_installed = installed.python, True
        self._find(
            "environment",
            Level.OK,
            f"{installed.python} made in {installed.seconds:.0f} s; {len(missing)} of {len(wheels)} wheels"
            f" ({total / 1e6:.0f} MB) were brought",
        )

    async def examine(self) -> None:
        """Probe the host with the interpreter that will measure. Raises ClusterError."""
        if self.python is None:
            self.python = self._opened.greeting.python
        answer = await self._opened.ask(
            Examine(host=self.name, python=self.python), Examined, timeout_s=PROBE_TIMEOUT_S
        )
        self.report = answer.report
        if self.installs and not self.is_installed:
            self._find("environment", Level.OK, "will be made by `muster run`")
            self.report = _before_installation(answer.report)

    # --- its part of the cluster ---

    async def start_ray(self, order: StartRay) -> RayStarted:
        """Start Ray's daemons there. Raises ClusterError."""
        started = await self._opened.ask(order, RayStarted, timeout_s=order.timeout_s + ANSWER_TIMEOUT_S)
        self._has_ray, self._former, self._folder = True, None, started.folder
        return started

    @property
    def ray_ended(self) -> asyncio.Future[RayEnded]:
        """Done when what was started there has ended by itself."""
        return self._opened.ended

    async def still_has_ray(self) -> bool:
        """Return whether what was started there may still run; logs in again where the way to the host broke.

        Raises ClusterError where the host cannot be asked.
        """
        keeper = self._opened
        if keeper.is_lost:
            if self._has_ray:  # the first one that was lost has it, and those after it have nothing
                self._former = self._former or keeper.greeting.identity
            keeper = await self._reach_again()
        if self._has_ray and self._former is not None:
            found = await keeper.ask(FindKeeper(keeper=self._former), KeeperFound, timeout_s=ANSWER_TIMEOUT_S)
            if not found.is_there:
                # The host has restarted; or else keeper and guard were killed there, and left Ray behind.
                await keeper.ask(ClearUp(folder=self._folder), RayStopped, timeout_s=STOP_TIMEOUT_S)
                self._has_ray, self._former = False, None
        elif keeper.ended.done():
            self._has_ray = False
        return self._has_ray

    async def _reach_again(self) -> Keeper:
        """Log in and start another keeper, in the place of what is lost. Raises ClusterError."""
        await self._let_go()
        self._reach = await reach_of(self.destination)
        self._keeper = await self._new_keeper(self._reach)
        return self._keeper

    async def stop_ray(self) -> None:
        """End Ray's daemons there; a host that is not talked to any more ends them by itself."""
        if self._keeper is not None:
            with contextlib.suppress(ClusterError, asyncio.TimeoutError):
                if self._keeper.is_lost and self._has_ray:
                    # A look at what its keeper does, which may have been killed.
                    await asyncio.wait_for(self.still_has_ray(), STOP_TIMEOUT_S)
                else:
                    await self._keeper.ask(StopRay(), RayStopped, timeout_s=STOP_TIMEOUT_S)

    async def close(self) -> None:
        """Let the host go: the keeper ends what it still has."""
        await self._let_go()
        self._keeper = None

    async def _let_go(self) -> None:
        if self._keeper is not None:
            await self._keeper.close()
        reach, self._reach = self._reach, None
        if reach is not None:
            await reach.close()

    # --- findings ---

    async def tried(self, check: str, work: Coroutine[Any, Any, T], verdict: Verdict) -> T | None:
        """Return what ``work`` gives; where it fails, note the problem and return ``None``."""
        try:
            return await work
        except ClusterError as error:
            self._problem(check, error, verdict)
            return None

    @property
    def is_usable(self) -> bool:
        """True where nothing was found that stops all of its cases."""
        return all(finding.verdict is None for finding in self.findings)

    def _passed(self, *steps: Step) -> None:
        if self.is_here:
            return
        for step in steps:
            self._find(step.value, Level.OK, _PASSED[step].format(**self._words()))

    def _words(self) -> dict[str, str]:
        address, user = self.destination.address, self.destination.user
        return {"address": address, "user": f" as {user}" if user else ""}

    def _problem(self, check: str, error: ClusterError, verdict: Verdict) -> None:
        self._find(check, Level.PROBLEM, error.message, remedy=error.remedy, verdict=verdict)

    def _find(
        self, check: str, level: Level, text: str, *, remedy: str | None = None, verdict: Verdict | None = None
    ) -> None:
        self.findings.append(
            Finding(host=self.name, check=check, level=level, text=text, remedy=remedy, verdict=verdict)
        )

    @property
    def _opened(self) -> Keeper:
        if self._keeper is None:
            raise ClusterError(f"{self.name} was not reached")
        return self._keeper


#: What a step that went well is told as.
_PASSED: Final = {
    Step.RESOLVE: "{address} is known",
    Step.CONNECT: "an SSH server answers",
    Step.HOST_KEY: "the host's key is the known one",
    Step.LOGIN: "logged in{user}",
}


def _before_installation(report: HostReport) -> HostReport:
    """Return a report that does not hold against the host what is still to be installed there."""
    frameworks = tuple(FrameworkReport(name=each.name, version=None) for each in report.frameworks)
    return dataclasses.replace(report, frameworks=frameworks)


def _steps_before(failed: Step) -> tuple[Step, ...]:
    steps = tuple(Step)
    return steps[: steps.index(failed)]
