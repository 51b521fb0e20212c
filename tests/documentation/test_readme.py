"""The README's table is one that muster prints, and its picture needs nobody's server."""

from __future__ import annotations

import os
import re
from xml.etree import ElementTree

import pytest
from rich.text import Text

from docs import capture
from orchestrator.analysis import references
from orchestrator.report import renderers
from orchestrator.report.build import build_table
from tests.documentation.pages import ROOT, read
from tests.runs import a_lab_run, a_run

PLACEHOLDER = "Not captured yet: `python docs/capture.py` fills this in."


def captured() -> str:
    match = capture.MARKED.search(read("README.md"))
    assert match is not None
    text = match[0].removeprefix(match[1]).removesuffix(match[2]).strip()
    if text == PLACEHOLDER and not os.environ.get("CI"):
        pytest.skip("no table was captured yet")
    return text


def grid(markdown: str) -> list[list[str]]:
    """The cells of a Markdown table, without the rule below its header."""
    lines = [line for line in markdown.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


def test_the_readme_begins_with_its_two_commands() -> None:
    commands = re.search(r"```console\n(.*?)```", read("README.md"), re.DOTALL)
    assert commands is not None
    assert commands[1].splitlines() == ["$ make run", "$ make test"]


def test_the_table_has_the_columns_and_the_references_that_muster_prints() -> None:
    shown = grid(captured())
    printed = grid(renderers.load("md")(build_table(a_run(), references=references.load(["seed"]))))

    assert shown[0] == printed[0]
    # All but Num, which counts our rows too.
    assert [row[1:] for row in shown[-4:]] == [row[1:] for row in printed[1:]]
    assert [row[0] for row in shown[1:]] == [str(number) for number in range(1, len(shown))]


def test_the_table_s_first_row_was_measured() -> None:
    first = grid(captured())[1]

    assert all(re.fullmatch(r"\d+(\.\d+)? \+/- \d+(\.\d+)?", cell) for cell in first[3:5])
    assert "batch 128" in first[5]
    assert "simulated" not in captured()


def test_the_picture_is_whole_and_loads_nothing() -> None:
    assert captured()
    check_picture((ROOT / "docs/images/run.svg").read_text(encoding="utf-8"))


def check_picture(svg: str) -> None:
    assert ElementTree.fromstring(svg).tag.endswith("svg")
    assert re.findall(r"https?://[^\"' )]*", svg) == ["http://www.w3.org/2000/svg"]


# --- how they are captured -------------------------------------------------------------------------------------


def test_a_picture_shows_the_run_on_its_way_and_at_its_end() -> None:
    on_the_way = capture.Shown(at_s=1.0, lines=(Text("localhost/cpu ━━━━━━ 3/10 12.5 ms 0:00:01", "green"),))
    end = capture.Shown(at_s=9.0, lines=(Text("the table <&>"),))
    svg = capture.picture("muster run a.yaml", (on_the_way, end))

    check_picture(svg)
    words = "".join(ElementTree.fromstring(svg).itertext()).replace("\N{NO-BREAK SPACE}", " ")
    assert "12.5 ms" in words
    assert "after 9 s" in words
    assert "the table <&>" in words


def test_a_table_takes_the_place_of_what_stood_between_the_marks() -> None:
    printed = renderers.load("md")(build_table(a_lab_run(), references=references.load(["seed"])))
    readme = "before\n<!-- captured: make run -->\nold\n<!-- end -->\nafter\n"
    filled = capture.with_table(readme, printed)

    assert "old" not in filled
    assert filled.startswith("before\n")
    assert filled.endswith("<!-- end -->\nafter\n")
    assert grid(filled) == grid(printed)
    assert capture.with_table(filled, printed) == filled


def test_a_readme_without_marks_is_refused() -> None:
    with pytest.raises(ValueError, match="0 parts marked"):
        capture.with_table("nothing", "### t\n\n| a |\n")


def test_a_terminal_s_screen_is_seen_as_it_was_at_each_moment(tmp_path: object) -> None:
    script = "printf 'one\\r\\n'; printf '\\033[1m\\033[32mtwo\\033[0m'; stty size"
    shown = list(capture.watch(("/bin/sh", "-c", script), ROOT))

    assert [line.plain for line in shown[-1].lines] == ["one", f"two{capture.LINES} {capture.COLUMNS}"]
    assert "bold green" in str(shown[-1].lines[1].spans)


def test_a_command_that_fails_is_not_captured() -> None:
    with pytest.raises(RuntimeError, match="exit code 3"):
        list(capture.watch(("/bin/sh", "-c", "exit 3"), ROOT))
