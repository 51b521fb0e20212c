from __future__ import annotations

import sys

import pytest

from workers.raystart import guarded

AGENT = "/env/lib/ray/_private/runtime_env/agent/main.py"


def _told_of(command: str) -> list[str]:
    return ["raylet", "--node_ip_address=10.77.0.1", f"--runtime_env_agent_command={command}", "--session_name=x"]


def test_the_agent_for_environments_is_started_through_our_script() -> None:
    first, second, third, last = guarded(_told_of(f"{sys.executable} -u {AGENT} --node-ip-address=10.77.0.1"))

    assert (first, second, last) == ("raylet", "--node_ip_address=10.77.0.1", "--session_name=x")
    before, ours, after = third.partition("/workers/envagent.py ")
    assert before.startswith(f"--runtime_env_agent_command={sys.executable} -u /")
    assert ours
    assert after == f"{AGENT} --node-ip-address=10.77.0.1"


def test_a_folder_with_a_space_stays_one_word() -> None:
    (*_, third, _) = guarded(_told_of(f'"/my env/python" -u "/my env{AGENT}" --x=1'))

    assert third.endswith(f'/workers/envagent.py "/my env{AGENT}" --x=1')


def test_other_daemons_are_left_as_they_are() -> None:
    assert guarded(["gcs_server", "--port=1"]) == ["gcs_server", "--port=1"]


def test_a_ray_that_does_it_otherwise_is_refused() -> None:
    with pytest.raises(RuntimeError, match="in another way"):
        guarded(_told_of("/env/bin/ray-agent"))
