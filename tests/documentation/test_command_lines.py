"""Every command line that the pages show is one that muster takes; nothing is run."""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING, Final

import pytest
import typer

from docs.generate import command_line, subcommands
from orchestrator.cli.app import call
from tests.documentation.pages import PAGES, ROOT, blocks, name_of, spans

if TYPE_CHECKING:
    from collections.abc import Iterator

#: What ends a command within a line of shell.
_ENDS: Final = frozenset({"|", ">", "&&", ";", "||", "2>"})


def shown() -> Iterator[tuple[str, str]]:
    for block in blocks():
        if block.info in ("console", "sh"):
            lines = block.text.replace("\\\n", " ").splitlines()
            yield from ((block.page, line.removeprefix("$ ")) for line in lines if line.startswith("$ "))
    for page in PAGES:
        yield from ((name_of(page), span) for span in spans(name_of(page)))


def arguments_of(line: str) -> list[str] | None:
    """What muster gets in a line of shell; ``None`` where the line calls something else."""
    try:
        words = shlex.split(line)
    except ValueError:
        return None
    while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
        words.pop(0)
    if len(words) < 2 or words[0] != "muster":
        return None
    ends = [at for at, word in enumerate(words) if word in _ENDS]
    return words[1 : ends[0] if ends else None]


COMMAND_LINES: Final = sorted({(page, line) for page, line in shown() if arguments_of(line)})


@pytest.mark.parametrize(("page", "line"), COMMAND_LINES)
def test_muster_takes_every_command_line(page: str, line: str) -> None:
    arguments = arguments_of(line)
    assert arguments is not None
    try:
        parse(arguments)
    except typer.Exit:
        pass  # --version and the like answer at once
    except Exception as error:
        # A sentence may name a command without its config.
        if type(error).__name__ != "MissingParameter" or line in in_blocks():
            raise


def parse(arguments: list[str]) -> None:
    group = command_line()
    group.make_context("muster", list(arguments))
    # A group that does something by itself may stand alone.
    while subcommands(group) and (arguments or not group.invoke_without_command):
        name, group, arguments = group.resolve_command(group.context_class(group), arguments)
        group.make_context(name, list(arguments))


def in_blocks() -> set[str]:
    return {line.removeprefix("$ ") for block in blocks() for line in block.text.splitlines()}


def test_the_pages_show_command_lines() -> None:
    assert len(COMMAND_LINES) > 30


@pytest.mark.parametrize(
    "line",
    [
        *("muster run lab.yaml --nope", "muster schedule nope", "muster show --format nope"),
        *("muster cluster nope lab.yaml", "muster cluster up lab.yaml --nope"),
    ],
)
def test_a_command_line_that_muster_does_not_take_is_seen(line: str) -> None:
    # The same check as above, which must be able to fail.
    with pytest.raises(Exception, match=r"nope|schedule"):
        test_muster_takes_every_command_line("here", line)


@pytest.mark.parametrize(
    "target", sorted({t for p in PAGES for s in spans(name_of(p)) for t in re.findall("^make ([a-z-]+)", s)})
)
def test_every_make_target_that_the_pages_name_exists(target: str) -> None:
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)


def test_what_the_tutorial_shows_of_a_mistake_is_what_muster_says(
    tmp_path: object, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    tutorial = [block for block in blocks() if block.page == "docs/tutorial.md"]
    small = next(block.text for block in tutorial if "name: small" in block.text)
    said = next(block.text for block in tutorial if "did you mean" in block.text)
    monkeypatch.chdir(str(tmp_path))
    with open("lab.yaml", "w", encoding="utf-8") as file:  # noqa: PTH123
        file.write(small.replace("workloads", "workload").replace("steps", "step"))
    assert call(["check", "lab.yaml"]) == 2
    assert f"$ muster check lab.yaml\n{capsys.readouterr().err}" == said
