from __future__ import annotations

import struct

import pytest

from workers.memory import MemoryModule, installed_memory, memory_text, parse_modules

GIB = 2**30


def structure(kind: int, body: bytes, strings: tuple[str, ...] = ()) -> bytes:
    """An SMBIOS structure: header, formatted area, strings, two zero bytes."""
    text = b"".join(each.encode() + b"\0" for each in strings) or b"\0"
    return bytes([kind, 4 + len(body)]) + b"\x01\x00" + body + text + b"\0"


def module(
    size: int, *, memory_type: int = 0x1A, speed: int = 2400, configured: int | None = 2133, extended: int = 0
) -> bytes:
    """A Memory Device as DSP0134 lays it out, up to the configured speed, or of version 2.3 without it."""
    body = bytearray(0x22 - 4 if configured is not None else 0x1B - 4)
    struct.pack_into("<H", body, 0x0C - 4, size)
    body[0x12 - 4] = memory_type
    struct.pack_into("<H", body, 0x15 - 4, speed)
    if configured is not None:
        struct.pack_into("<I", body, 0x1C - 4, extended)
        struct.pack_into("<H", body, 0x20 - 4, configured)
    return structure(17, bytes(body), ("DIMM_A1", "Maker"))


END = structure(127, b"")


def test_modules_are_found_among_the_other_structures() -> None:
    table = structure(0, b"bios", ("Vendor",)) + module(8192) + structure(4, b"cpu") + module(16384) + END
    assert parse_modules(table) == (
        MemoryModule(size_bytes=8 * GIB, kind="DDR4", speed_mts=2133),
        MemoryModule(size_bytes=16 * GIB, kind="DDR4", speed_mts=2133),
    )


@pytest.mark.parametrize("size", [0, 0xFFFF])
def test_empty_slots_are_no_modules(size: int) -> None:
    assert parse_modules(module(size) + END) == ()


def test_sizes_have_three_spellings() -> None:
    table = module(0x8000 | 512) + module(0x7FFF, extended=65536) + module(4096) + END
    assert [each.size_bytes for each in parse_modules(table)] == [512 * 1024, 64 * GIB, 4 * GIB]


def test_old_tables_have_the_rated_speed_alone() -> None:
    (found,) = parse_modules(module(2048, memory_type=0x18, speed=1600, configured=None) + END)
    assert found == MemoryModule(size_bytes=2 * GIB, kind="DDR3", speed_mts=1600)


def test_what_the_firmware_does_not_know_is_none() -> None:
    (found,) = parse_modules(module(2048, memory_type=0x02, speed=0, configured=0) + END)
    assert (found.kind, found.speed_mts) == (None, None)
    (found,) = parse_modules(module(2048, speed=0xFFFF, configured=0xFFFF) + END)
    assert found.speed_mts is None


def test_a_torn_table_ends_early_and_never_fails() -> None:
    whole = module(8192) + module(8192) + END
    for length in range(len(whole)):
        assert len(parse_modules(whole[:length])) <= 2
    assert parse_modules(b"\x11\x00\x00\x00") == ()
    assert parse_modules(bytes([17, 5, 0, 0, 0]) + b"\0\0" + END) == ()


def test_nothing_after_the_end_is_read() -> None:
    assert parse_modules(END + module(8192)) == ()


@pytest.mark.parametrize(
    ("kernel_gib", "installed_gib"),
    [(3.84, 4), (7.7, 8), (15.55, 16), (23.54, 24), (31.2, 32), (62.7, 64), (94.2, 96), (125.6, 128), (188.5, 192),
     (251.5, 256), (376.4, 384), (503.5, 512), (1007.0, 1024), (16.0, 16)],
)  # fmt: skip
def test_what_is_plugged_in_is_guessed_from_what_the_kernel_manages(kernel_gib: float, installed_gib: int) -> None:
    assert installed_memory(int(kernel_gib * GIB)) == installed_gib * GIB


def test_little_memory_is_left_as_it_is() -> None:
    assert installed_memory(500 * 2**20) == 500 * 2**20
    assert installed_memory(None) is None


@pytest.mark.parametrize(
    ("size", "kind", "speed", "text"),
    [
        (16 * GIB, "DDR3", 1600, "16 GB 1600 MHz DDR3"),
        (24 * GIB, None, None, "24 GB"),
        (24 * GIB, "DDR5", None, "24 GB DDR5"),
        (512 * 2**20, None, None, "512 MB"),
        (None, "DDR4", 2400, None),
    ],
)
def test_memory_reads_as_in_the_seed(size: int | None, kind: str | None, speed: int | None, text: str | None) -> None:
    assert memory_text(size, kind=kind, speed_mts=speed) == text
