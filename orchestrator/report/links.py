"""Words of a cell that lead somewhere: which links may be shown, and which part of the text each is."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from orchestrator.report.printable import printable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from orchestrator.report.table import Cell

#: What a link may lead to.
_WEB: Final = ("https://", "http://")

#: What stays as it is in an address; all else could end the link, or what stands around it.
_URL_SAFE: Final = "/:#?=&%+,;@~!$"


def is_web(url: str) -> bool:
    """Return whether a link may lead there."""
    return url.startswith(_WEB)


def pieces(cell: Cell) -> Iterator[tuple[str, str | None]]:
    """Yield the cell's text, printable, in pieces: each with the URL that it leads to, or ``None``."""
    urls = {printable(link.text): link.url for link in cell.links if link.text and is_web(link.url)}
    text = printable(cell.text)
    parts = re.split(f"({'|'.join(map(re.escape, urls))})", text) if urls else [text]
    return ((part, urls.get(part)) for part in parts)


def address(url: str, safe: str = _URL_SAFE) -> str:
    """Return a URL in which every character that is not ``safe`` is quoted."""
    return quote(url, safe=safe, errors="replace")
