"""What the API answers where something is wrong, and what it takes no notice of: nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from fastapi.routing import APIRoute
from typing_extensions import TypedDict

from orchestrator.errors import MixtureError, MusterError, StoreError, UnknownNameError, UsageError
from orchestrator.web.context import NotAllowedError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from fastapi import Request, Response


class ProblemData(TypedDict):
    """What is wrong, and what mends it."""

    error: str
    remedy: str | None


#: As OpenAPI wants them.
PROBLEMS: Final[dict[int | str, dict[str, Any]]] = {
    400: {"model": ProblemData, "description": "What was asked for cannot be."},
    401: {"model": ProblemData, "description": "The server needs a token: `Authorization: Bearer TOKEN`."},
    403: {"model": ProblemData, "description": "The server only shows, or the request came from another site."},
    404: {"model": ProblemData, "description": "There is nothing of that name."},
    409: {"model": ProblemData, "description": "The two runs cannot stand side by side."},
    503: {"model": ProblemData, "description": "The store cannot be read at the moment."},
}


def status_of(error: MusterError) -> int:
    """Return the HTTP status of an error."""
    if isinstance(error, NotAllowedError):
        return 403
    if isinstance(error, UnknownNameError):
        return 404
    if isinstance(error, MixtureError):
        return 409
    if isinstance(error, UsageError):
        return 400
    return 503 if isinstance(error, StoreError) else 500


class StrictRoute(APIRoute):
    """A route that refuses questions it does not know: a misspelt filter would otherwise give everything."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return the handler with that look before it."""
        handler = super().get_route_handler()
        known = {parameter.alias for parameter in self.dependant.query_params}

        async def handled(request: Request) -> Response:
            unknown = sorted(set(request.query_params) - known)
            if unknown:
                there = ", ".join(sorted(known)) or "none here"
                raise UsageError(f"{unknown[0]!r} is no question of this address", remedy=f"there are: {there}")
            return await handler(request)

        return handled
