"""A visit to a cluster by a process of its own, before this one connects.

Where something is wrong Ray retries for up to a minute, writes to standard error meanwhile, and in some cases ends the
whole process. Here all of that happens to somebody else, has a deadline, and becomes one sentence.

    python -m orchestrator.cluster.trial ADDRESS [NODE_IP]
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import sys
from typing import TYPE_CHECKING, Any, Final

from orchestrator.cluster.driver import RayNode, nodes
from orchestrator.errors import ClusterError, last_line

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from orchestrator.cluster.driver import Entrance

#: What Ray's address `auto` stands for: the cluster that this machine belongs to.
AUTO: Final = "auto"

#: Seconds for Python to start and to import Ray; a home on the network makes it slow.
IMPORT_ALLOWANCE_S: Final = 30.0

#: Seconds for a visitor to end that has said all it has to say.
_PARTING_S: Final = 1.0

#: Seconds that Ray looks for a daemon of the cluster on this machine; without this setting a whole minute.
_PATIENCE: Final = {"RAY_gcs_server_request_timeout_seconds": "10"}

#: What Ray 2.60 says, in exceptions and on standard error.
_BAD_TOKEN: Final = "InvalidAuthToken"
_NO_TOKEN: Final = "no authentication token was found"
_NO_CLUSTER: Final = "Could not find any running Ray"
_NO_NODE: Final = ("No node info found", "system config from raylet")
_VERSIONS: Final = re.compile(
    r"started with:\s*Ray: (\S+)\s+Python: (\S+).*?started with:\s*Ray: (\S+)\s+Python: (\S+)", re.DOTALL
)


async def visit(entrance: Entrance, *, timeout_s: float) -> tuple[RayNode, ...]:
    """Return the live nodes of a cluster, which this process does not connect to.

    Raises ClusterError, with what mends it, where a driver cannot get in.
    """
    await _knock(entrance.address, timeout_s)
    process = await asyncio.create_subprocess_exec(
        *_argv(entrance),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, **entrance.environment(), **_PATIENCE},
    )
    try:
        said, complaints = await asyncio.wait_for(_heard(process), timeout_s + IMPORT_ALLOWANCE_S)
    except asyncio.TimeoutError as error:
        raise ClusterError(
            f"the Ray cluster at {entrance.address} did not let us in within {timeout_s:.0f} s",
            remedy="see whether its head is up: ray status",
        ) from error
    finally:
        await _ended(process)
    with contextlib.suppress(ValueError, TypeError):
        return tuple(RayNode(**node) for node in json.loads(said))
    raise explain(f"{said}\n{complaints}", entrance)


def explain(text: str, entrance: Entrance) -> ClusterError:
    """Return what Ray's many words mean for a person who wants to join."""
    at = "on this machine" if entrance.address == AUTO else f"at {entrance.address}"
    token = entrance.token_file
    versions = _VERSIONS.search(text)
    if versions is not None:
        theirs, their_python, ours, our_python = versions.groups()
        return ClusterError(
            f"the cluster {at} runs Ray {theirs} with Python {their_python}, and muster here"
            f" Ray {ours} with Python {our_python}; they must be the same",
            remedy=f"run muster from an environment with ray=={theirs} and Python {their_python}",
        )
    if _BAD_TOKEN in text:
        wrong = "asks for a token" if token is None else f"refused the token in {token}"
        return ClusterError(f"the cluster {at} {wrong}", remedy="name its token: `cluster: {token_file: ...}`")
    if _NO_TOKEN in text:
        return ClusterError("Ray found no token", remedy="name the cluster's token: `cluster: {token_file: ...}`")
    if _NO_CLUSTER in text:
        return ClusterError(
            "no Ray cluster runs on this machine", remedy="name its address: `cluster: {address: ray-head:6379}`"
        )
    if any(sign in text for sign in _NO_NODE):
        return ClusterError(
            f"this machine is not a part of the cluster {at}, and Ray takes drivers from its own nodes only",
            remedy="run muster on one of the cluster's nodes, such as inside the Slurm job that started it",
        )
    said = last_line(text, "Ray ended without a word").strip()
    return ClusterError(
        f"the cluster {at} cannot be joined: {said}",
        remedy="if it is encrypted, set RAY_USE_TLS and RAY_TLS_* as its nodes have them",
    )


async def _knock(address: str, timeout_s: float) -> None:
    """Raise ClusterError where nobody listens: Ray itself would go on trying."""
    if address == AUTO:
        return
    host, separator, port = address.rpartition(":")
    if not separator or not port.isdecimal():
        raise ClusterError(
            f"cluster.address {address} is no address of a Ray cluster",
            remedy="write it with its port: ray-head.example:6379; or auto, on a machine of the cluster",
        )
    try:
        _, writer = await asyncio.wait_for(asyncio.open_connection(host.strip("[]"), int(port)), timeout_s)
    except (OSError, OverflowError, asyncio.TimeoutError) as error:
        why = f"within {timeout_s:.0f} s" if isinstance(error, asyncio.TimeoutError) else f"({error})"
        raise ClusterError(
            f"nobody answers at {address} {why}",
            remedy="see whether the cluster is up, and whether a firewall lies between: ray status, on its head",
        ) from error
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


def _argv(entrance: Entrance) -> list[str]:
    own = [] if entrance.node_ip is None else [entrance.node_ip]
    return [sys.executable, "-m", __name__, entrance.address, *own]


async def _heard(process: asyncio.subprocess.Process) -> tuple[str, str]:
    """Return what the visitor said and what it complained of, at once where the token is refused: Ray would retry."""
    if process.stdout is None or process.stderr is None:
        raise ValueError("the visitor needs both its outputs")
    answer = asyncio.ensure_future(process.stdout.read())
    complaints = b""
    try:
        while chunk := await process.stderr.read(2**16):
            complaints += chunk
            if _BAD_TOKEN.encode() in complaints:
                return "", complaints.decode(errors="replace")
        return (await answer).decode(errors="replace"), complaints.decode(errors="replace")
    finally:
        answer.cancel()


async def _ended(process: asyncio.subprocess.Process) -> None:
    """Give the visitor a moment to end by itself, then end it."""
    # Not killed at once: asyncio complains of a process that ends in the very moment when it is signalled.
    try:
        await asyncio.wait_for(process.wait(), _PARTING_S)
    except asyncio.TimeoutError:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


# --- the visitor -----------------------------------------------------------------------------------------------


def main(arguments: Sequence[str]) -> int:
    """Connect, say on standard output which nodes there are, and go; or say what Ray says."""
    import ray

    address, *own = arguments
    given: dict[str, Any] = {"_node_ip_address": own[0]} if own else {}
    try:
        ray.init(address=address, log_to_driver=False, configure_logging=False, **given)
        said = json.dumps([{"id": n.id, "ip": n.ip, "hostname": n.hostname, "labels": n.labels} for n in nodes()])
        ray.shutdown()
    except Exception as error:  # whatever it is, it is said
        said = "\n".join(str(each) for each in _chain(error))
    sys.stdout.write(said)
    return 0


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and what it came from, the innermost last."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
