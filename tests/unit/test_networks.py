"""`muster models`: the networks and their layers as tables."""

from __future__ import annotations

import json

import pytest

from orchestrator.cli.app import call
from orchestrator.errors import ExitCode
from orchestrator.report import renderers
from orchestrator.report.networks import layers_table
from tests.goldens import assert_golden
from workers import models
from workers.models.layers import Conv
from workers.models.network import Model


@pytest.mark.parametrize("command", [["models"], ["models", "list"]], ids=" ".join)
def test_all_networks_are_listed(capsys: pytest.CaptureFixture[str], command: list[str]) -> None:
    assert call([*command, "--json"]) == ExitCode.OK
    rows = json.loads(capsys.readouterr().out)["rows"]
    found = {row["cells"]["name"]["value"]: row["cells"]["parameters"]["value"] for row in rows}
    assert found == {name: models.get(name).parameters for name in models.names()}


def test_the_layers_of_a_network(capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["models", "show", "vgg-a"]) == ExitCode.OK
    assert_golden("report/vgg-a.txt", capsys.readouterr().out)


def test_layers_of_layers_stand_above_what_joins_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["models", "show", "googlenet-v1"]) == ExitCode.OK
    assert_golden("report/googlenet-v1.txt", capsys.readouterr().out)


def test_what_goes_without_saying_is_not_said_and_the_rest_is() -> None:
    layers = (Conv(name="plain", filters=2, kernel=3), Conv(name="bare", filters=2, kernel=1, bias=False, relu=False))
    model = Model(
        name="tiny", description="", source="", input_shape=(4, 4, 3), weight_sd=1.0, input_sd=1.0, layers=layers
    )
    text = renderers.load("csv")(layers_table(model), width=None, color=False)
    assert '"filters 2, kernel 3, padding SAME"' in text
    assert '"filters 2, kernel 1, padding SAME, bias false, relu false"' in text


def test_a_network_that_is_not_there_is_told_with_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["models", "show", "vgg-b"]) == ExitCode.USAGE
    err = capsys.readouterr().err
    assert "did you mean 'vgg-a'?" in err
    assert "muster models list" in err
