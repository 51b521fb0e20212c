"""The grammar of the config: every key, what it means, its unit and its default.

Keys that are not built yet are in the grammar already and carry the mark of :func:`not_yet`; ``load`` refuses them
where they are given. Built from code, without ``load``, every model takes everything.
"""

from __future__ import annotations

import enum
from collections import Counter
from typing import Annotated, Literal

from pydantic import (
    Field,
    StrictBool,
    StrictInt,
    ValidationError,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
)
from pydantic_core import InitErrorDetails, PydanticCustomError

from orchestrator.config.kinds import (
    NOT_YET_ERROR,
    HostAddress,
    HostName,
    Keys,
    Line,
    Positive,
    Seconds,
    Selector,
    StoreUrl,
    Swept,
    Whole,
    is_built_only,
    not_yet,
    problem,
)
from orchestrator.config.measurement import LayoutChoice, MeasureConfig, SweepEntry, UntilConfig, WorkloadConfig
from orchestrator.config.selectors import MAX_HOSTS, DeviceSelector, count_hosts, expand_hosts
from workers.protocol import Sampling

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


class ClusterMode(str, enum.Enum):
    """Where the Ray cluster comes from: this machine, hosts over SSH, or one that is there already."""

    LOCAL = "local"
    SSH = "ssh"
    ADDRESS = "address"


class WhenBusy(str, enum.Enum):
    """What to do with a device that somebody else is using."""

    MEASURE = "measure"
    WAIT = "wait"
    SKIP = "skip"


class HostConcurrency(str, enum.Enum):
    """Whether the devices of one host are measured at the same time."""

    #: GPUs side by side; a CPU device only while nothing else of its host is at work, for a GPU case feeds on the CPU.
    CONCURRENT = "concurrent"
    #: One case at a time, and none while an agent of the host is still starting.
    EXCLUSIVE = "exclusive"


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


class ClusterConfig(Keys):
    """Where the Ray cluster comes from."""

    mode: ClusterMode = Field(
        ClusterMode.LOCAL,
        description="local: a cluster on this machine; ssh: started on the hosts; address: one that is there already.",
        json_schema_extra=not_yet("clusters of other hosts"),
    )
    head_address: Line | None = Field(
        None,
        description="The name or address under which the hosts reach the head.",
        json_schema_extra=not_yet("clusters of other hosts"),
    )
    address: Line | None = Field(
        None,
        description="Address of the cluster that is there already, for mode address: ray-head.example:6379.",
        json_schema_extra=not_yet("clusters of other hosts"),
    )
    token_file: Line | None = Field(
        None,
        description="File with the cluster's authentication token; without it one is made for each run.",
        json_schema_extra=not_yet("clusters of other hosts"),
    )
    tls: StrictBool = Field(
        False,
        description="Encrypt what Ray sends between hosts.",
        json_schema_extra=not_yet("encryption between hosts"),
    )


class HostDefaults(Keys):
    """How hosts are reached, where a host does not say otherwise."""

    user: Line | None = Field(
        None, description="User to log in as; your own name if not given.", json_schema_extra=not_yet("hosts over SSH")
    )
    port: Annotated[StrictInt, Field(ge=1, le=65_535)] = Field(
        22, description="TCP port of the SSH server.", json_schema_extra=not_yet("hosts over SSH")
    )
    python: Line | None = Field(
        None,
        description="Python interpreter on the host: ~/muster/bin/python.",
        json_schema_extra=not_yet("hosts over SSH"),
    )
    install: StrictBool = Field(
        False,
        description="Set up Python and the benchmark on the host if they are not there.",
        json_schema_extra=not_yet("setting hosts up"),
    )
    insecure_host_keys: StrictBool = Field(
        False,
        description="Connect to hosts whose SSH key is unknown. Anybody on the way can then read and change all.",
        json_schema_extra=not_yet("hosts over SSH"),
    )


class HostConfig(Keys):
    """One host, or a range of them, and the devices to be measured there."""

    name: HostName = Field(description="The host's own name in every table; a range such as gpu[01-04] names many.")
    address: HostAddress | None = Field(
        None,
        description="Where the host is reached, if not under its name; {name} stands for it: {name}.lab.example.",
        json_schema_extra=not_yet("hosts over SSH"),
    )
    devices: Swept[Selector] = Field(
        description=(
            "What to measure there: cpu (all cores), cpu:0-7,9, cpu:numa0, gpu:all (at least one must be there),"
            " gpu:any (none is fine), gpu:0, gpu:0-3, gpu:GPU-1a2b (a UUID's beginning)."
        )
    )
    measure: MeasureConfig | None = Field(
        None, description="Keys of `measure` that are different on this host; the others stay."
    )
    user: Line | None = Field(
        None, description="As in `defaults`, for this host.", json_schema_extra=not_yet("hosts over SSH")
    )
    port: Annotated[StrictInt, Field(ge=1, le=65_535)] | None = Field(
        None, description="As in `defaults`, for this host.", json_schema_extra=not_yet("hosts over SSH")
    )
    python: Line | None = Field(
        None, description="As in `defaults`, for this host.", json_schema_extra=not_yet("hosts over SSH")
    )
    install: StrictBool | None = Field(
        None, description="As in `defaults`, for this host.", json_schema_extra=not_yet("setting hosts up")
    )
    insecure_host_keys: StrictBool | None = Field(
        None, description="As in `defaults`, for this host.", json_schema_extra=not_yet("hosts over SSH")
    )

    @field_validator("devices")
    @classmethod
    def _check_devices(cls, devices: tuple[DeviceSelector, ...]) -> tuple[DeviceSelector, ...]:
        for text, count in Counter(selector.text for selector in devices).items():
            if count > 1:
                raise problem(f"device {text!r} is named {count} times")
        return devices

    def connection(self, defaults: HostDefaults) -> HostDefaults:
        """Return ``defaults`` with what this host says otherwise."""
        own = {key: getattr(self, key) for key in HostDefaults.model_fields if getattr(self, key) is not None}
        return defaults.model_copy(update=own)

    def expanded(self) -> tuple[HostConfig, ...]:
        """Return one host for each name of the range, with ``{name}`` in its address filled in."""
        return tuple(
            self.model_copy(
                update={"name": name, "address": self.address and self.address.replace("{name}", name)},
            )
            for name in expand_hosts(self.name)
        )


class LimitsConfig(Keys):
    """How long each wait may take, and how often a case is tried."""

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
    host_grace_s: Seconds = Field(
        60.0,
        alias="host_grace",
        description="How long a host may be silent before its cases are given up: 1m.",
        json_schema_extra=not_yet("hosts that go and come back"),
    )


class PolicyConfig(Keys):
    """How cases are given to devices."""

    busy: WhenBusy = Field(
        WhenBusy.MEASURE,
        description="With a device that somebody else is using: measure all the same, wait until it is free, skip it.",
        json_schema_extra=not_yet("looking for other users of a device"),
    )
    host_concurrency: HostConcurrency = Field(
        HostConcurrency.CONCURRENT,
        description="concurrent: a host's GPUs at once, its CPU devices alone; exclusive: one device at a time.",
    )
    order: Order = Field(
        Order.INTERLEAVED,
        description="interleaved: every device soon has a figure; sequential: as written; random: shuffled by `seed`.",
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


class ScheduleConfig(Keys):
    """When runs start by themselves."""

    cron: Line = Field(description="Five cron fields: minute, hour, day, month, weekday; `0 3 * * *` is 3 every night.")
    timezone: Line = Field("UTC", description="Time zone of `cron`, by its IANA name: Europe/Berlin.")
    jitter_s: Seconds | None = Field(
        None,
        alias="jitter",
        description="Start up to this much later, by chance, so that labs do not all start at once.",
    )


class NotifyConfig(Keys):
    """Who is told how a run ended."""

    command: Swept[Line] = Field(description="Program and arguments; it gets the run as JSON on its standard input.")
    on: Swept[Literal["success", "failure", "regression"]] = Field(
        ("failure", "regression"), description="Which ends of a run are told of."
    )


class RetentionConfig(Keys):
    """Which old runs are removed from the store."""

    keep_runs: Positive | None = Field(None, description="Newest runs to keep; all if not given.")
    keep_for_s: Seconds | None = Field(None, alias="keep_for", description="Remove runs older than this: 90d.")


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
    report: ReportConfig = Field(ReportConfig(), description="What stands in the table beside the run's figures.")
    store: StoreUrl = Field(
        "sqlite:///muster.db",
        description="Where results are kept: sqlite:///FILE, relative to the current directory.",
        json_schema_extra=not_yet("stores other than SQLite", supported="sqlite:///."),
    )
    schedule: ScheduleConfig | None = Field(
        None, description="When runs start by themselves.", json_schema_extra=not_yet("schedules")
    )
    notify: NotifyConfig | None = Field(
        None, description="Who is told how a run ended.", json_schema_extra=not_yet("notifications")
    )
    retention: RetentionConfig | None = Field(
        None, description="Which old runs are removed from the store.", json_schema_extra=not_yet("removing old runs")
    )
    rerun: Rerun = Field(
        Rerun.NEVER,
        description="Which cases of a finished run are run again by themselves.",
        json_schema_extra=not_yet("running cases again by themselves"),
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

    @field_validator("hosts")
    @classmethod
    def _check_hosts_are_local(cls, hosts: tuple[HostConfig, ...], info: ValidationInfo) -> tuple[HostConfig, ...]:
        """Raise for hosts beside this machine, where the context asks for what is built only."""
        if is_built_only(info) and info.data.get("cluster") == ClusterConfig() and len(hosts) > 1:
            raise PydanticCustomError(NOT_YET_ERROR, "hosts beside this machine")
        return hosts

    def sampling_for(self, host: HostConfig) -> Sampling:
        """Return how many steps are taken on ``host``."""
        return self.measure.overridden_by(host.measure).sampling


def _twice(name: str, pattern: str, first: int) -> str:
    inside = "" if name == pattern else f" (in {pattern})"
    return f"host {name!r}{inside} is named already by hosts[{first}]"
