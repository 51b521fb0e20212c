"""What `muster check` shows of hosts: a line a check, and below it what mends it."""

from __future__ import annotations

import textwrap
from collections import Counter
from typing import TYPE_CHECKING, Final

from orchestrator.diagnosis import Level, worst
from orchestrator.report.console import UNBOUNDED, drawing_console, drawn
from orchestrator.report.printable import printable
from orchestrator.report.words import count

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from rich.text import Text

    from orchestrator.diagnosis import Finding

#: With more hosts than this, only what is not fine has a line of its own.
MOST_HOSTS_IN_FULL: Final = 8

#: The narrowest that texts are wrapped to; below that the terminal wraps.
_NARROWEST: Final = 20

#: Hosts that are named where many have the same warning.
_NAMED_HOSTS: Final = 4

_STYLES: Final = {Level.OK: "green", Level.WARNING: "yellow", Level.PROBLEM: "bold red"}
_MARK_WIDTH: Final = max(len(level.value) for level in Level)
_INDENT: Final = "  "


def draw(
    findings: Sequence[Finding], hosts: Sequence[str], *, width: int | None, color: bool, verbose: bool = False
) -> str:
    """Return the checks of each host in the order of ``hosts``, and a line that counts them.

    Beyond :data:`MOST_HOSTS_IN_FULL` hosts what is fine is counted, unless ``verbose``.
    """
    in_full = verbose or len(hosts) <= MOST_HOSTS_IN_FULL
    by_host = {host: [finding for finding in findings if finding.host == host] for host in hosts}
    checks = max((len(finding.check) for finding in findings), default=0)
    names = max((len(host) for host in hosts), default=0)
    console = drawing_console(width, color)
    for number, (host, found) in enumerate(by_host.items()):
        console.print(end="\n" if in_full and number else "")
        if in_full or worst(found) is not Level.OK:
            console.print(_text(host, "bold"))
            shown = found if in_full else [finding for finding in found if finding.level is not Level.OK]
            for line in _lines(shown, checks, width or UNBOUNDED):
                console.print(line, soft_wrap=True)
            if len(shown) < len(found):
                console.print(_marked(Level.OK, count(len(found) - len(shown), "other check")))
        else:
            console.print(_text(host.ljust(names), "bold").append_text(_marked(Level.OK, count(len(found), "check"))))
    console.print()
    console.print(_total(list(by_host.values()), in_full=in_full), soft_wrap=True)
    return drawn(console)


def warnings(findings: Iterable[Finding]) -> list[str]:
    """Return what is not fine before a run, problems first, hosts with the same one together; nothing where all is."""
    hosts: dict[tuple[Level, str], list[str]] = {}
    for finding in findings:
        told = printable(f"{finding.check}: {finding.text}")
        hosts.setdefault((finding.level, told), []).append(finding.host)
    lines = [
        f"{level.value}: {_some(of)}: {told}"
        for level in (Level.PROBLEM, Level.WARNING)
        for (its, told), of in hosts.items()
        if its is level
    ]
    return [*lines, f"{_INDENT}→ muster check CONFIG says what mends this"] if lines else []


def _some(hosts: Sequence[str]) -> str:
    named = ", ".join(hosts[:_NAMED_HOSTS])
    return named if len(hosts) <= _NAMED_HOSTS else f"{named} and {count(len(hosts) - _NAMED_HOSTS, 'more host')}"


def _lines(findings: Sequence[Finding], checks: int, width: int) -> Iterator[Text]:
    for finding in findings:
        before = f"{finding.check.ljust(checks)}  "
        stand_in = len(_INDENT) + _MARK_WIDTH + len(_INDENT) + len(before)
        first, *rest = _wrapped(finding.text, width - stand_in)
        yield _marked(finding.level, before + first)
        yield from (_text(" " * stand_in + line) for line in rest)
        if finding.remedy is not None:
            # Never broken, so that it can be copied; and further left, so that it seldom needs to be.
            yield _text(f"{' ' * (len(_INDENT) + _MARK_WIDTH)}{_INDENT}→ {printable(finding.remedy)}", "cyan")


def _wrapped(text: str, width: int) -> list[str]:
    """Return ``text`` in lines of whole words; at least one."""
    return textwrap.wrap(printable(text), max(width, _NARROWEST), break_long_words=False, break_on_hyphens=False) or [
        ""
    ]


def _marked(level: Level, text: str) -> Text:
    return _text(_INDENT).append(level.value.ljust(_MARK_WIDTH), _STYLES[level]).append(f"{_INDENT}{text}")


def _text(text: str, style: str = "") -> Text:
    from rich.text import Text

    return Text(text, style)


def _total(hosts: Sequence[Sequence[Finding]], *, in_full: bool) -> str:
    """Return how many hosts are fine, and how much is wrong with the others."""
    levels = Counter(worst(found) for found in hosts)
    marks = Counter(finding.level for found in hosts for finding in found)
    words = {Level.OK: "fine", Level.WARNING: "with warnings", Level.PROBLEM: "with problems"}
    parts = ", ".join(f"{levels[level]} {word}" for level, word in words.items() if levels[level])
    told = [count(marks[level], level.value) for level in (Level.PROBLEM, Level.WARNING) if marks[level]]
    return "".join(
        (
            f"{count(len(hosts), 'host')}: {parts}",
            f" ({', '.join(told)})" if told else "",
            "" if in_full else "; --verbose shows every check",
        )
    )
