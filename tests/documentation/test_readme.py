"""The README's tables are some that muster prints, and its pictures need nobody's server."""

from __future__ import annotations

import os
import re
from xml.etree import ElementTree

import pytest
from rich.text import Text

from docs import capture, screen
from orchestrator.analysis import references
from orchestrator.config.load import load_text
from orchestrator.report import renderers
from orchestrator.report.build import build_table
from tests.documentation.pages import ROOT, read
from tests.runs import a_lab_run, a_run

MEASURED = re.compile(r"\d+(\.\d+)? \+/- \d+(\.\d+)?")
#: Hosts that share cores take from each other, and the row says so.
MAYBE_DOUBTFUL = re.compile(rf"{MEASURED.pattern}( \((contended|noisy)\))?")


def captured(name: str) -> str:
    match = capture.part_of(name).search(read("README.md"))
    assert match is not None
    text = match[2].strip()
    if not text and not os.environ.get("CI"):
        pytest.skip(f"not captured yet: python docs/capture.py --only '{name}'")
    return text


def grid(markdown: str) -> list[list[str]]:
    """The cells of a Markdown table, without the rule below its header."""
    lines = [line for line in markdown.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


def printed_header() -> list[str]:
    return grid(renderers.load("md")(build_table(a_run(), references=references.load(["seed"]))))[0]


def test_the_readme_begins_with_its_two_commands() -> None:
    commands = re.search(r"```console\n(.*?)```", read("README.md"), re.DOTALL)
    assert commands is not None
    assert commands[1].splitlines() == ["$ make run", "$ make test"]


def check_picture(svg: str) -> None:
    assert ElementTree.fromstring(svg).tag.endswith("svg")
    assert re.findall(r"https?://[^\"' )]*", svg) == ["http://www.w3.org/2000/svg"]


def words_of(svg: str) -> str:
    return "".join(ElementTree.fromstring(svg).itertext()).replace("\N{NO-BREAK SPACE}", " ")


def run_id(text: str) -> str:
    found = re.search(r"\brun ([0-9a-f]{12})\b", text)
    assert found is not None
    return found[1]


@pytest.mark.parametrize("name", capture.CAPTURES)
def test_a_picture_is_whole_and_of_the_run_of_its_table(name: str) -> None:
    text = captured(name)
    shown = re.findall(r"!\[[^\]]+\]\((docs/images/[^)]+\.svg)\)", text)
    assert len(shown) == 1

    svg = (ROOT / shown[0]).read_text(encoding="utf-8")
    check_picture(svg)
    assert run_id(text) == run_id(words_of(svg))


@pytest.mark.parametrize("name", capture.CAPTURES)
def test_figures_were_measured_and_not_invented(name: str) -> None:
    assert "simulated" not in captured(name)


# --- this machine ----------------------------------------------------------------------------------------------


def test_the_table_has_the_columns_and_the_references_that_muster_prints() -> None:
    shown = grid(captured("make run"))
    printed = grid(renderers.load("md")(build_table(a_run(), references=references.load(["seed"]))))

    assert shown[0] == printed[0]
    # All but Num, which counts our rows too.
    assert [row[1:] for row in shown[-4:]] == [row[1:] for row in printed[1:]]
    assert [row[0] for row in shown[1:]] == [str(number) for number in range(1, len(shown))]


def test_the_table_s_first_row_was_measured() -> None:
    first = grid(captured("make run"))[1]

    assert all(MEASURED.fullmatch(cell) for cell in first[3:5])
    assert "batch 128" in first[5]


# --- a lab -----------------------------------------------------------------------------------------------------


def test_the_lab_s_config_is_the_one_that_is_run() -> None:
    assert captured("lab").startswith(f"```yaml config\n{capture.LAB}```\n")


def test_the_lab_s_four_hosts_declare_different_devices() -> None:
    hosts = load_text(capture.LAB, "lab.yaml").config.hosts

    assert len(hosts) == 4
    assert len({host.devices for host in hosts}) == 4


def test_the_lab_s_table_has_a_row_for_each_declared_device() -> None:
    config = load_text(capture.LAB, "lab.yaml").config
    header, *rows = grid(captured("lab"))

    assert header == printed_header()
    assert [re.split(r"[ /]", row[5])[0] for row in rows] == [host.name for host in config.hosts for _ in host.devices]


def test_the_lab_s_table_has_figures_and_the_reason_where_there_is_none() -> None:
    *measured, missing = grid(captured("lab"))[1:]

    assert all(MAYBE_DOUBTFUL.fullmatch(cell) for row in measured for cell in row[3:5])
    assert missing[3:5] == ["device_missing", "device_missing"]
    assert "yew gpu:0" in missing[5]


# --- how they are captured -------------------------------------------------------------------------------------


def a_moment(at_s: float, *lines: str) -> screen.Shown:
    return screen.Shown(at_s=at_s, lines=tuple(Text(line) for line in lines))


def test_a_picture_shows_the_run_on_its_way_and_at_its_end() -> None:
    on_the_way = a_moment(1.0, "localhost/cpu ━━━━━━ 3/10 12.5 ms ~2 s")
    svg = screen.picture("muster run a.yaml", (on_the_way, a_moment(9.0, "the table <&>")))

    check_picture(svg)
    words = words_of(svg)
    assert "12.5 ms" in words
    assert "after 9 s" in words
    assert "the table <&>" in words


def test_a_picture_shows_a_moment_when_most_devices_measure() -> None:
    one, other = "oak/cpu ━━━━━━ 3/10 11.5 ms", "elm/cpu ━━━━━━ 7/10 22.5 ms ~2 s"
    moments = (a_moment(1.0, one), a_moment(2.0, one, other), *(a_moment(at, one) for at in (3.0, 4.0, 5.0)))
    words = words_of(screen.picture("muster run a.yaml", (*moments, a_moment(9.0, "the table"))))

    assert "11.5 ms" in words
    assert "22.5 ms" in words


def test_a_picture_of_a_run_without_steps_shows_its_end_alone() -> None:
    moments = (*(a_moment(at, "cases ━━━─── 3/10") for at in (1.0, 2.0, 3.0, 4.0)), a_moment(9.0, "the table"))
    words = words_of(screen.picture("muster run a.yaml", moments))

    assert "cases" not in words
    assert "the table" in words


def test_what_was_captured_takes_the_place_of_what_stood_between_its_marks() -> None:
    printed = renderers.load("md")(build_table(a_lab_run(), references=references.load(["seed"])))
    readme = (
        "before\n<!-- captured: make run -->\nold\n<!-- end -->\nbetween\n<!-- captured: lab -->\nkept\n<!-- end -->\n"
    )
    body = capture.with_table("a run", "run.svg", printed)
    filled = capture.filled(readme, "make run", body)

    assert "old" not in filled
    assert filled.startswith("before\n")
    assert filled.endswith("<!-- end -->\nbetween\n<!-- captured: lab -->\nkept\n<!-- end -->\n")
    assert "![a run](docs/images/run.svg)" in filled
    assert grid(filled) == grid(printed)
    assert capture.filled(filled, "make run", body) == filled


def test_what_is_captured_of_a_lab_is_its_config_its_command_and_its_table() -> None:
    printed = renderers.load("md")(build_table(a_lab_run()))
    part = capture.lab_part("name: lab\n", "muster run lab.yaml", printed)

    assert part.startswith("```yaml config\nname: lab\n```\n\n```console\n$ muster run lab.yaml\n```\n")
    assert grid(part) == grid(printed)


@pytest.mark.parametrize("readme", ["nothing", 2 * "<!-- captured: lab -->\n<!-- end -->\n"])
def test_a_readme_that_is_not_marked_once_is_refused(readme: str) -> None:
    with pytest.raises(ValueError, match=r"has [02] parts marked as captured: lab"):
        capture.filled(readme, "lab", "text")


def test_a_terminal_s_screen_is_seen_as_it_was_at_each_moment() -> None:
    script = "printf 'one\\r\\n'; printf '\\033[1m\\033[32mtwo\\033[0m'; stty size"
    shown = list(screen.watch(("/bin/sh", "-c", script), ROOT))

    assert [line.plain for line in shown[-1].lines] == ["one", f"two{screen.LINES} {screen.COLUMNS}"]
    assert "bold green" in str(shown[-1].lines[1].spans)


@pytest.mark.parametrize(("code", "allowed"), [(3, (0,)), (0, (3,))])
def test_a_command_that_ends_otherwise_than_it_should_is_not_captured(code: int, allowed: tuple[int, ...]) -> None:
    with pytest.raises(RuntimeError, match=rf"exit code {code}\nlast words"):
        list(screen.watch(("/bin/sh", "-c", f"echo last words; exit {code}"), ROOT, allowed=allowed))


def test_a_command_may_end_with_a_code_that_is_expected() -> None:
    assert list(screen.watch(("/bin/sh", "-c", "echo here; exit 3"), ROOT, allowed=(3,)))
