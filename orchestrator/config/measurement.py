"""The part of the grammar that says what is measured, and how many steps of it."""

from __future__ import annotations

import enum
from typing import Annotated, Any, Final, TypeAlias

from pydantic import BeforeValidator, Field, model_validator

from orchestrator.config.kinds import (
    BatchSize,
    Cores,
    FrameworkName,
    Keys,
    ModelName,
    Positive,
    Seconds,
    Share,
    Swept,
    SwitchSchema,
    Threads,
    Whole,
    problem,
)
from workers.protocol import Compiler, Fetch, Layout, OneDnn, Pass, Precision, Sampling

#: The batch of the published rows, by which everything can be compared.
COMMON_BATCH_SIZE: Final = 128

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
    passes: Swept[Pass] | None = Field(None, description="Passes.")
    batch_size: Swept[BatchSize] | None = Field(None, description="Images in a step; max for the largest that fits.")
    precision: Swept[Precision] | None = Field(None, description="Number types.")
    layout: Swept[LayoutChoice] | None = Field(None, description="Orders of an image tensor's dimensions.")
    compiler: Swept[Compiler] | None = Field(None, description="Compilers.")
    onednn: Swept[Switch] | None = Field(None, description="Whether oneDNN's kernels are in use.")
    threads: Swept[Threads] | None = Field(None, description="Threads of an operation; all for the device's cores.")
    framework: Swept[FrameworkName] | None = Field(None, description="Frameworks.")
    fetch: Swept[Fetch] | None = Field(None, description="Where a step leaves its output.")

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

    model: Swept[ModelName] = Field(description="Network, a named variant: `muster models` lists them.")
    passes: Swept[Pass] = Field(
        (Pass.FORWARD, Pass.FORWARD_BACKWARD),
        description="forward: to the last tensor; forward_backward: its gradient for all weights and biases as well.",
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
