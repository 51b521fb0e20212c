from __future__ import annotations

import math
import re
from typing import Any

import jsonschema
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.config import source
from orchestrator.config.load import json_schema, load_text
from orchestrator.config.quantities import format_duration, parse_duration
from orchestrator.config.schema import Config, WorkloadConfig
from orchestrator.config.selectors import DeviceSelector, count_hosts, expand_hosts, parse_selector
from orchestrator.config.sweep import SweptWorkload, count, expand, resolve_all
from orchestrator.errors import ConfigError
from workers.protocol import DeviceKind

#: No deadline: nothing here is a claim about time.
quick = settings(max_examples=60, deadline=None)
grammar = jsonschema.Draft202012Validator(json_schema())

# --- configs that are right ------------------------------------------------------------------------------------

LISTS: dict[str, list[Any]] = {
    "model": ["alexnet", "alexnet-owt"],
    "passes": ["forward", "forward_backward"],
    "batch_size": [1, 2, 64, "max"],
    "precision": ["float32", "tf32", "float16", "bfloat16"],
    "layout": ["auto", "NHWC", "NCHW"],
    "compiler": ["none", "xla"],
    "onednn": ["auto", "on", "off"],
    "threads": ["all", 1, 2],
    "fetch": ["device", "host"],
}


def swept(values: list[Any]) -> st.SearchStrategy[Any]:
    return st.sampled_from(values) | st.lists(st.sampled_from(values), min_size=1, max_size=3)


entries = st.fixed_dictionaries({}, optional={key: swept(values) for key, values in LISTS.items()}).filter(bool)
workloads = st.fixed_dictionaries(
    {"model": swept(LISTS["model"])},
    optional={key: swept(values) for key, values in LISTS.items() if key != "model"}
    | {"include": st.lists(entries, max_size=2)},
)
durations = st.integers(1, 366 * 86_400_000).map(lambda ms: format_duration(ms / 1000))
shares = st.integers(1, 99).map(lambda percent: f"{percent}%") | st.floats(1e-6, 0.999)
untils = st.fixed_dictionaries(
    {"relative_ci": shares, "min_steps": st.integers(2, 50)},
    optional={"max_steps": st.integers(50, 1000), "max_time": durations},
)
measures = st.fixed_dictionaries({}, optional={"warmup": st.integers(0, 99)}) | st.fixed_dictionaries(
    {}, optional={"until": untils, "warmup": st.integers(0, 99)}
)
devices = st.lists(
    st.sampled_from(["cpu", "cpu:0-3", "cpu:numa1", "gpu:all", "gpu:any", "gpu:0", "gpu:1-2,5", "gpu:GPU-1a2b"]),
    min_size=1,
    unique=True,
)
#: What PyYAML writes without quotation marks, and YAML 1.2 and people read as a number, is no name here.
NUMBER = re.compile(r"[-+]?[0-9]+[eE][-+]?[0-9]+")
names = st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]), min_size=1, max_size=20).filter(
    lambda name: NUMBER.fullmatch(name) is None
)
configs = st.fixed_dictionaries(
    {
        "version": st.just(1),
        "name": names,
        "workloads": st.lists(workloads, min_size=1, max_size=2),
    },
    optional={
        "hosts": st.lists(
            st.fixed_dictionaries({"name": st.from_regex(r"[a-z]{1,5}", fullmatch=True), "devices": devices}),
            min_size=1,
            max_size=1,
        ),
        "measure": measures,
        "limits": st.fixed_dictionaries({}, optional={"case_timeout": durations, "attempts": st.integers(1, 9)}),
        "policy": st.fixed_dictionaries(
            {}, optional={"order": st.sampled_from(["random", "sequential"]), "seed": st.integers(0, 2**53)}
        ),
        "report": st.fixed_dictionaries({}, optional={"references": st.lists(st.just("seed"), max_size=1)}),
    },
)


@quick
@given(configs)
def test_what_is_right_is_taken_and_follows_the_json_schema(data: dict[str, Any]) -> None:
    grammar.validate(data)

    loaded = load_text(yaml.safe_dump(data, allow_unicode=True), "lab.yaml")

    assert loaded.config.name == data["name"]
    assert loaded.config == Config.model_validate(data)


@quick
@given(configs)
def test_a_config_written_out_with_all_defaults_is_read_back_as_the_same(data: dict[str, Any]) -> None:
    config = Config.model_validate(data)

    written = yaml.safe_dump(config.model_dump(mode="json", by_alias=True), allow_unicode=True)

    assert load_text(written, "lab.yaml").config == config


@quick
@given(configs, st.sampled_from(["top", "workload", "measure"]))
def test_a_key_that_nobody_knows_is_always_told(data: dict[str, Any], place: str) -> None:
    below = {"top": data, "workload": data["workloads"][0], "measure": data.setdefault("measure", {})}
    below[place]["bogus"] = 1

    try:
        load_text(yaml.safe_dump(data, allow_unicode=True), "lab.yaml")
    except ConfigError as error:
        assert "unknown key 'bogus'" in error.message
        return
    raise AssertionError("an unknown key was taken")


# --- texts that are anything -----------------------------------------------------------------------------------

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
pieces = st.lists(
    st.sampled_from(
        ["version: 1\n", "name: x\n", "workloads:", "hosts:", "measure:", " - ", "\n", "  ", "{", "}", "[", "]", ",",
         ": ", "&a ", "*a", "!!str ", "<<", "? ", "| \n", '"', "'", "%YAML 1.1\n", "---\n", "...", "\\U", "FFFFFFFF",
         "#", "\t", "model: alexnet", "gpu[1-9]", "null", "-1", "1%", "\x00", "\x85", "\ufeff", "é", "😀"]
    ),
    max_size=25,
).map("".join)  # fmt: skip


def assert_only_config_errors(text: str, *overrides: str) -> None:
    try:
        loaded = load_text(text, "lab.yaml", overrides=overrides)
    except ConfigError as error:
        assert error.message  # either outcome is right
        for line in error.message.splitlines():
            assert line.startswith(("lab.yaml:", "--set ", "…"))
    else:
        assert loaded.config.version == 1


@settings(quick, max_examples=300)
@given(st.text(max_size=60) | pieces | st.text(max_size=20).map(lambda word: f"version: 1\nname: {word}\n"))
def test_no_text_brings_anything_but_a_config_or_a_config_error(text: str) -> None:
    assert_only_config_errors(text)


@quick
@given(st.sampled_from(sorted(Config.model_fields)), json_values)
def test_no_value_brings_anything_but_a_config_or_a_config_error(key: str, value: Any) -> None:
    data = {"version": 1, "name": "x", "workloads": [{"model": "alexnet"}], key: value}

    assert_only_config_errors(yaml.safe_dump(data, allow_unicode=True))


@quick
@given(
    st.lists(
        st.sampled_from(["measure", "hosts", "0", "[0]", "workloads", "steps", "until", "model", "", "x"]), max_size=4
    ).map(".".join),
    st.text(max_size=8) | pieces,
)
def test_no_override_brings_anything_but_a_config_or_a_config_error(key: str, value: str) -> None:
    assert_only_config_errors("version: 1\nname: x\nworkloads: [{model: alexnet}]\n", f"{key}={value}", key + value)


@quick
@given(json_values)
def test_yaml_that_others_wrote_is_read_as_they_meant_it(value: Any) -> None:
    """What PyYAML writes without a tag is read back, but for numbers beyond 18 digits."""
    text = yaml.safe_dump(value, allow_unicode=True)
    document = source.parse(text, "x")
    expected = yaml.safe_load(text)

    assert document.data == expected or "!!" in text or not is_everyday(expected)


def is_everyday(value: Any) -> bool:
    if isinstance(value, dict):
        return all(isinstance(key, str) and key != "<<" and is_everyday(child) for key, child in value.items())
    if isinstance(value, list):
        return all(map(is_everyday, value))
    if isinstance(value, float):
        return math.isfinite(value) and len(repr(value)) < 18
    if isinstance(value, str):  # 1e3 is text to YAML 1.1, which PyYAML writes, and a number to people and YAML 1.2
        return NUMBER.fullmatch(value) is None
    return not isinstance(value, int) or abs(value) < 10**18


# --- sweeps ----------------------------------------------------------------------------------------------------

sweeps = workloads.map(WorkloadConfig.model_validate)
excluded = st.tuples(workloads, entries)


def has(one: SweptWorkload, entry: dict[str, Any]) -> bool:
    """True where the combination has one of the entry's values for every key, told from the raw entry alone."""
    layout = "auto" if one.layout is None else one.layout.value
    values = {
        "model": one.model, "passes": one.pass_.value, "batch_size": "max" if one.seeks_largest else one.batch_size,
        "precision": one.precision.value, "layout": layout, "compiler": one.compiler.value, "fetch": one.fetch.value,
        "onednn": "auto" if one.onednn is None else one.onednn.value, "threads": one.threads or "all",
    }  # fmt: skip
    return all(values[key] in (wanted if isinstance(wanted, list) else [wanted]) for key, wanted in entry.items())


@quick
@given(st.lists(sweeps, max_size=3))
def test_no_combination_stands_twice_and_none_beyond_the_count(several: list[WorkloadConfig]) -> None:
    found = expand(several)

    assert len(set(found)) == len(found) <= count(several)


@quick
@given(st.lists(sweeps, max_size=3), st.lists(sweeps, max_size=3))
def test_workloads_written_one_after_the_other_expand_one_after_the_other(
    first: list[WorkloadConfig], second: list[WorkloadConfig]
) -> None:
    both, head = expand([*first, *second]), expand(first)

    assert both[: len(head)] == head
    assert set(both) == set(head) | set(expand(second))


@quick
@given(excluded)
def test_exclude_takes_out_what_has_the_entry_s_values_and_nothing_else(given_: tuple[dict[str, Any], Any]) -> None:
    raw, entry = given_
    own = {key: value for key, value in raw.items() if key != "include"}
    all_ = expand([WorkloadConfig.model_validate(own)])

    kept = expand([WorkloadConfig.model_validate({**own, "exclude": [entry]})])

    assert kept == tuple(one for one in all_ if not has(one, entry))


@quick
@given(excluded)
def test_include_only_adds_and_what_it_adds_has_the_entry_s_values(given_: tuple[dict[str, Any], Any]) -> None:
    raw, entry = given_
    own = {key: value for key, value in raw.items() if key != "include"}
    before = expand([WorkloadConfig.model_validate(own)])

    after = expand([WorkloadConfig.model_validate({**own, "include": [entry]})])

    assert after[: len(before)] == before
    assert all(has(one, entry) for one in after[len(before) :])
    assert any(has(one, entry) for one in after)


@quick
@given(sweeps, st.sampled_from(DeviceKind))
def test_on_a_device_every_layout_is_settled_and_nothing_stands_twice(one: WorkloadConfig, kind: DeviceKind) -> None:
    found = resolve_all(expand([one]), kind)

    assert len(set(found)) == len(found) > 0


# --- small grammars --------------------------------------------------------------------------------------------


@quick
@given(st.integers(1, 366 * 86_400_000))
def test_a_duration_written_is_the_duration_read(milliseconds: int) -> None:
    assert parse_duration(format_duration(milliseconds / 1000)) == milliseconds / 1000


@quick
@given(st.from_regex(r"[a-z]{1,3}", fullmatch=True), st.integers(0, 999), st.integers(0, 50), st.integers(1, 4))
def test_a_range_names_each_number_once_with_its_zeros(prefix: str, first: int, more: int, width: int) -> None:
    numbers = [f"{number:0{width}}" for number in range(first, first + more + 1)]
    pattern = f"{prefix}[{numbers[0]}-{numbers[-1]}]"
    if len({len(number) for number in numbers}) > 1 and numbers[0].startswith("0"):
        return  # gpu[09-100]: whether 9 has a zero is not clear

    assert expand_hosts(pattern) == tuple(prefix + number for number in numbers)
    assert count_hosts(pattern) == len(numbers)


@quick
@given(st.text(st.sampled_from("agpu01-9[],/. n"), max_size=12))
def test_a_host_pattern_is_refused_or_expands_to_as_many_as_were_counted(pattern: str) -> None:
    try:
        counted = count_hosts(pattern)
        hosts = expand_hosts(pattern)
    except ValueError:
        return
    # A number that is named twice, as in n[1,1], is counted twice: the guard may only err upwards.
    assert 1 <= len(hosts) <= counted
    assert len(set(hosts)) == len(hosts)
    assert all(expand_hosts(host) == (host,) for host in hosts)


@quick
@given(st.text(st.sampled_from("cpugalnymb:01239-,GPU"), max_size=12))
def test_a_selector_is_refused_or_says_itself(text: str) -> None:
    try:
        selector = parse_selector(text)
    except ValueError:
        return
    parts = (selector.indices, selector.uuid_prefix, selector.every, selector.cores, selector.numa_node)
    assert isinstance(selector, DeviceSelector)
    assert (selector.text, selector.kind.value) == (text, text[:3])
    assert sum(part not in ((), None, False) for part in parts) == (0 if text == "cpu" else 1)
