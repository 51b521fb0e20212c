from __future__ import annotations

import dataclasses
import typing
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.properties.test_codec import values
from workers.codec import event_from_json, event_to_json
from workers.orders import Answer, Order, StartRay, TlsMaterial

KINDS: tuple[type[Any], ...] = (*typing.get_args(Order), *typing.get_args(Answer))


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
@settings(max_examples=10, deadline=None)
@given(data=st.data())
def test_every_order_and_answer_comes_back_as_it_went_in_one_line(kind: type[Any], data: st.DataObject) -> None:
    value = data.draw(values(kind))
    line = event_to_json(value)
    assert "\n" not in line
    assert event_from_json(KINDS, line) == value


@given(order=values(StartRay), secret=st.text("0123456789abcdef", min_size=32))
def test_no_order_shows_its_secrets(order: StartRay, secret: str) -> None:
    tls = TlsMaterial(ca_certificate="CA", certificate="C", key=secret)
    assert secret not in repr(dataclasses.replace(order, token=secret, tls=tls))
