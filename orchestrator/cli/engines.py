"""What carries out a run's commands, and what the dispatcher is told, as the config asks for it."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Final

from orchestrator.config.sweep import expand
from orchestrator.dispatch.settings import DispatchSettings
from orchestrator.report.printable import printable
from workers.protocol import WhenBusy

if TYPE_CHECKING:
    import asyncio
    from collections.abc import AsyncIterator, Callable, Iterator, Sequence

    from orchestrator.cluster.base import Cluster, ClusterHandle
    from orchestrator.config.schema import Config
    from orchestrator.engine.base import Engine
    from workers.orders import RayEnded
    from workers.protocol import Device

#: Seconds that the head waits longer than an agent: the agent decides, the head only where the agent is silent.
HEAD_GRACE_S: Final = 10.0


@contextlib.asynccontextmanager
async def engine_for(
    run_id: str, config: Config, cluster: Cluster | None, devices: Sequence[Device], say: Callable[[str], None]
) -> AsyncIterator[Engine]:
    """Bring up what carries out the commands, and take it down whatever happens; a made-up lab without a cluster.

    What the person should know of it in the middle of a run is said by ``say``.
    Raises :class:`orchestrator.errors.ClusterError`.
    """
    if cluster is None:
        from orchestrator.engine.simulated import SimulatedEngine

        invented: Engine = SimulatedEngine(seed=config.policy.seed, epoch_s=time.time())
        yield invented
        return
    async with cluster.running(devices) as handle:

        def warn(text: str) -> None:
            # Part of it came from a host.
            say(f"warning: {printable(text)}")

        # After the cluster is up: Ray reads its environment when it is imported.
        from orchestrator.engine.ray import EngineLimits, RayEngine

        limits = EngineLimits(
            start_timeout_s=config.limits.start_timeout_s,
            case_timeout_s=config.limits.case_timeout_s,
            lease_timeout_s=config.limits.lease_timeout_s,
            host_concurrency=config.policy.host_concurrency,
            # Agents wait for the head at least as long as the head waits for their host.
            head_timeout_s=max(config.limits.head_grace_s, config.limits.host_grace_s + HEAD_GRACE_S),
            on_head_loss=config.policy.on_head_loss,
            when_busy=config.policy.busy,
            busy_timeout_s=config.limits.busy_timeout_s,
            busy_above=config.policy.busy_above,
            telemetry_interval_s=config.measure.telemetry_interval_s,
        )
        engine = RayEngine(run_id=run_id, limits=limits, handle=handle, say=warn)
        with _end_told(handle, warn):
            try:
                yield engine
            finally:
                await engine.close()


@contextlib.contextmanager
def _end_told(handle: ClusterHandle, warn: Callable[[str], None]) -> Iterator[None]:
    """Tell the person if Ray on the head ends by itself while this lasts."""

    def tell(ended: asyncio.Future[RayEnded]) -> None:
        if not ended.cancelled():
            what_goes_on = "agents that are up finish the run, and none can be brought up any more"
            warn(f"Ray on the head is gone: {ended.result().reason}; {what_goes_on}")

    if handle.ended is not None:
        handle.ended.add_done_callback(tell)
    try:
        yield
    finally:
        if handle.ended is not None:
            handle.ended.remove_done_callback(tell)


def settings_of(config: Config, *, simulated: bool) -> DispatchSettings:
    """Return what the dispatcher is told of a config."""
    grace_s = 0.0 if simulated else HEAD_GRACE_S
    limits = config.limits
    waits_s = limits.lease_timeout_s
    if any(swept.seeks_largest for swept in expand(config.workloads)):
        # While a case looks for the largest batch it counts as waiting; its agent knows how long it may.
        waits_s = max(waits_s, limits.start_timeout_s + limits.case_timeout_s)
    if config.policy.busy is WhenBusy.WAIT:
        waits_s += limits.busy_timeout_s  # after the lease the device itself is waited for
    return DispatchSettings(
        host_concurrency=config.policy.host_concurrency,
        attempts=limits.attempts,
        prepare_timeout_s=limits.prepare_timeout_s,
        lease_timeout_s=waits_s + grace_s,
        start_timeout_s=limits.start_timeout_s + grace_s,
        case_timeout_s=limits.case_timeout_s + grace_s,
        collect_timeout_s=limits.collect_timeout_s,
        retry_delay_s=limits.retry_delay_s,
        queue_timeout_s=limits.queue_timeout_s,
        host_grace_s=limits.host_grace_s,
        quarantine_after=limits.quarantine_after,
    )
