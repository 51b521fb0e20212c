"""Text from configs, hosts and frameworks as one line that cannot steer a terminal or a page."""

from __future__ import annotations

import unicodedata
from typing import Final

#: Control, formatting (right-to-left overrides), surrogate, line and paragraph separator characters.
_STEERING: Final = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})

#: A spreadsheet takes text that begins so for a formula (OWASP, "CSV Injection").
_FORMULA_STARTS: Final = ("=", "+", "-", "@")


def printable(text: str) -> str:
    r"""Return ``text`` as one line: white space drawn together, steering characters as visible escapes (``\x1b``)."""
    one_line = " ".join(text.split())
    if one_line.isascii() and one_line.isprintable():
        return one_line
    return "".join(_visible(character) for character in one_line)


def for_spreadsheet(text: str) -> str:
    """Return ``text`` as one line that a spreadsheet takes for text: before what would be a formula an apostrophe."""
    line = printable(text)
    return f"'{line}" if line.startswith(_FORMULA_STARTS) else line


def _visible(character: str) -> str:
    if unicodedata.category(character) not in _STEERING:
        return character
    return character.encode("unicode_escape").decode("ascii")
