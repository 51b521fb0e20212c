"""What one form of output does that the others do not."""

from __future__ import annotations

import csv
import io
import json
import re
from dataclasses import replace
from typing import Any

import pytest

from orchestrator.analysis import references
from orchestrator.report import renderers
from orchestrator.report.build import build_table
from orchestrator.report.table import Align, Cell, Column, Link, Row, RowKind, Table
from tests.runs import a_lab_run

LAB = build_table(a_lab_run(), references=references.load(["seed"]))
WIDE = build_table(a_lab_run(), references=references.load(["seed"]), wide=True)


def a_table_of(*cells: Cell, columns: tuple[Column, ...]) -> Table:
    return Table(title="", columns=columns, rows=(Row(kind=RowKind.MEASURED, cells=cells),))


# --- terminal --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [60, 80, 100, 132])
@pytest.mark.parametrize("table", [LAB, WIDE])
def test_terminal_keeps_to_its_width(table: Table, width: int) -> None:
    lines = renderers.load("table")(table, width=width).splitlines()
    assert max(map(len, lines)) <= width
    assert not [line for line in lines if line != line.rstrip()]


def test_terminal_without_a_width_wraps_nothing() -> None:
    lines = renderers.load("table")(WIDE).splitlines()
    assert len([line for line in lines if line.startswith("6    Titan X")]) == 2
    for row in WIDE.rows:
        assert [line for line in lines if all(cell.text in line for cell in row.cells[:6])]


def test_terminal_puts_details_below_where_they_do_not_fit() -> None:
    lines = renderers.load("table")(LAB, width=80).splitlines()
    (row,) = [at for at, line in enumerate(lines) if line.startswith("6    Titan X")]
    assert lines[row + 1] == "     as reported in alexnet_benchmark.py"


def test_terminal_has_no_line_below_a_row_that_has_nothing_to_say_there() -> None:
    bare = replace(LAB, rows=tuple(replace(row, cells=(*row.cells[:5], Cell(text=""))) for row in LAB.rows), notes=())
    lines = renderers.load("table")(bare, width=80).splitlines()
    assert [line for line in lines if not line.strip()] == [""]
    assert not [line for line in lines if line != line.rstrip()]


def test_terminal_repeats_number_and_device_in_every_block() -> None:
    output = renderers.load("table")(WIDE, width=80)
    blocks = len(re.findall(r"^Num +GPU/CPU", output, re.MULTILINE))
    assert blocks >= 3
    assert len(re.findall(r"^7 +K40c", output, re.MULTILINE)) == blocks


def test_terminal_keeps_verdicts_whole() -> None:
    # In the seed's columns and in those of the verdicts, for both passes; and once in Details.
    assert renderers.load("table")(WIDE, width=80).count("device_missing") == 2 * 2 + 1


def test_terminal_uses_colour_only_where_it_may(monkeypatch: pytest.MonkeyPatch) -> None:
    # The caller decides: rich must not decide again.
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert "\x1b" not in renderers.load("table")(LAB, width=80, color=False)
    monkeypatch.delenv("FORCE_COLOR")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", "dumb")
    colored = renderers.load("table")(LAB, width=60, color=True)
    assert "\x1b" in colored
    # Failures are there in words as well: without its colours the output is the same.
    assert re.sub(r"\x1b\[[0-9;]*m", "", colored) == renderers.load("table")(LAB, width=60)


@pytest.mark.parametrize("width", [60, 80, 100, 400])
def test_terminal_folds_a_command_so_that_it_can_be_copied(width: int) -> None:
    filters = "--only host=gpu01 --only device=gpu:0 --only batch_size=64"
    command = f"muster rerun 7f3a9c --failed --store sqlite:///lab.db {filters}"
    table = replace(LAB, rows=(), notes=(f"Rows 1-4: again with: {command}", "Row 5: a reason. " * 20))
    output = renderers.load("table")(table, width=width)
    note, _, other = output.partition("* Rows 1-4: again with: ")[2].partition("* ")
    # What a shell makes of it: one line, for each fold is taken back.
    [line] = note.replace("\\\n", "").splitlines()
    assert line.split() == command.split()
    assert "\\" not in other
    assert max(map(len, output.splitlines())) <= width


def test_terminal_wraps_wide_characters_by_what_they_take() -> None:
    table = a_table_of(Cell(text="机器" * 30), columns=(Column(key="device", heading="GPU/CPU"),))
    lines = renderers.load("table")(table, width=20).splitlines()
    assert "".join(line.strip() for line in lines[2:]) == "机器" * 30
    assert max(map(len, lines[2:])) == 10


def test_terminal_lines_up_wide_characters() -> None:
    columns = (Column(key="device", heading="GPU"), Column(key="memory", heading="Memory"))
    lines = renderers.load("table")(a_table_of(Cell(text="机器机器"), Cell(text="2 GB"), columns=columns)).splitlines()
    assert lines == ["GPU       Memory", "-" * 16, "机器机器  2 GB"]


# --- markdown --------------------------------------------------------------------------------------------------


def test_markdown_keeps_words_as_they_are_and_escapes_markup() -> None:
    table = a_table_of(
        Cell(text="host_down a_b _c_ 2 * 3 | <b> & `x` [y](z) \\"), columns=(Column(key="device", heading="GPU/CPU"),)
    )
    assert renderers.load("md")(table).splitlines()[2] == (
        r"| host_down a_b \_c\_ 2 \* 3 \| &lt;b&gt; &amp; \`x\` \[y\](z) \\ |"
    )


def test_markdown_links_to_web_addresses_alone() -> None:
    links = (
        Link(text="good", url="https://example.org/a_(b)|<c>"),
        Link(text="bad", url="javascript:alert(1)"),
        Link(text="", url="https://example.org/"),
    )
    table = a_table_of(Cell(text="good, bad", links=links), columns=(Column(key="details", heading="Details"),))
    assert renderers.load("md")(table).splitlines()[2] == "| [good](https://example.org/a_%28b%29%7C%3Cc%3E), bad |"


def test_markdown_aligns_columns_of_numbers_to_the_right() -> None:
    columns = (Column(key="ms", heading="ms", align=Align.RIGHT), Column(key="details", heading="Details"))
    assert renderers.load("md")(a_table_of(Cell(text="12345"), Cell(text=""), columns=columns)).splitlines() == [
        "| ms    | Details |",
        "|------:|---------|",
        "| 12345 |         |",
    ]


def test_markdown_has_title_and_notes_around_the_table() -> None:
    table = replace(a_table_of(Cell(text="x"), columns=(Column(key="a", heading="A"),)), title="t", notes=("n", "m"))
    assert renderers.load("md")(table) == "### t\n\n| A |\n|---|\n| x |\n\n* n\n* m\n"


# --- csv -------------------------------------------------------------------------------------------------------


def csv_rows(table: Table) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(renderers.load("csv")(table))))


def test_csv_has_bare_figures_with_all_their_digits() -> None:
    rows = csv_rows(WIDE)
    assert [row["kind"] for row in rows] == ["measured"] * 5 + ["reference"] * 4
    assert float(rows[2]["forward_ms"]) == WIDE.rows[2].cells[3].value
    assert float(rows[2]["forward_ms_sd"]) == WIDE.rows[2].cells[3].sd
    assert rows[2]["forward_ms_verdict"] == "ok"
    assert rows[2]["forward_samples"] == "3"


def test_csv_of_a_failure_is_an_empty_field_and_a_verdict() -> None:
    row = csv_rows(LAB)[3]
    assert (row["forward_ms"], row["forward_ms_sd"], row["forward_ms_verdict"]) == ("", "", "oom")
    # The pass that nobody asked for.
    assert (row["forward_backward_ms"], row["forward_backward_ms_verdict"]) == ("", "")


def test_csv_keeps_a_figure_a_figure_where_text_would_be_guarded() -> None:
    table = a_table_of(
        Cell(text="-1.5", value=-1.5),
        Cell(text="-1.5", value="-1.5"),
        columns=(Column(key="change", heading="Change"), Column(key="host", heading="Host")),
    )
    assert csv_rows(table) == [{"kind": "measured", "change": "-1.5", "host": "'-1.5"}]


# --- json ------------------------------------------------------------------------------------------------------


def test_json_holds_all_that_the_table_holds() -> None:
    data: dict[str, Any] = json.loads(renderers.load("json")(WIDE))
    assert data["schema_version"] == 1
    assert (data["title"], tuple(data["notes"])) == (WIDE.title, WIDE.notes)
    assert [(c["key"], c["heading"], c["unit"]) for c in data["columns"]] == [
        (c.key, c.heading, c.unit) for c in WIDE.columns
    ]
    for row, shown in zip(WIDE.rows, data["rows"], strict=True):
        assert shown["kind"] == row.kind.value
        assert shown["definition"] == dict(row.definition)
        for column, cell in zip(WIDE.columns, row.cells, strict=True):
            assert shown["cells"][column.key] == {
                "text": cell.text,
                "value": cell.value,
                "sd": cell.sd,
                "verdict": cell.verdict.value if cell.verdict else None,
                "reason": cell.reason,
                "links": [{"text": link.text, "url": link.url} for link in cell.links],
            }


def test_json_refuses_what_is_not_a_number() -> None:
    table = a_table_of(Cell(text="", value=float("nan")), columns=(Column(key="ms", heading="ms"),))
    with pytest.raises(ValueError, match="not JSON compliant"):
        renderers.load("json")(table)


# --- LaTeX and HTML --------------------------------------------------------------------------------------------


def test_latex_takes_no_character_for_its_own() -> None:
    cells = (Cell(text=r"50 % of $x_1 & {a} \b ~ ^ # <"), Cell(text="[1] 3.5 +/- 0.1"))
    columns = (Column(key="a", heading="A_b"), Column(key="b", heading="B", align=Align.RIGHT))
    output = renderers.load("latex")(a_table_of(*cells, columns=columns))
    assert r"\begin{tabular}{lr}" in output
    assert r"A\_b & B \\" in output
    assert (
        r"50 \% of \$x\_1 \& \{a\} \textbackslash{}b \textasciitilde{} \textasciicircum{} \# \textless{}"
        r" & {}[1] 3.5 $\pm$ 0.1 \\"
    ) in output


def test_latex_parts_our_rows_from_the_published_ones_and_links_those() -> None:
    lines = renderers.load("latex")(LAB).splitlines()
    rules = [place for place, line in enumerate(lines) if line == r"\midrule"]
    assert len(rules) == 2
    assert "Titan X" in lines[rules[1] + 1]
    assert r"\href{https://" in lines[rules[1] + 1]


def test_html_lets_nothing_through() -> None:
    evil = "<script>alert(1)</script>\" onclick='x'"
    column = Column(key='k"', heading=evil)
    cell = Cell(text=evil, reason=evil, links=(Link(text="alert", url="javascript:alert(1)"),))
    table = replace(a_table_of(cell, columns=(column,)), title=evil, notes=(evil,))
    output = renderers.load("html")(table)
    assert "<script" not in output
    assert "javascript:" not in output
    assert not re.search(r"<[^>]*\sonclick=", re.sub(r'"[^"]*"', '""', output))


def test_html_without_title_and_notes_is_the_table_alone() -> None:
    output = renderers.load("html")(a_table_of(Cell(text="x"), columns=(Column(key="a", heading="A"),)))
    assert output.startswith("<table>\n<thead>")
    assert output.endswith("</table>\n")


def test_html_says_verdicts_reasons_and_kinds_to_machines() -> None:
    output = renderers.load("html")(LAB)
    assert output.count('<tr class="measured">') == 5
    assert output.count('<tr class="reference">') == 4
    assert 'data-verdict="oom" title="the child was killed by SIGKILL' in output
    assert '<a href="https://' in output
