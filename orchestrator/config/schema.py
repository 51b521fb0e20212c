"""The grammar of the config: every key, what it means, its unit and its default.

Keys that are not built yet are in the grammar already and carry the mark of :func:`not_yet`; ``load`` refuses them
where they are given. Built from code, without ``load``, every model takes everything.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from typing import Annotated

from pydantic import Field, StrictInt, ValidationError, ValidationInfo, WithJsonSchema, field_validator
from pydantic_core import InitErrorDetails

from orchestrator.config.defaults import DEFAULT_STORE
from orchestrator.config.hosts import ClusterConfig, ClusterMode, HostConfig, HostDefaults
from orchestrator.config.kinds import (
    Keys,
    Line,
    Positive,
    Seconds,
    Share,
    StoreUrl,
    Whole,
    is_built_only,
    not_yet,
    problem,
)
from orchestrator.config.measurement import LayoutChoice, MeasureConfig, SweepEntry, UntilConfig, WorkloadConfig
from orchestrator.config.quality import QualityConfig
from orchestrator.config.scheduling import NotifyConfig, RetentionConfig, ScheduleConfig
from orchestrator.config.selectors import MAX_HOSTS, DeviceSelector, count_hosts
from workers.protocol import HeadLoss, WhenBusy

__all__ = [
    "ClusterConfig",
    "ClusterMode",
    "Config",
    "DeviceSelector",
    "HostConcurrency",
    "HostConfig",
    "HostDefaults",
    "LayoutChoice",
    "LimitsConfig",
    "MeasureConfig",
    "NotifyConfig",
    "Order",
    "PolicyConfig",
    "QualityConfig",
    "ReportConfig",
    "Rerun",
    "RetentionConfig",
    "ScheduleConfig",
    "SweepEntry",
    "UntilConfig",
    "WhenBusy",
    "WorkloadConfig",
]

# --- words -----------------------------------------------------------------------------------------------------


class HostConcurrency(str, enum.Enum):
    """Whether the devices of one host are measured at the same time."""

    #: GPUs side by side; a CPU device only while nothing else of its host is at work, for a GPU case feeds on the CPU.
    CONCURRENT = "concurrent"
    #: One case at a time, and none while an agent of the host is still starting.
    EXCLUSIVE = "exclusive"
    #: All of them at once, CPU devices beside others as well, because the person asked for it.
    TOGETHER = "together"
    #: Each device alone, and then all of a host at once: the table shows what company costs.
    BOTH = "both"


class Order(str, enum.Enum):
    """In which order the cases of a device are run."""

    INTERLEAVED = "interleaved"
    SEQUENTIAL = "sequential"
    RANDOM = "random"


class Rerun(str, enum.Enum):
    """Which cases of a finished run are run again by themselves."""

    NEVER = "never"
    ON_FAILURE = "on_failure"
    ALWAYS = "always"


# --- the keys --------------------------------------------------------------------------------------------------


class LimitsConfig(Keys):
    """How long each wait may take, and how often a case is tried."""

    connect_timeout_s: Seconds = Field(
        30.0,
        alias="connect_timeout",
        description="For a host to answer, and as long again for it to let us in: 30s. A slow host is not a dead one.",
    )
    join_timeout_s: Seconds = Field(
        60.0, alias="join_timeout", description="For Ray to come up on a host and join the cluster: 1m."
    )
    install_timeout_s: Seconds = Field(
        1800.0, alias="install_timeout", description="For bringing the wheels to a host and installing them: 30m."
    )
    lease_timeout_s: Seconds = Field(
        3600.0, alias="lease_timeout", description="How long a device that another muster holds is waited for: 1h."
    )
    busy_timeout_s: Seconds = Field(
        600.0, alias="busy_timeout", description="How long a device that somebody else is using is waited for: 10m."
    )
    start_timeout_s: Seconds = Field(
        120.0, alias="start_timeout", description="From giving a case to a device until its first step begins: 2m."
    )
    case_timeout_s: Seconds = Field(
        600.0, alias="case_timeout", description="From a case's first step until its last: 10m."
    )
    collect_timeout_s: Seconds = Field(
        30.0, alias="collect_timeout", description="From a case's last step until its result is on the head: 30s."
    )
    prepare_timeout_s: Seconds = Field(
        60.0, alias="prepare_timeout", description="For a device's agent to come up: 1m."
    )
    attempts: Annotated[Positive, Field(le=100)] = Field(
        2, description="How often a case is tried at most, the first time counted."
    )
    retry_delay_s: Seconds = Field(
        5.0,
        alias="retry_delay",
        description="From a failed attempt to the next one of its case, doubled each time; other cases go first: 5s.",
    )
    queue_timeout_s: Seconds = Field(
        86_400.0,
        alias="queue_timeout",
        description="How long after the run's begin a case may still be waiting for its turn: 24h.",
    )
    host_grace_s: Seconds = Field(
        60.0,
        alias="host_grace",
        description="How long a host or an agent may be gone before its cases are given up: 1m.",
    )
    head_grace_s: Seconds = Field(
        60.0,
        alias="head_grace",
        description="How long an agent goes on without a sign of the head before the head counts as gone: 1m.",
    )
    quarantine_after: Whole = Field(
        3,
        description="Cases in a row that must fail on a device, or on a host, for it to be put aside; 0 for never.",
    )
    quarantine_time_s: Seconds = Field(
        3600.0, alias="quarantine_time", description="How long what was put aside gets no cases: 1h."
    )


class PolicyConfig(Keys):
    """How cases are given to devices."""

    busy: WhenBusy = Field(
        WhenBusy.WAIT,
        description=(
            "With a device that somebody else is using: wait until it is free, skip it, or measure all the same."
        ),
    )
    busy_above: Share = Field(
        0.5,
        description=(
            "Share of a device from which on somebody else's use of it counts: of a GPU's time, of a CPU device's"
            " cores: 50%. Another's program that computes on a GPU always counts."
        ),
    )
    host_concurrency: HostConcurrency = Field(
        HostConcurrency.CONCURRENT,
        description=(
            "concurrent: a host's GPUs at once, its CPU devices alone; exclusive: one device at a time;"
            " together: all at once, and CPU figures suffer; both: each alone, then all at once, to compare."
        ),
    )
    order: Order = Field(
        Order.INTERLEAVED,
        description="interleaved: every device soon has a figure; sequential: as written; random: shuffled by `seed`.",
    )
    on_head_loss: HeadLoss = Field(
        HeadLoss.FINISH,
        description="What agents do with the case at work when the head has gone: finish it and keep the result; stop.",
    )
    seed: Whole = Field(0, description="What the random order is made from: the same seed gives the same order.")


class ReportConfig(Keys):
    """What stands in the table beside the figures of the run."""

    references: tuple[Line, ...] = Field(
        ("seed",), description="Sets of published rows that are shown below; none for []."
    )
    relative_to: Line | None = Field(
        None, description="Row that ratios are taken to, by its device's name: Titan X. Without it there are none."
    )


class Config(Keys):
    """One lab: its hosts and devices, what is measured on them, and how."""

    version: Annotated[StrictInt, Field(ge=1, le=1), WithJsonSchema({"const": 1})] = Field(
        description="Version of this grammar: 1."
    )
    name: Line = Field(description="Name of the runs, for people.")
    cluster: ClusterConfig = Field(ClusterConfig(), description="Where the Ray cluster comes from.")
    defaults: HostDefaults = Field(HostDefaults(), description="How hosts are reached, if they do not say otherwise.")
    hosts: tuple[HostConfig, ...] = Field(
        (HostConfig(name="localhost", devices=("cpu", "gpu:any")),),
        min_length=1,
        description="Hosts and their devices; this machine with its CPU and every GPU if not given.",
    )
    workloads: tuple[WorkloadConfig, ...] = Field(min_length=1, description="What is measured on every device.")
    measure: MeasureConfig = Field(MeasureConfig(), description="How many steps are taken.")
    limits: LimitsConfig = Field(LimitsConfig(), description="How long each wait may take, and how often to try.")
    policy: PolicyConfig = Field(PolicyConfig(), description="How cases are given to devices.")
    quality: QualityConfig = Field(QualityConfig(), description="From when on a figure is doubtful.")
    report: ReportConfig = Field(ReportConfig(), description="What stands in the table beside the run's figures.")
    store: StoreUrl = Field(
        DEFAULT_STORE,
        description="Where results are kept: sqlite:///FILE, relative to the current directory.",
        json_schema_extra=not_yet(
            "stores other than SQLite and PostgreSQL", supported=r"sqlite:///.|postgresql\+psycopg://"
        ),
    )
    schedule: ScheduleConfig | None = Field(None, description="When runs start by themselves: `muster schedule add`.")
    notify: NotifyConfig | None = Field(None, description="Who is told how a scheduled run ended.")
    retention: RetentionConfig | None = Field(None, description="Which old runs `muster prune` removes from the store.")
    rerun: Rerun = Field(
        Rerun.NEVER,
        description=(
            "Which cases are run again by themselves, once, when the run has ended: none; those without a figure;"
            " all of them."
        ),
    )

    @field_validator("hosts")
    @classmethod
    def _expand_hosts(cls, hosts: tuple[HostConfig, ...]) -> tuple[HostConfig, ...]:
        """Return one entry for each real host; a host that is named twice is an error at its second place."""
        if sum(count_hosts(host.name) for host in hosts) > MAX_HOSTS:
            raise problem(f"more than {MAX_HOSTS:,} hosts")
        expanded: dict[str, HostConfig] = {}
        entries: dict[str, int] = {}
        wrong: list[InitErrorDetails] = []
        for index, host in enumerate(hosts):
            ours = {one.name: one for one in host.expanded()}
            if twice := next((name for name in ours if name in entries), None):
                error = problem(_twice(twice, host.name, entries[twice]))
                wrong.append({"type": error, "loc": (index, "name"), "input": host.name})
            entries = dict.fromkeys(ours, index) | entries
            expanded |= ours
        if wrong:
            raise ValidationError.from_exception_data("hosts", wrong)
        return tuple(expanded.values())

    @field_validator("defaults")
    @classmethod
    def _check_defaults_fit_the_mode(cls, defaults: HostDefaults, info: ValidationInfo) -> HostDefaults:
        """Raise for ways of reaching hosts where none is reached, unless they are simulated."""
        cluster = info.data.get("cluster")
        if is_built_only(info) and isinstance(cluster, ClusterConfig) and cluster.mode is not ClusterMode.SSH:
            given = [(key, value) for key, value in defaults if value != HostDefaults.model_fields[key].default]
            _refuse("defaults", [((key,), value) for key, value in given], cluster.mode)
        return defaults

    @field_validator("hosts")
    @classmethod
    def _check_hosts_fit_the_mode(cls, hosts: tuple[HostConfig, ...], info: ValidationInfo) -> tuple[HostConfig, ...]:
        """Raise for hosts that the mode does not reach, unless they are simulated."""
        cluster = info.data.get("cluster")
        if not is_built_only(info) or not isinstance(cluster, ClusterConfig):
            return hosts
        if cluster.mode is ClusterMode.LOCAL and len(hosts) > 1:
            raise problem(
                f"{len(hosts)} hosts, and mode local is this machine alone; for others: `cluster: {{mode: ssh}}`"
            )
        beside = [((i, key), value) for i, host in enumerate(hosts) for key, value in host.beside(cluster.mode)]
        _refuse("hosts", beside, cluster.mode)
        return hosts

    def measure_for(self, host: HostConfig) -> MeasureConfig:
        """Return how many steps are taken on ``host``, and in how many processes."""
        return self.measure.overridden_by(host.measure)


def _refuse(title: str, given: Sequence[tuple[tuple[int | str, ...], object]], mode: ClusterMode) -> None:
    """Raise for keys, by where they stand, that mean nothing in ``mode``."""
    error = problem(f"is not for mode {mode.value}: other machines are reached in mode ssh")
    if given:
        raise ValidationError.from_exception_data(
            title, [InitErrorDetails(type=error, loc=place, input=value) for place, value in given]
        )


def _twice(name: str, pattern: str, first: int) -> str:
    inside = "" if name == pattern else f" (in {pattern})"
    return f"host {name!r}{inside} is named already by hosts[{first}]"
