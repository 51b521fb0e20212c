from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import pytest

from orchestrator.analysis import references
from orchestrator.errors import UsageError
from workers import ops, works
from workers.protocol import Pass

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestrator.analysis.references import Reference


def test_the_seed_is_there() -> None:
    assert "seed" in references.names()


def test_the_seeds_rows_are_as_published() -> None:
    rows = references.load(["seed"])
    shown = [(row.device, row.memory, *(figure.text for _, figure in row.figures)) for row in rows]
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
        assert row.figures
        assert row.details
        for link in row.links:
            assert link.text in row.details
            assert link.url.startswith("https://")


def rows_of(table: str, **definition: object) -> list[references.Reference]:
    return [
        row
        for row in references.load([table])
        if all(getattr(row.definition, key) == value for key, value in definition.items())
    ]


def figures(row: references.Reference) -> dict[str, float]:
    return {pass_.value: figure.mean_ms for pass_, figure in row.figures}


def test_convnet_benchmarks_has_its_networks_and_its_layers() -> None:
    found = references.load(["convnet-benchmarks"])
    counts = Counter(row.definition.model for row in found)
    assert counts == {"alexnet-owt": 13, "overfeat": 13, "vgg-a": 13, "googlenet-v1": 9} | {
        f"convnet-l{number}": 8 for number in range(1, 6)
    }
    assert all(works.find(model) for model in counts)
    (tensorflow,) = rows_of("convnet-benchmarks", model="vgg-a", framework="tensorflow")
    assert (tensorflow.definition.batch_size, figures(tensorflow)) == (64, {"forward": 158, "forward_backward": 540})
    (fbfft,) = rows_of("convnet-benchmarks", model="convnet-l2", framework="fbfft")
    assert figures(fbfft) == {"forward": 27, "forward_backward": 27 + 45}


def test_tf_cnn_benchmarks_rates_are_times_of_their_batch() -> None:
    p100 = next(row for row in references.load(["tf_cnn_benchmarks"]) if row.device.startswith("Tesla P100"))
    ((pass_, figure),) = p100.figures
    assert (pass_, figure.text) == (Pass.FORWARD_BACKWARD, "171.4 (2987 images/s)")
    assert figure.mean_ms == pytest.approx(512 / 2987 * 1e3)
    assert p100.definition.beyond == "an optimiser's update"


def test_deepbench_s_rows_are_its_training_set_on_thirteen_devices() -> None:
    found = references.load(["deepbench"])
    assert len({(row.device, row.definition.precision) for row in found}) == 13
    models = {row.definition.model for row in found}
    alone = {name for name in ops.problems("deepbench-training") if not name.startswith("allreduce/")}
    assert alone <= models
    # 13 devices, of two of which no recurrent layers were published; a few sizes are not on every sheet.
    assert len(found) == 3833 + len(sums_of(found))


def sums_of(rows: Sequence[Reference]) -> list[Reference]:
    return [row for row in rows if row.definition.model.startswith("allreduce/")]


def test_deepbench_s_sums_over_devices_have_as_many_ranks_as_were_published() -> None:
    found = sums_of(references.load(["deepbench"]))
    sizes = {100000, 3097600, 4194304, 6553600, 16777216, 38360000, 64500000}
    assert {row.definition.model for row in found} == {
        f"allreduce/n{size}-r{ranks}" for size in sizes for ranks in (2, 4, 8, 16, 32)
    }
    # Six devices, one of which was published up to 16 ranks.
    assert len(found) == 5 * 35 + 28


@pytest.mark.parametrize(
    ("model", "device", "precision", "expected"),
    [
        ("gemm/m1760-n128-k1760-nn", "Tesla V100", "float16", {"forward": 0.031}),
        (
            "conv/w341-h79-c32-n32-k32-f10x5-p0x0-s2x2",
            "Titan X (Maxwell)",
            "float32",
            {"forward": 4.832, "backward_data": 24.089, "backward_weights": 5.665},
        ),
        ("allreduce/n38360000-r4", "Titan X (Maxwell)", "float32", {"forward": 38.0174}),
        ("lstm/h512-b16-t25", "Tesla P100", "float32", {"forward": 1.478, "forward_backward": 1.478 + 1.688 + 0.213}),
    ],
)
def test_deepbench_s_figures_are_as_published(
    model: str, device: str, precision: str, expected: dict[str, float]
) -> None:
    (row,) = [row for row in rows_of("deepbench", model=model, precision=precision) if row.device == device]
    assert figures(row) == pytest.approx(expected)


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
