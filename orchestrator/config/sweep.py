"""A parameter matrix expands into what is measured. Pure."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, TypeVar

from orchestrator.config.kinds import Across, Cores, Largest
from orchestrator.config.measurement import COMMON_BATCH_SIZE
from orchestrator.errors import ConfigError
from workers import models, works
from workers.protocol import Compiler, DeviceKind, Fetch, Layout, OneDnn, Pass, Precision, Workload

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from typing import TypeAlias

    from orchestrator.config.measurement import LayoutChoice, SweepEntry, SwitchChoice, WorkloadConfig

    _Lists: TypeAlias = tuple[
        tuple[str, ...],
        tuple[str, ...],
        tuple[tuple[int, bool], ...],
        tuple[Precision, ...],
        tuple[LayoutChoice, ...],
        tuple[Compiler, ...],
        tuple[SwitchChoice, ...],
        tuple[int | Cores, ...],
        tuple[Fetch, ...],
        tuple[Pass, ...],
    ]
    #: The lists, and which devices operations of several are measured across.
    _Sweep: TypeAlias = tuple[_Lists, tuple[Across, ...]]

#: The most combinations that a config may ask for; more is a typo, and would take weeks to measure.
MAX_COMBINATIONS: Final = 100_000

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True, slots=True)
class SweptWorkload:
    """A workload whose layout may still depend on the device."""

    model: str
    pass_: Pass
    batch_size: int
    precision: Precision
    #: ``None`` for the layout that suits the device.
    layout: Layout | None
    compiler: Compiler
    framework: str
    fetch: Fetch
    #: Whether the largest batch that fits is looked for, from ``batch_size`` on.
    seeks_largest: bool = False
    #: ``None`` as the framework decides.
    onednn: OneDnn | None = None
    #: ``None`` for as many as the device has cores.
    threads: int | None = None
    #: Which devices an operation of several holds; ``None`` for what is measured on one.
    across: Across | None = None


def resolve(swept: SweptWorkload, kind: DeviceKind) -> Workload:
    """Return the workload as it is on a device of that kind: where the layout is open, NHWC on a CPU, NCHW on a GPU."""
    suitable = Layout.NCHW if kind is DeviceKind.GPU else Layout.NHWC
    return Workload(
        model=swept.model,
        pass_=swept.pass_,
        batch_size=swept.batch_size,
        precision=swept.precision,
        layout=suitable if swept.layout is None else swept.layout,
        compiler=swept.compiler,
        framework=swept.framework,
        fetch=swept.fetch,
        seeks_largest=swept.seeks_largest,
        onednn=swept.onednn,
        threads=swept.threads,
    )


def resolve_all(swept: Iterable[SweptWorkload], kind: DeviceKind) -> tuple[Workload, ...]:
    """Return the workloads on a device of that kind; those that become the same there stand once, the first."""
    return tuple(dict.fromkeys(resolve(one, kind) for one in swept))


def count(workloads: Iterable[WorkloadConfig]) -> int:
    """Return how many combinations the lists make at most, before any is left out or found to be a duplicate."""
    return sum(math.prod(map(len, lists)) for one in workloads for lists, _ in _sweeps(one))


def expand(workloads: Sequence[WorkloadConfig]) -> tuple[SweptWorkload, ...]:
    """Return every combination of each workload's lists, as written, the passes varying fastest.

    Combinations that an ``exclude`` entry matches are left out; then each ``include`` entry adds the lists once more
    with its own values in place of theirs. Of duplicates the first stays. Raises ConfigError for more than
    :data:`MAX_COMBINATIONS`.
    """
    if (combinations := count(workloads)) > MAX_COMBINATIONS:
        raise ConfigError(
            f"the workloads make {combinations:,} combinations; at most {MAX_COMBINATIONS:,} can be run",
            remedy="shorten the lists of values, or split the config in two",
        )
    return tuple(dict.fromkeys(swept for one in workloads for swept in _expand_one(one)))


def idle_exclusions(workload: WorkloadConfig) -> tuple[int, ...]:
    """Return the places of ``exclude`` entries that match no combination: likely a slip of the pen."""
    combinations = tuple(_combinations(*_sweeps(workload)[0]))
    return tuple(
        index for index, entry in enumerate(workload.exclude) if not any(_matches(entry, one) for one in combinations)
    )


def _expand_one(workload: WorkloadConfig) -> Iterator[SweptWorkload]:
    own, *included = _sweeps(workload)
    for swept in _combinations(*own):
        if not any(_matches(entry, swept) for entry in workload.exclude):
            yield swept
    for lists in included:
        yield from _combinations(*lists)


def _sweeps(workload: WorkloadConfig) -> tuple[_Sweep, ...]:
    """Return the lists of the workload itself, then once more for each ``include`` entry, with its values in place.

    Where `max` is all that a workload says of batches it stands for the common one as well: by that devices compare. In
    an entry it is what it says, looked for from where the workload's own is.
    """
    sizes, start = workload.batch_size, _start(workload.batch_size, COMMON_BATCH_SIZE)
    own = _batches((start, *sizes) if set(sizes) == {Largest.MAX} else sizes, start)
    return (
        _lists(workload, own),
        *(
            _lists(
                workload.model_copy(update=entry.given),
                own if entry.batch_size is None else _batches(entry.batch_size, _start(entry.batch_size, start)),
            )
            for entry in workload.include
        ),
    )


def _combinations(lists: _Lists, across: tuple[Across, ...]) -> Iterator[SweptWorkload]:
    for model, framework, batch, precision, layout, compiler, onednn, threads, fetch, pass_ in itertools.product(
        *lists
    ):
        work = works.find(model)
        if pass_ not in work.passes:
            continue
        # An operation's name says its own.
        batch_size, seeks_largest = batch if work.batch_size is None else (work.batch_size, False)
        one = SweptWorkload(
            model=model,
            pass_=pass_,
            batch_size=batch_size,
            precision=precision,
            layout=layout.layout,
            compiler=compiler,
            framework=framework,
            fetch=fetch,
            seeks_largest=seeks_largest,
            onednn=onednn.onednn,
            threads=None if isinstance(threads, Cores) else threads,
        )
        yield from (replace(one, across=each) for each in (across if works.is_collective(model) else (None,)))


def _lists(sweep: WorkloadConfig, batches: tuple[tuple[int, bool], ...]) -> _Sweep:
    """Return the lists of values from the slowest to the fastest to vary."""
    names = sweep.names
    lists = (
        names,
        sweep.framework,
        batches,
        sweep.precision,
        sweep.layout,
        sweep.compiler,
        sweep.onednn,
        sweep.threads,
        sweep.fetch,
        sweep.passes or tuple(dict.fromkeys(pass_ for name in names for pass_ in works.find(name).passes)),
    )
    return lists, sweep.across


def _start(sizes: Iterable[int | Largest], otherwise: int) -> int:
    """Return where the search for the largest batch begins: at the largest number that is given."""
    return max((size for size in sizes if not isinstance(size, Largest)), default=otherwise)


def _batches(sizes: Iterable[int | Largest], start: int) -> tuple[tuple[int, bool], ...]:
    """Return each batch size, and whether the largest is looked for from there."""
    return tuple((start, True) if isinstance(size, Largest) else (size, False) for size in sizes)


def _matches(entry: SweepEntry, swept: SweptWorkload) -> bool:
    """True where the combination has one of the entry's values for every parameter that the entry names."""
    layouts = None if entry.layout is None else tuple(choice.layout for choice in entry.layout)
    switches = None if entry.onednn is None else tuple(choice.onednn for choice in entry.onednn)
    return (
        _is_one_of(swept.model.partition(models.SEPARATOR)[0], entry.model)
        and _is_one_of(swept.model.partition(models.SEPARATOR)[0], entry.operation)
        and _is_one_of(swept.pass_, entry.passes)
        and _is_one_of(Largest.MAX if swept.seeks_largest else swept.batch_size, entry.batch_size)
        and _is_one_of(swept.precision, entry.precision)
        and _is_one_of(swept.layout, layouts)
        and _is_one_of(swept.compiler, entry.compiler)
        and _is_one_of(swept.onednn, switches)
        and _is_one_of(Cores.ALL if swept.threads is None else swept.threads, entry.threads)
        and _is_one_of(swept.framework, entry.framework)
        and _is_one_of(swept.fetch, entry.fetch)
        and _is_one_of(swept.across, entry.across)
    )


def _is_one_of(value: T, values: tuple[T, ...] | None) -> bool:
    return values is None or value in values
