from __future__ import annotations

import dataclasses
import json
import types
import typing
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workers import protocol
from workers.codec import CodecError, event_from_json, event_to_json, from_data, from_json, to_data, to_json

KINDS: tuple[type[Any], ...] = tuple(
    kind for kind in vars(protocol).values() if isinstance(kind, type) and dataclasses.is_dataclass(kind)
)
EVENTS = (protocol.PhaseEntered, protocol.Started, protocol.SampleBatch, protocol.Finished)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


def values(hint: Any) -> st.SearchStrategy[Any]:
    """What a field with that type hint may hold."""
    if dataclasses.is_dataclass(hint):
        hints = typing.get_type_hints(hint)
        return st.builds(typing.cast("type", hint), **{f.name: values(hints[f.name]) for f in dataclasses.fields(hint)})
    origin, members = typing.get_origin(hint), typing.get_args(hint)
    if origin is tuple and members[-1] is Ellipsis:
        return st.lists(values(members[0]), max_size=3).map(tuple)
    if origin is tuple:
        return st.tuples(*map(values, members))
    if origin in (types.UnionType, typing.Union):
        return st.one_of(*map(values, members))
    if hint is float:
        return st.floats(allow_nan=False, allow_infinity=False)
    return st.text(max_size=8) if hint is str else st.from_type(hint)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
@settings(max_examples=10, deadline=None)
@given(data=st.data())
def test_every_type_comes_back_as_it_went(kind: type[Any], data: st.DataObject) -> None:
    value = data.draw(values(kind))
    text = to_json(value)
    assert text.isascii()
    assert "\n" not in text
    assert from_json(kind, text) == value
    assert to_json(from_json(kind, text)) == text


@settings(max_examples=50, deadline=None)
@given(event=st.one_of(*map(values, EVENTS)))
def test_every_event_comes_back_as_what_it_was(event: Any) -> None:
    found: Any = event_from_json(EVENTS, event_to_json(event))
    assert type(found) is type(event)
    assert found == event


@settings(max_examples=100, deadline=None)
@given(text=st.binary(max_size=40) | JSON.map(json.dumps))
def test_garbage_is_refused_and_nothing_else_is_raised(text: str | bytes) -> None:
    with pytest.raises(CodecError):
        event_from_json(EVENTS, text)


@settings(max_examples=100, deadline=None)
@given(value=values(protocol.Result), data=st.data())
def test_a_message_with_one_part_spoiled_is_read_as_its_type_or_refused(
    value: protocol.Result, data: st.DataObject
) -> None:
    plain = to_data(value)
    plain[data.draw(st.sampled_from(sorted(plain)))] = data.draw(JSON)
    try:
        found = from_data(protocol.Result, plain)
    except CodecError:
        return
    assert from_json(protocol.Result, to_json(found)) == found
