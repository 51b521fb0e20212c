from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.documentation.pages import PAGES, ROOT, anchors, links, name_of

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_link_leads_somewhere(page: Path) -> None:
    lost = [link for link in links(name_of(page)) if not leads_somewhere(page, link)]
    assert not lost


def leads_somewhere(page: Path, link: str) -> bool:
    if link.startswith(("https://", "http://")):
        return True  # other people's pages are theirs to keep
    path, _, anchor = link.partition("#")
    target = (page.parent / path).resolve() if path else page
    return target.exists() and target.is_relative_to(ROOT) and (not anchor or anchor in anchors(target))


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_page_can_be_reached_from_the_readme(page: Path) -> None:
    reached, waiting = set(), [ROOT / "README.md"]
    while waiting:
        here = waiting.pop()
        if here in PAGES and here not in reached:
            reached.add(here)
            found = (link.partition("#")[0] for link in links(name_of(here)) if not link.startswith("http"))
            waiting += [(here.parent / path).resolve() for path in found if path]
    assert page in reached


def test_a_lost_link_is_seen() -> None:
    page = ROOT / "README.md"
    assert leads_somewhere(page, "docs/glossary.md#glossary")
    assert not leads_somewhere(page, "docs/glossary.md#nothing")
    assert not leads_somewhere(page, "docs/nothing.md")
