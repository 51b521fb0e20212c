"""Wheelhouses made by this environment's pip, which finds what the tests have made, or nothing at all."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import sys
import time
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from orchestrator.reach.requirements import Target
from orchestrator.reach.wheelhouse import (
    KEPT_S,
    WheelhouseError,
    downloaded,
    fill,
    found_in,
    main,
    shelf,
    wheelhouse,
)
from tests.integration.leaks import assert_no_more_than, held
from tests.wheels import a_wheel, as_pin, as_wheel

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from orchestrator.reach.requirements import Pin
    from orchestrator.reach.wheelhouse import Wheelhouse

pytestmark = pytest.mark.slow

MINOR = f"{sys.version_info[0]}.{sys.version_info[1]}"
TARGET = Target(kind="cpu", python_minor=MINOR, machine="x86_64")

#: Never reached unless something is broken.
DEADLINE_S = 60.0


@pytest.fixture(autouse=True)
def no_leaks() -> Iterator[None]:
    """Every test gives back its descriptors and children, and leaves no half of a wheelhouse."""
    before, children = held(), psutil.Process().children()
    yield
    assert_no_more_than(before)
    assert psutil.Process().children() == children


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only place where pip looks: its own settings say so."""
    folder = tmp_path / "source"
    folder.mkdir()
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def made(*pins: Pin, **given: Any) -> Wheelhouse:
    return asyncio.run(asyncio.wait_for(downloaded(TARGET, pins, **given), DEADLINE_S))


def names(house: Wheelhouse) -> list[str]:
    return [wheel.name for wheel in house.wheels]


def test_a_wheelhouse_is_downloaded_once(source: Path, cache: Path) -> None:
    paths = [a_wheel(source, "alpha"), a_wheel(source, "beta", tag=f"cp{MINOR.replace('.', '')}-abi3-linux_x86_64")]
    said: list[str] = []
    pins = [as_pin(path) for path in paths]
    house = made(*pins, say=said.append)
    assert house.wheels == tuple(map(as_wheel, paths))
    assert all((house.folder / path.name).read_bytes() == path.read_bytes() for path in paths)
    assert house.folder.is_relative_to(cache)
    assert "downloading wheel 2 of 2: beta" in said
    shutil.rmtree(source)
    said.clear()
    assert made(*pins, say=said.append) == house
    assert said == []


def test_another_list_is_another_wheelhouse(source: Path) -> None:
    alpha, beta = as_pin(a_wheel(source, "alpha")), as_pin(a_wheel(source, "beta"))
    houses = [made(alpha), made(alpha, beta)]
    assert len({house.key for house in houses}) == 2
    assert [len(house.wheels) for house in houses] == [1, 2]


def test_files_with_another_hash_are_refused(source: Path) -> None:
    pin = as_pin(a_wheel(source))
    a_wheel(source, code="VALUE = 'evil'\n")
    with pytest.raises(WheelhouseError, match="THESE PACKAGES DO NOT MATCH THE HASHES"):
        made(pin)
    assert list(shelf().iterdir()) == []


def test_what_pip_cannot_find_is_named(source: Path) -> None:
    pin = as_pin(a_wheel(source))
    (source / "alpha-1.0-py3-none-any.whl").unlink()
    with pytest.raises(WheelhouseError, match=r"alpha==1\.0") as failed:
        made(pin)
    assert "cluster.wheelhouse" in (failed.value.remedy or "")
    assert list(shelf().iterdir()) == []


def test_wheels_for_another_processor_are_found_from_here(source: Path) -> None:
    paths = [a_wheel(source, tag=f"cp39-abi3-manylinux_2_27_{machine}") for machine in ("x86_64", "aarch64")]
    other = Target(kind="gpu", python_minor="3.10", machine="aarch64")
    house = asyncio.run(downloaded(other, [as_pin(paths[1])]))
    assert names(house) == [paths[1].name]


def test_a_wheelhouse_of_which_a_part_was_removed_is_made_anew(source: Path) -> None:
    pins = [as_pin(a_wheel(source, "alpha")), as_pin(a_wheel(source, "beta"))]
    house = made(*pins)
    (house.folder / "beta-1.0-py3-none-any.whl").unlink()
    assert made(*pins) == house
    assert (house.folder / "beta-1.0-py3-none-any.whl").exists()
    assert list(shelf().iterdir()) == [house.folder]


def test_two_heads_that_share_a_home_may_make_the_same_at_once(source: Path) -> None:
    pins = [as_pin(a_wheel(source, "alpha")), as_pin(a_wheel(source, "beta"))]

    async def both() -> list[Wheelhouse]:
        return await asyncio.gather(*(downloaded(TARGET, pins) for _ in range(3)))

    one, *others = asyncio.run(both())
    assert others == [one, one]
    assert list(shelf().iterdir()) == [one.folder]


def test_a_wheelhouse_that_nobody_used_for_long_is_removed_when_another_is_made(source: Path) -> None:
    alpha, beta, gamma = (as_pin(a_wheel(source, name)) for name in ("alpha", "beta", "gamma"))
    old, used = made(alpha), made(beta)
    killed, running = shelf() / ".new-killed", shelf() / ".new-running"
    for folder in (killed, running):
        folder.mkdir()
    long_ago = time.time() - KEPT_S - 1
    for path in (old.folder / "wheels.json", used.folder / "wheels.json", killed):
        os.utime(path, (long_ago, long_ago))
    assert made(beta) == used
    new = made(gamma)
    assert set(shelf().iterdir()) == {used.folder, new.folder, running}


# --- a download that does not come to its end ------------------------------------------------------------------


@pytest.fixture
def silence(monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """An index that takes calls and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
        monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
        monkeypatch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{server.getsockname()[1]}/simple")
        server.setblocking(False)
        yield server


def test_a_download_that_is_called_off_ends_pip_and_leaves_nothing(silence: socket.socket, tmp_path: Path) -> None:
    pin = as_pin(a_wheel(tmp_path))

    async def scenario() -> None:
        making = asyncio.create_task(downloaded(TARGET, [pin]))
        call, _ = await asyncio.wait_for(asyncio.get_running_loop().sock_accept(silence), DEADLINE_S)
        with call:
            assert len(psutil.Process().children()) == 1
            making.cancel()
            with pytest.raises(asyncio.CancelledError):
                await making

    asyncio.run(scenario())
    assert list(shelf().iterdir()) == []


def test_a_download_that_takes_too_long_is_given_up(silence: socket.socket, tmp_path: Path) -> None:
    with pytest.raises(WheelhouseError, match=r"did not download the wheels for cpu hosts .* within 1 s"):
        made(as_pin(a_wheel(tmp_path)), timeout_s=1.0)
    assert list(shelf().iterdir()) == []


# --- a folder that somebody names ------------------------------------------------------------------------------


def test_a_folder_may_hold_other_things_too(tmp_path: Path) -> None:
    paths = [a_wheel(tmp_path, "alpha"), a_wheel(tmp_path, "beta")]
    (tmp_path / "README.whl").write_text("no wheel")
    a_wheel(tmp_path, "alpha", "2.0")
    house = found_in(tmp_path, TARGET, tuple(map(as_pin, paths)))
    assert house.wheels == tuple(map(as_wheel, paths))
    assert house.folder == tmp_path


def test_what_a_folder_lacks_is_named_with_the_command_that_brings_it(tmp_path: Path) -> None:
    pins = [as_pin(a_wheel(tmp_path / "elsewhere", f"p{i:02}")) for i in range(15)]
    folder = tmp_path / "a lab's"
    a_wheel(folder, "p00")
    with pytest.raises(WheelhouseError) as failed:
        found_in(folder, TARGET, pins)
    assert failed.value.message.endswith(", p11==1.0, p12==1.0 and 2 more")
    assert f"lacks 14 of 15 wheels for cpu hosts with Python {MINOR} on x86_64: p01==1.0, p02" in failed.value.message
    remedy = "python -m orchestrator.reach.wheelhouse cpu {} x86_64 '{}'".format(
        MINOR, str(folder).replace("'", "'\"'\"'")
    )
    assert remedy in (failed.value.remedy or "")


def test_a_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(WheelhouseError, match=r"wheelhouse .*nowhere cannot be read: No such file"):
        asyncio.run(wheelhouse("cpu", MINOR, "x86_64", folder=tmp_path / "nowhere"))


def test_hashes_that_lie_beside_the_wheels_are_taken_for_files_of_that_size_only(source: Path, tmp_path: Path) -> None:
    alpha, beta = a_wheel(source, "alpha"), a_wheel(source, "beta")
    house = made(as_pin(alpha), as_pin(beta))
    folder = tmp_path / "copied"
    fill(folder, house)
    (folder / beta.name).write_bytes(b"something else")
    with pytest.raises(WheelhouseError, match=r"lacks 1 of 2 .*: beta==1\.0"):
        found_in(folder, TARGET, (as_pin(alpha), as_pin(beta)))


# --- the whole -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "minor", "machine", "message"),
    [
        ("cpu", "3.11", "riscv64", "no wheels of TensorFlow for Linux on riscv64"),
        ("cpu", "2.7", "x86_64", "no wheels for Python 2.7"),
        ("../cpu", "3.11", "x86_64", "no list of wheels for ../cpu hosts"),
    ],
)
def test_hosts_that_there_are_no_wheels_for_are_told_what_to_do(
    kind: str, minor: str, machine: str, message: str
) -> None:
    with pytest.raises(WheelhouseError, match=message) as failed:
        asyncio.run(wheelhouse(kind, minor, machine))
    assert "python:" in (failed.value.remedy or "")


def test_the_command_for_a_head_without_internet_says_what_went_wrong(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["cpu", MINOR, "x86_64", str(tmp_path / "folder")]) == 4
    assert "pip did not download the wheels" in capsys.readouterr().err
