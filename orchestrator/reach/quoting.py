r"""Command strings out of arguments, so that each of them arrives byte for byte. Pure.

SSH knows no argument lists: it passes one string to the user's login shell. That may be sh, bash, zsh, csh or fish,
and they quote differently: csh replaces ``!`` and ends at a newline even between single quotes; fish reads ``\\``. So
the login shell gets a string in which only ``/bin/sh`` has anything to read: the real command, with all but harmless
characters written as octal numbers.
"""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING, Final

from orchestrator.errors import ClusterError

if TYPE_CHECKING:
    from collections.abc import Sequence

#: Bytes of a command string: Linux takes 128 KiB as one argument (MAX_ARG_STRLEN), and sshd makes one of it.
MAX_LINE_BYTES: Final = 128 * 2**10 - 1

#: What every login shell leaves alone between single quotes, and ``printf %b`` too.
_HARMLESS: Final = frozenset(
    b'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789 "#$%&()*+,-./:;<=>?@[]^_`{|}~'
)

#: Says who it is and reads the command from its argument: ``printf %b`` (POSIX) turns ``\\0ddd`` back into bytes.
_DECODER: Final = """exec /bin/sh -c 'echo muster-pid $$ >&2; eval "$(printf %b "$1")"' sh '{encoded}'"""

#: What a command that came through a login shell says first on standard error: the id of the program's process.
PID_LINE: Final = re.compile(rb"^muster-pid (\d+)\n", re.MULTILINE)

_HOME: Final = re.compile(r"(?P<home>~[A-Za-z0-9._-]*)(?:/(?P<rest>.*))?", re.DOTALL)


def posix_line(argv: Sequence[str]) -> str:
    """Return what makes ``/bin/sh`` become the program ``argv[0]`` with the arguments ``argv[1:]``.

    A leading ``~/`` or ``~name/`` of the program (of nothing else) means a home; ``./~/`` is a folder of that name.
    Raises ClusterError for what no command can hold.
    """
    _check(argv)
    program, *arguments = argv
    return " ".join(["exec", _quoted_program(program), *map(shlex.quote, arguments)])


def login_line(argv: Sequence[str]) -> str:
    """Return the same as :func:`posix_line` for any login shell, in ASCII without control characters.

    Before the program starts, :data:`PID_LINE` is said on standard error.
    """
    command = posix_line(argv).encode(errors="surrogateescape")
    line = _DECODER.format(encoded="".join(chr(byte) if byte in _HARMLESS else f"\\0{byte:03o}" for byte in command))
    if len(line) > MAX_LINE_BYTES:
        raise ClusterError(f"the command {argv[0]!r} has {len(line)} bytes of arguments; {MAX_LINE_BYTES} fit")
    return line


def _check(argv: Sequence[str]) -> None:
    if not argv or not argv[0]:
        raise ClusterError("a command without a program")
    if argv[0].startswith("-"):
        # Some shells would take it for an option of `exec`, and not all of them know `--` there.
        raise ClusterError(f"{argv[0]!r} is no name of a program: it begins with a dash")
    for argument in argv:
        if "\0" in argument:
            raise ClusterError(f"{argument!r} cannot be given to a program: it holds a NUL character")


def _quoted_program(program: str) -> str:
    match = _HOME.fullmatch(program)
    if match is None:
        return shlex.quote(program)
    # Only as long as it stands before the first quote is `~` a home.
    return match["home"] if match["rest"] is None else f"{match['home']}/{shlex.quote(match['rest'])}"
