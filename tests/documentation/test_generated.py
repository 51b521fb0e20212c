from __future__ import annotations

import json
import os
import re
from typing import TYPE_CHECKING

import pytest

from docs import generate
from orchestrator.bundle.schema import run_schema
from tests.documentation.pages import ROOT

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("page", generate.current(), ids=lambda page: page.name)
def test_a_generated_page_is_current(page: Path) -> None:
    now = generate.current()[page]
    if os.environ.get("MUSTER_GOLDEN") == "write":
        page.write_text(now, encoding="utf-8")
    assert page.read_text(encoding="utf-8") == now, "stale; if the change is right: make golden"


def test_every_part_that_can_be_generated_stands_on_a_page() -> None:
    shown = {
        name
        for page in generate.current()
        for name in re.findall(r"<!-- generated: ([a-z-]+) -->", page.read_text(encoding="utf-8"))
    }
    assert shown == set(generate.PARTS)


@pytest.mark.parametrize(
    ("heading", "anchor"),
    [
        ("Add a model", "add-a-model"),
        ("`hosts[].measure`", "hostsmeasure"),
        ("muster run", "muster-run"),
        ("What is known, of where?", "what-is-known-of-where"),
    ],
)
def test_anchors_are_those_of_github(heading: str, anchor: str) -> None:
    assert generate.slug(heading) == anchor


def test_a_bar_within_a_cell_does_not_end_it() -> None:
    assert generate.table(("a",), [("x|y",)]).splitlines() == ["| a    |", "|------|", "| x\\|y |"]


def test_the_published_schema_of_a_run_is_current() -> None:
    page = ROOT / "docs" / "reference" / "run.schema.json"
    now = json.dumps(run_schema(), indent=2) + "\n"
    if os.environ.get("MUSTER_GOLDEN") == "write":
        page.write_text(now, encoding="utf-8")
    assert page.read_text(encoding="utf-8") == now, "stale; if the change is right: make golden"
