from __future__ import annotations

from typing import Final

import pytest

from orchestrator.config.load import load_text
from orchestrator.config.sweep import expand
from orchestrator.errors import ConfigError
from tests.documentation.pages import blocks

CONFIGS: Final = [block for block in blocks() if block.info == "yaml config"]


@pytest.mark.parametrize("block", CONFIGS, ids=lambda block: block.page)
def test_every_config_loads_without_a_remark(block: object) -> None:
    loaded = load_text(block.text, block.page)  # type: ignore[attr-defined]
    assert loaded.notes == ()
    assert expand(loaded.config.workloads)


def test_the_pages_show_configs() -> None:
    assert {"README.md", "docs/tutorial.md"} <= {block.page for block in CONFIGS}


def test_the_tutorial_s_sweep_is_as_large_as_it_says() -> None:
    text = next(block.text for block in CONFIGS if "name: sweep" in block.text)
    assert len(expand(load_text(text, "tutorial").config.workloads)) == 10


def test_a_config_that_does_not_load_is_seen() -> None:
    with pytest.raises(ConfigError):
        load_text(CONFIGS[0].text.replace("version: 1", "version: 2"), "here")
