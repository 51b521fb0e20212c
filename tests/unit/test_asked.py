"""What a run's config asks of its table."""

from __future__ import annotations

import datetime

import pytest

from orchestrator.errors import ConfigError
from orchestrator.report.asked import report_of
from orchestrator.results import Imported
from tests.runs import a_run
from tests.stores import CONFIG

TOMORROW = "version: 99\n"


def test_it_is_read_with_the_overrides_that_were_typed() -> None:
    run = a_run(config_text=CONFIG, overrides=("--set report.references=[]", "--only pass=forward"))
    assert report_of(run).references == ()


def test_a_config_that_is_none_any_more_is_an_error_and_of_another_lab_no_matter() -> None:
    with pytest.raises(ConfigError):
        report_of(a_run(config_text=TOMORROW))
    imported = Imported(source="lab.zip", at=datetime.datetime.now(datetime.timezone.utc))
    assert report_of(a_run(config_text=TOMORROW, imported=imported)).references == ("seed",)
