"""Safe YAML: text to plain data, and where in the text each key and value stands.

Stricter than YAML where YAML surprises people, and smaller where it is dangerous:

* Plain words are what they look like: only ``true`` and ``false`` are booleans (``yes``, ``on`` and ``off`` are text);
  numbers are decimal (``012``, ``0x1F``, ``1_000`` and ``1:30`` are text); dates are text. Where something else was
  meant, the schema then says so.
* Keys are text. The same key twice, tags and merge keys (``<<``) are errors.
* Anchors and aliases work, but what they expand to is counted: a small file cannot fill the memory.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

from yaml import MarkedYAMLError, Node, ScalarNode, SequenceNode
from yaml.composer import Composer
from yaml.nodes import MappingNode
from yaml.parser import Parser
from yaml.reader import Reader, ReaderError
from yaml.resolver import BaseResolver
from yaml.scanner import Scanner

from orchestrator.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from yaml.error import Mark

#: A config of ten thousand hosts has half of it; what is larger is not a config.
MAX_BYTES: Final = 1024 * 1024
#: Keys and values, aliases counted as often as they are used.
MAX_NODES: Final = 50_000
#: Mappings and lists inside each other; the grammar needs six.
MAX_DEPTH: Final = 32

#: The way from the document's top to a value: ``("workloads", 0, "model")``.
KeyPath: TypeAlias = tuple[str | int, ...]

_INTEGER: Final = re.compile(r"[-+]?(0|[1-9][0-9]{0,17})", re.ASCII)
_FLOAT: Final = re.compile(r"[-+]?(0|[1-9][0-9]{0,17})?(\.[0-9]{0,18})?([eE][-+]?[0-9]{1,3})?", re.ASCII)
_CONSTANTS: Final = {"": None, "~": None, "null": None, "true": True, "false": False}


class Position(NamedTuple):
    """A place in a text; both count from 1."""

    line: int
    column: int

    def __str__(self) -> str:
        """As editors take it."""
        return f"{self.line}:{self.column}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """Where an entry of a mapping or a list stands."""

    #: Where its key is written; for list entries and the document, where the value is.
    key: Position
    value: Position


@dataclass(frozen=True, kw_only=True, slots=True)
class Flaw:
    """Something wrong with the text that did not keep it from being read."""

    position: Position
    message: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Document:
    """A YAML text as plain data."""

    text: str
    #: Where the text came from, for messages.
    path: str
    #: Mappings, lists, text, whole numbers, floats, booleans and None.
    data: Any
    #: Keys and values by their key path; the document itself is ``()``.
    positions: Mapping[KeyPath, Place]
    #: Duplicate keys, tags and merge keys, in the order of the text.
    flaws: tuple[Flaw, ...]


def read(path: Path) -> Document:
    """Return what the file holds; raises ConfigError where it cannot be read, is too large, or is not YAML."""
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: no such file", remedy="`muster init` writes a config to start from") from error
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise ConfigError(f"{path}: cannot be read: {reason}") from error
    if len(raw) > MAX_BYTES:
        raise _too_large(str(path))
    return parse(_decode(raw, str(path)), str(path))


def _too_large(path: str) -> ConfigError:
    return ConfigError(
        f"{path}: larger than {MAX_BYTES // 1024} KiB",
        remedy="name hosts by ranges: `gpu[01-04]`; or is it no config?",
    )


def _decode(raw: bytes, path: str) -> str:
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        column = error.start - raw.rfind(b"\n", 0, error.start)
        raise ConfigError(
            f"{path}:{line}:{column}: byte 0x{raw[error.start]:02x} is not UTF-8",
            remedy="save the file as UTF-8 text",
        ) from error


def parse(text: str, path: str) -> Document:
    """Return what ``text`` holds; raises ConfigError where it is not one YAML document, or too large to be built."""
    if len(text.encode("utf-8", "surrogatepass")) > MAX_BYTES:
        raise _too_large(path)
    root, flaws = _compose(text, path)
    builder = _Builder(flaws)
    try:
        data = None if root is None else builder.build(root, ())
    except _TooMuchError as error:
        raise ConfigError(f"{path}:{error.position}: {error}") from error
    return Document(
        text=text, path=path, data=data, positions=builder.positions, flaws=tuple(sorted(builder.flaws, key=_place))
    )


def _compose(text: str, path: str) -> tuple[Node | None, list[Flaw]]:
    """Return the tree of the text, ``None`` where it is empty, and the flaws that were met."""
    try:
        composer = _Composer(text)
    except ReaderError as error:
        position = _position_of(text, int(error.position))
        raise ConfigError(f"{path}:{position}: the character {chr(error.character)!r} is not allowed") from error
    try:
        return composer.get_single_node(), composer.flaws
    except _TooMuchError as error:
        raise ConfigError(f"{path}:{error.position}: {error}") from error
    except MarkedYAMLError as error:
        raise ConfigError(_not_yaml(path, error), remedy="check quotes, brackets and indentation there") from error
    except (ValueError, OverflowError) as error:
        # PyYAML lets these through for numbers that no text has: "\UFFFFFFFF", a %YAML directive of 5,000 digits.
        raise ConfigError(f"{path}:{_position(composer.get_mark())}: not YAML: {error}") from error


def _place(flaw: Flaw) -> Position:
    return flaw.position


def _not_yaml(path: str, error: MarkedYAMLError) -> str:
    mark = error.problem_mark or error.context_mark
    story = ", ".join(part for part in (error.context, error.problem) if part)
    return f"{path}:{_position(mark) if mark else Position(1, 1)}: not YAML: {story}"


def _position(mark: Mark) -> Position:
    return Position(mark.line + 1, mark.column + 1)


def _position_of(text: str, index: int) -> Position:
    return Position(text.count("\n", 0, index) + 1, index - text.rfind("\n", 0, index))


class _TooMuchError(Exception):
    """The document is deeper or has more entries than a config can need."""

    def __init__(self, message: str, position: Position) -> None:
        super().__init__(message)
        self.position = position


class _Budget:
    """Counts nodes and depth, so that reading stops before memory or stack run out."""

    def __init__(self) -> None:
        self._nodes = 0
        self._depth = 0

    def enter(self, mark: Mark) -> None:
        self._nodes += 1
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise _TooMuchError(f"nested more than {MAX_DEPTH} deep", _position(mark))
        if self._nodes > MAX_NODES:
            raise _TooMuchError(f"more than {MAX_NODES:,} keys and values, aliases expanded", _position(mark))

    def leave(self) -> None:
        self._depth -= 1


class _Composer(Reader, Scanner, Parser, Composer, BaseResolver):
    """Text to nodes, each with its position; tags are noted as flaws and otherwise ignored."""

    def __init__(self, text: str) -> None:
        Reader.__init__(self, text)
        Scanner.__init__(self)
        Parser.__init__(self)
        Composer.__init__(self)
        BaseResolver.__init__(self)
        self.flaws: list[Flaw] = []
        self._budget = _Budget()

    def compose_node(self, parent: Node | None, index: int) -> Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]  # the stubs leave it open
        tag = getattr(event, "tag", None)
        if tag is not None:
            written = tag.replace("tag:yaml.org,2002:", "!!")
            message = f"the tag {written!r} is not allowed: plain values only"
            self.flaws.append(Flaw(position=_position(event.start_mark), message=message))
        self._budget.enter(event.start_mark)
        node = super().compose_node(parent, index)
        self._budget.leave()
        return node


class _Builder:
    """Nodes to plain data."""

    def __init__(self, flaws: list[Flaw]) -> None:
        self.flaws = flaws
        self.positions: dict[KeyPath, Place] = {}
        self._budget = _Budget()

    def build(self, node: Node, path: KeyPath, key: Position | None = None) -> Any:
        value = _position(node.start_mark)
        self.positions[path] = Place(key=key or value, value=value)
        self._budget.enter(node.start_mark)
        data = self._data(node, path)
        self._budget.leave()
        return data

    def _data(self, node: Node, path: KeyPath) -> Any:
        if isinstance(node, MappingNode):
            return self._mapping(node, path)
        if isinstance(node, SequenceNode):
            return [self.build(entry, (*path, index)) for index, entry in enumerate(node.value)]
        is_plain = isinstance(node, ScalarNode) and node.style is None
        return plain_value(node.value) if is_plain else node.value

    def _mapping(self, node: MappingNode, path: KeyPath) -> dict[str, Any]:
        data: dict[str, Any] = {}
        for key_node, value_node in node.value:
            position = _position(key_node.start_mark)
            flaw = self._flaw_of_key(key_node, data, path)
            if flaw:
                self.flaws.append(Flaw(position=position, message=flaw))
            else:
                data[key_node.value] = self.build(value_node, (*path, key_node.value), position)
        return data

    def _flaw_of_key(self, node: Node, data: Mapping[str, Any], path: KeyPath) -> str | None:
        if not isinstance(node, ScalarNode):
            return "a key must be text, not a list or a mapping"
        if node.value == "<<":
            return "merge keys (<<) are not supported: write the keys out"
        if node.value in data:
            return f"duplicate key {node.value!r}: it stands at {self.positions[(*path, node.value)].key} already"
        return None


def plain_value(text: str) -> str | int | float | bool | None:
    """Return what a word without quotes means: a constant, a decimal number, or the text that it is."""
    if text in _CONSTANTS:
        return _CONSTANTS[text]
    if _INTEGER.fullmatch(text):
        return int(text)
    if _FLOAT.fullmatch(text) and any(character.isdigit() for character in text.lower().partition("e")[0]):
        return float(text)
    return text
