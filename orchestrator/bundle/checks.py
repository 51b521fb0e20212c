"""What a document from a stranger must be before it is stored, printed or put into a command that somebody pastes."""

from __future__ import annotations

import datetime
import re
from typing import TYPE_CHECKING, Any, Final

from orchestrator.errors import BundleError
from orchestrator.results import LATEST, environment_hash
from workers.protocol import Environment

if TYPE_CHECKING:
    from collections.abc import Iterator

    from orchestrator.bundle.document import CaseDocument, RunDocument

#: Ids stand in commands: nothing of them means anything to a shell, nor is one taken for an option or a file.
_ID: Final = re.compile(r"[A-Za-z0-9_]{1,64}")
#: What a config may hold in one line, and every database takes.
_LINE: Final = re.compile("[^\x00-\x1f\x7f\ud800-\udfff]*")
_TEXT: Final = re.compile("[^\x00\ud800-\udfff]*")

#: What every column for whole numbers holds, and what JSON's numbers hold exactly.
_MOST_IN_A_COLUMN: Final = 2**31 - 1
_MOST: Final = 2**53

#: Times that any time zone can show.
_YEARS: Final = range(1970, 9999)


def check_numbers(data: Any, place: str) -> None:
    """Raise BundleError where plain data has a whole number that no figure of a run is."""
    waiting = [data]
    while waiting:
        each = waiting.pop()
        if type(each) is dict:
            waiting += each.values()
        elif type(each) is list:
            waiting += each
        elif type(each) is int and abs(each) > _MOST:
            raise BundleError(f"{place}: has a number of {each.bit_length()} bits, and no figure is so large")


def check(document: RunDocument, place: str) -> None:
    """Raise BundleError for what could not be stored or shown, or does not hang together."""
    _check_texts(document, place)
    for environment in document.environments:
        if environment_hash(Environment(facts=environment.facts)) != environment.hash:
            raise BundleError(f"{place}: environment {environment.hash[:12]!r} has been changed")
    keys = [each.case.key for each in document.cases]
    if len(set(keys)) < len(keys):
        raise BundleError(f"{place}: has a case twice")
    known = {environment.hash for environment in document.environments}
    for each in document.cases:
        _check_case(each, known, place)


def a_time(text: str, place: str) -> datetime.datetime:
    """Return the time that a text tells; raises BundleError for one that is none, or of no zone, or not of this age."""
    try:
        found = datetime.datetime.fromisoformat(text)
    except ValueError:
        raise BundleError(f"{place}: {text!r} is no time") from None
    if found.tzinfo is None:
        raise BundleError(f"{place}: {text!r} has no time zone")
    if found.year not in _YEARS:
        raise BundleError(f"{place}: {text!r} is no time of a run")
    return found


def _check_texts(document: RunDocument, place: str) -> None:
    run = document.run
    for name in (run.id, run.rerun_of, *(floor.run_id for floor in document.noise_floors)):
        if name is not None and (not _ID.fullmatch(name) or name == LATEST):
            raise BundleError(f"{place}: {name!r} is no id of a run")
    for what, text in _lines(document):
        if not _LINE.fullmatch(text):
            raise BundleError(f"{place}: {what} {text!r} is not one line of text")
    if not _TEXT.fullmatch(run.config_text):
        raise BundleError(f"{place}: the config is no text")


def _lines(document: RunDocument) -> Iterator[tuple[str, str]]:
    """Yield each text that stands in a column of its own, after what it is."""
    yield "the name", document.run.name
    yield "the version", document.run.muster_version
    for each in document.cases:
        yield "a case's key", each.case.key
        yield "a device", each.case.device.id
    for floor in document.noise_floors:
        yield "a device", floor.device_id
        yield "a device's UUID", floor.device_uuid or ""


def _check_case(each: CaseDocument, environments: set[str], place: str) -> None:
    case, attempts = each.case, (*each.attempts, *each.superseded)
    numbers = [attempt.number for attempt in each.attempts]
    if numbers != sorted(set(numbers)) or any(number < 1 for number in numbers):
        raise BundleError(f"{place}: case {case.key[:12]!r} has attempts {numbers}")
    if any(attempt.environment not in environments for attempt in attempts):
        raise BundleError(f"{place}: case {case.key[:12]!r} names an environment that is not there")
    counts = [attempt.number for attempt in attempts] + [attempt.batch_size or 0 for attempt in attempts]
    largest = max(map(abs, (*counts, case.process, case.method_version)))
    if largest > _MOST_IN_A_COLUMN:
        raise BundleError(f"{place}: case {case.key[:12]!r} has the number {largest}, and none is so large")
