"""What the dispatcher is told once, before a run begins."""

from __future__ import annotations

from dataclasses import dataclass

from orchestrator.config.schema import HostConcurrency

__all__ = ["DispatchSettings", "HostConcurrency"]


@dataclass(frozen=True, kw_only=True, slots=True)
class DispatchSettings:
    """How long each state may last, how often a case is tried, and what a host may do at once."""

    host_concurrency: HostConcurrency = HostConcurrency.CONCURRENT
    #: How often a case is tried at most, the first time included.
    attempts: int = 2
    #: Seconds from ``PrepareDevice`` until its agent must be ready.
    prepare_timeout_s: float = 60.0
    #: Seconds from ``CaseWaiting`` until the device must be ours.
    lease_timeout_s: float = 3600.0
    #: Seconds from ``StartCase``, or from ``CaseGranted`` after a wait, until its child must begin to warm up.
    start_timeout_s: float = 120.0
    #: Seconds from the start of the warm-up until everything must be measured.
    case_timeout_s: float = 600.0
    #: Seconds from the child's last word until its result must be on the head.
    collect_timeout_s: float = 30.0
    #: Seconds from a failed attempt to the next one of its case, doubled with each attempt.
    retry_delay_s: float = 0.0
    #: Seconds from the run's begin until every case must have begun.
    queue_timeout_s: float = 86_400.0
    #: Seconds that a host may be silent, or a device without an agent, before its cases are given up.
    host_grace_s: float = 60.0
    #: Cases that must fail in a row on a device, or on a host, for it to be put aside; 0 for never.
    quarantine_after: int = 0
    #: Seconds from ``CancelCase`` until the attempt must have ended; after that the device is taken as lost.
    cancel_timeout_s: float = 30.0
