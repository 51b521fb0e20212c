"""The picture of a run as lines that fit a terminal: the run, what goes on around it, and a line a device. Pure.

Where there is no room for every device, busy ones have lines and the rest is counted.
"""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

from rich.cells import cell_len, set_cell_size

from orchestrator.cli.progress.news import Tone, label
from orchestrator.cli.progress.picture import Activity
from orchestrator.cli.progress.places import Places
from orchestrator.report.printable import printable
from orchestrator.report.words import count, seconds

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from orchestrator.cli.progress.picture import Attempted, Picture, Seen

#: A part of a line, and what it is about.
Span: TypeAlias = tuple[str, Tone]
Line: TypeAlias = tuple[Span, ...]

#: Between two columns.
_GAP: Final = "  "
#: Columns of ``52.21 ms``, and of ``~12 min 05 s``.
_MS_WIDTH: Final = 10
_LEFT_WIDTH: Final = 12
#: Columns of a device's bar, and of the run's at most and at least.
_BAR_WIDTH: Final = 12
_RUN_BAR_WIDTH: Final = 40
_RUN_BAR_MIN: Final = 8
#: A case's or device's name that is cut shorter tells little.
_NAME_MIN: Final = 16
#: Lines for what goes on around the cases.
_STAGES: Final = 5


@dataclass(frozen=True, kw_only=True, slots=True)
class Symbols:
    """What bars and cuts are drawn with."""

    done: str = "━"
    open: str = "─"
    cut: str = "…"


#: For terminals that show nothing else.
ASCII: Final = Symbols(done="#", open="-", cut="~")


@dataclass(frozen=True, kw_only=True, slots=True)
class Columns:
    """How wide each column of a device's line is; 0 where there is no room for it."""

    device: int
    label: int
    bar: int
    steps: int
    left: int


class Drawing:
    """Lines of a picture. It remembers which device had which line."""

    def __init__(self, picture: Picture, symbols: Symbols) -> None:
        self._picture = picture
        self._symbols = symbols
        self._places = Places()
        self._widest = Columns(device=0, label=0, bar=0, steps=0, left=0)
        #: How many cases were looked at for the widest.
        self._looked_at = 0

    def lines(self, width: int, height: int) -> tuple[Line, ...]:
        """Return at most ``height`` lines of at most ``width`` columns."""
        if width <= 0 or height <= 0:
            return ()
        run = [self._run(width)] if self._picture.total else []
        stages = list(self._stages(width))[: height - len(run)]
        devices = self._devices(width, height - len(run) - len(stages)) if self._picture.has_begun else ()
        return tuple(_fitted(line, width, self._symbols.cut) for line in (*run, *stages, *devices))

    # --- the run ---

    def _run(self, width: int) -> Line:
        picture = self._picture
        told: list[Line] = [((f"{picture.done}/{picture.total}", Tone.PLAIN),)]
        if picture.failed:
            told.append(((f"{picture.failed} failed", Tone.BAD),))
        if picture.silent:
            told.append(((f"{count(len(picture.silent), 'host')} silent", Tone.DOUBTFUL),))
        told.append(((seconds(picture.elapsed_s), Tone.FAINT),))
        if picture.has_begun and picture.done < picture.total:
            left_s = picture.left_s
            told.append((("ETA unknown" if left_s is None else f"ETA {seconds(left_s)}", Tone.PLAIN),))
        name: Line = (("cases", Tone.PLAIN),)
        room = min(_RUN_BAR_WIDTH, width - _width(_joined([name, *told])) - len(_GAP))
        if room >= _RUN_BAR_MIN:
            told.insert(0, self._bar(picture.done, picture.total, room))
        return _joined([name, *told])

    def _stages(self, width: int) -> Iterator[Line]:
        stages = self._picture.stages
        for text, number in itertools.islice(stages.items(), _STAGES):
            told = printable(text)
            if number is None:
                yield ((told, Tone.PLAIN),)
                continue
            done, total = number
            counted: Line = ((f"{told} {done}/{total}", Tone.PLAIN),)
            has_room = width >= _width(counted) + len(_GAP) + _BAR_WIDTH
            yield _joined([counted, self._bar(done, total, _BAR_WIDTH)]) if has_room else counted
        if len(stages) > _STAGES:
            yield ((f"{self._symbols.cut} {len(stages) - _STAGES} more", Tone.FAINT),)

    def _bar(self, done: int, total: int, width: int) -> Line:
        filled = width * min(done, total) // total if total else width
        return (self._symbols.done * filled, Tone.DONE), (self._symbols.open * (width - filled), Tone.FAINT)

    # --- devices ---

    def _devices(self, width: int, room: int) -> Iterator[Line]:
        if room <= 0:
            return
        columns = self._columns(width)
        is_cut = len(self._picture.devices) > room
        shown = self._places.arrange(self._picture, room - 1 if is_cut else room)
        for seen in shown:
            yield self._device(seen, columns)
        if is_cut:
            yield self._rest(shown)

    def _rest(self, shown: Sequence[Seen]) -> Line:
        here = Counter(seen.activity for seen in shown)
        hidden = {activity: number - here[activity] for activity, number in self._picture.counts.items()}
        words = ", ".join(f"{number} {activity.value}" for activity, number in hidden.items() if number)
        return ((f"{self._symbols.cut} {words.replace(' ', ' more ', 1)}", Tone.FAINT),)

    def _device(self, seen: Seen, columns: Columns) -> Line:
        name = self._padded(_short_id(seen, columns.device, self._symbols.cut), columns.device)
        if seen.active is None:
            return _joined([((name, Tone.PLAIN),), (_idle(seen),)])
        return _joined([((name, Tone.PLAIN),), *self._case(seen, seen.active, columns)])

    def _case(self, seen: Seen, active: Attempted, columns: Columns) -> Iterator[Line]:
        if columns.label:
            yield ((self._padded(active.label, columns.label), Tone.PLAIN),)
        if active.steps is None or not active.has_steps_to_come:
            yield ((printable(active.doing), Tone.FAINT),)
            return
        step, total = active.steps.last, active.case.sampling.max_steps
        if columns.bar:
            yield self._bar(step, total, columns.bar)
        yield ((f"{step}/{total}".rjust(columns.steps), Tone.PLAIN),)
        yield ((_ms(active).rjust(_MS_WIDTH), Tone.PLAIN),)
        left_s = self._picture.case_left_s(seen)
        if columns.left and left_s is not None and left_s >= 1.0:
            yield ((f"~{seconds(left_s)}".rjust(columns.left), Tone.FAINT),)

    # --- how wide ---

    def _columns(self, width: int) -> Columns:
        """Share out a line: device, step and time always; then the case, what is left of it, and a bar."""
        widest = self._look_at_names()
        device = min(widest.device, max(_NAME_MIN, width * 3 // 10))
        free = width - device - widest.steps - _MS_WIDTH - 2 * len(_GAP)
        label_width = _share(free, min(widest.label, _NAME_MIN))
        free -= label_width + len(_GAP) if label_width else 0
        left = _share(free, _LEFT_WIDTH)
        free -= left + len(_GAP) if left else 0
        if label_width:
            more = max(0, min(free, widest.label - label_width))
            label_width, free = label_width + more, free - more
        bar = _share(free, _BAR_WIDTH)
        return Columns(device=device, label=label_width, bar=bar, steps=widest.steps, left=left)

    def _look_at_names(self) -> Columns:
        """Return how wide columns would like to be; the same while the cases are, so that they stand still."""
        picture = self._picture
        if self._looked_at != picture.total:
            self._looked_at = picture.total
            cases = picture.cases.values()
            self._widest = Columns(
                device=_longest(picture.devices),
                label=_longest({label(case) for case in cases}),
                bar=_BAR_WIDTH,
                steps=max(2 * len(str(case.sampling.max_steps)) + 1 for case in cases),
                left=_LEFT_WIDTH,
            )
        return self._widest

    def _padded(self, text: str, width: int) -> str:
        return set_cell_size(_cut(text, width, self._symbols.cut), width)


def _idle(seen: Seen) -> Span:
    match seen.activity:
        case Activity.LOST:
            return printable(f"lost: {seen.reason}"), Tone.BAD
        case Activity.AWAY:
            return printable(f"away: {seen.reason}"), Tone.DOUBTFUL
        case Activity.DONE if seen.failed:
            return f"done, {seen.failed} failed", Tone.BAD
        case _:
            return seen.activity.value, Tone.FAINT


def _ms(active: Attempted) -> str:
    return "" if active.last_ms is None else f"{active.last_ms:.4g} ms"


def _short_id(seen: Seen, width: int, cut: str) -> str:
    """Return a device's name; where it is too long, its host's name is cut, for the end tells devices apart."""
    device_id = printable(seen.device.id)
    if cell_len(device_id) <= width:
        return device_id
    selector = f"/{printable(seen.device.selector)}"
    room = width - cell_len(selector)
    return device_id if room < len(cut) + 1 else f"{_cut(printable(seen.device.host), room, cut)}{selector}"


def _cut(text: str, width: int, cut: str) -> str:
    """Return ``text``, or as much of it as goes into ``width`` columns."""
    if cell_len(text) <= width:
        return text
    return set_cell_size(text, max(0, width - len(cut))).rstrip() + cut[:width]


def _fitted(line: Line, width: int, cut: str) -> Line:
    """Return a line without what is beyond ``width`` columns."""
    if _width(line) <= width:
        return line
    fitted: list[Span] = []
    room = width
    for text, tone in line:
        if room <= 0:
            break
        fitted.append((_cut(text, room, cut), tone))
        room -= cell_len(fitted[-1][0])
    return tuple(fitted)


def _joined(cells: Iterable[Line]) -> Line:
    """Return columns as one line, with a gap between them."""
    spans: list[Span] = []
    for cell in cells:
        spans += [(_GAP, Tone.PLAIN), *cell] if spans else cell
    return tuple(spans)


def _width(line: Line) -> int:
    return sum(cell_len(text) for text, _ in line)


def _share(free: int, wanted: int) -> int:
    """Return the width of a column that is only there as a whole."""
    return wanted if free >= wanted + len(_GAP) else 0


def _longest(names: Iterable[str]) -> int:
    return max((cell_len(printable(name)) for name in names), default=0)
