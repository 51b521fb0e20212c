"""Which wheels make the environment of a host: a locked list, read for the host's Python and processor. Pure."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from packaging.requirements import Requirement
from packaging.tags import Tag, compatible_tags, cpython_tags
from packaging.utils import InvalidWheelFilename, NormalizedName, canonicalize_name, parse_wheel_filename
from packaging.version import Version

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from workers.orders import Wheel

#: Processors that TensorFlow and Ray have wheels for on Linux.
MACHINES: Final = ("aarch64", "x86_64")

#: Minor of the glibc that hosts are taken to have: 2.28, that of RHEL 8 and Debian 10. TensorFlow needs 2.27.
GLIBC_MINOR: Final = 28

#: The oldest glibc that wheels of a processor are made for, PEP 600; for any newer one they work as well.
_OLDEST_GLIBC_MINOR: Final = {"x86_64": 5, "aarch64": 17}

#: What such wheels were called before PEP 600.
_OLD_NAMES: Final = {17: "manylinux2014", 12: "manylinux2010", 5: "manylinux1"}

#: Part of every key: raised when environments are made in another way.
_LAYOUT: Final = "1"

_KEY_CHARACTERS: Final = 20

_COMMENT: Final = re.compile(r"(^|\s)#.*$", re.MULTILINE)
_HASH: Final = re.compile(r"--hash=sha256:([0-9a-f]{64})(?=\s|$)")


@dataclass(frozen=True, kw_only=True, slots=True)
class Target:
    """What wheels are for."""

    #: ``cpu`` or ``gpu``: which TensorFlow.
    kind: str
    #: ``3.11``
    python_minor: str
    #: One of :data:`MACHINES`.
    machine: str

    def __str__(self) -> str:
        return f"{self.kind} hosts with Python {self.python_minor} on {self.machine}"

    @property
    def version(self) -> tuple[int, int]:
        """Python's major and minor version."""
        major, _, minor = self.python_minor.partition(".")
        return int(major), int(minor)

    @property
    def platforms(self) -> tuple[str, ...]:
        """Platform tags of wheels that run there, the best first."""
        names = []
        for minor in range(GLIBC_MINOR, _OLDEST_GLIBC_MINOR[self.machine] - 1, -1):
            names.append(f"manylinux_2_{minor}")
            if minor in _OLD_NAMES:
                names.append(_OLD_NAMES[minor])
        return tuple(f"{name}_{self.machine}" for name in (*names, "linux"))

    @property
    def tags(self) -> Mapping[Tag, int]:
        """Every tag of wheels that run there, the best with the lowest number."""
        abi, platforms = f"cp{self.version[0]}{self.version[1]}", self.platforms
        tags = (*cpython_tags(self.version, [abi], platforms), *compatible_tags(self.version, abi, platforms))
        return {tag: rank for rank, tag in reversed(list(enumerate(tags)))}

    @property
    def markers(self) -> Mapping[str, str]:
        """What the conditions of a list are held against."""
        full = f"{self.python_minor}.0"
        return {
            "implementation_name": "cpython",
            "implementation_version": full,
            "os_name": "posix",
            "platform_machine": self.machine,
            "platform_python_implementation": "CPython",
            "platform_release": "",
            "platform_system": "Linux",
            "platform_version": "",
            "python_full_version": full,
            "python_version": self.python_minor,
            "sys_platform": "linux",
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class Pin:
    """One package of a list, of which any file with one of the hashes will do."""

    name: NormalizedName
    version: Version
    #: SHA-256 of its files, hexadecimal, sorted.
    hashes: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.name}=={self.version}"

    @property
    def line(self) -> str:
        """The pin as pip reads it."""
        return " ".join((str(self), *(f"--hash=sha256:{each}" for each in self.hashes)))


def pins_for(target: Target, locked: str) -> tuple[Pin, ...]:
    """Return what a locked list asks for on the target.

    Each line of ``locked`` must be ``name==version`` with hashes and perhaps a condition; raises ValueError.
    """
    lines = _COMMENT.sub("", locked).replace("\\\n", " ").splitlines()
    return tuple(pin for line in lines if line.strip() and (pin := _pin(line, target)) is not None)


def _pin(line: str, target: Target) -> Pin | None:
    """Return what a line asks for; ``None`` where its condition does not hold."""
    requirement = Requirement(line.partition(" --hash=")[0].strip())
    if requirement.marker is not None and not requirement.marker.evaluate(target.markers):
        return None
    hashes = tuple(sorted(_HASH.findall(line)))
    specifiers = list(requirement.specifier)
    if not hashes or len(specifiers) != 1 or specifiers[0].operator != "==":
        raise ValueError(f"{requirement.name} has no exact version with hashes")
    return Pin(name=canonicalize_name(requirement.name), version=Version(specifiers[0].version), hashes=hashes)


def key_of(target: Target, pins: Iterable[Pin]) -> str:
    """Return what the environment that ``pins`` make is kept under: the same for the same content."""
    parts = (_LAYOUT, target.python_minor, target.machine, *sorted(pin.line for pin in pins))
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:_KEY_CHARACTERS]


def chosen(target: Target, pins: Iterable[Pin], wheels: Iterable[Wheel]) -> tuple[tuple[Wheel, ...], tuple[Pin, ...]]:
    """Return the best wheel for each pin, in the order of the pins, and the pins that have none."""
    by_package: dict[tuple[str, Version], list[tuple[int, str, Wheel]]] = {}
    tags = target.tags
    for wheel in wheels:
        try:
            name, version, _, wheel_tags = parse_wheel_filename(wheel.name)
        except InvalidWheelFilename:  # a folder that people fill can hold anything
            continue
        rank = min((tags[tag] for tag in wheel_tags if tag in tags), default=None)
        if rank is not None:
            by_package.setdefault((name, version), []).append((rank, wheel.name, wheel))
    found, missing = [], []
    for pin in pins:
        fitting = [each for each in by_package.get((pin.name, pin.version), []) if each[2].sha256 in pin.hashes]
        if fitting:
            found.append(min(fitting, key=lambda each: each[:2])[2])
        else:
            missing.append(pin)
    return tuple(found), tuple(missing)
