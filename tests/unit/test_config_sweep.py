from __future__ import annotations

from typing import Any

import pytest

from orchestrator.config.schema import WorkloadConfig
from orchestrator.config.sweep import SweptWorkload, count, expand, idle_exclusions, resolve, resolve_all
from orchestrator.errors import ConfigError
from tests.builders import a_workload
from workers.protocol import Compiler, DeviceKind, Fetch, Layout, OneDnn, Pass, Precision

FORWARD, BOTH = Pass.FORWARD, (Pass.FORWARD, Pass.FORWARD_BACKWARD)


def a_sweep(**given: Any) -> WorkloadConfig:
    return WorkloadConfig.model_validate({"model": "alexnet", "passes": "forward", "batch_size": 128, **given})


def swept(**given: Any) -> SweptWorkload:
    defaults: dict[str, Any] = {
        "model": "alexnet",
        "pass_": FORWARD,
        "batch_size": 128,
        "precision": Precision.FLOAT32,
        "layout": None,
        "compiler": Compiler.NONE,
        "framework": "tensorflow",
        "fetch": Fetch.DEVICE,
    }
    return SweptWorkload(**{**defaults, **given})


def test_values_without_lists_are_one_combination() -> None:
    assert expand([a_sweep()]) == (swept(),)


def test_combinations_stand_as_written_with_the_passes_varying_fastest() -> None:
    found = expand([a_sweep(passes=["forward_backward", "forward"], batch_size=[64, 32])])

    assert [(one.batch_size, one.pass_.value) for one in found] == [
        (64, "forward_backward"),
        (64, "forward"),
        (32, "forward_backward"),
        (32, "forward"),
    ]


def test_every_parameter_can_be_a_list() -> None:
    lists = {
        "model": ["alexnet", "alexnet-owt"],
        "passes": ["forward", "forward_backward"],
        "batch_size": [1, 2],
        "precision": ["float32", "bfloat16"],
        "layout": ["auto", "NHWC"],
        "compiler": ["none", "xla"],
        "onednn": ["auto", "off"],
        "threads": ["all", 1],
        "fetch": ["device", "host"],
    }

    found = expand([a_sweep(**lists)])

    assert len(set(found)) == len(found) == 2**9
    assert {one.layout for one in found} == {None, Layout.NHWC}


def test_yaml_s_on_and_off_are_truths() -> None:
    found = expand([a_sweep(onednn=[True, False, "auto"])])
    assert [one.onednn for one in found] == [OneDnn.ON, OneDnn.OFF, None]


def test_of_duplicates_the_first_stays() -> None:
    assert expand([a_sweep(batch_size=[2, 1, 2]), a_sweep(batch_size=[3, 1])]) == (
        swept(batch_size=2),
        swept(batch_size=1),
        swept(batch_size=3),
    )


def test_exclude_takes_out_what_has_all_values_of_an_entry() -> None:
    entry = {"batch_size": [64, 128], "precision": "bfloat16"}

    found = expand([a_sweep(batch_size=[32, 64, 128], precision=["float32", "bfloat16"], exclude=[entry])])

    assert [(one.batch_size, one.precision.value) for one in found] == [
        (32, "float32"),
        (32, "bfloat16"),
        (64, "float32"),
        (128, "float32"),
    ]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("model", "alexnet-owt"),
        ("passes", "forward_backward"),
        ("batch_size", 1),
        ("precision", "bfloat16"),
        ("layout", "NCHW"),
        ("compiler", "xla"),
        ("onednn", "on"),
        ("threads", 2),
        ("fetch", "host"),
    ],
)
def test_exclude_and_include_know_every_parameter(key: str, value: object) -> None:
    plain = a_sweep()
    usual = getattr(plain, key)[0]

    assert expand([a_sweep(**{key: [usual, value]}, exclude=[{key: value}])]) == expand([plain])
    assert expand([a_sweep(include=[{key: value}])]) == expand([a_sweep(**{key: [usual, value]})])


def test_layout_auto_can_be_excluded_by_name() -> None:
    assert expand([a_sweep(layout=["auto", "NHWC"], exclude=[{"layout": "auto"}])]) == (swept(layout=Layout.NHWC),)


def test_include_adds_the_lists_once_more_with_its_own_values_and_exclude_does_not_touch_it() -> None:
    found = expand(
        [a_sweep(passes=list(BOTH), batch_size=[32, 64], exclude=[{"batch_size": 512}], include=[{"batch_size": 512}])]
    )

    assert [(one.batch_size, one.pass_) for one in found] == [(b, p) for b in (32, 64, 512) for p in BOTH]


def test_an_exclusion_that_matches_nothing_is_told() -> None:
    assert idle_exclusions(a_sweep(exclude=[{"batch_size": 128}, {"batch_size": 129}, {"fetch": "host"}])) == (1, 2)


def test_too_many_combinations_are_counted_and_never_built() -> None:
    numbers = list(range(1, 1_001))
    vast = a_sweep(batch_size=numbers, include=[{"batch_size": numbers}] * 1_000)

    assert count([vast]) == 1_001_000
    with pytest.raises(ConfigError, match="1,001,000 combinations; at most 100,000"):
        expand([vast])


def test_an_open_layout_is_settled_by_the_device() -> None:
    assert resolve(swept(), DeviceKind.CPU) == a_workload(layout=Layout.NHWC)
    assert resolve(swept(), DeviceKind.GPU) == a_workload(layout=Layout.NCHW)


def test_a_layout_that_was_asked_for_stays() -> None:
    assert resolve(swept(layout=Layout.NCHW), DeviceKind.CPU).layout is Layout.NCHW


def test_workloads_that_become_the_same_on_a_device_stand_once() -> None:
    both = (swept(), swept(layout=Layout.NHWC))

    assert resolve_all(both, DeviceKind.CPU) == (a_workload(layout=Layout.NHWC),)
    assert [one.layout for one in resolve_all(both, DeviceKind.GPU)] == [Layout.NCHW, Layout.NHWC]


# --- the largest batch that fits -------------------------------------------------------------------------------


def batches(**given: Any) -> list[tuple[int, bool]]:
    return [(one.batch_size, one.seeks_largest) for one in expand([a_sweep(**given)])]


def test_max_alone_is_the_common_batch_and_the_largest() -> None:
    assert batches(batch_size="max") == batches(batch_size=["max"]) == [(128, False), (128, True)]


@pytest.mark.parametrize("start", [1, 64, 1000])
def test_beside_a_number_the_search_begins_there(start: int) -> None:
    assert batches(batch_size=[start, "max"]) == [(start, False), (start, True)]


def test_the_search_begins_at_the_largest_of_several_numbers_and_max_stands_once_where_it_is_written() -> None:
    assert batches(batch_size=["max", 64, 256, "max", 8]) == [(256, True), (64, False), (256, False), (8, False)]


def test_max_is_left_out_and_added_like_any_other_batch() -> None:
    assert batches(batch_size=[64, "max"], exclude=[{"batch_size": "max"}]) == [(64, False)]
    assert batches(batch_size=[64, "max"], exclude=[{"batch_size": 64}]) == [(64, True)]
    assert batches(batch_size=64, include=[{"batch_size": [64, "max"]}]) == [(64, False), (64, True)]


def test_an_entry_that_adds_max_adds_nothing_else_and_begins_where_the_workload_is() -> None:
    assert batches(batch_size=64, include=[{"batch_size": "max"}]) == [(64, False), (64, True)]
    assert batches(batch_size="max", include=[{"batch_size": ["max", 32]}]) == [
        (128, False),
        (128, True),
        (32, True),
        (32, False),
    ]
    found = expand([a_sweep(batch_size="max", include=[{"precision": "bfloat16"}])])
    assert [(one.precision.value, one.seeks_largest) for one in found] == [
        ("float32", False),
        ("float32", True),
        ("bfloat16", False),
        ("bfloat16", True),
    ]


def test_max_counts_as_what_it_stands_for() -> None:
    assert count([a_sweep(batch_size="max")]) == 2


def test_a_device_is_told_to_look_for_the_largest() -> None:
    assert resolve(swept(seeks_largest=True), DeviceKind.CPU) == a_workload(seeks_largest=True)
