"""Arguments through every login shell that this machine has."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from orchestrator.errors import ClusterError
from orchestrator.reach.quoting import MAX_LINE_BYTES, PID_LINE, login_line, posix_line

if TYPE_CHECKING:
    from pathlib import Path

#: Shells that this machine has, and how each is started; CI has at least the first three.
SHELLS = {
    name: (found, "sh") if name == "busybox" else (found,)
    for name in ("sh", "bash", "dash", "zsh", "ksh", "mksh", "csh", "tcsh", "fish", "busybox")
    if (found := shutil.which(name))
}
#: Those among them that stand at /bin/sh somewhere.
BIN_SH = sorted(SHELLS.keys() - {"zsh", "csh", "tcsh", "fish"})

#: Characters that some shell reads in a way of its own, drawn much more often than they would be.
TRICKY = st.sampled_from("'\"\\!\n\r\t ;&|<>$`(){}[]*?~#^%=+-@:,.0123é→😀\udcff")
TEXT = st.text(TRICKY | st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=12)
ARGUMENTS = st.lists(TEXT, max_size=4)

AWKWARD = [
    "",
    " ",
    "a b",
    "'",
    '"',
    "\\",
    "\\\\'",
    "\\0101",
    "!!",
    "\n",
    "end\n",
    "$HOME",
    "$(touch /tmp/x)",
    "`id`",
    "; exit 3",
    "-n",
    "--",
    "~",
    "*",
    "%s%b",
    "ä→😀",
    "\udcff",
]


def _arrived(shell: tuple[str, ...], line: str, cwd: Path | None = None) -> list[bytes]:
    """Return what the program was given that the shell started, one by one."""
    done = subprocess.run([*shell, "-c", line], capture_output=True, timeout=60, cwd=cwd)
    assert done.returncode == 0, done.stderr
    assert PID_LINE.sub(b"", done.stderr) == b""
    assert done.stdout.endswith(b"\0")
    return done.stdout[:-1].split(b"\0")


def _bytes(arguments: list[str]) -> list[bytes]:
    return [os.fsencode(argument) for argument in arguments] or [b""]  # printf prints its format once, with nothing


@pytest.mark.skipif(not os.environ.get("CI"), reason="only where all is installed on purpose")
def test_the_shells_that_matter_most_are_there() -> None:
    assert {"sh", "bash", "dash"} <= SHELLS.keys()


@pytest.mark.parametrize("name", sorted(SHELLS))
@given(arguments=ARGUMENTS)
@example(arguments=AWKWARD)
def test_arguments_arrive_byte_for_byte_through_every_login_shell(name: str, arguments: list[str]) -> None:
    line = login_line(["/usr/bin/printf", r"%s\0", *arguments])
    assert _arrived(SHELLS[name], line) == _bytes(arguments)


@pytest.mark.parametrize("name", BIN_SH)
@given(arguments=ARGUMENTS)
@example(arguments=AWKWARD)
def test_arguments_arrive_byte_for_byte_through_whatever_stands_at_bin_sh(name: str, arguments: list[str]) -> None:
    line = posix_line(["/usr/bin/printf", r"%s\0", *arguments])
    assert _arrived(SHELLS[name], line) == _bytes(arguments)


@pytest.mark.parametrize("name", sorted(SHELLS))
@pytest.mark.parametrize("folder", ["plain", "with space", "it's", "$(id)", "a!b;c", "new\nline", "ä", "~"])
def test_a_home_before_a_program_is_a_home_and_the_rest_is_taken_as_it_stands(
    name: str, folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / folder).mkdir()
    (tmp_path / folder / "show").symlink_to("/usr/bin/printf")
    assert _arrived(SHELLS[name], login_line([f"~/{folder}/show", r"%s\0", "~/x"])) == [b"~/x"]


def test_a_named_home_is_that_users(tmp_path: Path) -> None:
    me = pwd.getpwuid(os.getuid())
    target = os.path.relpath("/usr/bin/printf", os.path.realpath(me.pw_dir))
    assert _arrived(("/bin/sh",), login_line([f"~{me.pw_name}/{target}", r"%s\0", "x"])) == [b"x"]
    (tmp_path / "~").mkdir()
    (tmp_path / "~" / "show").symlink_to("/usr/bin/printf")
    assert _arrived(("/bin/sh",), login_line(["./~/show", r"%s\0", "x"]), cwd=tmp_path) == [b"x"]


@pytest.mark.parametrize("name", sorted(SHELLS))
def test_the_first_word_on_standard_error_is_the_programs_process(name: str) -> None:
    line = login_line(["/bin/sh", "-c", "echo $$; echo muster-pid 1 >&2"])
    done = subprocess.run([*SHELLS[name], "-c", line], capture_output=True, timeout=60)
    found = PID_LINE.search(done.stderr)
    assert found is not None
    assert found[1] == done.stdout.strip()


@given(arguments=ARGUMENTS)
def test_what_goes_over_the_wire_is_printable_ascii(arguments: list[str]) -> None:
    line = login_line(["x", *arguments])
    assert line.isascii()
    assert line.isprintable()
    assert "!" not in line


@pytest.mark.parametrize("argv", [[], [""], ["-c"], ["python", "a\0b"], ["py\0thon"]])
def test_what_no_command_can_hold_is_refused(argv: list[str]) -> None:
    for line in (posix_line, login_line):
        with pytest.raises(ClusterError):
            line(argv)


def test_a_command_that_linux_would_not_take_is_refused_before_it_is_sent() -> None:
    assert len(login_line(["x", "a" * 100_000])) <= MAX_LINE_BYTES
    with pytest.raises(ClusterError, match="bytes of arguments"):
        login_line(["x", "'" * 50_000])


@pytest.mark.parametrize("name", sorted(SHELLS))
def test_a_long_command_arrives_whole(name: str) -> None:
    argument = "import sys; print('!\\n')\n" * 400
    assert _arrived(SHELLS[name], login_line(["/usr/bin/printf", r"%s\0", argument])) == [argument.encode()]
