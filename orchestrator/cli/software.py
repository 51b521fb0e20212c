"""What the head itself has installed: what hosts are held against."""

from __future__ import annotations

import importlib.metadata
import platform
from typing import TYPE_CHECKING

from orchestrator.diagnosis import Software
from workers.version import VERSION

if TYPE_CHECKING:
    from collections.abc import Iterable


def head_software(frameworks: Iterable[str] = ("tensorflow",)) -> Software:
    """Return the versions of this process's Python and packages, without importing any of them."""
    found = {name: _installed(name) or _installed(f"{name}-cpu") for name in frameworks}
    return Software(
        python=platform.python_version(),
        muster=VERSION,
        ray=_installed("ray"),
        numpy=_installed("numpy"),
        frameworks=tuple((name, version) for name, version in found.items() if version is not None),
    )


def _installed(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
