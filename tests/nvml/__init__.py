"""A stand-in for NVIDIA's library: ours in C, compiled by the tests, with four cards that say what a test wants.

A stand-in, for no GPU is to be had where the tests run. It has NVML's public names and layouts, so that nvidia-ml-py
and everything of ours above it are the real ones.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Final

#: In which a file is named that the stand-in reads its answers from.
STATE: Final = "MUSTER_STUB_NVML"

SOURCE: Final = Path(__file__).with_name("stub.c")

_CARD: Final = {
    "name": "NVIDIA STUB 100",
    "memory_total": 80 * 2**30,
    "memory_used": 2**30,
    "use": 0,
    "memory_use": 0,
    "clock": 1980,
    "memory_clock": 2619,
    "clock_max": 1980,
    "memory_clock_max": 2619,
    "clock_application": 1980,
    "memory_clock_application": 2619,
    "temperature": 40,
    "power_mw": 100_000,
    "energy_mj": 1_000_000,
    "power_limit_mw": 700_000,
    "power_limit_default_mw": 700_000,
    "reasons": 0,
    "persistence": 1,
    "pcie_generation": 5,
    "pcie_width": 16,
    "ecc": 1,
    "ecc_corrected": 0,
    "ecc_uncorrected": 0,
    "mig": 0,
    "capability": 90,
    "vbios": "96.00.74.00.01",
}


def uuid_of(card: int) -> str:
    """Return a card's UUID."""
    return f"GPU-00000000-0000-0000-0000-00000000000{card}"


class StubNvml:
    """Four cards, and whatever a test makes them say."""

    def __init__(self, library: Path, state: Path) -> None:
        self.library = library
        self._state = state
        self._values: dict[str, object] = {"system.driver": "570.133.20", "system.cuda": 12080}
        for card in range(4):
            given = {**_CARD, "uuid": uuid_of(card), "bus_id": f"00000000:0{card + 1}:00.0"}
            self._values.update({f"gpu.{card}.{field}": value for field, value in given.items()})
        self._write()

    @property
    def environment(self) -> dict[str, str]:
        """What a process is to be started with so that it finds these cards."""
        return {"LD_LIBRARY_PATH": str(self.library.parent), STATE: str(self._state)}

    def set(self, card: int, **fields: object) -> None:
        """Let a card say something else from now on; ``None`` for what it does not support."""
        for field, value in fields.items():
            if value is None:
                self._values.pop(f"gpu.{card}.{field}", None)
            else:
                self._values[f"gpu.{card}.{field}"] = value
        self._write()

    def fail(self, function: str, code: int = 999) -> None:
        """Let a function fail from now on."""
        self._values[f"fail.{function}"] = code
        self._write()

    def _write(self) -> None:
        text = "".join(f"{name} {value}\n" for name, value in self._values.items())
        new = self._state.with_suffix(".new")
        new.write_text(text)
        new.replace(self._state)


def compiled(folder: Path) -> Path:
    """Return the stand-in, compiled into ``folder``; raises LookupError where there is no C compiler."""
    compiler = shutil.which("cc")
    if compiler is None:
        raise LookupError("no C compiler (cc); on Debian and Ubuntu: apt install gcc libc6-dev")
    library = folder / "libnvidia-ml.so.1"
    command = [compiler, "-shared", "-fPIC", "-Wall", "-Wextra", "-Werror", "-O1", "-o", str(library), str(SOURCE)]
    subprocess.run(command, check=True, timeout=60)
    return library
