"""The disk under the store fills up in the middle of a run."""

from __future__ import annotations

import shutil
import subprocess
import time
from typing import TYPE_CHECKING

import pytest

from tests.faults.running import Watched, config, kept_in
from tests.lab.hosts import HOME

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.faults.figures import Figures
    from tests.lab.lab import Lab

pytestmark = pytest.mark.timeout(500)


@pytest.fixture
def tiny_disk(lab: Lab) -> Iterator[Path]:
    """A disk of a few hundred kilobytes on the head."""
    inside = f"{HOME}/work/tiny"
    mount = f"mkdir -p {inside} && mount -t tmpfs -o size=2m,mode=1777 tmpfs {inside}"
    mounted = lab.head.run("sh", "-c", mount, root=True)
    assert mounted.code == 0, mounted.err
    yield lab.head.outside / inside.lstrip("/")
    lab.head.run("sh", "-c", f"umount {inside}; rmdir {inside}; rm -rf /run/mount", root=True)


def test_a_full_disk_stops_the_run_and_resume_takes_what_the_hosts_have_kept(
    lab: Lab, figures: Figures, tiny_disk: Path, tmp_path: Path
) -> None:
    text = config(lab, "h1", "h2", store=f"sqlite:///{HOME}/work/tiny/muster.db")
    with Watched(lab, text) as run:
        database = tiny_disk / "muster.db"
        run.heard(r"h1/cpu: .*ms a step")
        filling = tiny_disk / "filling"
        hit_at = time.monotonic()
        _fill(filling)
        noticed_at = run.heard(r"the store failed", since=hit_at)
        assert run.end() == 3, run.err
    assert run.has_said("no space is left")
    assert run.has_said("muster resume")
    # SQLite cannot even be read where it finds no room for its index of the log.
    filling.unlink()
    before = kept_in(_copied(database, tmp_path / "before"))
    spooled = [path for name in ("h1", "h2") for path in (lab[name].home / ".local/state/muster").rglob("*.json")]
    assert spooled, "the hosts keep nothing"
    with Watched(lab, None, run.folder, "resume", "--store", f"sqlite:///{HOME}/work/tiny/muster.db") as resumed:
        went_on_at = resumed.heard(r"h[12]/cpu: .*(starting|ms a step)")
        resumed_at = resumed.lines[0][0]
        assert resumed.end() == 0, resumed.err
    after = kept_in(_copied(database, tmp_path / "after"))
    assert [each.number for each in after] == [1] * 8, "something that had been measured was measured again"
    figures.nothing_lost(
        before,
        after,
        kind="disk",
        fault="the disk under the store is full, then has room again and `muster resume`",
        noticed_s=noticed_at - hit_at,
        went_on_s=went_on_at - resumed_at,
        outcome=f"{len(spooled)} results waited on their hosts; none was measured again",
    )


def _copied(database: Path, folder: Path) -> Path:
    """Return a copy of a store with its log: SQLite does not find its way through another mount namespace."""
    folder.mkdir()
    for path in database.parent.glob(f"{database.name}*"):
        shutil.copy(path, folder / path.name)
    return folder / database.name


def _fill(path: Path) -> None:
    """Write until nothing more goes on the disk."""
    subprocess.run(["dd", "if=/dev/zero", f"of={path}", "bs=4k"], capture_output=True)
