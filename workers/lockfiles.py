"""Files that every muster on this host can lock, byte by byte, whichever user started it. Standard library only.

They lie in one folder that all users share. A lock is the kernel's, so it ends with the process that holds it, however
that ends.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import stat
import struct
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Not ``$TMPDIR``, which is often a user's own: users must find each other here.
FOLDER: Final = Path("/tmp/muster-leases")

#: Names another folder, for hosts whose users do not share ``/tmp``. All of them must name the same.
FOLDER_VARIABLE: Final = "MUSTER_LEASE_FOLDER"

#: Everybody may add files and nobody may remove another's, as in ``/tmp`` itself.
_FOLDER_MODE: Final = 0o1777

#: ``struct flock`` of 64-bit Linux: type, whence, start, length, pid; see fcntl(2). Open file description locks:
#: unlike plain POSIX locks they keep two threads apart, unlike ``flock`` they can be asked for without being taken.
_FLOCK: Final = struct.Struct("@hhqqi0q")


class LeaseError(Exception):
    """Leases cannot be had on this host; the message says where, why, and what mends it."""


def lease_folder() -> Path:
    """Return the folder of this host's leases."""
    return Path(os.environ.get(FOLDER_VARIABLE) or FOLDER)


def place_of(folder: Path | None = None) -> str:
    """Return what names the machine and folder in which leases are taken here: the same for whoever asks."""
    try:
        machine = Path("/etc/machine-id").read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        machine = ""
    return f"{machine} {socket.gethostname()} {folder or lease_folder()}"


# --- files -----------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def opened_folder(path: Path) -> Iterator[int]:
    """Open the folder, made if it is not there; files are opened by its descriptor, so nobody can swap it meanwhile."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        try:
            folder = os.open(path, flags)
        except FileNotFoundError:
            _make_folder(path)
            folder = os.open(path, flags)
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.ENOTDIR):
            raise
        raise LeaseError(f"{path} must be a folder, and is not (a link is none): remove it: rm {path}") from error
    try:
        mode = os.fstat(folder).st_mode
        if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
            raise LeaseError(f"in {path} anybody may remove anybody's files: chmod {_FOLDER_MODE:o} {path}")
        yield folder
    finally:
        os.close(folder)


def _make_folder(path: Path) -> None:
    """Make the folder with its mode at once, whatever the umask: another user may come in the next moment."""
    new = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
    new.chmod(_FOLDER_MODE)
    try:
        new.rename(path)
    except OSError:  # another was faster
        new.rmdir()


def opened_file(folder: int, path: Path) -> int:
    """Open the lease file ``path`` in ``folder``, made if it is not there. Raises :class:`LeaseError` and OSError."""
    # In a sticky folder the kernel refuses O_CREAT on a file of another user (sysctl fs.protected_regular).
    flags = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        try:
            file = os.open(path.name, flags, dir_fd=folder)
        except FileNotFoundError:
            file = _made_file(folder, path.name, flags)
    except PermissionError as error:
        hint = f"its owner, or root, types: chmod {_FOLDER_MODE:o} {path.parent}; chmod 666 {path}"
        raise LeaseError(f"{path}: {error.strerror}: {hint}") from error
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.EISDIR, errno.ENXIO):
            raise
        raise _not_a_file(path) from error
    if not stat.S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        raise _not_a_file(path)
    return file


def _made_file(folder: int, name: str, flags: int) -> int:
    try:
        file = os.open(name, flags | os.O_CREAT | os.O_EXCL, 0o666, dir_fd=folder)
    except FileExistsError:  # another was faster
        return os.open(name, flags, dir_fd=folder)
    os.fchmod(file, 0o666)  # whatever the umask
    return file


def _not_a_file(path: Path) -> LeaseError:
    return LeaseError(f"{path} must be a plain file, and is not (a link is none): remove it: rm -r {path}")


# --- locks and what is written beside them -----------------------------------------------------------------------


def set_lock(file: int, kind: int, start: int, length: int = 1) -> bool:
    """Set or end a lock on some bytes, up to the end where ``length`` is 0; return False where somebody has one."""
    try:
        fcntl.fcntl(file, fcntl.F_OFD_SETLK, _FLOCK.pack(kind, os.SEEK_SET, start, length, 0))
    except BlockingIOError:
        return False
    return True


def conflict_with(file: int, kind: int, start: int) -> int | None:
    """Return the kind of lock that keeps us from one of ``kind``, ``None`` where nothing does; takes none."""
    answer = fcntl.fcntl(file, fcntl.F_OFD_GETLK, _FLOCK.pack(kind, os.SEEK_SET, start, 1, 0))
    found: int = _FLOCK.unpack(answer)[0]
    return None if found == fcntl.F_UNLCK else found
