"""The API against its own description: schemathesis asks what the description allows, and what it does not."""

from __future__ import annotations

from typing import Any

import hypothesis
import pytest
import schemathesis
from hypothesis import strategies as st
from schemathesis import GenerationMode

from orchestrator.web.app import create_app
from orchestrator.web.runtables import history_id
from orchestrator.web.settings import ServeSettings
from tests.stores import fill

TOKEN = "a-token-that-is-long-enough"

APP = create_app(ServeSettings(store_url="sqlite://", allow_runs=True, token=TOKEN))
SHOWN = {"authorization": f"Bearer {TOKEN}"}
SCHEMA = schemathesis.openapi.from_asgi("/api/v1/openapi.json", APP, headers=SHOWN)
OPERATIONS: dict[str, Any] = {found.ok().label: found.ok() for found in SCHEMA.get_all_operations()}  # type: ignore[union-attr]


@pytest.fixture(scope="module", autouse=True)
def _filled(tmp_path_factory: pytest.TempPathFactory) -> None:
    # A file: what is in memory is gone when the application ends, which it does after each question.
    APP.state.context.source.url = f"sqlite:///{tmp_path_factory.mktemp('store') / 'muster.db'}"
    with APP.state.context.source.opened() as store:
        fill(store)


def test_every_route_of_the_api_is_described() -> None:
    assert len(OPERATIONS) == 16
    assert {"GET /api/v1/runs/{run}", "POST /api/v1/schedules/{schedule}/pause"} <= set(OPERATIONS)


def asked_of(operation: Any) -> list[GenerationMode]:
    """How it is asked; where all that it takes is a name in the path, nothing is against the description."""
    has_questions = any(True for _ in operation.query)
    return [GenerationMode.POSITIVE, *([GenerationMode.NEGATIVE] if has_questions else [])]


@pytest.mark.parametrize(
    ("label", "mode"),
    [(label, mode) for label, operation in OPERATIONS.items() for mode in asked_of(operation)],
)
def test_every_answer_is_as_the_description_says(label: str, mode: GenerationMode) -> None:
    @hypothesis.settings(
        max_examples=25, deadline=None, suppress_health_check=list(hypothesis.HealthCheck), database=None
    )
    @hypothesis.given(OPERATIONS[label].as_strategy(generation_mode=mode), st.booleans())
    def ask(case: Any, has_known_names: bool) -> None:
        if has_known_names:  # nobody would guess them
            case.path_parameters = {**case.path_parameters, **known_names(case.path_parameters)}
            case.query = {**case.query, **known_names(case.query)}
        answer = case.call_and_validate(headers=SHOWN)
        seen.add(answer.status_code)

    seen = set[int]()

    ask()
    assert mode is GenerationMode.NEGATIVE or 200 in seen, seen


def known_names(given: dict[str, Any]) -> dict[str, str]:
    with APP.state.context.source.opened() as store:
        (history,) = store.histories(simulated=False)
    known = {"run": "latest", "schedule": "night", "history": history_id(history), "before": "good", "after": "7bcdef"}
    return {name: value for name, value in known.items() if name in given}
