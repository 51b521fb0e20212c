from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from orchestrator.errors import UsageError
from orchestrator.store.location import locate

if TYPE_CHECKING:
    from pathlib import Path


def test_three_slashes_are_relative_and_four_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert locate("sqlite:///lab.db").path == tmp_path / "lab.db"
    assert locate(f"sqlite:///{tmp_path}/lab.db").path == tmp_path / "lab.db"


def test_a_tilde_is_the_users_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert locate("sqlite:///~/lab.db").path == tmp_path / "lab.db"


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///", "sqlite:///:memory:"])
def test_no_name_is_memory(url: str) -> None:
    assert locate(url).path is None


def test_a_link_and_its_target_are_one_store(tmp_path: Path) -> None:
    (tmp_path / "link.db").symlink_to(tmp_path / "lab.db")
    assert locate(f"sqlite:///{tmp_path}/link.db").path == tmp_path / "lab.db"


@pytest.mark.parametrize(
    ("url", "message", "remedy"),
    [
        ("lab.db", "'lab.db' is not a store's URL", "sqlite:///lab.db"),
        ("", "'' is not a store's URL", "sqlite:///muster.db"),
        ("sqlite:/lab.db", "is not a store's URL", "sqlite:///"),
        ("sqlite://lab.db", "three slashes", "sqlite:///lab.db"),
        ("postgresql://db/lab", "'postgresql' is not supported yet", "sqlite:///muster.db"),
        ("sqlite:///lab.db?mode=memory", "takes no options", "name alone"),
        ("sqlite:///lab\0.db", "takes no options", "name alone"),
    ],
)
def test_other_urls_are_refused_with_what_to_write(url: str, message: str, remedy: str) -> None:
    with pytest.raises(UsageError) as refused:
        locate(url)
    assert message in refused.value.message
    assert remedy in (refused.value.remedy or "")


def test_a_missing_folder_is_named_with_the_command_that_makes_it(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="its folder does not exist") as refused:
        locate(f"sqlite:///{tmp_path}/results/lab.db")
    assert f"mkdir -p {tmp_path}/results" in (refused.value.remedy or "")


def test_a_folder_is_not_a_store(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is not a file") as refused:
        locate(f"sqlite:///{tmp_path}")
    assert f"sqlite:///{tmp_path}/muster.db" in (refused.value.remedy or "")


def test_a_device_is_not_a_store() -> None:
    with pytest.raises(UsageError, match="/dev/zero is not a file"):
        locate("sqlite:////dev/zero")
