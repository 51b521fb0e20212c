"""What is wrong with a config, in words: where, what stands there, what was expected, and the likeliest meant. Pure."""

from __future__ import annotations

import difflib
import functools
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from orchestrator.config.kinds import CHOICE_ERROR, EXPECTED, EXPECTED_ERROR, NOT_YET_ERROR, PROBLEM_ERROR
from orchestrator.config.schema import Config

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from pydantic_core import ErrorDetails

    from orchestrator.config.source import KeyPath

#: More lines than this help nobody; the number of the others is told.
MAX_SHOWN: Final = 100
_MAX_VALUE_LENGTH: Final = 60
#: Bounds above this are there for the machine's sake and not told in an expectation.
_TELLING_BOUND: Final = 1_000_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Origin:
    """Where a value came from."""

    #: ``lab.yaml:7:12``, ``--set measure.steps=20`` or ``default``.
    text: str
    #: Orders origins as a reader meets them: the file from its top, then the overrides as typed.
    rank: tuple[int, int, int]


@dataclass(frozen=True, kw_only=True, slots=True)
class Problem:
    """One thing that is wrong."""

    origin: Origin
    message: str
    #: True where muster knows what is meant and cannot do it yet.
    is_not_built: bool = False

    def __str__(self) -> str:
        """One line of an error message."""
        return f"{self.origin.text}: {self.message}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Origins:
    """Where every key and value that was given came from; what is not in here is a default."""

    #: How messages call the text as a whole.
    path: str
    keys: Mapping[KeyPath, Origin]
    values: Mapping[KeyPath, Origin]

    def nearest(self, path: KeyPath) -> KeyPath:
        """Return the longest beginning of ``path`` that was given."""
        lengths = range(len(path), -1, -1)
        return next((path[:length] for length in lengths if path[:length] in self.values), ())

    def of_key(self, path: KeyPath) -> Origin:
        """Return where the key is written, or that of the mapping that it should stand in."""
        return self._of(self.keys, path)

    def of_value(self, path: KeyPath) -> Origin:
        """Return where the value is written, or that of what it should stand in."""
        return self._of(self.values, path)

    def _of(self, table: Mapping[KeyPath, Origin], path: KeyPath) -> Origin:
        return table.get(self.nearest(path), Origin(text=self.path, rank=(0, 0, 0)))


def render(problems: Iterable[Problem]) -> str:
    """Return the problems one to a line, in the order in which a reader meets them."""
    lines = [str(problem) for problem in sorted(problems, key=lambda one: (one.origin.rank, one.message))]
    hidden = len(lines) - MAX_SHOWN
    return "\n".join(lines[:MAX_SHOWN] + ([f"… and {hidden:,} more"] if hidden > 0 else []))


def explain(errors: Sequence[ErrorDetails], origins: Origins) -> tuple[Problem, ...]:
    """Return what pydantic found, in our words."""
    return tuple(_explain_one(error, origins) for error in errors if not _is_echo(error, errors))


def _is_echo(error: ErrorDetails, errors: Sequence[ErrorDetails]) -> bool:
    """True where a list is called too short only because its entries are wrong: pydantic counts the right ones."""
    loc = error["loc"]
    return error["type"] == "too_short" and any(
        other["loc"][: len(loc)] == loc and len(other["loc"]) > len(loc) for other in errors
    )


def _explain_one(error: ErrorDetails, origins: Origins) -> Problem:
    loc = error["loc"]
    kind = error["type"]
    if kind == "extra_forbidden":
        return Problem(origin=origins.of_key(loc), message=_unknown_key(loc))
    if kind == "missing":
        return Problem(origin=origins.of_value(loc), message=_missing_key(loc))
    where = _prefix(origins.nearest(loc))
    if kind == PROBLEM_ERROR:
        return Problem(origin=origins.of_value(loc), message=where + error["msg"])
    if kind == NOT_YET_ERROR:
        message = f"{where}{_given(error['input'])}not supported yet: {error['msg']}"
        return Problem(origin=origins.of_value(loc), message=message, is_not_built=True)
    expectation, choices = _expectation(error, loc)
    message = f"{where}{show(error['input'])} is not allowed: expected {expectation}"
    return Problem(origin=origins.of_value(loc), message=message + _hint(error["input"], choices))


def _unknown_key(loc: KeyPath) -> str:
    parent, key = loc[:-1], loc[-1]
    keys = tuple(_resolved(_node(parent)).get("properties", {}))
    hint = _hint(key, keys) or f"; expected one of {', '.join(keys)}"
    return f"{_prefix(parent)}unknown key {show(key)}{hint}"


def _missing_key(loc: KeyPath) -> str:
    return f"{_prefix(loc[:-1])}the key {show(loc[-1])} is missing: expected {_describe(_node(loc))}"


def _given(value: object) -> str:
    """Return the value as the beginning of a claim about it; nothing for what is too large to be shown."""
    return "" if isinstance(value, dict | list | tuple) else f"{show(value)} is "


def _expectation(error: ErrorDetails, loc: KeyPath) -> tuple[str, tuple[str, ...]]:
    """Return what was expected, and the names that could have been meant."""
    if error["type"] == CHOICE_ERROR:
        return error["msg"], tuple(error["ctx"]["choices"])
    if error["type"] == EXPECTED_ERROR:
        return error["msg"], ()
    if error["type"] == "less_than_equal" and error["ctx"]["le"] > _TELLING_BOUND:
        return f"a number of at most {error['ctx']['le']:,}", ()
    node = _node(loc)
    return _describe(node), tuple(str(name) for name in _resolved(node).get("enum", ()))


def _hint(value: object, choices: Sequence[str]) -> str:
    close = difflib.get_close_matches(str(value), choices, n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def dotted(path: KeyPath) -> str:
    """Return a key path as people write it: ``workloads[0].batch_size``."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += ("." if text else "") + (part if part.isidentifier() else _shortened(repr(part)))
    return text


def _prefix(path: KeyPath) -> str:
    return f"{dotted(path)}: " if path else ""


def show(value: object) -> str:
    """Return a value as YAML has it, short enough for a message."""
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list | tuple):
        return "a list" if value else "an empty list"
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    return _shortened(repr(value))


def _shortened(text: str) -> str:
    return text if len(text) <= _MAX_VALUE_LENGTH else f"{text[: _MAX_VALUE_LENGTH - 1]}…"


# --- the JSON Schema as the source of what is expected ---------------------------------------------------------


def json_schema() -> dict[str, Any]:
    """Return the grammar as JSON Schema (draft 2020-12), for editors and for messages."""
    schema = Config.model_json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "muster config"}


@functools.cache
def _schema() -> Mapping[str, Any]:
    """Return the same, made once: messages ask for it again and again."""
    return json_schema()


def _resolved(node: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the definition that ``node`` refers to; of alternatives the first, which is the single value."""
    if "$ref" in node:
        return _resolved(_schema()["$defs"][node["$ref"].rpartition("/")[2]])
    return _resolved(node["anyOf"][0]) if "anyOf" in node else node


def _node(path: KeyPath) -> Mapping[str, Any]:
    """Return what the schema says of the place; empty where it knows no such place."""
    node: Mapping[str, Any] = _schema()
    for part in path:
        alternatives = node.get("anyOf", (node,))
        found = (_child(_resolved(one), part) for one in alternatives)
        node = next((child for child in found if child is not None), {})
    return node


def _child(node: Mapping[str, Any], part: str | int) -> Mapping[str, Any] | None:
    child: Mapping[str, Any] | None = (
        node.get("items") if isinstance(part, int) else node.get("properties", {}).get(part)
    )
    return child


def _describe(node: Mapping[str, Any]) -> str:
    """Return what a value must be, so that it reads on from "expected"."""
    if EXPECTED in node:
        return str(node[EXPECTED])
    if "$ref" in node or "anyOf" in node:
        return _describe(_resolved(node))
    if "const" in node:
        return str(node["const"])
    if "enum" in node:
        return f"one of {', '.join(map(str, node['enum']))}"
    return _describe_type(node)


def _describe_type(node: Mapping[str, Any]) -> str:
    match node.get("type"):
        case "boolean":
            return "true or false"
        case "integer":
            return _describe_integer(node["minimum"], node["maximum"])
        case "array":
            return "a list with at least one entry" if node.get("minItems") else "a list"
        case _:  # every kind of text says itself what it is
            return f"a mapping with the keys {', '.join(node['properties'])}"


def _describe_integer(minimum: int, maximum: int) -> str:
    if maximum < _TELLING_BOUND:
        return f"a whole number from {minimum} to {maximum}"
    return f"a whole number of at least {minimum}"
