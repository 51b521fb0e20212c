from __future__ import annotations

import copy
import json
from typing import TYPE_CHECKING, Any

import jsonschema
import pytest
from pydantic import ValidationError

from orchestrator.config.load import json_schema
from orchestrator.config.schema import ClusterConfig, Config, DeviceSelector, HostConfig, HostDefaults, MeasureConfig
from tests.goldens import assert_golden
from workers.protocol import DeviceKind, Sampling

if TYPE_CHECKING:
    from collections.abc import Iterator


def a_config(**given: Any) -> Config:
    return Config.model_validate({"version": 1, "name": "lab", "workloads": [{"model": "alexnet"}], **given})


def test_the_json_schema() -> None:
    assert_golden("config/schema.json", json.dumps(json_schema(), indent=2) + "\n")


def test_the_json_schema_is_one() -> None:
    jsonschema.Draft202012Validator.check_schema(json_schema())


def nodes(node: Any) -> Iterator[dict[str, Any]]:
    if isinstance(node, dict):
        yield node
    for child in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from nodes(child)


def test_every_key_is_described() -> None:
    schema = json_schema()
    models = (one for one in nodes(schema) if one.get("type") == "object")
    keys = [(name, key) for one in models for name, key in one["properties"].items()]

    def is_described(key: dict[str, Any]) -> bool:
        target = schema["$defs"].get(key.get("$ref", "").rpartition("/")[2], {})
        return bool(key.get("description") or target.get("description"))

    assert len(keys) > 50
    assert [name for name, key in keys if not is_described(key)] == []


def test_every_kind_of_value_says_what_it_expects_so_that_errors_can() -> None:
    def tells(node: dict[str, Any]) -> bool:
        bounded = "minimum" in node and "maximum" in node
        return "x-expected" in node or "enum" in node or "const" in node or bounded

    silent = [one for one in nodes(json_schema()) if one.get("type") in ("string", "integer", "number")]

    assert [one for one in silent if not tells(one)] == []


def test_hosts_are_one_for_each_name_of_a_range() -> None:
    config = a_config(hosts=[{"name": "gpu[08-10]", "address": "{name}.lab.example", "devices": "gpu:all", "port": 23}])

    assert [(host.name, host.address, host.port) for host in config.hosts] == [
        ("gpu08", "gpu08.lab.example", 23),
        ("gpu09", "gpu09.lab.example", 23),
        ("gpu10", "gpu10.lab.example", 23),
    ]


def test_devices_can_be_given_from_code_as_selectors() -> None:
    cpu = DeviceSelector(kind=DeviceKind.CPU, text="cpu")

    assert a_config(hosts=[{"name": "a", "devices": (cpu,)}]).hosts[0].devices == (cpu,)


@pytest.mark.parametrize("value", [7, None, ["a"]])
def test_names_are_text(value: object) -> None:
    with pytest.raises(ValidationError):
        a_config(workloads=[{"model": value}])
    with pytest.raises(ValidationError):
        a_config(workloads=[{"model": "alexnet", "framework": value}])
    with pytest.raises(ValidationError):
        a_config(measure={"until": {"relative_ci": value}})


def test_a_config_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        setattr(a_config(), "name", "other")  # noqa: B010  # mypy knows that it cannot


def test_a_host_s_own_settings_go_before_the_defaults() -> None:
    defaults = HostDefaults(user="bench", port=2222, install=True)
    host = HostConfig.model_validate({"name": "a", "devices": "cpu", "user": "root", "install": False})

    assert host.connection(defaults) == HostDefaults(user="root", port=2222, install=False)


@pytest.mark.parametrize(
    ("lab", "host", "expected"),
    [
        ({}, None, Sampling(warmup=10, min_steps=100, max_steps=100)),
        ({"warmup": 3}, {"steps": 7}, Sampling(warmup=3, min_steps=7, max_steps=7)),
        ({"steps": 7}, {"warmup": 3}, Sampling(warmup=3, min_steps=7, max_steps=7)),
        (
            {"until": {"relative_ci": "1%", "max_time": "45s"}},
            {"warmup": 0},
            Sampling(warmup=0, min_steps=10, max_steps=500, relative_ci=0.01, max_time_s=45.0),
        ),
        ({"until": {"relative_ci": "1%"}}, {"steps": 5}, Sampling(warmup=10, min_steps=5, max_steps=5)),
        (
            {"steps": 5},
            {"until": {"relative_ci": 0.02, "min_steps": 2, "max_steps": 4}},
            Sampling(warmup=10, min_steps=2, max_steps=4, relative_ci=0.02),
        ),
        ({"steps": 5}, {"until": None}, Sampling(warmup=10, min_steps=5, max_steps=5)),
    ],
)
def test_a_host_changes_the_keys_of_measure_that_it_names(
    lab: dict[str, Any], host: dict[str, Any] | None, expected: Sampling
) -> None:
    config = a_config(measure=lab, hosts=[{"name": "a", "devices": "cpu", "measure": host}])

    assert config.measure_for(config.hosts[0]).sampling == expected


def test_measuring_a_given_number_of_steps_is_not_until() -> None:
    both = MeasureConfig.model_validate({"steps": 3}).overridden_by(MeasureConfig.model_validate({"warmup": 1}))

    assert (both.steps, both.until, both.warmup) == (3, None, 1)


def test_the_json_schema_of_one_caller_is_not_changed_by_another() -> None:
    before = copy.deepcopy(json_schema())
    json_schema()["properties"].clear()

    assert json_schema() == before


def test_ports_are_written_as_they_are_read() -> None:
    cluster = ClusterConfig.model_validate({"mode": "ssh", "ports": "30000-30099"})

    assert cluster.ports == (30_000, 30_099)
    assert cluster.model_dump(mode="json")["ports"] == "30000-30099"


def test_nothing_is_said_of_user_and_port_unless_the_config_does() -> None:
    connection = HostConfig(name="a", devices=("cpu",)).connection(HostDefaults())

    assert (connection.user, connection.port) == (None, None)
