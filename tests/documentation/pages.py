"""The pages as the tests read them: fenced blocks, code spans, headings and links."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from docs.generate import slug

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT: Final = Path(__file__).resolve().parents[2]

PAGES: Final = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])

_FENCE: Final = re.compile(r"^```(?P<info>[^\n`]*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
_SPAN: Final = re.compile(r"`([^`]+)`")
_LINK: Final = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_HEADING: Final = re.compile(r"^#{1,6} (.+)$", re.MULTILINE)


@dataclass(frozen=True, kw_only=True, slots=True)
class Block:
    """A fenced block of a page."""

    page: str
    #: What stands behind its opening fence: ``yaml config``.
    info: str
    text: str


def name_of(page: Path) -> str:
    """The page's path in the checkout."""
    return str(page.relative_to(ROOT))


def read(name: str) -> str:
    """The text of a page, by its path in the checkout."""
    return (ROOT / name).read_text(encoding="utf-8")


def blocks() -> Iterator[Block]:
    """Every fenced block of every page."""
    for page in PAGES:
        for found in _FENCE.finditer(read(name_of(page))):
            yield Block(page=name_of(page), info=found["info"].strip(), text=found["text"])


def prose(name: str) -> str:
    """A page without its fenced blocks."""
    return _FENCE.sub("", read(name))


def spans(name: str) -> list[str]:
    """What stands as code within a page's sentences and tables, with a table's escaped bars as they are meant."""
    return [" ".join(span.split()).replace("\\|", "|") for span in _SPAN.findall(prose(name))]


def links(name: str) -> list[str]:
    """Where a page's links and pictures lead."""
    return _LINK.findall(_SPAN.sub("", prose(name)))


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives a page's headings."""
    return {slug(heading) for heading in _HEADING.findall(prose(name_of(page)))}
