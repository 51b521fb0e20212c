"""What commands write into files, whole or not at all."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Final

from orchestrator.errors import UsageError

#: As a file's name: standard output.
STDOUT: Final = Path("-")


def deliver(data: bytes, output: Path, told: str = "") -> None:
    """Write ``data`` to ``output``, in place of what is there, and say so on stderr; to stdout for ``-``.

    ``told`` follows the file's name there. Raises :class:`orchestrator.errors.UsageError` where it cannot be written,
    and leaves what was there.
    """
    if output == STDOUT:
        sys.stdout.buffer.write(data)
        return
    try:
        _write(Path(os.path.realpath(output)), data)
    except OSError as error:
        raise UsageError(f"{output} cannot be written: {error.strerror}", remedy="--output FILE") from error
    print(f"{output}{told}", file=sys.stderr)


def _write(path: Path, data: bytes) -> None:
    if path.exists() and not path.is_file():  # a pipe or a device, which nothing must take the place of
        path.write_bytes(data)
        return
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        beside.write_bytes(data)
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
