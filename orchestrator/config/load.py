"""Text and overrides to a config, or everything that is wrong with them at once."""

from __future__ import annotations

import copy
import functools
import operator
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from pydantic import ValidationError

from orchestrator.config import source, sweep
from orchestrator.config.measurement import RIVALS
from orchestrator.config.problems import Origin, Origins, Problem, dotted, explain, json_schema, render, show
from orchestrator.config.schema import Config
from orchestrator.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from orchestrator.config.source import Document, KeyPath

__all__ = ["Loaded", "json_schema", "load_config", "load_text"]

_REMEDY: Final = "`muster check --schema` prints every key with its meaning"
_REMEDY_NOT_BUILT: Final = "`muster run --simulate` shows what it will look like"
_NO_MATCH: Final = "matches no combination"


@dataclass(frozen=True, kw_only=True, slots=True)
class Loaded:
    """A config that is right, and what it was made from."""

    config: Config
    #: The file as it was read.
    text: str
    #: Where the text came from, for messages.
    path: str
    #: ``--set`` arguments as typed, in order.
    overrides: tuple[str, ...]
    #: What a reader should know: what is only simulated, what has no effect.
    notes: tuple[str, ...]
    origins: Origins

    def origin(self, key: str) -> str:
        """Return where ``measure.steps`` came from: ``lab.yaml:7:12``, ``--set measure.steps=20`` or ``default``.

        Entries of lists are counted as in the file: ``hosts.0.devices``, before ranges are expanded.
        """
        path = _key_path(key)
        return self.origins.values[path].text if path in self.origins.values else "default"


def load_config(path: Path, *, overrides: Sequence[str] = (), simulate: bool = False) -> Loaded:
    """Return the config in the file at ``path``.

    ``overrides`` are ``measure.steps=20`` and the like, the value in YAML; a later one wins. With ``simulate``, what is
    not supported yet becomes a note. Raises ConfigError with every problem, one to a line.
    """
    return _load(source.read(path), overrides, simulate)


def load_text(text: str, path: str, *, overrides: Sequence[str] = (), simulate: bool = False) -> Loaded:
    """Return the config in ``text``, which messages say came from ``path``; otherwise as :func:`load_config`."""
    return _load(source.parse(text, path), overrides, simulate)


def _load(document: Document, overrides: Sequence[str], simulate: bool) -> Loaded:
    if document.data is None:
        raise ConfigError(f"{document.path}: the file is empty", remedy="`muster init` writes a config to start from")
    draft = _Draft(document)
    for order, override in enumerate(overrides):
        draft.override(override, order)
    origins = draft.origins()
    config, problems = _validate(draft.data, origins, built_only=not simulate)
    problems += tuple(draft.problems)
    if config is None or problems:
        raise _error(problems)
    idle = _check_workloads(config, origins)
    invented = _validate(draft.data, origins, built_only=True)[1]
    return Loaded(
        config=config,
        text=document.text,
        path=document.path,
        overrides=tuple(overrides),
        notes=tuple(str(note) for note in (*invented, *idle)),
        origins=origins,
    )


def _error(problems: Sequence[Problem]) -> ConfigError:
    remedy = _REMEDY_NOT_BUILT if all(one.is_not_built for one in problems) else _REMEDY
    return ConfigError(render(problems), remedy=remedy)


def _validate(data: Any, origins: Origins, *, built_only: bool) -> tuple[Config | None, tuple[Problem, ...]]:
    try:
        return Config.model_validate(data, context={"built_only": built_only}), ()
    except ValidationError as error:
        return None, explain(error.errors(include_url=False), origins)


def _check_workloads(config: Config, origins: Origins) -> tuple[Problem, ...]:
    """Return what has no effect; raises ConfigError for a sweep that is too large, or of which nothing is left."""

    def problem(message: str, *path: str | int) -> Problem:
        return Problem(origin=origins.of_value(path), message=f"{dotted(path)}: {message}")

    if (combinations := sweep.count(config.workloads)) > sweep.MAX_COMBINATIONS:
        message = f"{combinations:,} combinations; at most {sweep.MAX_COMBINATIONS:,} can be run"
        raise _error([problem(message, "workloads")])
    empty = [index for index, one in enumerate(config.workloads) if not sweep.expand([one])]
    if empty:
        raise _error([problem("leaves no combination to measure", "workloads", index, "exclude") for index in empty])
    return tuple(
        problem(_NO_MATCH, "workloads", index, "exclude", entry)
        for index, one in enumerate(config.workloads)
        for entry in sweep.idle_exclusions(one)
    )


class _Draft:
    """The raw data while overrides are laid over it, and where each part came from."""

    def __init__(self, document: Document) -> None:
        self.data: Any = copy.deepcopy(document.data)
        self.problems: list[Problem] = []
        self._path = document.path
        self._keys: dict[KeyPath, Origin] = {}
        self._values: dict[KeyPath, Origin] = {}
        for path, place in document.positions.items():
            self._keys[path] = self._in_file(place.key)
            self._values[path] = self._in_file(place.value)
        for flaw in document.flaws:
            self.problems.append(Problem(origin=self._in_file(flaw.position), message=flaw.message))

    def _in_file(self, position: source.Position) -> Origin:
        return Origin(text=f"{self._path}:{position}", rank=(0, *position))

    def origins(self) -> Origins:
        return Origins(path=self._path, keys=self._keys, values=self._values)

    def override(self, argument: str, order: int) -> None:
        """Lay one ``key=value`` over the data."""
        # As typed, but a message stays one line and brings no control characters to a terminal.
        origin = Origin(text=f"--set {argument if argument.isprintable() else repr(argument)}", rank=(1, order, 0))
        key, equals, value = argument.partition("=")
        if not equals or not key:
            self._refuse(origin, "expected KEY=VALUE, such as measure.steps=20")
            return
        document = source.parse(value, origin.text)
        for flaw in document.flaws:
            self._refuse(origin, flaw.message)
        self._place(_key_path(key), document, origin)

    def _refuse(self, origin: Origin, message: str) -> None:
        self.problems.append(Problem(origin=origin, message=message))

    def _place(self, path: KeyPath, document: Document, origin: Origin) -> None:
        self._write_default_out(path)
        target = self.data
        for depth, part in enumerate(path):
            if not _has_room(target, part):
                self._refuse(origin, _no_room(path[:depth], target, part))
                return
            self._keys.setdefault(path[: depth + 1], origin)
            if depth == len(path) - 1:
                target[part] = document.data
            else:
                target = _descend(target, part)
                self._values.setdefault(path[: depth + 1], origin)
        self._forget(path)
        self._remove_rival(path)
        for below in (*document.positions, ()):
            self._keys[path + below] = self._values[path + below] = origin

    def _write_default_out(self, path: KeyPath) -> None:
        """Put a list that is only there by default into the data, so that ``hosts.0.devices`` finds its entry."""
        field = Config.model_fields.get(str(path[0]))
        if len(path) == 1 or field is None or not isinstance(field.default, tuple):
            return
        if isinstance(self.data, dict) and path[0] not in self.data:
            self.data[path[0]] = [entry.model_dump(exclude_unset=True) for entry in field.default]

    def _remove_rival(self, path: KeyPath) -> None:
        """Take away what excludes the key that was just given: the later one wins."""
        depth = next((depth for depth in range(1, len(path)) if path[depth - 1] == "measure"), None)
        rival = None if depth is None else RIVALS.get(str(path[depth]))
        if depth is None or rival is None:
            return
        parent = functools.reduce(operator.getitem, path[:depth], self.data)
        if parent[path[depth]] is not None and parent.pop(rival, None) is not None:
            self._forget((*path[:depth], rival))

    def _forget(self, path: KeyPath) -> None:
        for table in (self._keys, self._values):
            for known in [known for known in table if known[: len(path)] == path]:
                del table[known]


def _key_path(key: str) -> KeyPath:
    """Return the parts of ``hosts.0.devices`` or ``hosts[0].devices``."""
    parts = re.sub(r"\[([0-9]{1,9})\]", r".\1", key).split(".")
    return tuple(int(part) if re.fullmatch(r"[0-9]{1,9}", part) else part for part in parts)


def _has_room(target: Any, part: str | int) -> bool:
    if isinstance(target, list):
        return isinstance(part, int) and part < len(target)
    return isinstance(target, dict) and isinstance(part, str)


def _descend(target: Any, part: str | int) -> Any:
    """Return the entry; a key that is not there, or holds nothing, becomes a mapping."""
    if isinstance(target, dict) and target.get(part) is None:
        target[part] = {}
    return target[part]


def _no_room(path: KeyPath, target: Any, part: str | int) -> str:
    name = dotted(path) or "the config"
    if isinstance(target, list):
        return f"{name} has entries 0 to {len(target) - 1}, not {show(part)}"
    return f"{name} is {show(target)}: it has no entry {show(part)}"
