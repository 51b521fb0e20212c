"""Wheels on a host: they come over a stream that goes on behind them, and are there whole or not at all."""

from __future__ import annotations

import dataclasses
import io
import os
import shutil
import time
from collections import namedtuple
from typing import TYPE_CHECKING

import pytest

from tests.wheels import a_wheel, as_wheel
from workers.installation import find_environment, take_wheel
from workers.orders import FindEnvironment, TakeWheel
from workers.wheelshelf import KEPT_S, InstallationError, remove_unused_wheels, shelf

if TYPE_CHECKING:
    from pathlib import Path

    from workers.orders import Wheel

NEXT = b'{"event":"Locate"}\n'


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def _missing(*wheels: Wheel) -> tuple[str, ...]:
    found = find_environment(FindEnvironment(key="abc", wheels=wheels))
    assert found.python is None
    return found.missing


def _refusal(wheel: Wheel, sent: bytes) -> InstallationError:
    """Offer a wheel that is refused; the stream must be in step, and nothing be left behind."""
    stream = io.BytesIO(sent + NEXT)
    with pytest.raises(InstallationError) as refused:
        take_wheel(TakeWheel(wheel=wheel), stream)
    assert stream.read() == NEXT
    assert [path for path in shelf("wheels").rglob("*") if path.is_file()] == []
    return refused.value


def test_a_wheel_is_missing_until_it_was_taken(tmp_path: Path) -> None:
    paths = [a_wheel(tmp_path, "alpha"), a_wheel(tmp_path, "beta")]
    alpha, beta = wheels = [as_wheel(path) for path in paths]
    assert _missing(*wheels) == (alpha.sha256, beta.sha256)
    stream = io.BytesIO(paths[0].read_bytes() + NEXT)
    take_wheel(TakeWheel(wheel=alpha), stream)
    assert stream.read() == NEXT
    assert _missing(*wheels) == (beta.sha256,)


def test_a_wheel_that_another_host_has_taken_meanwhile_is_read_all_the_same(tmp_path: Path) -> None:
    path = a_wheel(tmp_path)
    for _ in range(2):
        stream = io.BytesIO(path.read_bytes() + NEXT)
        take_wheel(TakeWheel(wheel=as_wheel(path)), stream)
        assert stream.read() == NEXT


def test_a_wheel_of_another_size_than_it_should_have_is_missing(tmp_path: Path) -> None:
    path = a_wheel(tmp_path)
    wheel = as_wheel(path)
    take_wheel(TakeWheel(wheel=wheel), io.BytesIO(path.read_bytes()))
    kept = shelf("wheels") / wheel.sha256 / wheel.name
    kept.write_bytes(kept.read_bytes()[:-1])
    assert _missing(wheel) == (wheel.sha256,)


def test_a_wheel_with_other_bytes_is_refused(tmp_path: Path) -> None:
    path = a_wheel(tmp_path)
    sent = bytes(len(path.read_bytes()))
    assert "is not what it was on the head" in _refusal(as_wheel(path), sent).reason


def test_a_wheel_that_ends_early_is_refused(tmp_path: Path) -> None:
    path = a_wheel(tmp_path)
    wheel = as_wheel(path)
    with pytest.raises(InstallationError, match=f"ended after 100 of {wheel.size} bytes"):
        take_wheel(TakeWheel(wheel=wheel), io.BytesIO(path.read_bytes()[:100]))
    assert list(shelf("wheels").iterdir()) == []


@pytest.mark.parametrize(
    "changed",
    [
        {"name": "../alpha-1.0-py3-none-any.whl"},
        {"name": "/etc/alpha-1.0-py3-none-any.whl"},
        {"name": "--target=x-1.0-py3-none-any.whl"},
        {"name": "alpha-1.0-py3-none-any.whl\n"},
        {"name": "alpha.tar.gz"},
        {"name": ""},
        {"sha256": "../../x"},
        {"sha256": "A" * 64},
    ],
)
def test_a_name_that_could_lead_elsewhere_is_refused(tmp_path: Path, changed: dict[str, str]) -> None:
    path = a_wheel(tmp_path)
    wheel = dataclasses.replace(as_wheel(path), **changed)  # type: ignore[arg-type]  # mypy sees no names in a dict
    assert "is no wheel" in _refusal(wheel, path.read_bytes()).reason


@pytest.mark.parametrize("key", ["", "../x", "a/b", ".", "A", "x" * 200])
def test_a_key_that_could_lead_elsewhere_is_refused(key: str) -> None:
    with pytest.raises(InstallationError, match="no key"):
        find_environment(FindEnvironment(key=key, wheels=()))


def test_wheels_that_would_not_fit_are_refused_before_they_are_sent_and_when_they_come(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = a_wheel(tmp_path)
    wheel = as_wheel(path)
    usage = namedtuple("usage", "total used free")
    # A disk cannot be filled for a test.
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**9, 10**9, 10))
    with pytest.raises(InstallationError, match=r"needs 0\.0 GB in .*, and 0\.0 GB are free") as refused:
        find_environment(FindEnvironment(key="abc", wheels=(wheel,)))
    assert str(home) in (refused.value.remedy or "")
    assert "are free" in _refusal(wheel, path.read_bytes()).reason


def test_a_home_that_cannot_be_written_is_told_with_its_place(tmp_path: Path, home: Path) -> None:
    home.mkdir()
    (home / ".cache").write_text("not a folder")
    path = a_wheel(tmp_path)
    stream = io.BytesIO(path.read_bytes() + NEXT)
    with pytest.raises(InstallationError, match=str(home)):
        take_wheel(TakeWheel(wheel=as_wheel(path)), stream)
    assert stream.read() == NEXT


def test_wheels_that_nobody_used_for_long_are_removed_and_others_kept(tmp_path: Path) -> None:
    paths = [a_wheel(tmp_path, name) for name in ("alpha", "beta", "gamma")]
    wheels = [as_wheel(path) for path in paths]
    for path, wheel in zip(paths, wheels, strict=True):
        take_wheel(TakeWheel(wheel=wheel), io.BytesIO(path.read_bytes()))
    long_ago = time.time() - KEPT_S - 1
    for wheel in wheels[:2]:
        os.utime(shelf("wheels") / wheel.sha256, (long_ago, long_ago))
    half = shelf("wheels") / ".new-half"
    half.touch()
    assert _missing(wheels[1]) == ()  # to be asked for is to be used
    remove_unused_wheels(time.time())
    assert half.exists()
    assert _missing(*wheels) == (wheels[0].sha256,)
    os.utime(half, (long_ago, long_ago))
    remove_unused_wheels(time.time())
    assert not half.exists()
