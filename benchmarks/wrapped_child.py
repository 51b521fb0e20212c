"""The product's own measuring child with something around each of its steps."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any, NoReturn

import workers.measure

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


def run(wrapped: Callable[[Callable[[], None]], Callable[[], None]], arguments: Sequence[str]) -> NoReturn:
    """Be ``python -m workers.child ARGUMENTS``, whose every step is what ``wrapped`` makes of it."""
    measure = workers.measure.measure

    def measure_wrapped(step: Callable[[], None], *given: Any, **named: Any) -> Any:
        return measure(wrapped(step), *given, **named)

    workers.measure.measure = measure_wrapped
    from workers import child  # takes what is there by now

    status = child.main(arguments)
    sys.stderr.flush()
    os._exit(status)
