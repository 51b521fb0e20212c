"""A cluster that is up already and stays up: its nodes are the hosts, and they are probed through Ray itself."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import workers
from orchestrator.cluster.base import ClusterHandle, Survey, no_stage
from orchestrator.cluster.driver import joined, live_nodes, load_ray
from orchestrator.cluster.trial import visit
from orchestrator.diagnosis import Finding, Level
from orchestrator.errors import ClusterError, last_line
from workers import codec
from workers.protocol import HostReport, Verdict

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence

    from orchestrator.cluster.base import Stage
    from orchestrator.cluster.driver import Entrance, RayNode
    from orchestrator.cluster.matching import Matching
    from workers.protocol import Device

#: The package that hosts get from Ray: they need not have it, and where they do this one goes first.
CODE: Final = Path(workers.__path__[0])

#: Seconds that the probe itself may take on a host; it answers in a tenth of one.
PROBE_TIMEOUT_S: Final = 30

if TYPE_CHECKING:
    #: Finds the hosts among the live nodes of a cluster; told which of them this process is connected to.
    Finder: TypeAlias = Callable[[Sequence[RayNode], str], Awaitable[Matching]]


class JoinedCluster:
    """Hosts of a config on a cluster that somebody else runs, or that is kept between runs.

    The first of :meth:`survey` and :meth:`running` connects, and :meth:`close` disconnects: nothing else of the
    cluster is touched.
    """

    def __init__(
        self,
        hosts: Sequence[str],
        entrance: Entrance,
        find: Finder,
        *,
        connect_timeout_s: float,
        join_timeout_s: float,
        remedy: str,
        findings: Sequence[Finding] = (),
        stage: Stage = no_stage,
    ) -> None:
        self._hosts = hosts
        self._entrance = entrance
        self._find = find
        self._connect_timeout_s = connect_timeout_s
        #: For a host to take a process of ours and bring it our code; the probe's own time comes on top.
        self._join_timeout_s = join_timeout_s
        #: For a host that has no node.
        self._remedy = remedy
        self._findings = findings
        self._stage = stage
        self._connection = contextlib.AsyncExitStack()
        self._matching: Matching | None = None
        #: The node that this process is connected to.
        self._own = ""

    async def survey(self, *, install: bool) -> Survey:
        """Find the hosts among the cluster's nodes and probe all of them at once; installs nothing.

        Raises ClusterError where the cluster cannot be joined.
        """
        matching = await self._join()
        probes = [asyncio.create_task(self._probe(name, node)) for name, node in matching.nodes.items()]
        self._stage("probing hosts", 0, len(probes))
        for done, probe in enumerate(asyncio.as_completed(probes), start=1):
            await probe
            self._stage("probing hosts", done, len(probes))
        answers = dict(zip(matching.nodes, (probe.result() for probe in probes), strict=True))
        findings = [finding for host in self._hosts for finding in self._found(host, matching, answers.get(host))]
        return Survey(
            reports=tuple(answer for answer in answers.values() if isinstance(answer, HostReport)),
            findings=(*self._findings, *findings),
        )

    def preload(self) -> None:
        """Import Ray with its settings in place; they stay, for it reads them whenever it likes."""
        load_ray(self._entrance.environment())

    @contextlib.asynccontextmanager
    async def running(self, devices: Sequence[Device]) -> AsyncIterator[ClusterHandle]:
        """Give the cluster as it is, and leave it so."""
        matching = await self._join()
        wanted = dict.fromkeys(device.host for device in devices)
        yield ClusterHandle(
            address=self._entrance.address,
            token_file=self._entrance.token_file,
            nodes={name: matching.nodes[name].id for name in wanted if name in matching.nodes},
            lost={name: matching.problems[name] for name in wanted if name in matching.problems},
            entrance=self._entrance,
            comeback=self,
        )

    async def rejoin(self, host: str) -> str:
        """Return the node that the host has now. Raises ClusterError where it has none: whoever runs it must help."""
        matching = await self._find(await live_nodes(), self._own)
        node = matching.nodes.get(host)
        if node is None:
            raise ClusterError(matching.problems.get(host, f"{host} is not in the cluster"), remedy=self._remedy)
        return node.id

    async def why_gone(self, host: str) -> str | None:
        """Return ``None``: nobody but Ray knows."""
        return None

    async def close(self) -> None:
        """Disconnect; safe to call twice."""
        self._matching = None
        await self._connection.aclose()

    async def _join(self) -> Matching:
        if self._matching is None:
            self._stage("joining the cluster", None, None)
            await visit(self._entrance, timeout_s=self._connect_timeout_s)
            nodes = await self._connection.enter_async_context(joined(self._entrance, code=CODE))
            self._own = await asyncio.to_thread(_own_node)
            self._matching = await self._find(nodes, self._own)
        return self._matching

    def _found(self, host: str, matching: Matching, answer: HostReport | Finding | None) -> Iterator[Finding]:
        node = matching.nodes.get(host)
        if node is None:
            yield Finding(
                host=host,
                check="name",
                level=Level.PROBLEM,
                text=matching.problems[host],
                remedy=self._remedy,
                verdict=Verdict.HOST_DOWN,
            )
        else:
            text = f"the cluster's node {node.hostname} ({node.ip})"
            yield Finding(host=host, check="name", level=Level.OK, text=text)
        if isinstance(answer, Finding):
            yield answer

    async def _probe(self, host: str, node: RayNode) -> HostReport | Finding:
        """Return what a host has, or what came of asking; never takes longer than its deadline."""
        # A host that is cut off never answers a task, however long ago the cluster has given it up.
        timeout_s = self._join_timeout_s + PROBE_TIMEOUT_S
        try:
            reference = await asyncio.to_thread(_ask_for_report, host, node.id)
            return codec.from_json(HostReport, await _answer(reference, timeout_s))
        except asyncio.TimeoutError:
            return _unanswered(host, Verdict.HOST_DOWN, f"no answer through Ray within {timeout_s:.0f} s")
        except Exception as error:  # Ray has thirty kinds of them; what a person needs is in the text
            verdict = Verdict.UNSUPPORTED if _is_ours(error) else Verdict.HOST_DOWN
            return _unanswered(host, verdict, last_line(str(error), type(error).__name__))


def _unanswered(host: str, verdict: Verdict, text: str) -> Finding:
    return Finding(host=host, check="probe", level=Level.PROBLEM, text=text, verdict=verdict)


# --- through Ray -----------------------------------------------------------------------------------------------


def _own_node() -> str:
    """Return the id of the node that this process is connected to."""
    import ray

    return str(ray.get_runtime_context().get_node_id())


def _ask_for_report(host: str, node_id: str) -> Any:
    """Start a probe on a node and on no other; return the reference to its answer."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    def report(host: str, timeout_s: int) -> str:
        # Travels by value, so it names nothing of this module. The probe has a process of its own there, as everywhere:
        # a driver that hangs or crashes takes nothing with it.
        import pathlib
        import subprocess
        import sys

        import workers

        ended = subprocess.run(
            [sys.executable, "-m", "workers.probe", "--host", host],
            cwd=pathlib.Path(workers.__path__[0]).parent,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=timeout_s,
            check=False,
        )
        if ended.returncode != 0:
            raise RuntimeError(ended.stderr.decode(errors="replace").strip()[-1000:] or "the probe said nothing")
        return ended.stdout.decode()

    task = ray.remote(num_cpus=0, max_retries=0)(report).options(
        scheduling_strategy=NodeAffinitySchedulingStrategy(node_id, soft=False)
    )
    return task.remote(host, PROBE_TIMEOUT_S)


async def _answer(reference: Any, timeout_s: float) -> str:
    import ray

    answer: asyncio.Future[str] = asyncio.wrap_future(reference.future())
    try:
        return await asyncio.wait_for(answer, timeout_s)
    except asyncio.TimeoutError:
        with contextlib.suppress(ray.exceptions.RayError):
            ray.cancel(reference, force=True)
        raise


def _is_ours(error: Exception) -> bool:
    """Return whether the host is there, and what failed is what we wanted of it."""
    import ray

    return isinstance(error, ray.exceptions.RayTaskError | ray.exceptions.RuntimeEnvSetupError | codec.CodecError)
