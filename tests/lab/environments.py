"""Python environments on lab hosts: what this one has, without a copy of it, and one that is not as it should be."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

#: Where an environment is, from the home.
GOOD: Final = "env"
OLD_RAY: Final = "old-ray"

#: What the environment with the wrong Ray says that it has.
OLD_RAY_VERSION: Final = "2.59.0"

#: Minor versions that have Ray; ours is taken out.
_MINORS: Final = ("3.10", "3.11", "3.12", "3.13")


def make_environment(folder: Path, claims: Mapping[str, str] | None = None) -> None:
    """Make an environment at ``folder`` that has this one's packages, but not muster.

    ``claims`` are versions that it says it has: their metadata come first, as those of a package that was replaced by
    hand do.
    """
    site = folder / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"
    site.mkdir(parents=True)
    (folder / "bin").mkdir()
    for name in ("python", "python3"):
        (folder / "bin" / name).symlink_to(Path(sys.executable).resolve())
    home = Path(sys.executable).resolve().parent
    (folder / "pyvenv.cfg").write_text(
        f"home = {home}\ninclude-system-site-packages = false\nversion = {platform.python_version()}\n"
    )
    # A plain path: what is in that folder is there, but its own .pth files, muster's among them, are not read.
    (site / "packages.pth").write_text(f"{sysconfig.get_path('purelib')}\n")
    for name, version in (claims or {}).items():
        metadata = site / f"{name}-{version}.dist-info"
        metadata.mkdir()
        (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")


def other_interpreter() -> Path | None:
    """Return a Python of another minor version than ours; ``None`` where this machine has none."""
    ours = f"{sys.version_info[0]}.{sys.version_info[1]}"
    for minor in (each for each in reversed(_MINORS) if each != ours):
        for path in _candidates(minor):
            found = subprocess.run(
                [path, "-I", "-S", "-c", "import sys; print(*sys.version_info[:2], sep='.')"],
                capture_output=True,
                text=True,
            )
            if found.stdout.strip() == minor:
                return path
    return None


def _candidates(minor: str) -> list[Path]:
    named = shutil.which(f"python{minor}")
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    # Beside our own, which is where version managers put them, whatever the home is.
    beside = Path(sys.base_prefix).resolve().parent
    others = [*pyenv.glob(f"versions/{minor}.*/bin/python"), *beside.glob(f"*{minor}.*/bin/python")]
    return [*([] if named is None else [Path(named)]), *others]
