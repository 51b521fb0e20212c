"""Our code on its way to a host: one archive, known by its content, and the line that brings it up there."""

from __future__ import annotations

import functools
import hashlib
import importlib.resources
import importlib.util
import io
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator
    from importlib.resources.abc import Traversable

#: Runs what comes as the first line, and leaves the rest of its input to it: nothing is read ahead. Without quotes,
#: dollars and backslashes, whatever it has to pass on its way.
LOADER: Final = "import sys;stdin=sys.stdin.detach().detach();exec(stdin.readline())"

#: The only ones that are brought: what a host has compiled for itself stays where it is.
_SUFFIXES: Final = (".py", "py.typed")

#: The oldest date that a zip archive can hold: the same content is the same archive, whenever it was made.
_DATE: Final = (1980, 1, 1, 0, 0, 0)

_READABLE: Final = 0o644 << 16


@dataclass(frozen=True, kw_only=True, slots=True)
class CodeSought:
    """A host's first word: whether it has our code already."""

    is_there: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class PackedCode:
    """The package ``workers``, and the bindings of NVML, as hosts get them."""

    #: SHA-256 of ``data``, hexadecimal: what a host keeps it under.
    key: str
    data: bytes = field(repr=False)

    def message(self) -> bytes:
        """Return what is sent to a host that lacks it: its length in a line, and itself."""
        return b"%d\n%s" % (len(self.data), self.data)


@functools.cache
def packed_code() -> PackedCode:
    """Return the package ``workers`` of this process, packed once."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as writer:
        for name, content in sorted([*_files(importlib.resources.files("workers"), "workers"), *_bindings()]):
            entry = zipfile.ZipInfo(name, date_time=_DATE)
            entry.external_attr = _READABLE
            entry.create_system = 3  # Unix, wherever it was made
            writer.writestr(entry, content, zipfile.ZIP_DEFLATED)
    data = archive.getvalue()
    return PackedCode(key=hashlib.sha256(data).hexdigest(), data=data)


def _files(folder: Traversable, name: str) -> Iterator[tuple[str, bytes]]:
    for entry in folder.iterdir():
        path = f"{name}/{entry.name}"
        if entry.is_dir():
            yield from _files(entry, path)
        elif entry.name.endswith(_SUFFIXES):
            yield path, entry.read_bytes()


def _bindings() -> Iterator[tuple[str, bytes]]:
    """Yield NVML's bindings, one file: a host's GPUs are seen before there is an environment with anything in it."""
    found = importlib.util.find_spec("pynvml")
    if found is not None and found.origin is not None:
        yield "pynvml.py", Path(found.origin).read_bytes()


def first_line(key: str, grace_s: float, patience_s: float) -> bytes:
    """Return what the :data:`LOADER` runs: the bootstrap, and the call of it."""
    source = importlib.resources.files("workers").joinpath("bootstrap.py").read_text(encoding="utf-8")
    call = f"boot(stdin, {key!r}, {float(grace_s)!r}, {float(patience_s)!r})"
    return f"exec({source!a});sys.exit({call})\n".encode("ascii")
