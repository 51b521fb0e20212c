from __future__ import annotations

import itertools
import math

from hypothesis import given, settings
from hypothesis import strategies as st

from workers.models.layers import Conv, Dense, Flatten, Layer, MaxPool, Padding
from workers.models.network import Model
from workers.protocol import Pass

PADDINGS = st.sampled_from(Padding)
SMALL = st.integers(1, 12)


def windows(side: int, kernel: int, stride: int, padding: Padding) -> int:
    """Count the places of a window one by one, as the pictures in the textbooks do."""
    if padding is Padding.VALID:
        return sum(1 for start in range(0, side, stride) if start + kernel <= side)
    return len(range(0, side, stride))


@st.composite
def a_window(draw: st.DrawFn) -> tuple[int, int, int, Padding]:
    side, padding = draw(st.integers(1, 40)), draw(PADDINGS)
    kernel = draw(st.integers(1, side if padding is Padding.VALID else 12))
    return side, kernel, draw(SMALL), padding


@settings(max_examples=50, deadline=None)
@given(window=a_window(), channels=SMALL, filters=SMALL)
def test_a_convolution_s_arithmetic_is_that_of_its_windows(
    window: tuple[int, int, int, Padding], channels: int, filters: int
) -> None:
    side, kernel, stride, padding = window
    layer = Conv(name="c", filters=filters, kernel=kernel, stride=stride, padding=padding)
    places = windows(side, kernel, stride, padding)
    assert layer.output_shape((side, side, channels)) == (places, places, filters)
    assert layer.multiply_adds((side, side, channels)) == places**2 * filters * kernel**2 * channels
    assert MaxPool(name="p", kernel=kernel, stride=stride, padding=padding).output_shape((side, side, channels)) == (
        places,
        places,
        channels,
    )


@st.composite
def a_model(draw: st.DrawFn) -> Model:
    layers: list[Layer] = []
    for number in range(draw(st.integers(1, 4))):
        layers.append(Conv(name=f"conv{number}", filters=draw(SMALL), kernel=draw(SMALL), bias=draw(st.booleans())))
        if draw(st.booleans()):
            layers.append(MaxPool(name=f"pool{number}", kernel=2, stride=2, padding=Padding.SAME))
    if draw(st.booleans()):
        layers += [Flatten(name="flatten"), Dense(name="dense", units=draw(SMALL))]
    shape = (draw(SMALL), draw(SMALL), draw(st.integers(1, 4)))
    return Model(
        name="drawn", description="", source="", input_shape=shape, layers=tuple(layers), weight_sd=0.1, input_sd=0.1
    )


@settings(max_examples=50, deadline=None)
@given(model=a_model(), batch_size=st.integers(1, 512))
def test_flop_grow_with_the_batch_and_a_training_pass_is_two_to_three_forward_passes(
    model: Model, batch_size: int
) -> None:
    forward, both = model.flop(batch_size, Pass.FORWARD), model.flop(batch_size, Pass.FORWARD_BACKWARD)
    assert forward == batch_size * model.flop(1, Pass.FORWARD)
    assert both == batch_size * model.flop(1, Pass.FORWARD_BACKWARD)
    assert 2 * forward <= both < 3 * forward


@settings(max_examples=50, deadline=None)
@given(model=a_model())
def test_every_layer_takes_what_the_one_before_it_gives(model: Model) -> None:
    placed = model.placed()
    assert [each.layer for each in placed] == list(model.layers)
    assert placed[0].input_shape == model.input_shape
    for before, after in itertools.pairwise(placed):
        assert after.input_shape == before.output_shape
    sizes = [math.prod(parameter.shape) for each in placed for parameter in each.parameters]
    assert model.parameters == sum(sizes)
