from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from workers.headroom import headroom_bytes

if TYPE_CHECKING:
    from pathlib import Path

GIB = 2**30


def a_host(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


MEMINFO = {"proc/meminfo": f"MemTotal: {32 * 2**20} kB\nMemAvailable:   {16 * 2**20} kB\n"}


def test_three_quarters_of_what_is_available_may_be_taken(tmp_path: Path) -> None:
    assert headroom_bytes(a_host(tmp_path, MEMINFO)) == 12 * GIB


def test_a_host_that_tells_nothing_sets_no_limit(tmp_path: Path) -> None:
    assert headroom_bytes(tmp_path) is None


@pytest.mark.parametrize(
    ("group", "folder"),
    [
        ("0::/user/muster", "sys/fs/cgroup/user/muster"),
        ("0::/user/muster", "sys/fs/cgroup/user"),
        ("0::/user/muster", "sys/fs/cgroup"),
        ("0::/../elsewhere", "sys/fs/cgroup"),
    ],
)
def test_what_is_left_in_a_control_group_or_one_above_it_counts(tmp_path: Path, group: str, folder: str) -> None:
    files = {
        **MEMINFO,
        "proc/self/cgroup": f"{group}\n",
        f"{folder}/memory.max": f"{8 * GIB}\n",
        f"{folder}/memory.current": f"{5 * GIB}\n",
        f"{folder}/memory.stat": f"anon 1\ninactive_file {GIB}\nactive_file 7\n",
    }
    assert headroom_bytes(a_host(tmp_path, files)) == 3 * GIB


def test_a_control_group_of_version_1_counts_as_well(tmp_path: Path) -> None:
    folder = "sys/fs/cgroup/memory/docker/1"
    files = {
        **MEMINFO,
        "proc/self/cgroup": "5:cpu:/\n4:memory:/docker/1\n",
        f"{folder}/memory.limit_in_bytes": f"{8 * GIB}\n",
        f"{folder}/memory.usage_in_bytes": f"{4 * GIB}\n",
    }
    assert headroom_bytes(a_host(tmp_path, files)) == 3 * GIB


def test_a_group_without_a_limit_sets_none(tmp_path: Path) -> None:
    files = {
        **MEMINFO,
        "proc/self/cgroup": "0::/\n",
        "sys/fs/cgroup/memory.max": "max\n",
        "sys/fs/cgroup/memory.current": "5\n",
    }
    assert headroom_bytes(a_host(tmp_path, files)) == 12 * GIB


def test_a_limited_process_gets_no_more_and_lives_to_say_so() -> None:
    code = (
        "from workers.headroom import limit_data\n"
        "limit_data(2**28)\n"
        "limit_data(2**29)\n"
        "held = bytearray(2**27)\n"
        "try:\n"
        "    bytearray(2**28)\n"
        "except MemoryError:\n"
        "    print('no more')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "no more\n"
