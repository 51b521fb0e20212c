"""Frozen dataclasses to plain JSON data and back, by their type hints.

Kept to what :mod:`workers.protocol` uses, so that the child needs nothing outside the standard library. A field
whose name ends in ``_`` (``pass_``) is written without it.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
import json
import types
import typing
from typing import Any, TypeVar

T = TypeVar("T")


class CodecError(ValueError):
    """Data does not fit the type: names the path to the place."""


def to_data(value: object) -> Any:
    """Return ``value`` as dicts, lists and scalars that ``json`` can write."""
    if isinstance(value, enum.Enum):
        return value.value
    if dataclasses.is_dataclass(value):
        return {f.name.rstrip("_"): to_data(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, tuple):
        return [to_data(item) for item in value]
    return value


def to_json(value: object) -> str:
    """Return ``value`` as one line of canonical JSON: sorted keys, no spaces, ASCII, never NaN.

    Raises ValueError for NaN and infinities: a failure is never a number.
    """
    return json.dumps(to_data(value), sort_keys=True, separators=(",", ":"), allow_nan=False)


def from_json(kind: type[T], text: str | bytes) -> T:
    """Return the ``kind`` that ``text`` holds; raises :class:`CodecError`."""
    try:
        data = json.loads(text, parse_constant=_refuse_constant)
    except ValueError as error:
        raise CodecError(f"not JSON: {error}") from error
    return from_data(kind, data)


def from_data(kind: type[T], data: object) -> T:
    """Return the ``kind`` that plain ``data`` holds; raises :class:`CodecError` naming the place."""
    decoded: T = _decode(kind, data, kind.__name__)
    return decoded


def event_to_json(event: object) -> str:
    """Return an event as one JSON line without its end, under its class name: ``{"event":"Started", ...}``."""
    return json.dumps(
        {"event": type(event).__name__, **to_data(event)}, sort_keys=True, separators=(",", ":"), allow_nan=False
    )


def event_from_json(kinds: tuple[type[T], ...], text: str | bytes) -> T:
    """Return the event of one of ``kinds`` that a line holds; raises :class:`CodecError`."""
    try:
        data = json.loads(text, parse_constant=_refuse_constant)
    except ValueError as error:
        raise CodecError(f"not JSON: {error}") from error
    by_name = {kind.__name__: kind for kind in kinds}
    name = data.pop("event", None) if isinstance(data, dict) else None
    if not isinstance(name, str) or name not in by_name:
        raise CodecError(f"event {name!r} is not one of {sorted(by_name)}")
    return from_data(by_name[name], data)


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not a number")


@functools.cache
def _hints(kind: type) -> dict[str, Any]:
    return typing.get_type_hints(kind)


def _decode(kind: Any, data: Any, path: str) -> Any:
    origin = typing.get_origin(kind)
    if origin in (types.UnionType, typing.Union):
        return _decode_union(kind, data, path)
    if origin is tuple:
        return _decode_tuple(typing.get_args(kind), data, path)
    if dataclasses.is_dataclass(kind):
        return _decode_dataclass(typing.cast("type", kind), data, path)
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        try:
            return kind(data)
        except ValueError as error:
            raise CodecError(f"{path}: {data!r} is not one of {[m.value for m in kind]}") from error
    if kind is float and type(data) is int:
        return float(data)
    if type(data) is not kind:
        raise CodecError(f"{path}: expected {getattr(kind, '__name__', kind)}, found {data!r}")
    return data


def _decode_union(kind: Any, data: Any, path: str) -> Any:
    members = typing.get_args(kind)
    if data is None and types.NoneType in members:
        return None
    for member in members:
        if type(data) is member:
            return data
    errors = []
    for member in members:
        if member is not types.NoneType:
            try:
                return _decode(member, data, path)
            except CodecError as error:
                errors.append(str(error))
    raise CodecError("; ".join(errors))


def _decode_tuple(members: tuple[Any, ...], data: Any, path: str) -> Any:
    if not isinstance(data, list):
        raise CodecError(f"{path}: expected a list, found {data!r}")
    if len(members) == 2 and members[1] is Ellipsis:
        return tuple(_decode(members[0], item, f"{path}[{i}]") for i, item in enumerate(data))
    if len(members) != len(data):
        raise CodecError(f"{path}: expected {len(members)} items, found {len(data)}")
    return tuple(_decode(m, item, f"{path}[{i}]") for i, (m, item) in enumerate(zip(members, data, strict=True)))


def _decode_dataclass(kind: type, data: Any, path: str) -> Any:
    if not isinstance(data, dict):
        raise CodecError(f"{path}: expected a mapping, found {data!r}")
    hints = _hints(kind)
    given = {}
    for field in dataclasses.fields(kind):
        name = field.name.rstrip("_")
        if name in data:
            given[field.name] = _decode(hints[field.name], data[name], f"{path}.{name}")
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise CodecError(f"{path}: {name} is missing")
    unknown = set(data) - {field.name.rstrip("_") for field in dataclasses.fields(kind)}
    if unknown:
        raise CodecError(f"{path}: unknown {sorted(unknown)}")
    return kind(**given)
