"""Leases between real processes and real users."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from tests.builders import a_device
from tests.integration.muster import environment
from workers.codec import to_json
from workers.lease import Holder, Lease, claims_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

DEADLINE_S: Final = 60.0
NOBODY: Final = 65534

GPU = a_device("gpu01", "gpu:0")

#: Becomes a user, takes the GPU, says so, and keeps it until its standard input ends.
_HOLDER: Final = """\
import os, subprocess, sys, time
from pathlib import Path
from workers.codec import from_json
from workers.lease import Lease, claims_of
from workers.lockfiles import LeaseError
from workers.protocol import Device

folder, device, uid, heir = sys.argv[1:]
if int(uid) != os.geteuid():
    os.setuid(int(uid))
lease = Lease(claims_of(from_json(Device, device), is_alone=False), run_id="3f2a", head="head01", folder=Path(folder))
try:
    assert lease.take(60, pause=time.sleep, tell=lambda reason: print("waits:", reason, flush=True))
except LeaseError as error:
    sys.exit(print("refused:", error, flush=True))
if heir:
    child = subprocess.Popen(["sleep", "600"], pass_fds=lease.descriptors)
    print("child", child.pid, flush=True)
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder in a place that every user can get at."""
    place = Path(tempfile.mkdtemp())
    place.chmod(0o755)
    yield place / "leases"
    shutil.rmtree(place)


@contextlib.contextmanager
def holder(folder: Path, *, uid: int | None = None, heir: str = "") -> Iterator[subprocess.Popen[str]]:
    """Another process that takes the GPU; its standard output is still to be read."""
    arguments = [str(folder), to_json(GPU), str(os.geteuid() if uid is None else uid), heir]
    process = subprocess.Popen(
        [sys.executable, "-c", _HOLDER, *arguments],
        env=environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        with process:  # waits, and closes the pipes
            pass


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    alarm = threading.Timer(DEADLINE_S, process.kill)
    alarm.start()
    try:
        return process.stdout.readline().strip()
    finally:
        alarm.cancel()


def a_lease(folder: Path) -> Lease:
    return Lease(claims_of(GPU, is_alone=False), run_id="here", head="head02", folder=folder)


def is_taken(lease: Lease, then: Callable[[], object]) -> tuple[bool, list[str]]:
    """Take a lease; once that has to wait, do something. Return whether it was had, and what was told."""
    told: list[str] = []
    once = [then]
    never = threading.Event()

    def pause(seconds: float) -> bool:
        while once:
            once.pop()()
        return never.wait(seconds)

    return lease.take(DEADLINE_S, pause=pause, tell=told.append), told


def test_a_holder_that_is_killed_gives_back_by_dying(folder: Path) -> None:
    with holder(folder) as other, a_lease(folder) as lease:
        assert line(other) == "held"
        is_ours, told = is_taken(lease, then=other.kill)
        assert is_ours
        assert re.match(r"the GPU is held by \S+ \(run 3f2a of head01, since ", told[0])


def test_one_process_waits_for_another(folder: Path) -> None:
    with holder(folder) as first:
        assert line(first) == "held"
        with holder(folder) as second:
            assert line(second).startswith("waits: the GPU is held by")
            assert first.stdin is not None
            first.stdin.close()
            assert line(second) == "held"


def test_a_child_holds_the_lease_after_its_parent_was_killed(folder: Path) -> None:
    with holder(folder, heir="yes") as other, a_lease(folder) as lease:
        child = int(line(other).removeprefix("child "))
        try:
            assert line(other) == "held"
            other.kill()
            other.wait(DEADLINE_S)
            is_ours, told = is_taken(lease, then=lambda: os.kill(child, signal.SIGKILL))
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
        assert is_ours
        assert told


def test_a_lease_that_is_given_back_is_free_although_a_child_has_it_too(folder: Path) -> None:
    with a_lease(folder) as lease, a_lease(folder) as another:
        assert lease.take(DEADLINE_S, pause=lambda _: True, tell=print)
        child = subprocess.Popen(["sleep", "600"], pass_fds=lease.descriptors)
        try:
            lease.give_back()
            assert is_taken(another, then=lambda: None) == (True, [])
        finally:
            child.kill()
            child.wait()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become other users")
@pytest.mark.parametrize("first", ["root", "nobody"])
def test_users_wait_for_each_other(folder: Path, first: str) -> None:
    one, other = (0, NOBODY) if first == "root" else (NOBODY, 0)
    if first == "nobody":
        folder.parent.chmod(0o1777)
    with holder(folder, uid=one) as holding:
        assert line(holding) == "held"
        with holder(folder, uid=other) as waiting:
            assert line(waiting) == f"waits: the GPU is held by {first}" + line_end(folder)
            holding.kill()
            assert line(waiting) == "held"
    assert {path.stat().st_uid for path in folder.iterdir()} == {one}


def line_end(folder: Path) -> str:
    """The rest of what is told, which holds the time."""
    found = re.search(rb'"since":([0-9.]+)', next(folder.glob("gpu-*")).read_bytes())
    assert found is not None
    return str(Holder(user="", head="head01", run_id="3f2a", pid=0, since=float(found[1])))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become other users")
def test_a_folder_that_others_cannot_use_is_a_clear_error(folder: Path) -> None:
    folder.mkdir(mode=0o755)
    with holder(folder, uid=NOBODY) as other:
        remedy = f"chmod 1777 {folder}; chmod 666 {folder}/host"
        assert line(other) == f"refused: {folder}/host: Permission denied: its owner, or root, types: {remedy}"
