from __future__ import annotations

import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.report.printable import printable


def test_plain_text_stays_as_it_is() -> None:
    assert printable("Intel(R) Xeon(R) @ 2.70GHz") == "Intel(R) Xeon(R) @ 2.70GHz"
    assert printable("Möbius 机 1") == "Möbius 机 1"


def test_white_space_is_drawn_together() -> None:
    assert printable("  two\r\nlines\tand more ") == "two lines and more"


def test_what_steers_a_terminal_is_shown() -> None:
    assert printable("\x1b[31mred\x07") == r"\x1b[31mred\x07"
    assert printable("right\u202eleft") == r"right\u202eleft"
    assert printable("half\ud800") == r"half\ud800"


@given(st.text(alphabet=st.characters()))
def test_nothing_that_steers_is_left(text: str) -> None:
    line = printable(text)
    assert not {unicodedata.category(character) for character in line} & {"Cc", "Cf", "Cs", "Zl", "Zp"}
    assert printable(line) == line
