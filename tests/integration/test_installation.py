"""Environments made by a real keeper with a real pip, of wheels that the head's end brings."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.resources
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from orchestrator.reach.keeper import OrderFailedError, open_keeper
from orchestrator.reach.requirements import Target, pins_for
from orchestrator.reach.wheelhouse import downloaded
from tests.integration.leaks import assert_no_more_than, held
from tests.integration.local_reach import DEADLINE_S, LocalReach
from tests.wheels import a_pip_wheel, a_wheel, as_wheel
from workers.orders import EnvironmentFound, EnvironmentInstalled, FindEnvironment, InstallEnvironment
from workers.wheelshelf import KEPT_S

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine, Iterator, Sequence

    from orchestrator.reach.keeper import Keeper

pytestmark = pytest.mark.slow

#: Several times pip, on a machine that is busy with other things.
PATIENCE_S = 120.0

KEY = "0123456789abcdef"


@pytest.fixture(autouse=True)
def no_leaks() -> Iterator[None]:
    """Every test gives back its threads, descriptors and children."""
    before, children = held(), psutil.Process().children()
    yield
    assert_no_more_than(before)
    assert psutil.Process().children() == children


@pytest.fixture
def home(tmp_path: Path) -> Path:
    folder = tmp_path / "the home"
    folder.mkdir()
    return folder


@pytest.fixture
def wheels(tmp_path: Path) -> list[Path]:
    folder = tmp_path / "wheels"
    return [a_pip_wheel(folder), a_wheel(folder, "alpha")]


def run(scenario: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(scenario, PATIENCE_S))


@contextlib.asynccontextmanager
async def a_keeper(home: Path, python: str = sys.executable, **variables: str) -> AsyncIterator[Keeper]:
    keeper = await open_keeper(LocalReach(home, **variables), python=python, grace_s=0.0)
    try:
        yield keeper
    finally:
        await keeper.close()


async def found(keeper: Keeper, wheels: Sequence[Path], key: str = KEY) -> EnvironmentFound:
    order = FindEnvironment(key=key, wheels=tuple(map(as_wheel, wheels)))
    return await keeper.ask(order, EnvironmentFound, timeout_s=DEADLINE_S)


async def brought(keeper: Keeper, wheels: Sequence[Path], key: str = KEY) -> int:
    """Bring what is missing, as the head does; return how many wheels that were."""
    missing = (await found(keeper, wheels, key)).missing
    travelling = [path for path in wheels if as_wheel(path).sha256 in missing]
    for path in travelling:
        await keeper.send_wheel(as_wheel(path), path, timeout_s=DEADLINE_S)
    return len(travelling)


async def installed(keeper: Keeper, wheels: Sequence[Path], key: str = KEY) -> Path:
    order = InstallEnvironment(key=key, wheels=tuple(map(as_wheel, wheels)))
    return Path((await keeper.ask(order, EnvironmentInstalled, timeout_s=PATIENCE_S)).python)


def says(python: Path, code: str) -> str:
    ended = subprocess.run([python, "-I", "-c", code], capture_output=True, text=True, timeout=DEADLINE_S)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout.strip()


def environments(home: Path) -> list[Path]:
    return [path for path in (home / ".cache/muster/environments").iterdir() if path.is_dir()]


def make_old(folder: Path) -> None:
    long_ago = time.time() - KEPT_S - 1
    os.utime(folder, (long_ago, long_ago))


def an_interpreter_without_ensurepip(folder: Path) -> str:
    """This Python as some distributions ship it: the same library, but for the means to bring pip into a venv."""
    stdlib = Path(sysconfig.get_path("stdlib"))
    lib = folder / "lib" / stdlib.name
    lib.mkdir(parents=True)
    (folder / "bin").mkdir()
    for source, target in ((stdlib, lib), (stdlib.parent, folder / "lib")):
        for path in source.iterdir():
            if path.name not in ("ensurepip", "site-packages", "__pycache__") and not (target / path.name).exists():
                (target / path.name).symlink_to(path)
    python = folder / "bin" / stdlib.name
    shutil.copy2(Path(sys.executable).resolve(), python)
    return str(python)


def test_an_environment_is_made_once_and_found_after_that(home: Path, wheels: list[Path]) -> None:
    async def scenario() -> None:
        async with a_keeper(home) as keeper:
            assert await brought(keeper, wheels) == 2
            assert (await found(keeper, wheels)) == EnvironmentFound(python=None)
            python = await installed(keeper, wheels)
        assert says(python, "import alpha; print(alpha.VALUE)") == "1"
        assert python.is_relative_to(home)
        async with a_keeper(home) as keeper:
            assert (await found(keeper, wheels)) == EnvironmentFound(python=str(python))
            assert await brought(keeper, wheels) == 0

    run(scenario())


def test_only_changed_wheels_travel(home: Path, wheels: list[Path], tmp_path: Path) -> None:
    newer = [wheels[0], a_wheel(tmp_path, "alpha", "1.1", code="VALUE = 2\n")]

    async def scenario() -> None:
        async with a_keeper(home) as keeper:
            await brought(keeper, wheels)
            assert await brought(keeper, newer, "another") == 1
            pythons = [await installed(keeper, wheels), await installed(keeper, newer, "another")]
        assert [says(python, "import alpha; print(alpha.VALUE)") for python in pythons] == ["1", "2"]

    run(scenario())


def test_neither_pip_nor_ensurepip_nor_settings_of_the_user_are_needed_or_heeded(
    home: Path, wheels: list[Path], tmp_path: Path
) -> None:
    bare = an_interpreter_without_ensurepip(tmp_path / "bare")
    lacks = "import importlib.util as u; print([u.find_spec(name) for name in ('ensurepip', 'pip')])"
    assert says(Path(bare), lacks) == "[None, None]"
    hostile = {"PIP_TARGET": str(tmp_path / "elsewhere"), "PIP_INDEX_URL": "http://127.0.0.1:9", "PYTHONHASHSEED": "x"}
    (home / ".config/pip").mkdir(parents=True)
    (home / ".config/pip/pip.conf").write_text("[install]\nuser = true\nrequire-hashes = true\n")

    async def scenario() -> None:
        async with a_keeper(home, bare, **hostile) as keeper:
            await brought(keeper, wheels)
            python = await installed(keeper, wheels)
        assert says(python, "import alpha, sys; print(sys.base_prefix)") == str(tmp_path / "bare")

    run(scenario())
    assert not (tmp_path / "elsewhere").exists()


def test_real_packages_come_from_the_registry_to_a_host_that_has_only_python(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The only test here that needs the registry: small packages of the list that ships, one of them compiled."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    bare = an_interpreter_without_ensurepip(tmp_path / "bare")
    target = Target(kind="cpu", python_minor=sysconfig.get_python_version(), machine=platform.machine())
    locked = importlib.resources.files("orchestrator.reach").joinpath("data", "hosts-cpu.txt").read_text()
    pins = [pin for pin in pins_for(target, locked) if pin.name in ("pip", "six", "wrapt")]

    async def scenario() -> None:
        house = await downloaded(target, pins)
        wheels = [house.folder / wheel.name for wheel in house.wheels]
        async with a_keeper(home, bare) as keeper:
            assert await brought(keeper, wheels, house.key) == 3
            python = await installed(keeper, wheels, house.key)
        assert says(python, "import six, wrapt._wrappers; print(six.PY3)") == "True"

    run(scenario())


def test_modules_are_compiled_before_they_are_measured(home: Path, wheels: list[Path]) -> None:
    async def scenario() -> None:
        async with a_keeper(home, PYTHONDONTWRITEBYTECODE="1") as keeper:
            await brought(keeper, wheels)
            folder = (await installed(keeper, wheels)).parents[1]
        assert len(list(folder.rglob("__pycache__/alpha.*.pyc"))) == 1

    run(scenario())


def test_what_was_made_in_part_is_made_anew(home: Path, wheels: list[Path]) -> None:
    async def scenario() -> None:
        async with a_keeper(home) as keeper:
            await brought(keeper, wheels)
            folder = (await installed(keeper, wheels)).parents[1]
            (folder / "complete").unlink()
            (folder / "rest").touch()
            assert (await found(keeper, wheels)) == EnvironmentFound(python=None)
            python = await installed(keeper, wheels)
            assert not (folder / "rest").exists()
        assert says(python, "import alpha; print(alpha.VALUE)") == "1"

    run(scenario())


def test_an_environment_whose_interpreter_is_gone_is_made_anew(home: Path, wheels: list[Path], tmp_path: Path) -> None:
    async def scenario() -> None:
        async with a_keeper(home) as keeper:
            await brought(keeper, wheels)
            python = await installed(keeper, wheels)
            python.unlink()
            python.symlink_to(tmp_path / "an upgrade has removed it")
            assert (await found(keeper, wheels)) == EnvironmentFound(python=None)
            assert says(await installed(keeper, wheels), "import alpha; print(alpha.VALUE)") == "1"

    run(scenario())


def test_hosts_that_share_a_home_install_at_once(home: Path, wheels: list[Path]) -> None:
    async def scenario() -> None:
        async with a_keeper(home) as one, a_keeper(home) as two, a_keeper(home) as three:
            keepers = (one, two, three)
            await asyncio.gather(*(brought(keeper, wheels) for keeper in keepers))
            pythons = await asyncio.gather(*(installed(keeper, wheels) for keeper in keepers))
            again = await asyncio.gather(*(found(keeper, wheels) for keeper in keepers))
        assert len(set(pythons)) == 1
        assert {each.python for each in again} == {str(pythons[0])}
        assert says(pythons[0], "import alpha; print(alpha.VALUE)") == "1"
        assert len(environments(home)) == 1

    run(scenario())


def test_an_environment_that_does_not_work_is_not_kept(home: Path, wheels: list[Path], tmp_path: Path) -> None:
    broken = [*wheels, a_wheel(tmp_path, "numpy", code="raise ImportError('it needs a newer libc')\n")]

    async def scenario() -> None:
        async with a_keeper(home) as keeper:
            await brought(keeper, broken)
            with pytest.raises(OrderFailedError, match=r"the new environment does not work .*a newer libc"):
                await installed(keeper, broken)
            assert (await found(keeper, broken)) == EnvironmentFound(python=None)
        assert environments(home) == []

    run(scenario())


def test_what_pip_minds_is_told(home: Path, wheels: list[Path], tmp_path: Path) -> None:
    foreign = [*wheels, a_wheel(tmp_path, "beta", tag="cp27-cp27m-win32")]

    async def scenario() -> None:
        async with a_keeper(home) as keeper:
            await brought(keeper, foreign)
            with pytest.raises(OrderFailedError, match=r"beta-1\.0.* is not a supported wheel") as failed:
                await installed(keeper, foreign)
        assert "python:" in (failed.value.remedy or "")
        assert environments(home) == []

    run(scenario())


def test_wheels_without_pip_are_told(home: Path, wheels: list[Path]) -> None:
    async def scenario() -> None:
        async with a_keeper(home) as keeper:
            await brought(keeper, wheels)
            with pytest.raises(OrderFailedError, match="no pip among the wheels"):
                await installed(keeper, wheels[1:])

    run(scenario())


def test_a_wheel_that_was_damaged_on_the_host_is_brought_again(home: Path, wheels: list[Path]) -> None:
    def spoil(path: Path, content: bytes) -> None:
        kept = home / ".cache/muster/wheels" / as_wheel(path).sha256 / path.name
        assert len(kept.read_bytes()) == len(content)
        kept.write_bytes(content)

    whole = wheels[1].read_bytes()
    first = 30 + len("alpha.py")  # behind the header of its first file

    async def scenario() -> None:
        async with a_keeper(home) as keeper:
            await brought(keeper, wheels)
            for content in (bytes(len(whole)), whole[:first] + b"\0\0\0" + whole[first + 3 :]):
                spoil(wheels[1], content)
                with pytest.raises(OrderFailedError, match="damaged"):
                    await installed(keeper, wheels)
                assert await brought(keeper, wheels) == 1
            python = await installed(keeper, wheels)
        assert says(python, "import alpha; print(alpha.VALUE)") == "1"

    run(scenario())


def test_environments_that_nobody_used_for_long_are_removed_but_never_one_in_use(
    home: Path, wheels: list[Path]
) -> None:
    async def scenario() -> None:
        async with a_keeper(home) as other:
            async with a_keeper(home) as user:
                await brought(user, wheels)
                await installed(user, wheels, "made")
            async with a_keeper(home) as user:
                folder = Path(str((await found(user, wheels, "made")).python)).parents[1]
                make_old(folder)
                await installed(other, wheels, "second")
                assert folder.exists()
            make_old(folder)
            await installed(other, wheels, "third")
            assert not folder.exists()
        names = {path.name.partition("-")[0] for path in environments(home)}
        assert names == {"second", "third"}

    run(scenario())
