"""Knocks at ports of a Ray cluster as somebody who should not get in, with every method that Ray's programs know.

Runs on a lab host: reads ``{"address", "ports", "token", "tls", "only"}`` as JSON from standard input, and prints by
port how each method was answered. ``tls`` names files: ``{"ca"}``, and ``{"certificate", "key"}`` of one who has them.
"""

from __future__ import annotations

import http.client
import json
import re
import sys
from pathlib import Path
from typing import Any, Final

import grpc  # type: ignore[import-untyped]
import ray

#: Ray's programs, in which the names of their methods are.
_PROGRAMS: Final = ("core/src/ray/gcs/gcs_server", "core/src/ray/raylet/raylet", "_raylet.so")

#: Seconds for an answer.
_TIMEOUT_S: Final = 5.0

#: Paths of Ray's HTTP servers: the agent of runtime environments, the job server, metrics.
_PATHS: Final = (
    *("/get_or_create_runtime_env", "/delete_runtime_env_if_possible", "/get_runtime_envs_info"),
    *("/api/job_agent/jobs/", "/api/jobs/", "/nodes", "/metrics", "/logs", "/"),
)

#: Whoever synchronises says which node it is. Ray 2.60 aborts where nothing is said, before it looks for a token.
_NODE: Final = ("node_id", "ab" * 28)


def main() -> None:
    asked = json.load(sys.stdin)
    answers = {port: _knock(asked, port) for port in asked["ports"]}
    json.dump(answers, sys.stdout)


def _knock(asked: dict[str, Any], port: int) -> dict[str, str]:
    target = f"{asked['address']}:{port}"
    try:
        return _by_http(asked, port)
    except (http.client.HTTPException, OSError):
        # It speaks something else than HTTP/1.
        with _channel(target, asked["tls"]) as channel:
            return _by_grpc(asked, channel)


def _by_http(asked: dict[str, Any], port: int) -> dict[str, str]:
    headers = {"Authorization": f"Bearer {asked['token']}"} if asked["token"] else {}
    answers = {}
    for method in ("GET", "POST"):
        for path in _PATHS:
            connection = http.client.HTTPConnection(asked["address"], port, timeout=_TIMEOUT_S)
            try:
                connection.request(method, path, body=b"", headers=headers)
                answers[f"{method} {path}"] = str(connection.getresponse().status)
            finally:
                connection.close()
    return answers


def _by_grpc(asked: dict[str, Any], channel: grpc.Channel) -> dict[str, str]:
    metadata = [_NODE, *([("authorization", f"Bearer {asked['token']}")] if asked["token"] else [])]
    answers: dict[str, str] = {}
    for method in _methods(asked["only"]):
        call = channel.unary_unary(method, request_serializer=bytes, response_deserializer=bytes)
        try:
            call(b"", timeout=_TIMEOUT_S, metadata=metadata)
            answers[method] = "OK"
        except grpc.RpcError as error:
            answers[method] = error.code().name
        if set(answers.values()) == {"UNAVAILABLE"}:
            # Nothing was let in; the others would wait for the same.
            return answers
    return answers


def _methods(only: list[str]) -> list[str]:
    core = Path(ray.__file__).parent
    programs = [(core / name).read_bytes() for name in _PROGRAMS]
    found = {name.decode() for each in programs for name in re.findall(rb"/ray\.rpc\.[A-Za-z0-9_.]+/[A-Za-z]+", each)}
    return sorted(name for name in found if not only or name.rpartition("/")[2] in only)


def _channel(target: str, tls: dict[str, str] | None) -> grpc.Channel:
    if tls is None:
        return grpc.insecure_channel(target)
    files = {name: Path(path).read_bytes() for name, path in tls.items()}
    credentials = grpc.ssl_channel_credentials(files["ca"], files.get("key"), files.get("certificate"))
    return grpc.secure_channel(target, credentials)


if __name__ == "__main__":
    main()
