"""The part of the grammar that says what is measured, and how many steps of it."""

from __future__ import annotations

import difflib
import enum
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeAlias

from pydantic import BeforeValidator, Field, model_validator

from orchestrator.config.kinds import (
    Across,
    BatchSize,
    Cores,
    FrameworkName,
    Keys,
    LayerName,
    ModelName,
    OperationName,
    Positive,
    ProblemName,
    Seconds,
    Share,
    Swept,
    SwitchSchema,
    Threads,
    Whole,
    problem,
)
from workers import models, ops, works
from workers.protocol import NETWORK_PASSES, Compiler, Fetch, Layout, OneDnn, Pass, Precision, Sampling

if TYPE_CHECKING:
    from workers.models.network import Model

#: The batch of the published rows, by which everything can be compared.
COMMON_BATCH_SIZE: Final = 128

#: In place of a layer's name: every one that can be measured by itself.
ALL_LAYERS: Final = "all"

#: Keys of ``measure`` that exclude each other: a later source that gives one takes the other away.
RIVALS: Final = {"steps": "until", "until": "steps"}


class LayoutChoice(str, enum.Enum):
    """A layout, or ``auto``: NHWC on a CPU, NCHW on a GPU."""

    AUTO = "auto"
    NHWC = "NHWC"
    NCHW = "NCHW"

    @property
    def layout(self) -> Layout | None:
        """The layout that is meant; ``None`` for ``auto``."""
        return None if self is LayoutChoice.AUTO else Layout(self.value)


class SwitchChoice(str, enum.Enum):
    """Turned on or off, or ``auto``: as the framework decides by its build and the processor."""

    AUTO = "auto"
    ON = "on"
    OFF = "off"

    @property
    def onednn(self) -> OneDnn | None:
        """What is meant for oneDNN; ``None`` for ``auto``."""
        return None if self is SwitchChoice.AUTO else OneDnn(self.value)


def _switch(value: object) -> object:
    """Return the word for a truth: YAML reads `on` and `off` as true and false."""
    return {True: SwitchChoice.ON.value, False: SwitchChoice.OFF.value}[value] if isinstance(value, bool) else value


Switch: TypeAlias = Annotated[SwitchChoice, BeforeValidator(_switch), SwitchSchema()]


class SweepEntry(Keys):
    """Some parameters of a workload, each a value or a list of values."""

    model: Swept[ModelName] | None = Field(None, description="Models.")
    operation: Swept[OperationName] | None = Field(None, description="Operations.")
    passes: Swept[Pass] | None = Field(None, description="Passes.")
    batch_size: Swept[BatchSize] | None = Field(None, description="Images in a step; max for the largest that fits.")
    precision: Swept[Precision] | None = Field(None, description="Number types.")
    layout: Swept[LayoutChoice] | None = Field(None, description="Orders of an image tensor's dimensions.")
    compiler: Swept[Compiler] | None = Field(None, description="Compilers.")
    onednn: Swept[Switch] | None = Field(None, description="Whether oneDNN's kernels are in use.")
    threads: Swept[Threads] | None = Field(None, description="Threads of an operation; all for the device's cores.")
    framework: Swept[FrameworkName] | None = Field(None, description="Frameworks.")
    fetch: Swept[Fetch] | None = Field(None, description="Where a step leaves its output.")
    across: Swept[Across] | None = Field(None, description="Devices that all-reduce holds.")

    @model_validator(mode="after")
    def _check_not_empty(self) -> SweepEntry:
        if not self.given:
            raise problem("names no parameter: it would match everything")
        return self

    @property
    def given(self) -> dict[str, Any]:
        """The lists that the entry names, by parameter."""
        return {key: values for key, values in self if values is not None}


class WorkloadConfig(Keys):
    """What is measured; each key takes a value or a list, and all combinations of the lists are measured."""

    model: Swept[ModelName] | None = Field(
        None, description="Network, a named variant: `muster models` lists them. Excludes `problems`."
    )
    layers: Swept[LayerName] | None = Field(
        None,
        description=(
            "Layers of the model, each measured by itself on the input that it has there; all for every one that works."
        ),
    )
    problems: Swept[ProblemName] | None = Field(
        None,
        description=(
            "Operations in place of a network: sets of problems, or whole names such as gemm/m1760-n128-k1760-nn;"
            " `muster operations` lists them. Excludes `model`, and `batch_size`, for a problem says its own."
        ),
    )
    operation: Swept[OperationName] | None = Field(
        None, description="Of the problems only these operations; without it all."
    )
    passes: Swept[Pass] | None = Field(
        None,
        description=(
            "forward: to the last tensor; forward_backward: its gradient for all weights and biases as well. Both,"
            " where nothing is said. Of operations all that each has: backward_data and backward_weights are a"
            " convolution's gradients by themselves."
        ),
    )
    batch_size: Swept[BatchSize] = Field(
        (COMMON_BATCH_SIZE,),
        description=(
            "Images in a step; max: the largest that fits is looked for on each device, from the largest number beside"
            f" it on, and measured. max alone stands for [{COMMON_BATCH_SIZE}, max]."
        ),
    )
    precision: Swept[Precision] = Field(
        (Precision.FLOAT32,),
        description=(
            "Number type of weights and arithmetic; tf32: float32 whose products a GPU may round to TensorFloat-32."
        ),
    )
    layout: Swept[LayoutChoice] = Field(
        (LayoutChoice.AUTO,), description="Order of an image tensor's dimensions; auto: NHWC on CPUs, NCHW on GPUs."
    )
    compiler: Swept[Compiler] = Field((Compiler.NONE,), description="What turns the graph into kernels.")
    onednn: Swept[Switch] = Field(
        (SwitchChoice.AUTO,), description="Whether a CPU's steps use oneDNN's kernels; auto: as the framework decides."
    )
    threads: Swept[Threads] = Field(
        (Cores.ALL,), description="Threads that share an operation on a CPU; all: as many as the device has cores."
    )
    framework: Swept[FrameworkName] = Field(("tensorflow",), description="What runs the model.")
    fetch: Swept[Fetch] = Field(
        (Fetch.DEVICE,), description="Leave a step's output on the device, or copy it to the host's memory each time."
    )
    across: Swept[Across] = Field(
        tuple(Across),
        description=(
            "Of all-reduce, which holds several devices at once: host: all of a kind on each host; hosts: all of a kind"
            " on all hosts. An operation with -r4 in its name takes four of them, from each host in turn."
        ),
    )
    exclude: tuple[SweepEntry, ...] = Field(
        (), description="Combinations to leave out: those that have all the values of an entry."
    )
    include: tuple[SweepEntry, ...] = Field(
        (),
        description=(
            "Combinations to add, after `exclude`: for each entry the lists above once more,"
            " with the entry's values in place of theirs."
        ),
    )

    @model_validator(mode="after")
    def _check_what(self) -> WorkloadConfig:
        if self.model is None and self.problems is None:
            raise problem("it says neither `model` nor `problems`: give one, such as model: alexnet")
        if self.across != tuple(Across) and not any(works.is_collective(name) for name in self.names):
            raise problem("`across` is of operations of several devices: nothing here is one, such as allreduce")
        if self.model is None:
            return self._with_own_sizes()
        for key in ("problems", "operation"):
            if getattr(self, key) is not None:
                raise problem(f"`model` and `{key}` exclude each other: make two workloads of them")
        foreign = [pass_.value for pass_ in self.passes or () if pass_ not in NETWORK_PASSES]
        if foreign:
            raise problem(f"the pass {foreign[0]} is of single convolutions: see `problems`")
        for name in self.model:
            self._check_layers(models.get(name))
        return self

    def _with_own_sizes(self) -> WorkloadConfig:
        for key in ("batch_size", "layers"):
            if key in self.model_fields_set:
                raise problem(f"`problems` and `{key}` exclude each other: an operation's name says all of its sizes")
        if not self.names:
            raise problem("none of the problems is of such an operation, or has such a pass")
        return self

    def _check_layers(self, model: Model) -> None:
        there = [each.layer.name for each in model.every_layer()]
        for layer in self.layers or ():
            if layer not in (*there, ALL_LAYERS):
                close = difflib.get_close_matches(layer, there, n=1)
                hint = f"; did you mean {close[0]!r}?" if close else f": it has {', '.join(there[:20])}"
                raise problem(f"{model.name} has no layer {layer!r}{hint}")

    @property
    def names(self) -> tuple[str, ...]:
        """What is measured, by name: networks, layers of these, or operations that have one of the passes."""
        if self.problems is not None:
            found = (name for entry in self.problems for name in _problems(entry))
            wanted = (name for name in found if self.operation is None or _kind_of(name) in self.operation)
            return tuple(name for name in dict.fromkeys(wanted) if self.passes_of(name))
        networks = self.model or ()
        if self.layers is None:
            return networks
        return tuple(f"{name}{models.SEPARATOR}{layer}" for name in networks for layer in self._layers_of(name))

    def passes_of(self, name: str) -> tuple[Pass, ...]:
        """Return the passes of one of :attr:`names` that are measured."""
        has = works.find(name).passes
        return has if self.passes is None else tuple(pass_ for pass_ in self.passes if pass_ in has)

    def _layers_of(self, name: str) -> tuple[str, ...]:
        working = models.get(name).layers_with_work()
        wanted = (layer for each in self.layers or () for layer in (working if each == ALL_LAYERS else (each,)))
        return tuple(dict.fromkeys(wanted))


def _problems(entry: str) -> tuple[str, ...]:
    return ops.problems(entry) if entry in ops.set_names() else (entry,)


def _kind_of(name: str) -> str:
    return name.partition(models.SEPARATOR)[0]


class UntilConfig(Keys):
    """Take steps until the mean is known well enough."""

    relative_ci: Share = Field(
        description="Stop when the half width of the mean's 95 % confidence interval is at most this share of it: 1%."
    )
    min_steps: Annotated[Positive, Field(ge=2)] = Field(10, description="Counted steps to take at least.")
    max_steps: Annotated[Positive, Field(ge=2)] = Field(500, description="Counted steps to take at most.")
    max_time_s: Seconds | None = Field(
        None,
        alias="max_time",
        description="Stop when the counted steps have taken this long: 45s. Without it only steps count.",
    )

    @model_validator(mode="after")
    def _check_order(self) -> UntilConfig:
        if self.min_steps > self.max_steps:
            raise problem(f"min_steps ({self.min_steps}) is more than max_steps ({self.max_steps})")
        return self


class MeasureConfig(Keys):
    """How many steps are taken."""

    warmup: Whole = Field(10, description="Steps before the counted ones; their times are kept apart.")
    steps: Positive | None = Field(
        None, description="Counted steps: 100 where neither this nor `until` is given. Excludes `until`."
    )
    until: UntilConfig | None = Field(
        None, description="Take steps until the mean is known well enough. Excludes `steps`."
    )
    processes: Annotated[Positive, Field(le=1000)] = Field(
        1, description="Fresh processes that each workload is measured in, one after the other, others in between."
    )
    telemetry_interval_s: Annotated[Seconds, Field(ge=0.1)] | None = Field(
        1.0,
        alias="telemetry_interval",
        description="Time between two readings of clocks, temperatures and load while measuring: 1s; null for none.",
    )

    @model_validator(mode="after")
    def _check_exclusion(self) -> MeasureConfig:
        if self.steps is not None and self.until is not None:
            raise problem("`steps` and `until` exclude each other: give one of them, or set one to null")
        return self

    @property
    def sampling(self) -> Sampling:
        """The same as the measuring child is told it."""
        if self.until is not None:
            return Sampling(
                warmup=self.warmup,
                min_steps=self.until.min_steps,
                max_steps=self.until.max_steps,
                relative_ci=self.until.relative_ci,
                max_time_s=self.until.max_time_s,
            )
        steps = 100 if self.steps is None else self.steps
        return Sampling(warmup=self.warmup, min_steps=steps, max_steps=steps)

    def overridden_by(self, other: MeasureConfig | None) -> MeasureConfig:
        """Return these settings with those that ``other`` gives; its `steps` replaces `until`, and the reverse."""
        if other is None:
            return self
        given = {key: getattr(other, key) for key in other.model_fields_set}
        for key, rival in RIVALS.items():
            if given.get(key) is not None:
                given[rival] = None
        return self.model_copy(update=given)
