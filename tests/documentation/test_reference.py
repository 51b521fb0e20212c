"""Whatever the program has, the reference names."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from typing import TYPE_CHECKING, Any, Final

import pytest

from docs.generate import command_line, subcommands
from orchestrator.config.load import json_schema
from orchestrator.errors import ExitCode
from tests.documentation.pages import ROOT, read, spans
from workers import models
from workers.probe import VARIABLE_PREFIXES, host_report
from workers.protocol import NETWORK_PASSES, Verdict

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

COMMANDS: Final = command_line()


def all_commands(name: str = "muster", command: Any = COMMANDS) -> Iterator[tuple[str, Any]]:
    yield name, command
    for inner, one in subcommands(command).items():
        yield from all_commands(f"{name} {inner}", one)


@pytest.mark.parametrize("name", [name for name, _ in all_commands()])
def test_every_command_is_described(name: str) -> None:
    assert section_of(name)
    if name != "muster":
        assert any(span.startswith(name) for span in spans("README.md")), "the README's table lacks it"


def section_of(name: str) -> str:
    found = re.search(rf"^#+ {name}\n(.*?)(?=^##|\Z)", read("docs/reference/command-line.md"), re.MULTILINE | re.DOTALL)
    return "" if found is None else found[1]


def all_options() -> Iterator[tuple[str, str]]:
    for name, command in all_commands():
        for parameter in command.params:
            yield from ((name, option) for option in parameter.opts if option.startswith("-"))


@pytest.mark.parametrize(("command", "option"), list(all_options()))
def test_every_option_is_described(command: str, option: str) -> None:
    assert re.search(rf"`{re.escape(option)}[ `]", section_of(command))


def config_keys() -> Iterator[str]:
    schema = json_schema()
    for mapping in (schema, *schema["$defs"].values()):
        yield from mapping.get("properties", ())


@pytest.mark.parametrize("key", sorted(set(config_keys())))
def test_every_config_key_is_described(key: str) -> None:
    assert re.search(rf"^\| `{re.escape(key)}` +\|.*\| \S.*\|$", read("docs/reference/config.md"), re.MULTILINE)


def test_every_mapping_of_the_config_has_a_section() -> None:
    mappings = [one for one in json_schema()["$defs"].values() if "properties" in one]
    assert read("docs/reference/config.md").count("\n## ") == 1 + len(mappings)


@pytest.mark.parametrize("page", ["README.md", "docs/reference/verdicts.md"])
@pytest.mark.parametrize("verdict", Verdict)
def test_every_verdict_is_described(verdict: Verdict, page: str) -> None:
    by_hand, _, _ = read(page).partition("<!-- generated: verdicts -->")
    assert re.search(rf"^\| [^|]*`{verdict.value}`[^|]*\| \S", by_hand, re.MULTILINE)


@pytest.mark.parametrize("code", ExitCode)
def test_every_exit_code_is_described(code: ExitCode) -> None:
    assert re.search(rf"^\| {code.value} \| `{code.name}` \| \S", read("docs/reference/exit-codes.md"), re.MULTILINE)
    assert re.search(rf"^\| {code.value} \| \S", read("README.md"), re.MULTILINE)


#: Files of control groups, whose names look like those of facts.
CGROUP_FILES: Final = frozenset({"cpu.max"}) | frozenset(
    f"memory.{name}" for name in ("current", "events", "limit_in_bytes", "max", "oom_control", "stat", "usage_in_bytes")
)


def fact_names() -> Iterator[str]:
    """What the probe and the child find here, and every literal in the code that looks like a fact's name."""
    report = host_report("here")
    yield from (name for name, _ in report.environment.facts if not name.startswith("env."))
    yield from (name for name, _ in report.condition.facts)
    yield from names_of_bound_process()
    for source in [*(ROOT / "workers").rglob("*.py"), ROOT / "orchestrator/engine/invented.py"]:
        if source.parent.name != "telemetry":
            yield from literals(source)


def series_names() -> Iterator[str]:
    """Every literal of the gauges that looks like the name of a series, or of several."""
    for source in (ROOT / "workers" / "telemetry").glob("*.py"):
        yield from literals(source)


def literals(source: Path) -> Iterator[str]:
    kinds = "cpu|memory|disk|host|gpu|process|framework|search|simulated|cgroup|library|io|core"
    pattern = re.compile(rf"({kinds})\.[a-zN][a-z0-9_]*(\.[a-z_]+)?")
    for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and pattern.fullmatch(node.value):
            yield node.value


def names_of_bound_process() -> list[str]:
    """In a process of its own, for it is bound for good."""
    script = (
        "from tests.builders import a_device; from workers.child import bind_process; "
        "print(*(name for name, _ in bind_process(a_device(cores=())).facts))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
    )
    return done.stdout.split()


@pytest.mark.parametrize("name", sorted(set(fact_names()) - CGROUP_FILES))
def test_every_fact_is_described(name: str) -> None:
    assert name in spans("docs/reference/environment-facts.md")


@pytest.mark.parametrize("name", sorted(set(series_names())))
def test_every_series_is_described(name: str) -> None:
    assert name in spans("docs/reference/telemetry.md")


@pytest.mark.parametrize("prefix", VARIABLE_PREFIXES)
def test_every_kept_variable_is_described(prefix: str) -> None:
    assert prefix in spans("docs/reference/environment-facts.md")


def model_rows() -> list[Any]:
    rows = re.findall(r"^\| `([\w-]+)` \|[^|]*\|([^\n]*)\|$", read("docs/reference/models.md"), re.MULTILINE)
    return [(name, [cell.strip() for cell in cells.split("|")]) for name, cells in rows]


@pytest.mark.parametrize(("name", "cells"), model_rows())
def test_the_models_that_are_described_are_as_described(name: str, cells: list[str]) -> None:
    model = models.get(name)
    gflop = [f"{model.flop(128, pass_) / 1e9:.3f}" for pass_ in NETWORK_PASSES]
    assert cells == [str(model.input_shape[0]), f"{model.parameters:,}", f"{model.multiply_adds:,}", *gflop]


def test_every_model_is_described() -> None:
    assert {name for name, _ in model_rows()} == set(models.names())
