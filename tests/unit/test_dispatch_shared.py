"""Cases that hold several devices: when they begin, what the loss of one means, and that nobody waits in a circle."""

from __future__ import annotations

from dataclasses import replace

import pytest

from orchestrator.dispatch.machine import Dispatcher
from orchestrator.dispatch.messages import (
    CancelCase,
    Command,
    HostHeard,
    HostSilent,
    PeerFinished,
    ReleaseDevice,
    StartCase,
)
from orchestrator.dispatch.settings import HostConcurrency
from orchestrator.dispatch.transitions import CaseState, DeviceState
from tests.builders import a_case, a_device, a_workload
from tests.unit.bench import EXCLUSIVE, GONE, SETTINGS, Bench, case_on, release, verdict
from workers.protocol import Case, Company, Verdict


def sum_over(*selectors: str, number: int = 9, hosts: tuple[str, ...] = ()) -> Case:
    names = hosts or ("gpu01",) * len(selectors)
    first, *peers = (a_device(host, selector) for host, selector in zip(names, selectors, strict=True))
    case = a_case(first, a_workload(model=f"allreduce/n8-r{len(selectors)}", batch_size=1), key=f"sum-{number}")
    return replace(case, peers=tuple(peers))


def begun(commands: tuple[Command, ...]) -> list[str]:
    return [command.case.key for command in commands if isinstance(command, StartCase)]


def peer_finished(bench: Bench, case: Case, selector: str = "gpu:1", *, attempt: int = 1, host: str = "gpu01") -> None:
    ended = PeerFinished(at=bench.at + 0.1, device_id=f"{host}/{selector}", case_key=case.key, attempt=attempt)
    bench.hear(ended)


BOTH = sum_over("gpu:0", "gpu:1")


def test_it_begins_once_all_of_its_devices_have_done_what_is_before_it() -> None:
    first, second, third = case_on("gpu:0"), case_on("gpu:1"), case_on("gpu:1", 2)
    bench = Bench(first, second, third, BOTH)
    assert begun(bench.ready("gpu:0", "gpu:1")) == [first.key, second.key]
    assert begun(bench.finished(first)) == []
    assert begun(bench.finished(second)) == [third.key]
    assert begun(bench.finished(third)) == [BOTH.key]
    assert (bench.state("gpu:0"), bench.state("gpu:1")) == (DeviceState.BUSY, DeviceState.BUSY)


def test_a_device_that_waits_for_the_others_keeps_nobody_else_from_beginning() -> None:
    long, other, sum_ = case_on("gpu:1"), case_on("gpu:2"), sum_over("gpu:0", "gpu:1")
    bench = Bench(long, sum_, other)
    assert begun(bench.ready("gpu:0", "gpu:1", "gpu:2")) == [long.key, other.key]


def test_each_device_goes_on_when_its_own_part_has_ended() -> None:
    later, of_peer = case_on("gpu:0", 2), case_on("gpu:1", 2)
    bench = Bench(BOTH, later, of_peer)
    assert begun(bench.ready("gpu:0", "gpu:1")) == [BOTH.key]
    assert begun(bench.finished(BOTH)) == [later.key]
    assert bench.state("gpu:1") is DeviceState.BUSY
    peer_finished(bench, BOTH)
    assert begun(bench.done) == [of_peer.key]


def test_a_host_that_has_to_be_quiet_is_so_but_for_the_devices_of_the_case() -> None:
    other = case_on("gpu:2")
    bench = Bench(other, BOTH, settings=EXCLUSIVE)
    assert begun(bench.ready("gpu:0", "gpu:1", "gpu:2")) == [other.key]
    assert begun(bench.finished(other)) == [BOTH.key]


def test_the_loss_of_another_device_ends_it_and_it_is_tried_again_once_that_one_is_back() -> None:
    bench = Bench(BOTH, settings=replace(SETTINGS, host_grace_s=60))
    bench.ready("gpu:0", "gpu:1")
    bench.started(BOTH)
    (cancel,) = [command for command in bench.lost("gpu:1") if isinstance(command, CancelCase)]
    assert (cancel.verdict, cancel.reason) == (Verdict.HOST_DOWN, f"gpu01/gpu:1: {GONE}")
    assert begun(bench.finished(BOTH, verdict=Verdict.HOST_DOWN, reason=cancel.reason, at=5.5)) == []
    assert bench.dispatcher.case(BOTH.key).state is CaseState.QUEUED
    bench.overdue()
    assert begun(bench.ready("gpu:1", at=8.0)) == [BOTH.key]


def test_it_ends_where_another_device_does_not_come_back_and_all_are_let_go() -> None:
    bench = Bench(BOTH, settings=replace(SETTINGS, host_grace_s=0))
    bench.ready("gpu:0", "gpu:1")
    bench.lost("gpu:1")
    done = bench.finished(BOTH, verdict=Verdict.HOST_DOWN, reason="because", at=5.5)
    assert done == (verdict(BOTH, Verdict.HOST_DOWN, "because"), release("gpu:0"))
    assert bench.dispatcher.is_done


def test_what_waits_for_a_device_that_is_lost_ends_and_the_others_go_on() -> None:
    first, later = case_on("gpu:0"), case_on("gpu:0", 2)
    bench = Bench(first, BOTH, later, settings=replace(SETTINGS, host_grace_s=0))
    bench.ready("gpu:0", "gpu:1")
    done = bench.lost("gpu:1")
    assert verdict(BOTH, Verdict.HOST_DOWN, f"gpu01/gpu:1: {GONE}") in done
    assert begun(bench.finished(first, at=6.0)) == [later.key]


def test_what_is_measured_when_another_device_is_lost_keeps_its_figure() -> None:
    bench = Bench(BOTH, settings=replace(SETTINGS, host_grace_s=0))
    bench.ready("gpu:0", "gpu:1")
    bench.started(BOTH)
    bench.measured(BOTH)
    assert not [command for command in bench.lost("gpu:1") if isinstance(command, CancelCase)]
    assert verdict(BOTH, Verdict.OK) in bench.finished(BOTH, at=5.5)


def test_a_part_that_does_not_end_costs_its_device() -> None:
    bench = Bench(BOTH)
    bench.ready("gpu:0", "gpu:1")
    bench.finished(BOTH)
    bench.overdue()
    assert bench.state("gpu:1") is DeviceState.LOST
    assert bench.dispatcher.is_done
    peer_finished(bench, BOTH)  # too late


def test_a_failure_puts_no_device_aside_for_nobody_knows_whose_it_is() -> None:
    sums = [sum_over("gpu:0", "gpu:1", number=number) for number in range(3)]
    bench = Bench(*sums, settings=replace(SETTINGS, attempts=1, quarantine_after=2))
    bench.ready("gpu:0", "gpu:1")
    for each in sums:
        bench.finished(each, verdict=Verdict.CRASHED, reason="boom", at=bench.at + 1)
        peer_finished(bench, each)
    assert [view.verdict for view in bench.dispatcher.cases()] == [Verdict.CRASHED] * 3


def test_a_stop_ends_it_as_a_whole() -> None:
    bench = Bench(BOTH, case_on("gpu:1", 2))
    bench.ready("gpu:0", "gpu:1")
    done = bench.stop(now=True)
    assert [command.case_key for command in done if isinstance(command, CancelCase)] == [BOTH.key]
    bench.finished(BOTH, verdict=Verdict.CANCELLED, reason="Ctrl-C", at=7.0)
    peer_finished(bench, BOTH)
    assert [command for command in bench.done if isinstance(command, ReleaseDevice)] == [release("gpu:1")]
    assert bench.dispatcher.is_done


ACROSS = sum_over("gpu:0", "gpu:0", hosts=("gpu01", "gpu02"))


def a_bench_across() -> Bench:
    bench = Bench(ACROSS, settings=replace(SETTINGS, host_grace_s=60))
    bench.ready("gpu:0")
    bench.ready("gpu:0", host="gpu02")
    bench.started(ACROSS)
    return bench


def hush(bench: Bench, at: float = 5.0) -> None:
    bench.hear(HostSilent(at=at, host="gpu02"))


def test_a_silence_of_another_device_s_host_changes_nothing_while_it_is_short() -> None:
    bench = a_bench_across()
    hush(bench)
    bench.hear(HostHeard(at=9.0, host="gpu02"))
    assert bench.done == ()
    hush(bench, at=10.0)
    bench.finished(ACROSS, at=11.0)
    bench.hear(HostHeard(at=12.0, host="gpu02"))
    assert bench.dispatcher.next_deadline == 12.0 + SETTINGS.cancel_timeout_s
    peer_finished(bench, ACROSS, "gpu:0", host="gpu02")
    assert bench.dispatcher.is_done


def test_a_host_of_another_device_that_stays_silent_ends_it() -> None:
    bench = a_bench_across()
    hush(bench)
    bench.overdue()
    (cancel,) = [command for command in bench.done if isinstance(command, CancelCase)]
    assert cancel.verdict is Verdict.HOST_DOWN
    assert cancel.reason.startswith("gpu02/gpu:0: no sign of life from gpu02")


@pytest.mark.parametrize("now", [True, False])
def test_a_stop_does_not_wait_for_a_device_on_a_silent_host(now: bool) -> None:
    bench = a_bench_across()
    hush(bench)
    bench.stop(now=now)
    assert (bench.dispatcher.device("gpu02/gpu:0").state is DeviceState.LOST) is now
    bench.finished(ACROSS, verdict=Verdict.CANCELLED if now else Verdict.OK, reason="Ctrl-C", at=7.0)
    assert bench.dispatcher.is_done is now


def test_a_device_that_waits_for_others_may_begin_with_its_company_first() -> None:
    settings = replace(SETTINGS, host_concurrency=HostConcurrency.BOTH)
    first, second = (
        a_case(a_device("gpu01", selector), a_workload(), key=f"company {selector}", company=Company.TOGETHER)
        for selector in ("gpu:0", "gpu:1")
    )
    bench = Bench(ACROSS, first, second, case_on("gpu:0", host="gpu02"), settings=settings)
    assert begun(bench.ready("gpu:0", "gpu:1")) == [first.key, second.key]
    bench.finished(first)
    bench.ready("gpu:0", host="gpu02")
    assert begun(bench.finished(second)) == [ACROSS.key]


def test_rings_that_cross_each_other_on_three_hosts_all_end() -> None:
    hosts = ("a", "b", "c")
    rings = [
        sum_over("gpu:0", "gpu:0", number=number, hosts=pair)
        for number, pair in enumerate([("a", "b"), ("b", "c"), ("c", "a"), ("b", "a"), ("a", "c"), ("c", "b")])
    ]
    bench = Bench(*rings)
    order = [key for host in hosts for key in begun(bench.ready("gpu:0", host=host))]
    by_key = {ring.key: ring for ring in rings}
    for key in order:
        ring = by_key[key]
        order += begun(bench.finished(ring, at=bench.at + 1))
        peer_finished(bench, ring, "gpu:0", host=ring.peers[0].host)
        order += begun(bench.done)
    assert order == [ring.key for ring in rings]
    assert bench.dispatcher.is_done


def test_a_device_is_held_once() -> None:
    with pytest.raises(ValueError, match="case sum-9 holds a device twice"):
        Dispatcher([sum_over("gpu:0", "gpu:0")], SETTINGS)
