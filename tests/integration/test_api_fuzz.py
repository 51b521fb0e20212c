"""The API against its own description: schemathesis asks what the description allows, and what it does not."""

from __future__ import annotations

from contextlib import closing
from typing import Any

import hypothesis
import pytest
import schemathesis

from orchestrator.store import open_store
from orchestrator.web.app import create_app
from orchestrator.web.settings import ServeSettings
from tests.stores import fill

TOKEN = "a-token-that-is-long-enough"


@pytest.fixture(scope="module")
def schema(tmp_path_factory: pytest.TempPathFactory) -> Any:
    url = f"sqlite:///{tmp_path_factory.mktemp('store') / 'muster.db'}"
    with closing(open_store(url)) as store:
        fill(store)
    app = create_app(ServeSettings(store_url=url, allow_runs=True, token=TOKEN))
    return schemathesis.openapi.from_asgi("/api/v1/openapi.json", app, headers={"authorization": f"Bearer {TOKEN}"})


api = schemathesis.pytest.from_fixture("schema")


@api.parametrize()
@hypothesis.settings(max_examples=25, deadline=None, suppress_health_check=list(hypothesis.HealthCheck), database=None)
def test_every_answer_is_as_the_description_says(case: Any) -> None:
    case.call_and_validate(headers={"authorization": f"Bearer {TOKEN}"})
