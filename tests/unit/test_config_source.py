from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from orchestrator.config.source import MAX_BYTES, MAX_DEPTH, MAX_NODES, Place, Position, parse, plain_value, read
from orchestrator.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path


def message_of(text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        parse(text, "lab.yaml")
    return caught.value.message


def flaws_of(text: str) -> list[str]:
    return [f"{flaw.position}: {flaw.message}" for flaw in parse(text, "lab.yaml").flaws]


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("", None), ("~", None), ("null", None), ("true", True), ("false", False),
        ("0", 0), ("-7", -7), ("+7", 7), ("128", 128), ("1.5", 1.5), (".5", 0.5), ("5.", 5.0), ("1e3", 1000.0),
        ("-2.5E-1", -0.25),
    ],
)  # fmt: skip
def test_a_plain_word_is_a_constant_or_a_decimal_number(word: str, value: object) -> None:
    found = plain_value(word)

    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(
    "word",
    ["yes", "no", "on", "off", "True", "NULL", "012", "0x1F", "0o17", "1_000", "1:30", "2026-01-01", ".inf", ".nan",
     ".", "e3", "+", "-.e1", "1e9999", "9" * 5_000, "٣"],
)  # fmt: skip
def test_a_plain_word_that_surprises_people_elsewhere_is_text(word: str) -> None:
    assert plain_value(word) == word


def test_what_stands_in_quotes_is_text() -> None:
    assert parse("a: '1'\nb: \"true\"\nc: |\n  2\n", "x").data == {"a": "1", "b": "true", "c": "2\n"}


def test_keys_are_text_whatever_they_look_like() -> None:
    assert parse("1: a\ntrue: b\n", "x").data == {"1": "a", "true": "b"}


def test_every_key_and_value_has_its_place() -> None:
    document = parse("a: 1\nb:\n  - x\n  - {c: 2}\n", "x")

    assert document.data == {"a": 1, "b": ["x", {"c": 2}]}
    assert document.positions == {
        (): Place(key=Position(1, 1), value=Position(1, 1)),
        ("a",): Place(key=Position(1, 1), value=Position(1, 4)),
        ("b",): Place(key=Position(2, 1), value=Position(3, 3)),
        ("b", 0): Place(key=Position(3, 5), value=Position(3, 5)),
        ("b", 1): Place(key=Position(4, 5), value=Position(4, 5)),
        ("b", 1, "c"): Place(key=Position(4, 6), value=Position(4, 9)),
    }


def test_an_alias_is_what_its_anchor_is() -> None:
    assert parse("a: &x [1]\nb: *x\n", "x").data == {"a": [1], "b": [1]}


@pytest.mark.parametrize("text", ["", "\n", "# nothing\n", "---\n", "~\n"])
def test_a_text_that_holds_nothing_is_none(text: str) -> None:
    assert parse(text, "x").data is None


def test_all_duplicate_keys_are_told_and_the_first_stays() -> None:
    text = "a: 1\nb: {c: 1, c: 2}\na: 2\n"

    assert parse(text, "x").data == {"a": 1, "b": {"c": 1}}
    assert flaws_of(text) == [
        "2:11: duplicate key 'c': it stands at 2:5 already",
        "3:1: duplicate key 'a': it stands at 1:1 already",
    ]


@pytest.mark.parametrize(
    ("text", "tag"),
    [("a: !!python/object/apply:os.system [ls]", "!!python/object/apply:os.system"), ("a: !!str 1", "!!str"),
     ("a: !mine {}", "!mine"), ("a: ! 1", "!")],
)  # fmt: skip
def test_tags_are_told_and_never_obeyed(text: str, tag: str) -> None:
    assert flaws_of(text) == [f"1:4: the tag {tag!r} is not allowed: plain values only"]


def test_merge_keys_and_keys_that_are_no_text_are_told() -> None:
    assert flaws_of("<<: {a: 1}\n? [b]\n: 2\n") == [
        "1:1: merge keys (<<) are not supported: write the keys out",
        "2:3: a key must be text, not a list or a mapping",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [1", "lab.yaml:1:6: not YAML: while parsing a flow sequence, expected ',' or ']'"),
        ("a: 1\n b: 2\n", "lab.yaml:2:3: not YAML: mapping values are not allowed here"),
        ("a: *x\n", "lab.yaml:1:4: not YAML: found undefined alias 'x'"),
        ("a: 1\n---\nb: 2\n", "lab.yaml:2:1: not YAML: expected a single document in the stream"),
        ("a: 1\n\tb: 2\n", "lab.yaml:2:1: not YAML: while scanning for the next token, found character '\\t'"),
        ("a: 1\nb: \x07\n", "lab.yaml:2:4: the character '\\x07' is not allowed"),
        ('a: "\\UFFFFFFFF"', "lab.yaml:1:7: not YAML: "),
    ],
)  # fmt: skip
def test_what_is_not_yaml_is_refused_with_its_place(text: str, message: str) -> None:
    assert message_of(text).startswith(message)


def test_a_billion_laughs_are_counted_and_never_built() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 10)]

    assert f"more than {MAX_NODES:,} keys and values, aliases expanded" in message_of("\n".join(lines))


def test_an_alias_inside_its_own_anchor_is_refused() -> None:
    assert message_of("a: &x [*x]\n") == f"lab.yaml:1:4: nested more than {MAX_DEPTH} deep"


def test_deep_nesting_is_refused_before_the_stack_ends() -> None:
    assert message_of("[" * 5_000) == f"lab.yaml:1:{MAX_DEPTH + 1}: nested more than {MAX_DEPTH} deep"


def test_a_text_of_too_many_words_is_refused() -> None:
    assert "more than 50,000 keys and values" in message_of("-\n" * (MAX_NODES + 1))


def test_a_text_that_is_too_large_is_refused_before_it_is_parsed() -> None:
    assert message_of("[" + " " * MAX_BYTES) == "lab.yaml: larger than 1024 KiB"


def read_error(path: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        read(path)
    return caught.value.message.replace(str(path), "FILE")


def test_a_file_is_read_whatever_its_line_ends_and_byte_order_mark(tmp_path: Path) -> None:
    file = tmp_path / "lab é.yaml"
    file.write_bytes(b"\xef\xbb\xbfa: 1\r\nb: \xc3\xa9\r\n")

    document = read(file)

    assert (document.data, document.path) == ({"a": 1, "b": "é"}, str(file))
    assert document.text.startswith("a: 1")


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    assert read_error(tmp_path / "lab.yaml") == "FILE: no such file"


def test_a_folder(tmp_path: Path) -> None:
    assert read_error(tmp_path) == "FILE: cannot be read: Is a directory"


def test_a_name_that_no_file_can_have(tmp_path: Path) -> None:
    assert read_error(tmp_path / "a\0b").startswith("FILE: cannot be read: ")


def test_a_file_that_is_too_large(tmp_path: Path) -> None:
    file = tmp_path / "lab.yaml"
    file.write_bytes(b"#" * (MAX_BYTES + 1))

    assert read_error(file) == "FILE: larger than 1024 KiB"


def test_a_file_that_is_not_utf8_is_refused_with_the_byte_and_its_place(tmp_path: Path) -> None:
    file = tmp_path / "lab.yaml"
    file.write_bytes(b"a: 1\nb: \xff\n")

    assert read_error(file) == "FILE:2:4: byte 0xff is not UTF-8"
