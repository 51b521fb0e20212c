"""The networks that can be measured as tables: all of them, and the layers of one."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Final

from orchestrator.report.table import Align, Cell, Column, Row, RowKind, Table
from workers.models.joins import is_join
from workers.protocol import NETWORK_PASSES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from workers.models.layers import Layer, Shape
    from workers.models.network import Model, PlacedLayer

_COUNTS: Final = (
    Column(key="parameters", heading="Parameters", align=Align.RIGHT),
    Column(key="multiply_adds", heading="Multiply-adds", align=Align.RIGHT),
)
_MODEL_COLUMNS: Final = (
    Column(key="name", heading="Model"),
    Column(key="input", heading="Image"),
    Column(key="layers", heading="Layers", align=Align.RIGHT),
    *_COUNTS,
    Column(key="description", heading="What"),
)
_LAYER_COLUMNS: Final = (
    Column(key="name", heading="Layer"),
    Column(key="layer_kind", heading="Kind"),
    Column(key="settings", heading="Settings"),
    Column(key="output", heading="Gives"),
    *_COUNTS,
)

#: Fields of a layer that say nothing where they are so.
_UNSAID: Final = {"stride": 1, "bias": True, "relu": True, "groups": 1}


def models_table(models: Sequence[Model]) -> Table:
    """Return a row for each network; counts are for one image, forward."""
    rows = (
        (
            _text(model.name),
            _text(_shape(model.input_shape)),
            _number(len(model.every_layer())),
            *_counts(model.parameters, model.multiply_adds),
            _text(model.description),
        )
        for model in models
    )
    return Table(title="networks", columns=_MODEL_COLUMNS, rows=tuple(map(_row, rows)))


def layers_table(model: Model) -> Table:
    """Return a row for each layer of a network, in order, and one for the whole.

    A layer that is made of layers stands below these, and counts nothing that they have counted.
    """
    rows = [
        (
            _text(placed.layer.name),
            _text(type(placed.layer).__name__),
            _text(_settings(placed.layer)),
            _text(_shape(placed.output_shape)),
            *_own_counts(placed),
        )
        for placed in model.every_layer()
    ]
    whole = _counts(model.parameters, model.multiply_adds)
    rows.append((_text("all"), _text(""), _text(""), _text(_shape(model.shapes()[-1])), *whole))
    first, both = (f"{model.flop(1, pass_):,}" for pass_ in NETWORK_PASSES)
    return Table(
        title=f"{model.name}, images of {_shape(model.input_shape)}",
        columns=_LAYER_COLUMNS,
        rows=tuple(map(_row, rows)),
        notes=(
            model.description,
            f"An image takes {first} FLOP forward and {both} forward-backward; a multiply-add is two.",
            f"As defined in {model.source}.",
        ),
    )


def _settings(layer: Layer) -> str:
    """Return what a layer was given, but for its name and what goes without saying: ``filters 64, kernel 11``."""
    fields = dataclasses.fields(layer)  # type: ignore[arg-type]  # layers are dataclasses; the protocol cannot say so
    values = {field.name: getattr(layer, field.name) for field in fields if field.name != "name"}
    if "paths" in values:
        values["paths"] = len(values["paths"])
    said = {name: getattr(value, "value", value) for name, value in values.items() if value != _UNSAID.get(name)}
    return ", ".join(f"{name} {str(value).lower() if value is False else value}" for name, value in said.items())


def _own_counts(placed: PlacedLayer) -> tuple[Cell, Cell]:
    if is_join(placed.layer):
        return _counts(0, 0)
    return _counts(sum(parameter.size for parameter in placed.parameters), placed.multiply_adds)


def _shape(shape: Shape) -> str:
    return " x ".join(map(str, shape))


def _counts(parameters: int, multiply_adds: int) -> tuple[Cell, Cell]:
    return _number(parameters), _number(multiply_adds)


def _number(value: int) -> Cell:
    return Cell(text=f"{value:,}", value=value)


def _text(text: str) -> Cell:
    return Cell(text=text, value=text)


def _row(cells: tuple[Cell, ...]) -> Row:
    return Row(kind=RowKind.MEASURED, cells=cells)
