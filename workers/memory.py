"""How much memory a host has and of what kind, from the kernel's figure and the firmware's table of modules."""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

_GIB: Final = 2**30

#: SMBIOS structure types (DMTF DSP0134, 3.7, sections 7.18 and 7.45).
_MEMORY_DEVICE: Final = 17
_END_OF_TABLE: Final = 127

#: Memory Device, Type field (DSP0134, table 78): those that a host of our time can have.
_KINDS: Final = {
    0x12: "DDR", 0x13: "DDR2", 0x18: "DDR3", 0x1A: "DDR4", 0x1B: "LPDDR", 0x1C: "LPDDR2", 0x1D: "LPDDR3",
    0x1E: "LPDDR4", 0x20: "HBM", 0x21: "HBM2", 0x22: "DDR5", 0x23: "LPDDR5", 0x24: "HBM3",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class MemoryModule:
    """One module that is plugged in."""

    size_bytes: int
    #: ``DDR4``, or ``None`` where the firmware does not know.
    kind: str | None
    #: Configured speed in megatransfers a second; ``None`` where the firmware does not know.
    speed_mts: int | None


def parse_modules(table: bytes) -> tuple[MemoryModule, ...]:
    """Return the modules of an SMBIOS table, as ``/sys/firmware/dmi/tables/DMI`` holds it; a torn table ends early."""
    found = (_module(structure) for structure in _structures(table) if structure[0] == _MEMORY_DEVICE)
    return tuple(module for module in found if module is not None)


def _structures(table: bytes) -> Iterator[bytes]:
    """Yield the formatted area of each structure; its strings, which end with two zero bytes, are passed over."""
    at = 0
    while at + 4 <= len(table) and table[at] != _END_OF_TABLE:
        length = table[at + 1]
        if length < 4 or at + length > len(table):
            return
        yield table[at : at + length]
        end_of_strings = table.find(b"\0\0", at + length)
        if end_of_strings < 0:
            return
        at = end_of_strings + 2


def _module(structure: bytes) -> MemoryModule | None:
    """Return the module of a Memory Device (DSP0134, table 76), or ``None`` for an empty or unknown slot."""
    size = _word(structure, 0x0C)
    if size is None or size in (0, 0xFFFF):
        return None
    if size == 0x7FFF:
        size_bytes = (_double_word(structure, 0x1C) or 0) * 2**20
    else:
        size_bytes = (size & 0x7FFF) * (2**10 if size & 0x8000 else 2**20)
    speed = _word(structure, 0x20) or _word(structure, 0x15)
    kind = _KINDS.get(structure[0x12]) if len(structure) > 0x12 else None
    return MemoryModule(size_bytes=size_bytes, kind=kind, speed_mts=speed if speed not in (0, 0xFFFF) else None)


def _word(structure: bytes, at: int) -> int | None:
    return int(struct.unpack_from("<H", structure, at)[0]) if len(structure) >= at + 2 else None


def _double_word(structure: bytes, at: int) -> int | None:
    return int(struct.unpack_from("<I", structure, at)[0]) if len(structure) >= at + 4 else None


def installed_memory(kernel_bytes: int | None) -> int | None:
    """Return what is plugged in, most likely, where the kernel manages ``kernel_bytes``.

    Firmware and kernel keep one to six per cent for themselves, and modules come in round sizes: rounded up to the
    next sixteenth of the power of two below, whole GiB at least (62.7 GiB are 64, 376 are 384). Below 1 GiB unchanged.
    """
    if kernel_bytes is None or kernel_bytes < _GIB:
        return kernel_bytes
    step = max(1 << (kernel_bytes.bit_length() - 5), _GIB)
    return math.ceil(kernel_bytes / step) * step


def memory_text(size_bytes: int | None, *, kind: str | None = None, speed_mts: int | None = None) -> str | None:
    """Return memory as the table shows it: ``16 GB 1600 MHz DDR3``, or ``24 GB`` where no more is known.

    "MHz" for megatransfers a second is wrong but what everybody prints on modules, the seed's rows included.
    """
    if size_bytes is None:
        return None
    size = f"{size_bytes / _GIB:.0f} GB" if size_bytes >= _GIB else f"{size_bytes / 2**20:.0f} MB"
    speed = None if speed_mts is None else f"{speed_mts} MHz"
    return " ".join(part for part in (size, speed, kind) if part is not None)
