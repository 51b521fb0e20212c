from __future__ import annotations

import pytest

from orchestrator.analysis import references
from orchestrator.errors import UsageError


def test_the_seed_is_there() -> None:
    assert "seed" in references.names()


def test_the_seeds_rows_are_as_published() -> None:
    rows = references.load(["seed"])
    shown = [
        (row.device, row.memory, row.forward.text, row.forward_backward.text)
        for row in rows
        if row.forward is not None and row.forward_backward is not None
    ]
    assert shown == [
        ("Titan X", "12GB GDDR5", "70 +/- 0.1", "244 +/- 30"),
        ("K40c", "12GB GDDR5", "145 +/- 1.5", "480 +/- 48"),
        ("GeForce GT 750M", "2GB", "536 +/- 2", "1466 +/- 18"),
        ("2.3 GHz Intel Core i7", "16 GB 1600 MHz DDR3", "2473 +/- 34", "7091 +/- 117"),
    ]


def test_a_reference_carries_its_definition_and_what_must_be_known() -> None:
    titan, *_, macbook = references.load(["seed"])
    assert titan.definition == references.Definition(
        model="alexnet", batch_size=128, image_size=224, precision="float32", framework="tensorflow", fetch="host"
    )
    assert titan.source.startswith("AlexNet table of thefonseca/tensorflow-benchmarks")
    assert titan.caveat is not None
    assert "earlier version of the script" in titan.caveat
    assert macbook.caveat is None
    assert "MacBook" in " ".join(macbook.table_caveats)


@pytest.mark.parametrize("name", references.names())
def test_every_table_has_rows_with_figures_and_sources(name: str) -> None:
    for row in references.load([name]):
        assert row.table == name
        assert row.table_title
        assert row.source
        assert row.forward or row.forward_backward
        for link in row.links:
            assert link.text in row.details
            assert link.url.startswith("https://")


def test_a_table_asked_for_twice_is_loaded_once() -> None:
    assert references.load(["seed", "seed"]) == references.load(["seed"])


def test_none_asked_for_is_none() -> None:
    assert references.load([]) == ()


def test_an_unknown_name_lists_those_there_are() -> None:
    with pytest.raises(UsageError) as caught:
        references.load(["seed", "sede"])
    assert "'sede'" in caught.value.message
    assert "seed" in (caught.value.remedy or "")


def test_a_path_is_not_a_name() -> None:
    with pytest.raises(UsageError):
        references.load(["../data/seed"])


def test_a_figure_is_read_as_it_is_written() -> None:
    figure = references.parse_figure("70 +/- 0.1")
    assert (figure.text, figure.mean_ms, figure.sd_ms) == ("70 +/- 0.1", 70.0, 0.1)


def test_a_mean_alone_has_no_sd() -> None:
    figure = references.parse_figure("26")
    assert (figure.text, figure.mean_ms, figure.sd_ms) == ("26", 26.0, None)


@pytest.mark.parametrize("text", ["", "70 +/-", "about 70", "-1 +/- 2", "nan", "1e3", "70 +/- 0.1 ms"])
def test_anything_else_is_no_figure(text: str) -> None:
    with pytest.raises(ValueError, match="not a published figure"):
        references.parse_figure(text)
