"""Small wheels that pip takes for real ones, and pip itself as one."""

from __future__ import annotations

import base64
import hashlib
import importlib.metadata
import zipfile
from typing import TYPE_CHECKING

from orchestrator.reach.requirements import Pin
from workers.orders import Wheel

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

from packaging.utils import canonicalize_name
from packaging.version import Version


def a_wheel(
    folder: Path, name: str = "alpha", version: str = "1.0", *, tag: str = "py3-none-any", code: str = "VALUE = 1\n"
) -> Path:
    """A package of one module, ``code``."""
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    about = f"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: {tag}\n"
    info = f"{name}-{version}.dist-info"
    files = {f"{name}.py": code, f"{info}/METADATA": metadata, f"{info}/WHEEL": about}
    path = folder / f"{name}-{version}-{tag}.whl"
    _write(path, {inside: text.encode() for inside, text in files.items()}, f"{info}/RECORD")
    return path


def a_pip_wheel(folder: Path) -> Path:
    """The pip of this environment, as the wheel that it once was."""
    pip = importlib.metadata.distribution("pip")
    files = {
        str(file): file.read_binary()
        for file in pip.files or ()
        if ".." not in file.parts and file.suffix != ".pyc" and file.name not in ("RECORD", "INSTALLER", "REQUESTED")
    }
    path = folder / f"pip-{pip.version}-py3-none-any.whl"
    _write(path, files, f"pip-{pip.version}.dist-info/RECORD")
    return path


def _write(path: Path, files: Mapping[str, bytes], record: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = []
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
            digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
            lines.append(f"{name},sha256={digest},{len(content)}\n")
        archive.writestr(record, "".join((*lines, f"{record},,\n")))


def as_wheel(path: Path) -> Wheel:
    content = path.read_bytes()
    return Wheel(name=path.name, sha256=hashlib.sha256(content).hexdigest(), size=len(content))


def as_pin(path: Path) -> Pin:
    name, version = path.name.split("-")[:2]
    return Pin(name=canonicalize_name(name), version=Version(version), hashes=(as_wheel(path).sha256,))
