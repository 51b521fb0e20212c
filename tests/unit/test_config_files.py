from __future__ import annotations

from pathlib import Path

import jsonschema
import pytest

from orchestrator.config import source
from orchestrator.config.load import json_schema, load_config, load_text
from orchestrator.config.sweep import expand
from workers.protocol import Pass

FOLDER = Path(__file__).parents[2] / "configs"
FILES = sorted(FOLDER.glob("*.yaml"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_every_shipped_config_follows_the_json_schema(file: Path) -> None:
    jsonschema.validate(source.read(file).data, json_schema())


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_every_shipped_config_can_be_simulated(file: Path) -> None:
    assert load_config(file, simulate=True).config.hosts


@pytest.mark.parametrize("name", ["local.yaml", "sweep.yaml"])
def test_the_configs_for_this_machine_run_as_they_stand(name: str) -> None:
    loaded = load_config(FOLDER / name)

    assert loaded.notes == ()
    assert [str(device) for device in loaded.config.hosts[0].devices] == ["cpu", "gpu:any"]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_every_shipped_config_is_one_that_can_be_run(file: Path) -> None:
    assert load_config(file).notes == ()


def test_the_local_config_is_the_seed_s_two_columns() -> None:
    workloads = expand(load_config(FOLDER / "local.yaml").config.workloads)

    assert [(one.model, one.pass_, one.batch_size) for one in workloads] == [
        ("alexnet", Pass.FORWARD, 128),
        ("alexnet", Pass.FORWARD_BACKWARD, 128),
    ]


def test_the_sweep_is_small() -> None:
    assert len(expand(load_config(FOLDER / "sweep.yaml").config.workloads)) == 8


def test_what_the_sweep_s_comments_suggest_works() -> None:
    text = (FOLDER / "sweep.yaml").read_text(encoding="utf-8")
    lines = text.replace("# exclude:", "exclude:").replace("# include:", "include:").replace("#   - {", "  - {")
    loaded = load_text(lines, "sweep.yaml")

    assert loaded.notes == ()
    assert len(expand(loaded.config.workloads)) == 8 - 2 + 2


def test_the_lab_has_its_hosts_and_their_own_settings() -> None:
    config = load_config(FOLDER / "lab.yaml").config

    assert [host.name for host in config.hosts] == ["gpu01", "gpu02", "gpu03", "gpu04", "attic"]
    assert config.hosts[1].address == "gpu02.lab.example"
    assert config.hosts[-1].connection(config.defaults).python == "/opt/muster/bin/python"
    assert [config.measure_for(host).sampling.max_steps for host in config.hosts] == [100, 100, 100, 100, 30]
