from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.engine.heartbeat import BEAT_S, SILENCE_S, Heartbeat


def test_a_host_is_silent_once_and_heard_once() -> None:
    heartbeat = Heartbeat()
    assert not heartbeat.watch("attic", "attic/gpu:0", 10.0)

    assert heartbeat.fallen_silent(10.0 + SILENCE_S - 0.1) == []
    assert heartbeat.fallen_silent(10.0 + SILENCE_S) == ["attic"]
    assert heartbeat.fallen_silent(100.0) == []
    assert heartbeat.silent == {"attic"}
    assert heartbeat.hear("attic", 101.0)
    assert not heartbeat.hear("attic", 102.0)
    assert heartbeat.silent == frozenset()


def test_a_cut_is_told_of_within_fifteen_seconds() -> None:
    assert BEAT_S + SILENCE_S <= 15.0


def test_one_agent_that_answers_speaks_for_its_host() -> None:
    heartbeat = Heartbeat()
    heartbeat.watch("attic", "attic/gpu:0", 0.0)
    heartbeat.watch("attic", "attic/gpu:1", 0.0)
    heartbeat.watch("cellar", "cellar/gpu:0", 0.0)
    heartbeat.hear("attic", 10.0)

    assert heartbeat.fallen_silent(15.0) == ["cellar"]


def test_a_host_without_agents_is_not_watched() -> None:
    heartbeat = Heartbeat()
    heartbeat.watch("attic", "attic/gpu:0", 0.0)
    heartbeat.watch("attic", "attic/gpu:1", 0.0)
    heartbeat.forget("attic", "attic/gpu:0")
    heartbeat.hear("attic", 5.0)
    heartbeat.forget("attic", "attic/gpu:1")
    heartbeat.forget("attic", "attic/gpu:1")

    assert not heartbeat.hear("attic", 20.0)
    assert heartbeat.fallen_silent(100.0) == []


def test_a_silent_host_that_lost_its_agents_is_silent_until_one_answers() -> None:
    heartbeat = Heartbeat()
    heartbeat.watch("attic", "attic/gpu:0", 0.0)
    heartbeat.fallen_silent(SILENCE_S)
    heartbeat.forget("attic", "attic/gpu:0")

    assert heartbeat.silent == {"attic"}
    assert heartbeat.watch("attic", "attic/gpu:0", 50.0)
    assert heartbeat.silent == frozenset()


def test_an_agent_that_comes_up_anew_is_a_sign_of_life() -> None:
    heartbeat = Heartbeat()
    heartbeat.watch("attic", "attic/gpu:0", 0.0)
    heartbeat.fallen_silent(20.0)

    assert heartbeat.watch("attic", "attic/gpu:0", 21.0)


def test_who_did_not_listen_begins_anew() -> None:
    heartbeat = Heartbeat()
    heartbeat.watch("attic", "attic/gpu:0", 0.0)
    heartbeat.begin_anew(60.0)

    assert heartbeat.fallen_silent(60.0 + SILENCE_S - 1) == []
    assert heartbeat.fallen_silent(60.0 + SILENCE_S) == ["attic"]


@given(
    st.lists(
        st.tuples(st.sampled_from(["watch", "forget", "hear", "look"]), st.integers(0, 2), st.floats(0.0, 20.0)),
        max_size=40,
    )
)
def test_silence_and_sound_come_by_turns(steps: list[tuple[str, int, float]]) -> None:
    heartbeat, at = Heartbeat(), 0.0
    told: dict[str, bool] = {}
    for step, number, wait_s in steps:
        at += wait_s
        host = f"h{number}"
        if step == "forget":
            heartbeat.forget(host, f"{host}/cpu")
        elif step == "look":
            for fallen in heartbeat.fallen_silent(at):
                assert not told.get(fallen, False)
                told[fallen] = True
        elif heartbeat.watch(host, f"{host}/cpu", at) if step == "watch" else heartbeat.hear(host, at):
            assert told.pop(host)
    assert heartbeat.silent == {host for host, is_silent in told.items() if is_silent}
