from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

import pytest

from orchestrator.config.load import Loaded, load_config, load_text
from orchestrator.config.sweep import expand
from orchestrator.errors import ConfigError, ExitCode
from tests.goldens import assert_golden
from workers import models
from workers.protocol import Sampling

if TYPE_CHECKING:
    from pathlib import Path

SMALL = "version: 1\nname: small\nworkloads: [{model: alexnet}]\n"

#: Everything that can be wrong, by the name of the golden file that holds what a person is told.
WRONG = {
    "empty": "",
    "only_comments": "# version: 1\n",
    "not_yaml": "version: 1\nname: [lab\nworkloads: []\n",
    "list_instead_of_mapping": "- version: 1\n- name: lab\n",
    "text_instead_of_mapping": "alexnet\n",
    "nothing_but_version": "version: 1\n",
    "next_version": SMALL.replace("version: 1", "version: 2"),
    "unknown_precision": SMALL.replace("alexnet", "alexnet, precision: [float32, float64]"),
    "batch_zero": SMALL.replace("alexnet", "alexnet, batch_size: 0"),
    "batch_negative": SMALL.replace("alexnet", "alexnet, batch_size: [64, -1]"),
    "batch_text": SMALL.replace("alexnet", "alexnet, batch_size: '128'"),
    "batch_octal": SMALL.replace("alexnet", "alexnet, batch_size: 012"),
    "batch_boolean": SMALL.replace("alexnet", "alexnet, batch_size: true"),
    "batch_word": SMALL.replace("alexnet", "alexnet, batch_size: [64, most]"),
    "batch_fraction": SMALL.replace("alexnet", "alexnet, batch_size: 1.5"),
    "batch_huge": SMALL.replace("alexnet", "alexnet, batch_size: 3000000000"),
    "typo_in_top_key": SMALL.replace("workloads", "workload"),
    "typo_in_nested_key": SMALL + "measure: {warmpu: 3}\nlimits: {zzz: 1}\n",
    "typo_in_value": SMALL + "policy: {order: interleved, host_concurrency: exclusve}\n",
    "duplicate_keys": SMALL + "name: other\nmeasure: {steps: 1, steps: 2}\n",
    "duplicate_hosts": SMALL
    + "cluster: {mode: ssh}\n"
    + "hosts:\n- {name: 'gpu[1-3]', devices: cpu}\n- {name: gpu2, devices: cpu}\n- {name: 'gpu[3-4]', devices: cpu}\n",
    "duplicate_devices": SMALL + "hosts: [{name: here, devices: [cpu, gpu:0, cpu]}]\n",
    "tags": SMALL + "measure: !!python/object/apply:os.system [ls]\n",
    "merge_key": SMALL + "measure: {<<: {steps: 3}}\n",
    "bomb": "a: &a [x,x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a,*a]\n"
    + "c: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b,*b]\nd: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c,*c]\n"
    + "e: [*d,*d,*d,*d,*d,*d,*d,*d,*d,*d]\n",
    "too_large": "#" * (1024 * 1024 + 1),
    "bad_devices": SMALL + "hosts: [{name: here, devices: [gpu: 0, cpu:0-3,9, gpu, gpu:3-1]}]\n",
    "bad_hosts": SMALL + "hosts: [{name: 'a[3-1]', devices: cpu}, {name: -a, devices: cpu}, {name: 7, devices: cpu}]\n",
    "host_bomb": SMALL + "hosts: [{name: 'a[1-999999999]', devices: cpu}]\n",
    "host_bomb_in_parts": SMALL
    + "hosts: [{name: 'a[1-6000]', devices: cpu}, {name: 'b[1-6000]', devices: cpu}]\ncluster: {mode: ssh}\n",
    "host_address": SMALL + "hosts: [{name: a, devices: cpu, address: '{nam}.lab'}]\n",
    "durations": SMALL + "limits: {case_timeout: 10, start_timeout: 9 min, prepare_timeout: 0s, collect_timeout: 1y}\n",
    "shares": SMALL
    + "measure: {until: {relative_ci: 1}}\nhosts: [{name: a, devices: cpu, measure: {until: {relative_ci: true}}}]\n",
    "steps_and_until": SMALL + "measure: {steps: 10, until: {relative_ci: 1%}}\n",
    "min_above_max": SMALL + "measure: {until: {relative_ci: 1%, min_steps: 9, max_steps: 3}}\n",
    "booleans": SMALL + "cluster: {tls: yes}\n",
    "nothing_given": SMALL + "hosts:\nmeasure:\n",
    "empty_lists": "version: 1\nname: x\nhosts: []\nworkloads: []\n",
    "empty_sweep_list": SMALL.replace("alexnet", "alexnet, batch_size: []"),
    "exclude_everything": SMALL.replace("alexnet", "alexnet, exclude: [{}]"),
    "exclude_leaves_nothing": SMALL.replace("alexnet", "alexnet, exclude: [{batch_size: 128}]"),
    "too_many_combinations": SMALL.replace(
        "alexnet",
        f"alexnet, batch_size: {list(range(1, 3_200))}, passes: [forward, forward_backward], compiler: [none, xla],"
        " precision: [float32, bfloat16], layout: [NHWC, NCHW], fetch: [device, host]",
    ),
    "store": SMALL + "store: muster.db\n",
    "many_at_once": textwrap.dedent("""\
        version: 1
        name: 7
        workload: [{model: alexnet}]
        workloads:
          - model: alexnet
            batch_size: -1
            passes: [forward, bakward]
          - {precision: float64}
        hosts: {name: here}
        limits: {attempts: 0, case_timeout: soon}
        name: again
        """),
    "several_hosts": SMALL + "hosts: [{name: 'a[1-2]', devices: cpu}]\n",
    "hosts_of_another_mode": SMALL
    + "hosts:\n- {name: a, devices: cpu, address: b, user: c, port: 22, python: d, install: true,"
    + " insecure_host_keys: true}\n",
    "hosts_of_a_cluster_that_is_there": SMALL
    + "cluster: {mode: address, address: auto}\nhosts: [{name: a, address: b, user: c, devices: cpu}]\n",
    "defaults_of_another_mode": SMALL + "defaults: {user: a, port: 2222, install: true}\n",
    "keys_of_another_mode": SMALL + "cluster: {mode: local, head_address: a}\n",
    "no_address": SMALL + "cluster: {mode: address}\n",
    "ports_in_words": SMALL + "cluster: {mode: ssh, ports: 26000}\n",
    "too_few_ports": SMALL + "cluster: {mode: ssh, ports: 26000-26098}\n",
    "ports_backwards": SMALL + "cluster: {mode: ssh, ports: 26999-26000}\n",
    "port_zero": SMALL + "cluster: {mode: ssh}\nhosts: [{name: a, devices: cpu, port: 0}]\n",
    "weird_keys": SMALL + '"a b": 1\n"\\e[31mred": 1\n"' + "x" * 100 + '": 1\n"": {a: 1}\n',
}  # fmt: skip

#: What is in the grammar and not built.
NOT_BUILT = {
    "store": SMALL + "store: mysql://lab.example/muster\n",
}  # fmt: skip


def error_of(text: str, *overrides: str, simulate: bool = False) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        load_text(text, "lab.yaml", overrides=overrides, simulate=simulate)
    return caught.value


def told(error: ConfigError) -> str:
    return f"{error.message}\nremedy: {error.remedy}\n"


def load(*overrides: str, text: str = SMALL) -> Loaded:
    return load_text(text, "lab.yaml", overrides=overrides)


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_told_with_its_place_and_what_was_expected(name: str) -> None:
    error = error_of(WRONG[name])

    assert error.exit_code is ExitCode.USAGE
    assert_golden(f"config/errors/{name}.txt", told(error))


def test_an_unknown_model_is_told_with_those_there_are() -> None:
    """No golden file, so that a new model changes nothing here."""
    assert error_of(SMALL.replace("alexnet", "alexnet-otw")).message == (
        "lab.yaml:3:21: workloads[0].model: 'alexnet-otw' is not allowed:"
        f" expected one of {', '.join(models.names())}; did you mean 'alexnet-owt'?"
    )


def test_an_unknown_framework_is_told_with_those_there_are() -> None:
    message = error_of(SMALL.replace("alexnet", "alexnet, framework: tensorflw")).message

    assert message.startswith("lab.yaml:3:41: workloads[0].framework: 'tensorflw' is not allowed: expected one of ")
    assert message.endswith("; did you mean 'tensorflow'?")
    assert "base" not in message


def test_a_number_beyond_what_can_be_kept_is_told_the_bound() -> None:
    error = error_of(SMALL + "measure: {steps: 3000000000}\n")

    assert "expected a number of at most 2,147,483,647" in error.message


@pytest.mark.parametrize("name", NOT_BUILT)
def test_what_is_not_built_is_refused(name: str) -> None:
    assert_golden(f"config/not_built/{name}.txt", told(error_of(NOT_BUILT[name])))


@pytest.mark.parametrize("name", NOT_BUILT)
def test_a_simulation_takes_what_is_not_built_and_says_so(name: str) -> None:
    refusal = error_of(NOT_BUILT[name]).message

    loaded = load_text(NOT_BUILT[name], "lab.yaml", simulate=True)

    assert sorted(loaded.notes) == sorted(refusal.splitlines())
    assert all("not supported yet" in note for note in loaded.notes)


def test_a_simulation_still_refuses_what_is_wrong_and_tells_that_alone() -> None:
    error = error_of(NOT_BUILT["store"] + "measure: {warmup: -1}\n", simulate=True)

    assert error.message == "lab.yaml:5:19: measure.warmup: -1 is not allowed: expected a whole number of at least 0"


def test_a_simulation_holds_what_is_not_built_to_its_grammar_all_the_same() -> None:
    text = WRONG["hosts_of_another_mode"].replace("address: b", "address: b c") + "store: muster.db\n"

    assert_golden("config/errors/simulated.txt", told(error_of(text, simulate=True)))


@pytest.mark.parametrize("name", ["several_hosts", "hosts_of_another_mode", "defaults_of_another_mode"])
def test_a_simulation_takes_hosts_that_the_mode_does_not_reach_and_says_so(name: str) -> None:
    refusal = error_of(WRONG[name]).message

    assert sorted(load_text(WRONG[name], "lab.yaml", simulate=True).notes) == sorted(refusal.splitlines())


@pytest.mark.parametrize(
    "url", ["postgresql+psycopg://me:hunter2@db/lab", "postgresql+psycopg://db/lab?password=hunter2"]
)
def test_a_password_in_a_stores_url_is_refused_and_not_shown(url: str) -> None:
    message = error_of(SMALL + f"store: {url}\n").message
    assert "it has a password in it" in message
    assert "hunter2" not in message


def test_a_store_in_postgresql_is_taken() -> None:
    assert load(text=SMALL + "store: postgresql+psycopg://bench@db.lab.example/muster\n").config.store.endswith(
        "/muster"
    )


def test_hundreds_of_errors_are_counted_and_the_first_hundred_told() -> None:
    lines = error_of(SMALL + "".join(f"key{n}: 1\n" for n in range(150))).message.splitlines()

    assert len(lines) == 101
    assert lines[-1] == "… and 50 more"


def test_the_terminal_never_gets_a_control_character_from_a_config() -> None:
    assert "\x1b" not in error_of(WRONG["weird_keys"]).message


def test_defaults_that_are_written_out_are_fine() -> None:
    text = SMALL + textwrap.dedent("""\
        cluster: {mode: local, tls: false, address: null}
        defaults: {port: null, install: false}
        measure: {processes: 1}
        policy: {busy: measure}
        limits: {host_grace: 60s}
        store: sqlite:///results/lab.db
        schedule: null
        rerun: never
        """)

    assert load(text=text).config.store == "sqlite:///results/lab.db"


def test_without_hosts_it_is_this_machine_with_its_cpu_and_any_gpu() -> None:
    (host,) = load().config.hosts

    assert host.name == "localhost"
    assert [str(selector) for selector in host.devices] == ["cpu", "gpu:any"]


def test_the_seed_s_protocol_is_the_default() -> None:
    config = load().config

    assert config.measure_for(config.hosts[0]).sampling == Sampling(warmup=10, min_steps=100, max_steps=100)
    assert [one.pass_.value for one in expand(config.workloads)] == ["forward", "forward_backward"]
    assert config.workloads[0].batch_size == (128,)


def test_times_are_seconds_whatever_unit_they_are_written_in() -> None:
    limits = load(text=SMALL + "limits: {case_timeout: 1h, start_timeout: 90s}\n").config.limits

    assert (limits.case_timeout_s, limits.start_timeout_s, limits.collect_timeout_s) == (3600.0, 90.0, 30.0)


def test_a_file_is_loaded_with_its_text_and_its_name(tmp_path: Path) -> None:
    file = tmp_path / "lab.yaml"
    file.write_text(SMALL, encoding="utf-8")

    loaded = load_config(file, overrides=["name=other"])

    assert (loaded.config.name, loaded.text, loaded.path) == ("other", SMALL, str(file))
    assert loaded.overrides == ("name=other",)
    assert loaded.notes == ()


def test_an_exclusion_without_effect_is_a_note() -> None:
    loaded = load(text=SMALL.replace("alexnet", "alexnet, exclude: [{batch_size: 127}]"))

    assert loaded.notes == ("lab.yaml:3:40: workloads[0].exclude[0]: matches no combination",)


def test_an_override_replaces_a_value_and_a_later_one_wins() -> None:
    config = load("measure.steps=20", "measure.steps=30", text=SMALL + "measure: {steps: 10, warmup: 1}\n").config

    assert (config.measure.steps, config.measure.warmup) == (30, 1)


def test_an_override_is_yaml_and_reaches_into_lists_and_defaults() -> None:
    config = load("hosts.0.devices=[cpu]", "workloads[0].batch_size=[1, 2]", "report.relative_to=Titan X").config

    assert [str(selector) for selector in config.hosts[0].devices] == ["cpu"]
    assert config.hosts[0].name == "localhost"
    assert config.workloads[0].batch_size == (1, 2)
    assert config.report.relative_to == "Titan X"


def test_an_override_can_take_a_value_away() -> None:
    assert (
        load("report.relative_to=", text=SMALL + "report: {relative_to: Titan X}\n").config.report.relative_to is None
    )


def test_an_override_of_steps_displaces_until_and_the_reverse() -> None:
    until = SMALL + "measure: {until: {relative_ci: 1%}}\n"
    steps = SMALL + "measure: {steps: 5}\nhosts: [{name: a, devices: cpu, measure: {steps: 4}}]\n"

    assert load("measure.steps=7", text=until).config.measure.sampling.max_steps == 7
    found = load("measure.until.relative_ci=2%", "hosts.0.measure.until.relative_ci=3%", text=steps).config
    assert found.measure.sampling.relative_ci == 0.02
    assert found.measure_for(found.hosts[0]).sampling.relative_ci == 0.03


def test_taking_until_away_leaves_steps_alone() -> None:
    measure = load("measure.until=", text=SMALL + "measure: {steps: 5}\n").config.measure

    assert (measure.steps, measure.until) == (5, None)


def test_what_is_wrong_with_overrides_is_told_after_the_file_in_their_order() -> None:
    overrides = (
        "measure.stpes=20", "mesure.steps=3", "limits.attempts=none", "name.first=x", "workloads.first.model=alexnet",
        "workloads.1.model=alexnet", "justaword", "=3", "measure.warmup=!!int 3", "cluster.mode=ssh", "workloads..=1",
    )  # fmt: skip
    error = error_of(SMALL + "policy: {seed: -1}\n", *overrides)

    assert_golden("config/errors/overrides.txt", told(error))


def test_an_override_that_is_not_yaml_is_refused() -> None:
    assert error_of(SMALL, "hosts=[").message.startswith("--set hosts=[:1:2: not YAML")


def test_an_override_cannot_mend_what_is_no_mapping() -> None:
    assert error_of("- 1\n", "hosts.0.name=a").message.splitlines()[-1] == (
        "--set hosts.0.name=a: the config has entries 0 to 0, not 'hosts'"
    )


def test_every_value_knows_where_it_came_from() -> None:
    loaded = load("measure.steps=20", "hosts.0.devices=[cpu]")

    assert loaded.origin("name") == "lab.yaml:2:7"
    assert loaded.origin("workloads.0.model") == "lab.yaml:3:21"
    assert loaded.origin("workloads[0].model") == "lab.yaml:3:21"
    assert loaded.origin("measure.steps") == "--set measure.steps=20"
    assert loaded.origin("measure") == "--set measure.steps=20"
    assert loaded.origin("hosts.0.devices.0") == "--set hosts.0.devices=[cpu]"
    assert loaded.origin("hosts.0.name") == "default"
    assert loaded.origin("limits.attempts") == "default"


def test_a_replaced_value_s_parts_are_forgotten() -> None:
    loaded = load("workloads=[{model: alexnet-owt}]", text=SMALL.replace("alexnet", "alexnet, batch_size: 3"))

    assert loaded.origin("workloads.0.batch_size") == "default"
    assert loaded.config.workloads[0].batch_size == (128,)
