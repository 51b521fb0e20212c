"""Fixtures of the integration tests."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.sshd import ssh_lab

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.sshd import SshLab


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SshLab]:
    """A person's home and real SSH servers on the loopback interface."""
    with ssh_lab(tmp_path / "lab", monkeypatch) as made:
        yield made
