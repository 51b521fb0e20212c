"""Which Python runs our keeper on a host, and how it is started there: by scripts that hold nothing of a config."""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING, Final

from orchestrator.errors import ClusterError
from orchestrator.reach.code import LOADER

if TYPE_CHECKING:
    from orchestrator.reach.base import Reach

#: Seconds for the search; a cold disk or a home on the network makes each look slow.
SEARCH_TIMEOUT_S: Final = 60.0

#: Looks for Python ``$1`` and prints ``VERSION PATH`` for each Python on the way, the wanted one last. The path of a
#: login without a terminal is often a short one: places where people put Python are looked at as well.
SEARCH: Final = r"""
want=$1
try() {
    case $1 in /*) ;; *) return 0 ;; esac
    [ -x "$1" ] && [ ! -d "$1" ] || return 0
    version=$("$1" -I -c 'import sys; print("%d.%d.%d" % sys.version_info[:3])' </dev/null 2>/dev/null) || return 0
    printf '%s %s\n' "$version" "$1"
    case $version in "$want".*) exit 0 ;; esac
}
search() {
    set -f
    IFS=:
    for folder in $PATH; do try "$folder/$1"; done
    unset IFS
    set +f
    for folder in "$HOME/.local/bin" "$HOME/bin" /usr/local/bin /usr/bin /opt/*/bin \
        "$HOME"/.venv/bin "$HOME"/mini*/bin "$HOME"/*conda*/bin \
        "$HOME"/.local/share/uv/python/*/bin "$HOME"/.pyenv/versions/*/bin; do
        try "$folder/$1"
    done
}
search "python$want"
search python3
"""

#: Starts the interpreter ``$1``, in which a leading ``~/`` is the home.
START: Final = 'python=$1; shift; case $python in "~/"*) python=$HOME/${python#??} ;; esac; exec "$python" "$@"'

#: What a ``python:`` of a config is for, in two messages.
REMEDY: Final = "name a Python {version} of that host with `python:`, or install one there"

_FOUND: Final = re.compile(r"(\d+\.\d+\.\d+) (/.*)")


class NoInterpreterError(ClusterError):
    """A host has no Python that our code, or the head's Ray, can work with."""


async def find_interpreter(reach: Reach) -> str:
    """Return the path of a Python of the head's minor version on a host. Raises ClusterError."""
    wanted = f"{sys.version_info.major}.{sys.version_info.minor}"
    ended = await reach.run(("/bin/sh", "-c", SEARCH, "sh", wanted), timeout_s=SEARCH_TIMEOUT_S)
    return choice(ended.out.decode(errors="replace"), wanted)


def choice(listing: str, wanted: str) -> str:
    """Return the path of the wanted version in what the search printed. Raises :class:`NoInterpreterError`."""
    found = dict.fromkeys(match.groups() for line in listing.splitlines() if (match := _FOUND.fullmatch(line)))
    for version, path in found:
        if version.startswith(f"{wanted}."):
            return path
    others = ", ".join(f"{path} ({version})" for version, path in found) or "no Python at all"
    raise NoInterpreterError(
        f"the head runs Python {wanted}, and that host has {others}", remedy=REMEDY.format(version=wanted)
    )


def command(python: str) -> tuple[str, ...]:
    """Return what starts our code under ``python``. Isolated: what lies in the home is nothing that we import."""
    return "/bin/sh", "-c", START, "sh", python, "-I", "-c", LOADER
