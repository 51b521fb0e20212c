"""What a host has installed beside what the head has, and the commands that bring one to the other."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from workers.protocol import HostReport


@dataclass(frozen=True, kw_only=True, slots=True)
class Software:
    """The versions that hosts are held against: those of the head. ``None`` where the head has none."""

    #: In three parts: ``3.11.2``.
    python: str
    muster: str
    ray: str | None
    numpy: str | None
    #: Versions by the framework's name, of those that the head has.
    frameworks: tuple[tuple[str, str], ...] = ()


def text_fact(report: HostReport, name: str) -> str | None:
    """Return a fact of the host's environment that is a text; ``None`` where it is not known."""
    value = report.environment.get(name).value
    return value if isinstance(value, str) else None


def minor(version: str) -> str:
    """Return ``3.11`` of ``3.11.2``."""
    return ".".join(version.split(".")[:2])


def differs(found: str | None, head: str | None) -> str:
    """Return in words that a package is another than the head's, or not there."""
    return f"{found or 'not installed'}" + (f", and the head has {head}" if head else "")


def pip(report: HostReport, package: str, version: str | None) -> str:
    """Return the command that installs a package into the interpreter that was probed."""
    python = report.condition.get("python.executable").value or "python3"
    return f"{shlex.quote(str(python))} -m pip install {package}" + (f"=={version}" if version else "")
