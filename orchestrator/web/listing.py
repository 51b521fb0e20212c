"""Long lists: searched by words, and a page at a time. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Sequence

T = TypeVar("T")

#: Lines on one page.
_PAGE: Final = 50


@dataclass(frozen=True, kw_only=True, slots=True)
class Paged(Generic[T]):
    """One page of a list."""

    lines: Sequence[T]
    #: Which page it is, from 1, and how many there are.
    number: int
    pages: int
    #: Lines on all pages.
    total: int


def paged(found: Sequence[T], number: int) -> Paged[T]:
    """Return the page of that number; one behind the last is empty."""
    return Paged(
        lines=found[(number - 1) * _PAGE : number * _PAGE],
        number=number,
        pages=max(1, -(-len(found) // _PAGE)),
        total=len(found),
    )


def has_words(text: str, words: str) -> bool:
    """Return whether each of the words stands in a text, whatever the case of their letters."""
    return all(word in text.casefold() for word in words.casefold().split())
