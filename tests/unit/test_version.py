from __future__ import annotations

import json
import subprocess
from importlib import metadata
from typing import TYPE_CHECKING

import pytest

from workers import version

if TYPE_CHECKING:
    from pathlib import Path


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=x", "-c", "user.email=x@example.org"]
    ended = subprocess.run(
        ["git", *identity, *arguments], cwd=folder, check=True, capture_output=True, text=True, timeout=60
    )
    return ended.stdout.strip()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    folder = tmp_path / "checkout"
    folder.mkdir()
    git(folder, "init", "-q")
    git(folder, "commit", "-q", "--allow-empty", "-m", "first")
    return folder


def test_a_checkout_tells_its_commit_wherever_git_keeps_it(checkout: Path, tmp_path: Path) -> None:
    told = git(checkout, "rev-parse", "HEAD")
    assert version.commit(checkout) == told
    git(checkout, "pack-refs", "--all")
    assert version.commit(checkout) == told
    git(checkout, "worktree", "add", "-q", "-b", "side", str(tmp_path / "side"))
    assert version.commit(tmp_path / "side") == told
    git(checkout, "checkout", "-q", "--detach")
    assert version.commit(checkout) == told


class Installed:
    def __init__(self, text: str | None) -> None:
        self._text = text

    def read_text(self, name: str) -> str | None:
        assert name == "direct_url.json"
        return self._text


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (json.dumps({"url": "https://example.org", "vcs_info": {"vcs": "git", "commit_id": "abc"}}), "abc"),
        (json.dumps({"url": "file:///x", "dir_info": {}}), None),
        (None, None),
        ("{", None),
    ],
)
def test_what_pip_was_given_tells_its_commit(
    text: str | None, told: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metadata, "distribution", lambda name: Installed(text))
    assert version.commit(tmp_path) == told


def test_what_is_not_installed_has_no_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def lacking(name: str) -> Installed:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "distribution", lacking)
    assert version.commit(tmp_path) is None
