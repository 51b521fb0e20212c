"""What every form of output must do, over whatever forms there are."""

from __future__ import annotations

import csv
import io
import json
import re
import subprocess
import sys
import unicodedata
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from orchestrator.analysis import references
from orchestrator.errors import UsageError
from orchestrator.report import renderers
from orchestrator.report.attempts import attempts_table
from orchestrator.report.build import build_table
from orchestrator.report.table import Cell, Column, Link, Row, RowKind, Table
from tests.goldens import assert_golden
from tests.runs import a_lab_run, a_run, a_run_with_attempts
from workers.protocol import Verdict

if TYPE_CHECKING:
    from collections.abc import Iterator

HOSTILE = (
    "[red]danger[/red]",
    "one | two",
    "line\nbreak\r\nand\vmore",
    "\x1b[31mred\x1b]0;title\x07",
    "<script>alert(1)</script>",
    "=cmd|' /C calc'!A0",
    "+1", "-1", "@SUM(A1)", "\t=1",
    "`tick` *star* _under_ ~~gone~~ [a](http://b) \\|",
    ":smile: &lt; &amp;",
    "right\u202eleft\u2028line\ud800",
    "",
)  # fmt: skip

every_form = pytest.mark.parametrize("form", renderers.names())


def a_table(*, wide: bool = False, simulated: bool = False) -> Table:
    seed = references.load(["seed"])
    return build_table(a_lab_run(simulated=simulated), references=seed, wide=wide, relative_to="Titan X")


def a_hostile_table(text: str) -> Table:
    columns = (
        Column(key="device", heading=f"GPU {text}"),
        Column(key="forward_ms", heading="Forward pass (ms)", unit="ms", has_spread=True),
        Column(key="details", heading="Details"),
    )
    cells = (
        Cell(text=text, value=text),
        Cell(text="oom", verdict=Verdict.OOM, reason=text),
        Cell(text=f"see {text} there", value=text, links=(Link(text=text, url=f"https://example.org/{text}"),)),
    )
    row = Row(kind=RowKind.MEASURED, cells=cells, definition=(("device_id", text),))
    return Table(title=text, columns=columns, rows=(row,), notes=(text,))


def figures(table: Table) -> Iterator[Cell]:
    return (
        cell
        for row in table.rows
        for column, cell in zip(table.columns, row.cells, strict=True)
        if cell.value is not None and (column.has_spread or column.unit is not None)
    )


def as_set(form: str, output: str) -> str:
    """What a reader sees of it: TeX sets some characters that it has to be told of."""
    return output.replace(r"\_", "_").replace(r"\%", "%").replace(r"$\pm$", "+/-") if form == "latex" else output


# --- content ---------------------------------------------------------------------------------------------------


@every_form
@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("width", [80, 200, None])
def test_every_figure_appears(form: str, wide: bool, width: int | None) -> None:
    table = a_table(wide=wide)
    output = as_set(form, renderers.load(form)(table, width=width))
    absent = [cell for cell in figures(table) if cell.text not in output and repr(cell.value) not in output]
    assert not absent


@every_form
def test_every_verdict_appears_in_words(form: str) -> None:
    columns = (Column(key="forward_ms", heading="Forward pass (ms)", unit="ms", has_spread=True),)
    rows = tuple(
        Row(kind=RowKind.MEASURED, cells=(Cell(text=verdict.value, verdict=verdict, reason="why"),))
        for verdict in Verdict
    )
    output = as_set(form, renderers.load(form)(Table(title="t", columns=columns, rows=rows), width=80))
    assert not [verdict for verdict in Verdict if verdict.value not in output]


@every_form
def test_no_failure_is_a_number(form: str) -> None:
    output = renderers.load(form)(a_table(wide=True), width=80)
    assert not re.search(r"\b(nan|inf|infinity)\b", output, re.IGNORECASE)


@every_form
def test_simulated_rows_say_so(form: str) -> None:
    render = renderers.load(form)
    assert render(a_table(simulated=True), width=80).count("simulated") >= 5
    assert "simulated" not in render(a_table(), width=80)


@every_form
def test_output_ends_with_one_line_end(form: str) -> None:
    output = renderers.load(form)(a_table(), width=80)
    assert output.endswith("\n")
    assert not output.endswith("\n\n")


@every_form
def test_an_empty_table_can_be_drawn(form: str) -> None:
    output = renderers.load(form)(build_table(a_run()), width=80)
    assert output.strip()


@every_form
def test_a_table_of_a_thousand_rows_can_be_drawn(form: str) -> None:
    table = a_table()
    many = tuple(
        replace(row, cells=(Cell(text=f"n{number}n", value=f"n{number}n"), *row.cells[1:]))
        for number, row in enumerate(table.rows[:1] * 1000)
    )
    output = renderers.load(form)(replace(table, rows=many), width=80)
    assert set(re.findall(r"\bn\d+n\b", output)) == {f"n{number}n" for number in range(1000)}


@every_form
@pytest.mark.parametrize("width", [1, 20, 40])
def test_no_width_is_too_narrow(form: str, width: int) -> None:
    assert renderers.load(form)(a_table(wide=True), width=width)


# --- hostile text ----------------------------------------------------------------------------------------------


@every_form
@pytest.mark.parametrize("text", HOSTILE)
def test_nothing_in_a_name_steers_the_terminal(form: str, text: str) -> None:
    output = renderers.load(form)(a_hostile_table(text), width=80)
    categories = {unicodedata.category(character) for character in output if character != "\n"}
    assert not categories & {"Cc", "Cf", "Cs", "Zl", "Zp"}
    output.encode("utf-8")


@pytest.mark.parametrize("text", HOSTILE)
def test_csv_keeps_its_shape_and_runs_nothing(text: str) -> None:
    header, *rows = csv.reader(io.StringIO(renderers.load("csv")(a_hostile_table(text))))
    assert [len(row) for row in rows] == [len(header)]
    assert not [field for row in rows for field in row if field.startswith(("=", "+", "-", "@", "\t", "\r"))]


@pytest.mark.parametrize("text", HOSTILE)
def test_json_gives_back_what_was_put_in(text: str) -> None:
    data = json.loads(renderers.load("json")(a_hostile_table(text)))
    assert data["title"] == text
    assert data["rows"][0]["cells"]["device"]["value"] == text


@pytest.mark.parametrize("text", HOSTILE)
def test_markdown_keeps_its_shape(text: str) -> None:
    lines = renderers.load("md")(a_hostile_table(text)).splitlines()
    table = [line for line in lines if line.startswith("|")]
    assert len(table) == 3
    assert [len(re.findall(r"(?<!\\)(?:\\\\)*\|", line)) for line in table] == [4, 4, 4]
    without_links = re.sub(r"\]\(https://[^)]*\)", "", "\n".join(lines))
    assert not re.search(r"<\w|(?<!\\)(?:\\\\)*[`*](?! )", without_links.replace("* ", "  "))


@pytest.mark.parametrize("text", ["[red]danger[/red]", ":smile:", "[link=http://a]b[/link]", "[/]"])
def test_the_terminal_shows_markup_as_it_is(text: str) -> None:
    assert renderers.load("table")(a_hostile_table(text), color=True).count(text) >= 3


# --- registration ----------------------------------------------------------------------------------------------


def test_the_forms_that_the_command_line_offers() -> None:
    assert {"table", "md", "csv", "json"} <= set(renderers.names())


def test_an_unknown_form_lists_those_there_are() -> None:
    with pytest.raises(UsageError) as caught:
        renderers.load("xlsx")
    assert "'xlsx'" in caught.value.message
    assert ", ".join(renderers.names()) in (caught.value.remedy or "")


def test_a_new_form_is_one_new_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "titles.py").write_text('FORMAT = "titles"\ndef render(table, **_):\n    return table.title\n')
    monkeypatch.setattr(renderers, "__path__", [*renderers.__path__, str(tmp_path)])
    assert "titles" in renderers.names()
    assert renderers.load("titles")(a_table()) == a_table().title


def test_finding_the_forms_imports_nothing_heavy() -> None:
    script = (
        "import sys; from orchestrator.report import renderers; renderers.names(); "
        "print(sorted({name.partition('.')[0] for name in sys.modules} & {'rich', 'numpy', 'yaml', 'ray'}))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "[]\n"


# --- golden ----------------------------------------------------------------------------------------------------


@every_form
@pytest.mark.parametrize(
    ("name", "table"),
    [
        ("lab", a_table()),
        ("lab-wide", a_table(wide=True)),
        ("lab-simulated", a_table(simulated=True)),
        ("lab-attempts", attempts_table(a_run_with_attempts())),
        ("lab-attempts-simulated", attempts_table(a_run_with_attempts(simulated=True))),
    ],
)
def test_output_is_as_it_was_reviewed(form: str, name: str, table: Table) -> None:
    assert_golden(f"report/{name}.{form}", renderers.load(form)(table, width=80))


def test_markdown_of_the_seeds_rows_is_the_seeds_table_to_the_letter() -> None:
    table = build_table(a_run(), references=references.load(["seed"]))
    # Not a golden file that may be rewritten: this is the seed's own text.
    seed = Path(__file__).parents[1] / "golden" / "report" / "seed.md"
    assert renderers.load("md")(replace(table, title="", notes=())) == seed.read_text(encoding="utf-8")
