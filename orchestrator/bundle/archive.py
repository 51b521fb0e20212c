"""A run in one file: a zip with the run, its config, a page to look at, and the checksums of all three.

What is read is bytes from a stranger. Nothing is unpacked to the disk: of a bundle the files that this module knows are
read into memory, within bounds that are kept while reading, and each must have the checksum that the manifest gives it.
Checksums find damage; who made a bundle they do not tell.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from orchestrator.bundle import document
from orchestrator.errors import BundleError
from workers.version import VERSION

if TYPE_CHECKING:
    from pathlib import Path

    from orchestrator.results import NoiseFloor, Run

#: How a bundle's name ends.
SUFFIX: Final = ".muster.zip"

FORMAT: Final = "muster bundle"
SCHEMA_VERSION: Final = 1

MANIFEST: Final = "bundle.json"
RUN: Final = "run.json"
CONFIG: Final = "config.yaml"
PAGE: Final = "report.html"

#: The most bytes of each file, unpacked, and of the whole, packed: five hundred devices with a hundred cases each take
#: less. A zip of a few kilobytes can unpack to more than any memory holds.
MOST_BYTES: Final = {MANIFEST: 64 * 1024, RUN: 256 * 2**20, CONFIG: 4 * 2**20, PAGE: 64 * 2**20}
MOST_PACKED_BYTES: Final = 256 * 2**20

_MADE_BY_MUSTER: Final = "Make one with: muster export RUN -o lab.muster.zip"
_FETCH_AGAIN: Final = "It was damaged or changed on the way: get it again from whoever made it."


@dataclass(frozen=True, kw_only=True, slots=True)
class Bundle:
    """What a bundle holds, checked."""

    run: Run
    floors: tuple[NoiseFloor, ...]
    #: Whether names of people, hosts and addresses were taken out.
    is_anonymous: bool
    #: SHA-256 of the file.
    sha256: str


# --- writing -----------------------------------------------------------------------------------------------------


def packed(run: Run, page: str, floors: tuple[NoiseFloor, ...] = (), *, is_anonymous: bool = False) -> bytes:
    """Return the bundle of a run; the same run, page and muster make the same bytes.

    ``page`` is the run as HTML. Raises BundleError for a run that would be too large to be read again.
    """
    files = {
        RUN: document.written(document.document_of(run, floors)).encode(),
        CONFIG: _config(run),
        PAGE: page.encode("utf-8", "backslashreplace"),
    }
    for name, data in files.items():
        if len(data) > MOST_BYTES[name]:
            raise BundleError(f"run {run.id}: {name} would have {len(data)} bytes, and {MOST_BYTES[name]} can be read")
    manifest = {
        "format": FORMAT,
        "schema_version": SCHEMA_VERSION,
        "run_id": run.id,
        "anonymous": is_anonymous,
        "muster_version": VERSION,
        "files": {name: {"bytes": len(data), "sha256": _sha256(data)} for name, data in files.items()},
    }
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in {MANIFEST: (json.dumps(manifest, indent=1) + "\n").encode(), **files}.items():
            # Not of now, nor of whoever packs it.
            info = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = 0o644 << 16
            archive.writestr(info, data)
    return whole.getvalue()


# --- reading -----------------------------------------------------------------------------------------------------


def read(path: Path) -> Bundle:
    """Return what the bundle at ``path`` holds.

    Raises BundleError for a file that cannot be read, is no bundle, is too large, holds anything that a bundle has
    not, or has a file that is not what the manifest says.
    """
    try:
        if path.stat().st_size > MOST_PACKED_BYTES:
            raise BundleError(f"{path}: larger than any bundle ({MOST_PACKED_BYTES} bytes)", remedy=_MADE_BY_MUSTER)
        data = path.read_bytes()
    except OSError as error:
        raise BundleError(f"{path} cannot be read: {error.strerror}") from error
    return unpacked(data, str(path))


def unpacked(data: bytes, place: str) -> Bundle:
    """Return what the bytes of a bundle hold; ``place`` is its name in messages. Raises BundleError as :func:`read`."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            _check_names(archive, place)
            files = {name: _read_file(archive, name, place) for name in MOST_BYTES}
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, ValueError, OverflowError) as error:
        raise BundleError(f"{place}: no zip that can be read: {error}", remedy=_MADE_BY_MUSTER) from None
    except zlib.error as error:
        raise BundleError(f"{place}: damaged: {error}", remedy=_FETCH_AGAIN) from None
    manifest = _manifest(files.pop(MANIFEST), place)
    for name, content in files.items():
        if manifest["files"].get(name) != {"bytes": len(content), "sha256": _sha256(content)}:
            raise BundleError(f"{place}: {name} is not what {MANIFEST} says it is", remedy=_FETCH_AGAIN)
    inside = f"{place}: {RUN}"
    found = document.read(files[RUN], inside)
    run, floors = document.run_of(found, inside)
    if run.id != manifest["run_id"]:
        raise BundleError(f"{place}: {MANIFEST} is of run {manifest['run_id']!r}, and {RUN} of another")
    if _config(run) != files[CONFIG]:
        raise BundleError(f"{place}: {CONFIG} is not the config of the run in {RUN}", remedy=_MADE_BY_MUSTER)
    return Bundle(run=run, floors=floors, is_anonymous=manifest["anonymous"], sha256=_sha256(data))


def _check_names(archive: zipfile.ZipFile, place: str) -> None:
    names = [info.filename for info in archive.infolist()]
    strange = sorted(set(names) - set(MOST_BYTES))
    if strange:
        raise BundleError(f"{place}: has {strange[0]!r}, and a bundle has no such file", remedy=_MADE_BY_MUSTER)
    missing = [name for name in MOST_BYTES if name not in names]
    if missing:
        raise BundleError(f"{place}: has no {missing[0]}", remedy=_MADE_BY_MUSTER)
    if len(names) > len(MOST_BYTES):
        raise BundleError(f"{place}: has a file twice", remedy=_MADE_BY_MUSTER)


def _read_file(archive: zipfile.ZipFile, name: str, place: str) -> bytes:
    """Return a file's content, never more than it may have, whatever the zip says of its size."""
    most = MOST_BYTES[name]
    with archive.open(name) as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise BundleError(f"{place}: {name} unpacks to more than {most} bytes", remedy=_MADE_BY_MUSTER)
    return content


def _manifest(content: bytes, place: str) -> dict[str, Any]:
    try:
        found = json.loads(content)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise BundleError(f"{place}: {MANIFEST} is none of muster's", remedy=_MADE_BY_MUSTER)
    if found.get("schema_version") != SCHEMA_VERSION:
        raise BundleError(
            f"{place}: a bundle of version {found.get('schema_version')!r}, and this muster reads {SCHEMA_VERSION}",
            remedy="Update muster here, or export it anew with this version there.",
        )
    is_whole = isinstance(found.get("files"), dict) and isinstance(found.get("anonymous"), bool)
    if not is_whole or not isinstance(found.get("run_id"), str):
        raise BundleError(f"{place}: {MANIFEST} is not whole", remedy=_FETCH_AGAIN)
    return found


def _config(run: Run) -> bytes:
    return run.config_text.encode("utf-8", "backslashreplace")


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
