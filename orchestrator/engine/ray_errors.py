"""What Ray's exceptions mean: whether the agent is gone, or the way to it, or only an attempt failed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import ray.exceptions

from orchestrator.errors import first_line


@dataclass(frozen=True, kw_only=True, slots=True)
class Meaning:
    """What a Ray exception from an agent's call stands for."""

    #: The agent is gone: its device is lost. Otherwise only the attempt failed.
    lost: bool
    text: str
    #: The way to the agent broke, and the agent may live: it is asked again until that is known.
    is_cut: bool = False


#: Every class of ``ray.exceptions`` finds its meaning here by its nearest ancestor; the last resort is RayError.
MEANINGS: Final[dict[type[BaseException], Meaning]] = {
    ray.exceptions.RayTaskError: Meaning(lost=False, text="the agent failed"),
    ray.exceptions.TaskCancelledError: Meaning(lost=False, text="Ray cancelled the call"),
    ray.exceptions.GetTimeoutError: Meaning(lost=False, text="Ray did not answer in time"),
    ray.exceptions.PendingCallsLimitExceeded: Meaning(lost=False, text="too many calls wait for the agent"),
    ray.exceptions.RayActorError: Meaning(lost=True, text="the agent died"),
    ray.exceptions.ActorDiedError: Meaning(lost=True, text="the agent died"),
    ray.exceptions.ActorUnavailableError: Meaning(lost=False, text="the agent cannot be reached", is_cut=True),
    ray.exceptions.ActorUnschedulableError: Meaning(lost=True, text="no host of the cluster can hold the agent"),
    ray.exceptions.TaskUnschedulableError: Meaning(lost=True, text="no host of the cluster can hold the agent"),
    ray.exceptions.NodeDiedError: Meaning(lost=True, text="the host left the cluster"),
    ray.exceptions.WorkerCrashedError: Meaning(lost=True, text="the agent's process crashed"),
    ray.exceptions.LocalRayletDiedError: Meaning(lost=True, text="Ray's daemon on the host died"),
    ray.exceptions.OutOfMemoryError: Meaning(lost=True, text="Ray ended the agent because the host is short of memory"),
    ray.exceptions.OutOfDiskError: Meaning(lost=True, text="Ray ran out of disk on the host"),
    ray.exceptions.RuntimeEnvSetupError: Meaning(lost=True, text="Ray could not set up the agent's environment"),
    ray.exceptions.ObjectLostError: Meaning(lost=True, text="Ray lost the agent's answer"),
    ray.exceptions.AuthenticationError: Meaning(lost=True, text="the cluster refused our token"),
    ray.exceptions.RayError: Meaning(lost=True, text="Ray failed"),
}


def meaning_of(error: BaseException) -> Meaning:
    """Return what an exception from a Ray call stands for; anything that is not Ray's own counts as a lost agent."""
    return next((MEANINGS[kind] for kind in type(error).__mro__ if kind in MEANINGS), MEANINGS[ray.exceptions.RayError])


def reason_of(error: BaseException) -> str:
    """Return what an exception from a Ray call stands for, with its own first line."""
    return f"{meaning_of(error).text}: {first_line(error)}"
