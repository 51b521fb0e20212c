from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

from workers.clusterfolder import ClusterFolder, stale

#: Makes a folder, says where, and waits.
_OWNER = """
import pathlib, sys
from workers.clusterfolder import ClusterFolder
print(ClusterFolder.make(pathlib.Path(sys.argv[1])).path, flush=True)
sys.stdin.read()
"""


def _age(path: Path) -> None:
    before = time.time() - 3600
    os.utime(path, (before, before))


def test_a_folder_is_its_users_alone_and_goes() -> None:
    folder = ClusterFolder.make()
    assert stat.S_IMODE(folder.path.stat().st_mode) == 0o700
    assert folder.path.parent == Path("/tmp")
    folder.remove()

    assert not folder.path.exists()


def test_the_next_one_removes_what_a_killed_owner_left_and_nothing_else(tmp_path: Path) -> None:
    argv = [sys.executable, "-c", _OWNER, str(tmp_path)]
    with subprocess.Popen(
        argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]
    ) as owner:
        assert owner.stdout is not None
        left = Path(owner.stdout.readline().strip())
        (left / "token").write_text("secret")
        others = [tmp_path / "muster-leases", tmp_path / "muster-abcdefgh"]  # the latter of an older muster
        for other in others:
            other.mkdir()
        for folder in (left, *others):
            _age(folder)
        assert list(stale(tmp_path)) == []
        owner.send_signal(signal.SIGKILL)
    assert list(stale(tmp_path)) == [left]
    fresh = ClusterFolder.make(tmp_path)

    assert sorted(tmp_path.iterdir()) == sorted([fresh.path, *others])
    fresh.remove()


def test_what_has_just_been_made_is_left_alone(tmp_path: Path) -> None:
    folder = ClusterFolder.make(tmp_path)
    os.close(folder.held)

    assert list(stale(tmp_path)) == []
    _age(folder.path)
    assert list(stale(tmp_path)) == [folder.path]


def test_what_is_left_to_be_looked_at_stays(tmp_path: Path) -> None:
    folder = ClusterFolder.make(tmp_path)
    (folder.path / "ray").mkdir()
    folder.leave()
    _age(folder.path)

    assert list(stale(tmp_path)) == []
    assert [each.name for each in folder.path.iterdir()] == ["ray"]
