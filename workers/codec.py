"""Frozen dataclasses to plain JSON data and back, by their type hints.

Kept to what :mod:`workers.protocol` uses, so that the child needs nothing outside the standard library. A field
whose name ends in ``_`` (``pass_``) is written without it, and one that is marked :data:`UNSAID` only where it says
something.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
import json
import math
import types
import typing
from collections.abc import Callable
from typing import Any, Final, NamedTuple, TypeAlias, TypeVar

T = TypeVar("T")

_Decoder: TypeAlias = Callable[[Any], Any]

_SCALARS: Final = frozenset({str, int, float, bool, types.NoneType})

#: Metadata of a field that is left out where it has its default: it came later, and what was written and hashed before
#: is to stay the same to the letter.
UNSAID: Final = types.MappingProxyType({"is_unsaid_by_default": True})


class CodecError(ValueError):
    """Data does not fit the type: names the path to the place."""


def to_data(value: object) -> Any:
    """Return ``value`` as dicts, lists and scalars that ``json`` can write."""
    kind = type(value)
    if kind in _SCALARS:
        return value
    if kind is tuple:
        items = typing.cast("tuple[object, ...]", value)
        # Samples come by the ten thousand: they need no look at each.
        return list(items) if all(type(item) is float for item in items) else [to_data(item) for item in items]
    if isinstance(value, enum.Enum):
        return value.value
    names = _names(typing.cast("Any", kind))
    if names is None:
        return value
    data = {key: to_data(getattr(value, name)) for key, name in names.all}
    for key, name, default in names.unsaid:
        if getattr(value, name) == default:
            del data[key]
    return data


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
    try:
        decoded: T = _decoder(typing.cast("Any", kind))(data)
    except _MisfitError as misfit:
        raise CodecError(f"{kind.__name__}{misfit.place}: {misfit.message}") from None
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


# Decoders are made once for each type: an agent and the head pass hundreds of messages a second.


class _MisfitError(Exception):
    """Data does not fit; the place grows from the inside out while this rises."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message
        self.place = ""


class _Names(NamedTuple):
    """How a dataclass's fields are called: in JSON, and as attributes."""

    all: tuple[tuple[str, str], ...]
    #: Those that are marked :data:`UNSAID`, each with its default.
    unsaid: tuple[tuple[str, str, object], ...]


@functools.cache
def _names(kind: type) -> _Names | None:
    """Return the names of a dataclass's fields; ``None`` for other types."""
    if not dataclasses.is_dataclass(kind):
        return None
    fields = [(field.name.rstrip("_"), field) for field in dataclasses.fields(kind)]
    return _Names(
        all=tuple((key, field.name) for key, field in fields),
        unsaid=tuple(
            (key, field.name, field.default) for key, field in fields if UNSAID.items() <= field.metadata.items()
        ),
    )


@functools.cache
def _decoder(kind: Any) -> _Decoder:
    origin = typing.get_origin(kind)
    if origin in (types.UnionType, typing.Union):
        return _union_decoder(typing.get_args(kind))
    if origin is tuple:
        members = typing.get_args(kind)
        is_list = len(members) == 2 and members[1] is Ellipsis
        return _list_decoder(members[0]) if is_list else _row_decoder(members)
    if dataclasses.is_dataclass(kind):
        return _dataclass_decoder(typing.cast("type", kind))
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return _enum_decoder(kind)
    return _scalar_decoder(kind)


def _scalar_decoder(kind: type) -> _Decoder:
    def decode(data: Any) -> Any:
        if kind is float and type(data) is int:
            try:
                return float(data)
            except OverflowError:
                raise _MisfitError("a number too large for a float") from None
        if type(data) is not kind:
            raise _MisfitError(f"expected {kind.__name__}, found {data!r}")
        if type(data) is float and not math.isfinite(data):  # JSON's own 1e999
            raise _MisfitError(f"{data!r} is not a number")
        return data

    return decode


def _enum_decoder(kind: type[enum.Enum]) -> _Decoder:
    members = {member.value: member for member in kind}

    def decode(data: Any) -> Any:
        if type(data) is not str or data not in members:
            raise _MisfitError(f"{data!r} is not one of {list(members)}")
        return members[data]

    return decode


def _union_decoder(members: tuple[Any, ...]) -> _Decoder:
    others = tuple(member for member in members if member is not types.NoneType)
    is_optional = len(others) < len(members)
    exact = {member: _decoder(member) for member in others if member in _SCALARS}
    only = _decoder(others[0])

    def decode(data: Any) -> Any:
        if data is None and is_optional:
            return None
        if type(data) in exact:
            return exact[type(data)](data)
        if len(others) == 1:
            return only(data)
        raise _MisfitError(f"expected one of {', '.join(member.__name__ for member in others)}, found {data!r}")

    return decode


def _list_decoder(member: Any) -> _Decoder:
    decode_item = _decoder(member)

    def decode(data: Any) -> Any:
        if type(data) is not list:
            raise _MisfitError(f"expected a list, found {data!r}")
        if member is float and all(type(item) is float and math.isfinite(item) for item in data):
            return tuple(data)
        return tuple(_at(f"[{i}]", decode_item, item) for i, item in enumerate(data))

    return decode


def _row_decoder(members: tuple[Any, ...]) -> _Decoder:
    decoders = tuple(_decoder(member) for member in members)

    def decode(data: Any) -> Any:
        if type(data) is not list:
            raise _MisfitError(f"expected a list, found {data!r}")
        if len(decoders) != len(data):
            raise _MisfitError(f"expected {len(decoders)} items, found {len(data)}")
        return tuple(_at(f"[{i}]", decoders[i], item) for i, item in enumerate(data))

    return decode


def _dataclass_decoder(kind: type) -> _Decoder:
    hints = typing.get_type_hints(kind)
    decoders = {field.name.rstrip("_"): (field.name, _decoder(hints[field.name])) for field in dataclasses.fields(kind)}
    required = [
        field.name.rstrip("_")
        for field in dataclasses.fields(kind)
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    ]

    def decode(data: Any) -> Any:
        if type(data) is not dict:
            raise _MisfitError(f"expected a mapping, found {data!r}")
        for key in required:
            if key not in data:
                raise _MisfitError(f"{key} is missing")
        given = {}
        for key, item in data.items():
            if key not in decoders:
                raise _MisfitError(f"unknown {sorted(set(data) - set(decoders))}")
            name, decode_field = decoders[key]
            try:
                given[name] = decode_field(item)
            except _MisfitError as misfit:
                misfit.place = f".{key}{misfit.place}"
                raise
        return kind(**given)

    return decode


def _at(place: str, decode: _Decoder, data: Any) -> Any:
    try:
        return decode(data)
    except _MisfitError as misfit:
        misfit.place = place + misfit.place
        raise
