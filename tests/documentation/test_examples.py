"""The one file that a how-to shows is all that it takes."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from orchestrator.analysis import references
from orchestrator.report import renderers
from orchestrator.report.build import build_table
from tests.builders import a_device, a_workload
from tests.documentation.pages import blocks
from tests.runs import a_lab_run
from workers import frameworks, models
from workers.models.layers import Dense, Flatten
from workers.models.network import Model
from workers.peak import best_bytes_per_s, best_flops
from workers.protocol import DeviceKind, Pass, Verdict

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Lay the file that a page shows into the package that it is for, and take it out again."""

    def add(place: str, package: Any) -> str:
        (block,) = [block for block in blocks() if block.info == f"python {place}"]
        module = Path(place).stem
        (tmp_path / f"{module}.py").write_text(block.text, encoding="utf-8")
        monkeypatch.setattr(package, "__path__", [*package.__path__, str(tmp_path)])
        monkeypatch.delitem(sys.modules, f"{package.__name__}.{module}", raising=False)
        added.append((package, module))
        return module

    added: list[tuple[Any, str]] = []
    models._variants.cache_clear()
    yield add
    models._variants.cache_clear()
    for package, module in added:
        sys.modules.pop(f"{package.__name__}.{module}", None)
        vars(package).pop(module, None)


def test_the_model_of_the_how_to_is_one_file(shown: Any) -> None:
    shown("workers/models/lenet.py", models)

    assert "lenet-5" in models.names()
    # By hand: 6 (25 + 1) + 16 (150 + 1) + 120 (400 + 1) + 84 (120 + 1) + 10 (84 + 1).
    assert models.get("lenet-5").parameters == 156 + 2416 + 48120 + 10164 + 850
    # 28^2 6 25 + 10^2 16 150 + 400 120 + 120 84 + 84 10
    assert models.get("lenet-5").multiply_adds == 117600 + 240000 + 48000 + 10080 + 840


def test_the_renderer_of_the_how_to_is_one_file(shown: Any) -> None:
    shown("orchestrator/report/renderers/bare_html.py", renderers)
    table = build_table(a_lab_run(), references=references.load(["seed"]))

    assert "bare-html" in renderers.names()
    assert renderers.load("bare-html")(table).count("<tr>") == 1 + len(table.rows)


@pytest.fixture
def mlp() -> Model:
    layers = (Flatten(name="flatten"), Dense(name="hidden", units=4), Dense(name="output", units=3, relu=False))
    return Model(
        name="mlp", description="d", source="s", input_shape=(3, 3, 1), layers=layers, weight_sd=0.5, input_sd=1.0
    )


def test_the_framework_of_the_how_to_is_one_file(shown: Any) -> None:
    shown("workers/frameworks/numpy.py", frameworks)
    framework = frameworks.load("numpy")

    assert "numpy" in frameworks.names()
    assert framework.available() is None
    assert framework.verdict_of(MemoryError()) is Verdict.OOM
    assert best_flops(lambda rows: framework.product(rows, a_workload(), a_device()), DeviceKind.CPU) > 0
    assert best_bytes_per_s(lambda count: framework.update(count, a_device()), DeviceKind.CPU) > 0


def test_the_framework_of_the_how_to_computes_what_it_says(shown: Any, mlp: Model) -> None:
    shown("workers/frameworks/numpy.py", frameworks)
    framework = frameworks.load("numpy")
    forward = framework.build(mlp, a_workload(batch_size=2), a_device())
    backward = framework.build(mlp, a_workload(batch_size=2, pass_=Pass.FORWARD_BACKWARD), a_device())
    forward()
    backward()

    (last,) = forward.outputs()
    assert last.shape == (2, 3)
    # The gradient of l2_loss for the last bias is the sum of the outputs over the batch.
    assert np.allclose(backward.outputs()[-1], last.sum(axis=0))
    assert [array.shape for array in backward.outputs()] == [(9, 4), (4,), (4, 3), (3,)]


def test_the_framework_of_the_how_to_refuses_what_it_cannot_do(shown: Any) -> None:
    shown("workers/frameworks/numpy.py", frameworks)
    framework = frameworks.load("numpy")

    with pytest.raises(Exception, match="nothing for Conv") as caught:
        framework.build(models.get("alexnet"), a_workload(), a_device())
    assert framework.verdict_of(caught.value) is Verdict.UNSUPPORTED
