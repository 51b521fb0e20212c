from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from workers.envagent import own_host_alone


class ForbiddenError(Exception):
    def __init__(self, text: str) -> None:
        super().__init__(text)


#: Ray's copy of aiohttp cannot be imported beside ours; the lab's tests use the real one.
WEB = SimpleNamespace(middleware=lambda function: function, HTTPForbidden=ForbiddenError)


def _answer(remote: str) -> Any:
    async def handler(request: Any) -> str:
        return "served"

    guard = own_host_alone(WEB, "10.77.0.1")
    return asyncio.run(guard(SimpleNamespace(remote=remote), handler))


@pytest.mark.parametrize("remote", ["10.77.0.1", "127.0.0.1", "127.0.0.2", "::1"])
def test_the_host_itself_is_served(remote: str) -> None:
    assert _answer(remote) == "served"


@pytest.mark.parametrize("remote", ["10.77.0.2", "10.77.0.11", "fe80::1"])
def test_others_are_refused(remote: str) -> None:
    with pytest.raises(ForbiddenError):
        _answer(remote)
