"""The words that cross the process boundary: devices, cases, samples, results and the events about them.

Every type is a frozen dataclass that :mod:`workers.codec` turns into JSON and back. Standard library only.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from workers.codec import UNSAID
from workers.telemetry.series import Doubt, Telemetry  # noqa: TC001  # the codec looks for them here

#: Raised when a message changes in a way that an older agent or head cannot read.
PROTOCOL_VERSION: Final = 6

#: Raised when the way time is taken changes, so that figures before and after are never ranked together.
METHOD_VERSION: Final = 1

#: A measured fact as it goes into JSON; ``None`` always has a reason beside it.
FactValue: TypeAlias = str | int | float | bool | None


class Verdict(str, enum.Enum):
    """How a case ended."""

    OK = "ok"
    NOISY = "noisy"
    THROTTLED = "throttled"
    CONTENDED = "contended"
    UNSUPPORTED = "unsupported"
    OOM = "oom"
    TIMEOUT = "timeout"
    CRASHED = "crashed"
    HOST_DOWN = "host_down"
    DEVICE_MISSING = "device_missing"
    BUSY = "busy"
    CANCELLED = "cancelled"
    NOT_RUN = "not_run"

    @property
    def has_figure(self) -> bool:
        """True where the case was measured, even if the figure is doubtful."""
        return self in _WITH_FIGURE

    @property
    def is_doubtful(self) -> bool:
        """True where the case was measured, and something speaks against the figure."""
        return self.has_figure and self is not Verdict.OK

    @property
    def is_final(self) -> bool:
        """True where going on with the run would not try the case again: it was not merely stopped or never begun."""
        return self not in _OPEN

    @property
    def is_transient(self) -> bool:
        """True where another attempt may end otherwise: too little memory, say, comes out the same again."""
        return self in _TRANSIENT


_OPEN: Final = frozenset({Verdict.CANCELLED, Verdict.NOT_RUN})

#: Cancelled without a stop means that the agent took the head for gone.
_TRANSIENT: Final = frozenset({Verdict.CRASHED, Verdict.HOST_DOWN, Verdict.CANCELLED})

_WITH_FIGURE: Final = frozenset({Verdict.OK, Verdict.NOISY, Verdict.THROTTLED, Verdict.CONTENDED})


class DeviceKind(str, enum.Enum):
    """What a device is."""

    CPU = "cpu"
    GPU = "gpu"


class Pass(str, enum.Enum):
    """Which part of a training step is timed."""

    FORWARD = "forward"
    FORWARD_BACKWARD = "forward_backward"
    #: Of a single convolution: the gradient of its input, or of its weights, without the pass before.
    BACKWARD_DATA = "backward_data"
    BACKWARD_WEIGHTS = "backward_weights"


#: The passes of a network.
NETWORK_PASSES: Final = (Pass.FORWARD, Pass.FORWARD_BACKWARD)


class Precision(str, enum.Enum):
    """The number type that weights, inputs and arithmetic use."""

    FLOAT32 = "float32"
    #: Weights and inputs are float32, and a GPU's tensor cores may round factors to 19 bits: TensorFloat-32.
    TF32 = "tf32"
    FLOAT16 = "float16"
    BFLOAT16 = "bfloat16"

    @property
    def itemsize(self) -> int:
        """Bytes of a number in memory."""
        return 2 if self in (Precision.FLOAT16, Precision.BFLOAT16) else 4


class Layout(str, enum.Enum):
    """The order of an image tensor's dimensions."""

    NHWC = "NHWC"
    NCHW = "NCHW"


class Compiler(str, enum.Enum):
    """What turns the graph into kernels."""

    NONE = "none"
    XLA = "xla"


class Fetch(str, enum.Enum):
    """Where a step leaves its output: on the device, or copied to the host as the seed's script does."""

    DEVICE = "device"
    HOST = "host"


class OneDnn(str, enum.Enum):
    """Whether oneDNN's kernels are in use on a CPU."""

    ON = "on"
    OFF = "off"


class Phase(str, enum.Enum):
    """What the measuring child is doing."""

    IMPORT = "import"
    BUILD = "build"
    WARMUP = "warmup"
    MEASURE = "measure"
    PEAK = "peak"


class HeadLoss(str, enum.Enum):
    """What an agent does with a case that is at work when the head has gone."""

    #: Measure it to its end, keep the result on the host, then end.
    FINISH = "finish"
    #: End it at once, keep what it gave on the host, then end.
    STOP = "stop"


class WhenBusy(str, enum.Enum):
    """What to do with a device that somebody else is using."""

    MEASURE = "measure"
    WAIT = "wait"
    SKIP = "skip"


class Company(str, enum.Enum):
    """Whether a case is measured with its host to itself or with all of the host's devices at once, to compare."""

    ALONE = "alone"
    TOGETHER = "together"


class StoppedBy(str, enum.Enum):
    """Why sampling ended."""

    STEPS = "steps"
    PRECISION = "precision"
    TIME = "time"


@dataclass(frozen=True, kw_only=True, slots=True)
class Fact:
    """One thing found out about a host or a process."""

    value: FactValue
    #: Why there is no value; ``None`` where there is one.
    reason: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Environment:
    """Everything known of where a figure was taken, under dotted names such as ``cpu.model``."""

    facts: tuple[tuple[str, Fact], ...] = ()

    def get(self, name: str) -> Fact:
        """Return the fact of that name, or an empty one that says it was not recorded."""
        return dict(self.facts).get(name, Fact(value=None, reason="not recorded"))

    def merged(self, other: Environment) -> Environment:
        """Return both sets of facts, sorted by name; where both have a name, ``other`` wins."""
        return Environment(facts=tuple(sorted({**dict(self.facts), **dict(other.facts)}.items())))


@dataclass(frozen=True, kw_only=True, slots=True)
class Device:
    """One GPU, or one CPU device: all or some cores of a host."""

    host: str
    #: The device's name on its host: ``gpu:0``, ``cpu``, ``cpu:0-7``.
    selector: str
    kind: DeviceKind
    #: The maker's name for it, as people know it.
    name: str
    #: GPU index as NVML counts; ``None`` for a CPU.
    index: int | None = None
    uuid: str | None = None
    memory_bytes: int | None = None
    #: Memory as the table shows it: size, and type and speed where they can be read.
    memory: str | None = None
    #: Logical CPUs that a CPU device may use; empty for a GPU.
    cores: tuple[int, ...] = ()

    @property
    def id(self) -> str:
        """The device's name in the whole lab: ``host/selector``."""
        return f"{self.host}/{self.selector}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Workload:
    """What is measured, every parameter fixed."""

    model: str
    pass_: Pass
    batch_size: int
    precision: Precision = Precision.FLOAT32
    layout: Layout = Layout.NHWC
    compiler: Compiler = Compiler.NONE
    framework: str = "tensorflow"
    fetch: Fetch = Fetch.DEVICE
    #: Whether the largest batch that fits is looked for and measured; ``batch_size`` is where the search begins.
    seeks_largest: bool = field(default=False, metadata=UNSAID)
    #: ``None`` as the framework decides.
    onednn: OneDnn | None = field(default=None, metadata=UNSAID)
    #: Threads that share the work of one operation on a CPU; ``None`` for as many as the device has cores.
    threads: int | None = field(default=None, metadata=UNSAID)


@dataclass(frozen=True, kw_only=True, slots=True)
class Sampling:
    """How many steps are taken.

    Fixed steps are ``min_steps == max_steps``. Otherwise sampling ends when the half width of the mean's 95 %
    confidence interval is at most ``relative_ci`` of the mean, or at ``max_steps``, or when the counted steps
    have taken ``max_time_s``.
    """

    warmup: int
    min_steps: int
    max_steps: int
    relative_ci: float | None = None
    max_time_s: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """One workload on one device; the atom of dispatch."""

    #: Content hash of everything below: the same in every process and on every machine.
    key: str
    device: Device
    workload: Workload
    sampling: Sampling
    method_version: int = METHOD_VERSION
    #: Which of several fresh processes for one workload this is, from 1; each is a case of its own.
    process: int = field(default=1, metadata=UNSAID)
    #: ``None`` where the plan does not compare the two.
    company: Company | None = field(default=None, metadata=UNSAID)
    #: The other devices that it holds, in the order of their ranks from 1 on: of a sum over several. ``device`` is the
    #: first, and times it.
    peers: tuple[Device, ...] = field(default=(), metadata=UNSAID)

    @property
    def devices(self) -> tuple[Device, ...]:
        """Every device that it holds, by rank."""
        return (self.device, *self.peers)


@dataclass(frozen=True, kw_only=True, slots=True)
class Ring:
    """The part of one device in a case of several."""

    #: Names the attempt: the same for each of its devices, and for no others.
    group: str
    #: Which of the devices this is, from 0; that one times the case.
    rank: int
    #: By what the host's others reach this device's host.
    host: str
    #: Where each device's process listens, ``host:port`` by rank; empty until all of them are held.
    addresses: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Together:
    """Cases of one host that are measured at once, each on a device of its own."""

    #: Names them on their host: the same for each of them, and for no others.
    group: str
    #: Their devices by selector, in one order for all.
    selectors: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class AttemptRequest:
    """What the head hands to an agent, and the agent to its child."""

    run_id: str
    case: Case
    #: Counts from 1.
    attempt: int
    #: Seconds from the start of the child until it must have begun its first step.
    start_timeout_s: float
    #: Seconds from the child's first step until its result must be there.
    case_timeout_s: float
    #: Seconds that a device or host is waited for that another case has, most likely one of another muster.
    lease_timeout_s: float = 3600.0
    #: Whether no other case may be at work on the host, whoever's it is.
    is_alone: bool = True
    #: Name of the head's machine, for those who have to wait.
    head: str = ""
    #: The most of the host's memory that the child may take for its data; ``None`` for no limit of ours. Where the
    #: largest batch is looked for, the agent sets it, or takes this where it is less.
    memory_bytes: int | None = field(default=None, metadata=UNSAID)
    #: What to do where somebody else, who keeps no leases, is using the device.
    when_busy: WhenBusy = WhenBusy.MEASURE
    #: Seconds that such a device is waited for.
    busy_timeout_s: float = 600.0
    #: Share of a device from which on somebody else's use of it counts: of a GPU's time, or of a CPU device's cores.
    busy_above: float = 0.5
    #: Seconds between two readings of telemetry; ``None`` for none.
    telemetry_interval_s: float | None = 1.0
    #: What is measured beside it, from a common beginning; ``None`` where nobody waits for anybody.
    together: Together | None = field(default=None, metadata=UNSAID)
    #: Where the case holds several devices; its ``device`` is this agent's own then, whichever rank that has.
    ring: Ring | None = field(default=None, metadata=UNSAID)
    protocol_version: int = PROTOCOL_VERSION


@dataclass(frozen=True, kw_only=True, slots=True)
class AgentSettings:
    """What an agent is told once, when it is made."""

    run_id: str
    #: Seconds without a sign of the head after which it counts as gone; ``None`` to wait for it for ever.
    head_timeout_s: float | None = None
    on_head_loss: HeadLoss = HeadLoss.FINISH


@dataclass(frozen=True, kw_only=True, slots=True)
class PhaseTiming:
    """How long the child spent in a phase."""

    phase: Phase
    seconds: float


# --- child -> agent, one JSON line each ------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class PhaseEntered:
    """The child has begun a phase."""

    phase: Phase


@dataclass(frozen=True, kw_only=True, slots=True)
class Started:
    """The step is built on the device that was asked for; warm-up begins."""

    environment: Environment


@dataclass(frozen=True, kw_only=True, slots=True)
class SampleBatch:
    """Some steps' times, in the order they were taken."""

    warmup: bool
    ms: tuple[float, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Finished:
    """The child's last word."""

    verdict: Verdict
    reason: str | None = None
    stopped_by: StoppedBy | None = None
    #: FLOP/s of a large matrix product at the case's precision; ``None`` with a reason where not measured.
    peak_flops: float | None = None
    peak_reason: str | None = None
    #: Bytes per second of a large array, read and written in place; the same.
    copy_bytes_per_s: float | None = field(default=None, metadata=UNSAID)
    copy_reason: str | None = field(default=None, metadata=UNSAID)
    phases: tuple[PhaseTiming, ...] = ()
    #: What is known only once the steps have run: the libraries that they loaded.
    environment: Environment = field(default_factory=Environment)


ChildEvent: TypeAlias = PhaseEntered | Started | SampleBatch | Finished


# --- agent -> head ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class Progress:
    """Where a running attempt is; for people, and for the head's deadlines."""

    case_key: str
    attempt: int
    phase: Phase
    #: Counted steps so far, and at most.
    step: int
    max_steps: int
    last_ms: float | None = None
    #: What telemetry read last of the device: degrees Celsius, watts; ``None`` where it does not tell.
    temperature_c: float | None = field(default=None, metadata=UNSAID)
    power_w: float | None = field(default=None, metadata=UNSAID)


@dataclass(frozen=True, kw_only=True, slots=True)
class AttemptWaiting:
    """The child that measures is not started yet.

    Another case, most likely of another muster, has the device or its host; or the largest batch is being looked for.
    """

    case_key: str
    attempt: int
    #: Who has it, and since when, or what is known of the batch; told again whenever that changes.
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class AttemptGranted:
    """The device is free after a wait, and is ours: the child is being started."""

    case_key: str
    attempt: int


@dataclass(frozen=True, kw_only=True, slots=True)
class AttemptHeld:
    """The device is held for a case of several, and waits to be told of the others."""

    case_key: str
    attempt: int
    #: Where its process will listen, ``host:port``.
    address: str


@dataclass(frozen=True, kw_only=True, slots=True)
class AttemptStarted:
    """The child has built its step and begins to warm up."""

    case_key: str
    attempt: int


@dataclass(frozen=True, kw_only=True, slots=True)
class AttemptMeasured:
    """The child has said its last word; its result is being collected."""

    case_key: str
    attempt: int


AgentEvent: TypeAlias = Progress | AttemptWaiting | AttemptGranted | AttemptHeld | AttemptStarted | AttemptMeasured


@dataclass(frozen=True, kw_only=True, slots=True)
class Ending:
    """How the child process ended: the evidence behind a verdict."""

    exit_code: int | None = None
    #: Name of the signal that ended it, such as ``SIGKILL``.
    signal: str | None = None
    #: The last lines that it wrote to stderr.
    stderr_tail: str = ""
    #: The most memory of the host that it held; ``None`` where it was no more than the agent had, or is not known.
    max_rss_bytes: int | None = None
    #: What says that it ended for want of memory; ``None`` where nothing does.
    oom_evidence: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Result:
    """What one attempt gave."""

    case_key: str
    attempt: int
    verdict: Verdict
    reason: str | None = None
    #: The batch that was measured, where it was searched for; ``None`` where the workload says it, or none was found.
    batch_size: int | None = field(default=None, metadata=UNSAID)
    #: One time for each step, milliseconds; warm-up steps apart.
    warmup_ms: tuple[float, ...] = ()
    samples_ms: tuple[float, ...] = ()
    stopped_by: StoppedBy | None = None
    peak_flops: float | None = None
    peak_reason: str | None = None
    copy_bytes_per_s: float | None = field(default=None, metadata=UNSAID)
    copy_reason: str | None = field(default=None, metadata=UNSAID)
    phases: tuple[PhaseTiming, ...] = ()
    environment: Environment = field(default_factory=Environment)
    ending: Ending = field(default_factory=Ending)
    #: Seconds since the epoch, on the clock of the agent's host.
    started_at: float = 0.0
    #: Seconds from the request to this result, as the agent saw it.
    duration_s: float = 0.0
    #: ``None`` where nobody looked.
    telemetry: Telemetry | None = field(default=None, metadata=UNSAID)
    #: What speaks against the figure; the head says so when the result comes in.
    doubts: tuple[Doubt, ...] = field(default=(), metadata=UNSAID)


# --- probe -> head ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class GpuProcess:
    """A process that is using a GPU; what another container or user hides of it is ``None``."""

    pid: int
    user: str | None = None
    #: The program's short name.
    name: str | None = None
    #: Of the GPU's memory.
    memory_bytes: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class GpuState:
    """How a GPU was set, and who was using it, when the host was probed."""

    #: Whether the driver stays loaded while nobody uses the GPU.
    persistence: Fact
    #: Whether errors in its memory are corrected, which costs some of it.
    ecc: Fact
    #: Percent of the last moments in which a kernel ran.
    utilization: Fact
    #: The NUMA node that the GPU hangs on.
    numa_node: Fact
    #: ``None`` where the driver does not tell, with the reason.
    processes: tuple[GpuProcess, ...] | None
    processes_reason: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class GpuReport:
    """One GPU as NVML tells of it."""

    index: int
    uuid: str
    name: str
    memory_bytes: int | None
    #: ``None`` where nobody looked: in a made-up lab.
    state: GpuState | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class CpuReport:
    """The processors of a host."""

    model: str
    #: Logical CPUs that this process may use, by number.
    cores: tuple[int, ...]
    sockets: int | None
    #: Logical CPUs of each NUMA node, by node number.
    numa: tuple[tuple[int, tuple[int, ...]], ...]
    memory_bytes: int | None
    #: Size, and type and speed where they can be read without root.
    memory: str | None


@dataclass(frozen=True, kw_only=True, slots=True)
class FrameworkReport:
    """Whether a framework is there, found without importing it."""

    name: str
    version: str | None
    #: Why it cannot be used, with the command that mends it; ``None`` where it can.
    reason: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class HostReport:
    """What the probe found on a host."""

    host: str
    cpu: CpuReport
    gpus: tuple[GpuReport, ...]
    #: Why no GPU could be looked for; ``None`` where NVML answered.
    gpu_reason: str | None
    frameworks: tuple[FrameworkReport, ...]
    environment: Environment
    #: What changes from one minute to the next, and so is kept with no result: load, free memory, free disk, who asks.
    condition: Environment = field(default_factory=Environment)
    protocol_version: int = PROTOCOL_VERSION
