"""The command ``ray``, as the keeper runs it: no client server, and an agent that serves its own host alone.

Ray's agent for runtime environments speaks plain HTTP, also where everything else is encrypted, and serves whoever has
the token. Only the daemon of its own host ever asks it, so it is started through :mod:`workers.envagent`, which refuses
every other peer. There is no public way to say so; the places that are touched belong to the pinned Ray.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

_AGENT_OPTION: Final = "--runtime_env_agent_command="
_AGENT: Final = "runtime_env/agent/main.py"
_GUARDED: Final = Path(__file__).with_name("envagent.py")


def main() -> None:
    """Run ``ray`` with this process's arguments."""
    # As if gRPC's Python package were not there. Then it starts neither the client server, which would listen on one
    # more port, nor the parts of the dashboard's agent that would do so; the rest needs no such thing.
    sys.modules["grpc"] = None  # type: ignore[assignment]
    from ray._private import services
    from ray.scripts.scripts import main as ray

    start = services.start_ray_process

    def start_guarded(command: Sequence[str], *positional: Any, **named: Any) -> Any:
        return start(guarded(command), *positional, **named)

    services.start_ray_process = start_guarded
    ray()


def guarded(command: Sequence[str]) -> list[str]:
    """Return a daemon's command in which the agent for runtime environments is started through our own script.

    Raises RuntimeError where the daemon is told of an agent that is not the known one.
    """
    return [_through(part) if part.startswith(_AGENT_OPTION) else part for part in command]


def _through(option: str) -> str:
    # Ray has made one string of the agent's arguments; its script is the first that ends so.
    before, name, after = option.partition(_AGENT)
    start = before.rfind(' "') if before.count('"') % 2 else before.rfind(" ")
    if not name or start < 0:
        raise RuntimeError(f"this Ray starts its agent for runtime environments in another way: {option}")
    ours = subprocess.list2cmdline([str(_GUARDED)])
    return f"{before[:start]} {ours}{before[start:]}{name}{after}"


if __name__ == "__main__":
    main()
