"""Energy of processor packages by their own counters (RAPL), as Linux's powercap shows them under ``/sys``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from workers.telemetry.series import Energy

if TYPE_CHECKING:
    from collections.abc import Iterator

_MICROJOULES: float = 1e6


@dataclass(frozen=True, kw_only=True, slots=True)
class _Package:
    folder: Path
    name: str
    #: The counter begins anew behind this, microjoules.
    range_uj: int

    def read_uj(self) -> int:
        return int((self.folder / "energy_uj").read_text())


class Rapl:
    """The packages' counters; whatever else runs on a package is in its figure too.

    Linux's ``Documentation/power/powercap/powercap.rst``: ``energy_uj`` counts microjoules up to
    ``max_energy_range_uj``. Since Linux 5.10 only root may read it (CVE-2020-8694).
    """

    def __init__(self, root: Path = Path("/")) -> None:
        self._packages: tuple[_Package, ...] = ()
        self._since: tuple[int, ...] = ()
        self.reason: str | None = None
        try:
            self._packages = tuple(_packages(root / "sys/class/powercap"))
            self._since = tuple(package.read_uj() for package in self._packages)
        except PermissionError:
            self.reason = "only root may read the processors' energy counters (RAPL)"
        except (OSError, ValueError) as error:
            self.reason = f"the processors' energy counters (RAPL) cannot be read: {error}"
        else:
            if not self._packages:
                self.reason = "the kernel shows no energy counters (RAPL) of processors"

    def begin(self) -> None:
        """Note the counters now; nothing where they cannot be read."""
        if self.reason is None:
            try:
                self._since = tuple(package.read_uj() for package in self._packages)
            except (OSError, ValueError) as error:
                self.reason = f"the processors' energy counters (RAPL) cannot be read any more: {error}"

    def taken(self) -> Energy:
        """Return what all packages took since :meth:`begin`; counters may have begun anew once."""
        if self.reason is None:
            try:
                counted = [
                    (package.read_uj() - since) % (package.range_uj + 1)
                    for package, since in zip(self._packages, self._since, strict=True)
                ]
            except (OSError, ValueError) as error:
                self.reason = f"the processors' energy counters (RAPL) cannot be read any more: {error}"
            else:
                return Energy(joules=sum(counted) / _MICROJOULES, source="rapl")
        return Energy(joules=None, reason=self.reason)


def _packages(folder: Path) -> Iterator[_Package]:
    """Yield the zones of whole packages; AMD's processors are there under Intel's name too."""
    for zone in sorted(folder.glob("intel-rapl:*")):
        name = (zone / "name").read_text().strip()
        if name.startswith("package"):
            yield _Package(folder=zone, name=name, range_uj=int((zone / "max_energy_range_uj").read_text()))
