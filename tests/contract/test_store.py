"""One suite for every kind of store: what it was given it gives back, and it says no clearly."""

from __future__ import annotations

import dataclasses
import datetime
import struct
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestrator.errors import RunNotFoundError, StoreBusyError, StoreError
from orchestrator.results import (
    Baseline,
    Cause,
    FiringState,
    Imported,
    NewFiring,
    NewRun,
    NoiseFloor,
    Pace,
    Quarantine,
    RunState,
    Schedule,
)
from orchestrator.store import open_store
from tests.builders import a_case, a_device, a_new_run, a_result, a_sampling, a_telemetry, a_workload
from tests.runs import a_run_with_attempts
from tests.stores import a_live_run, fill
from workers.protocol import (
    Company,
    Ending,
    Environment,
    Fact,
    Pass,
    Phase,
    PhaseTiming,
    Result,
    StoppedBy,
    Verdict,
)
from workers.telemetry.series import Doubt, DoubtKind

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from orchestrator.results import Run
    from orchestrator.store.repository import Store

NOON = datetime.datetime(2026, 5, 1, 12, 0, 0, 123456, tzinfo=datetime.timezone.utc)
HOUR = datetime.timedelta(hours=1)


@pytest.fixture(params=["memory", "file", "postgresql"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    if request.param == "postgresql":
        url = request.getfixturevalue("postgresql").new_store()
    else:
        url = "sqlite://" if request.param == "memory" else f"sqlite:///{tmp_path / 'muster.db'}"
    with closing(open_store(url)) as opened:
        yield opened


def only_result(store: Store, run_id: str = "7f3a01") -> Result:
    [case] = store.run(run_id).cases
    [attempt] = case.attempts
    assert attempt.number == attempt.result.attempt
    return attempt.result


# --- runs ------------------------------------------------------------------------------------------------------


def test_a_run_comes_back_whole_and_in_the_plans_order(store: Store) -> None:
    cases = tuple(
        a_case(a_device(selector=selector), a_workload(pass_=each), a_sampling(relative_ci=0.01, max_time_s=2.5))
        for selector in ("gpu:1", "cpu")
        for each in (Pass.FORWARD_BACKWARD, Pass.FORWARD)
    )
    new = a_new_run("7f3a01", *cases)

    store.begin_run(new)

    run = store.run("7f3a01")
    assert tuple(case.case for case in run.cases) == cases
    assert [case.position for case in run.cases] == [0, 1, 2, 3]
    assert all(case.verdict is None and case.attempts == () for case in run.cases)
    given_fields = {field.name for field in dataclasses.fields(NewRun)} - {"cases"}
    assert {name: getattr(run, name) for name in given_fields} == {name: getattr(new, name) for name in given_fields}


def test_times_come_back_as_utc_whatever_zone_they_were_given_in(store: Store) -> None:
    zone = datetime.timezone(datetime.timedelta(hours=-5))
    store.begin_run(a_new_run(created_at=NOON.astimezone(zone)))
    store.finish_run("7f3a01", RunState.FINISHED, (NOON + HOUR).astimezone(zone))

    run = store.run("latest")

    assert (run.created_at, run.finished_at) == (NOON, NOON + HOUR)
    assert run.created_at.utcoffset() == datetime.timedelta(0)


def test_a_run_without_cases_is_kept(store: Store) -> None:
    store.begin_run(a_new_run())
    assert store.run("7f3a01").cases == ()


def test_two_runs_of_one_id_are_refused_and_the_first_is_untouched(store: Store) -> None:
    store.begin_run(a_new_run("7f3a01", a_case()))

    with pytest.raises(StoreError, match="run 7f3a01 is there already"):
        store.begin_run(a_new_run("7f3a01", name="other"))

    assert store.run("7f3a01").name == "local"
    assert len(store.run("7f3a01").cases) == 1


def test_two_runs_may_have_the_same_case(store: Store) -> None:
    case = a_case()
    store.begin_run(a_new_run("7f3a01", case))
    store.begin_run(a_new_run("80bb02", case))
    store.save_attempt("80bb02", a_result(case))

    assert store.run("7f3a01").cases[0].attempts == ()
    assert only_result(store, "80bb02") == a_result(case)


def test_a_run_whose_plan_names_a_case_twice_leaves_nothing_behind(store: Store) -> None:
    with pytest.raises(StoreError):
        store.begin_run(a_new_run("7f3a01", a_case(), a_case()))
    assert store.runs() == ()


def test_summaries_are_newest_first_and_count_figures(store: Store) -> None:
    good, bad, open_ = (a_case(a_device(selector=f"gpu:{index}")) for index in range(3))
    store.begin_run(a_new_run("old", good, bad, open_, simulated=True))
    store.save_verdict("old", good.key, Verdict.NOISY, "a spread of 30 %")
    store.save_verdict("old", bad.key, Verdict.OOM, "no memory")
    store.finish_run("old", RunState.INTERRUPTED, NOON + HOUR)
    store.begin_run(a_new_run("new", created_at=NOON + 2 * HOUR, name="later"))

    newest, oldest = store.runs()

    assert (newest.id, newest.name, newest.cases, newest.figures) == ("new", "later", 0, 0)
    assert (oldest.id, oldest.cases, oldest.figures, oldest.simulated) == ("old", 3, 1, True)
    assert (oldest.state, oldest.created_at, oldest.finished_at) == (RunState.INTERRUPTED, NOON, NOON + HOUR)


def test_a_run_is_running_only_while_its_writer_is_there(store: Store) -> None:
    def states() -> tuple[RunState, RunState]:
        return store.run("7f3a01").state, store.runs()[0].state

    with store.written_by("7f3a01"):
        store.begin_run(a_new_run())
        assert states() == (RunState.RUNNING, RunState.RUNNING)
    assert states() == (RunState.INTERRUPTED, RunState.INTERRUPTED)
    with store.written_by("another"):
        assert states() == (RunState.INTERRUPTED, RunState.INTERRUPTED)
    store.finish_run("7f3a01", RunState.FINISHED, NOON)
    assert states() == (RunState.FINISHED, RunState.FINISHED)


def test_runs_write_side_by_side_and_each_is_running_as_long_as_its_writer(store: Store) -> None:
    def states() -> dict[str, RunState]:
        return {run.id: run.state for run in store.runs()}

    with store.written_by("7f3a01"):
        store.begin_run(a_new_run("7f3a01"))
        with store.written_by("80bb02"):
            store.begin_run(a_new_run("80bb02", a_case()))
            assert states() == {"7f3a01": RunState.RUNNING, "80bb02": RunState.RUNNING}
            store.save_attempt("80bb02", a_result())
        assert states() == {"7f3a01": RunState.RUNNING, "80bb02": RunState.INTERRUPTED}
        store.finish_run("7f3a01", RunState.FINISHED, NOON)
    assert states() == {"7f3a01": RunState.FINISHED, "80bb02": RunState.INTERRUPTED}


def test_a_run_tells_which_run_it_repeats(store: Store) -> None:
    store.begin_run(a_new_run("7f3a01"))
    store.begin_run(a_new_run("80bb02", created_at=NOON + HOUR, rerun_of="7f3a01"))
    assert [run.rerun_of for run in store.runs()] == ["7f3a01", None]
    assert [store.run(run_id).rerun_of for run_id in ("80bb02", "7f3a01")] == ["7f3a01", None]


# --- going on --------------------------------------------------------------------------------------------------


def test_a_run_that_goes_on_is_running_again_and_keeps_what_it_has(store: Store) -> None:
    good, stopped = a_case(), a_case(a_device("other"))
    store.begin_run(a_new_run("7f3a01", good, stopped))
    store.save_attempt("7f3a01", a_result(good))
    store.save_verdict("7f3a01", good.key, Verdict.OK, None)
    store.save_verdict("7f3a01", stopped.key, Verdict.CANCELLED, "Ctrl-C")
    store.finish_run("7f3a01", RunState.INTERRUPTED, NOON)
    before = store.run("7f3a01").cases

    with store.written_by("7f3a01"):
        store.resume_run("7f3a01")
        resumed = store.run("7f3a01")
        store.save_verdict("7f3a01", stopped.key, Verdict.OOM, "no memory")
        store.finish_run("7f3a01", RunState.FINISHED, NOON + HOUR)

    assert (resumed.state, resumed.finished_at, resumed.cases) == (RunState.RUNNING, None, before)
    finished = store.run("7f3a01")
    assert (finished.state, finished.finished_at) == (RunState.FINISHED, NOON + HOUR)
    assert [case.verdict for case in finished.cases] == [Verdict.OK, Verdict.OOM]


def test_a_run_that_goes_on_and_is_cut_off_is_interrupted(store: Store) -> None:
    store.begin_run(a_new_run())
    store.finish_run("7f3a01", RunState.FINISHED, NOON)
    with store.written_by("7f3a01"):
        store.resume_run("7f3a01")
    assert store.run("7f3a01").state is RunState.INTERRUPTED


def test_a_run_that_is_at_work_cannot_be_gone_on_with(store: Store) -> None:
    store.begin_run(a_new_run())
    with store.written_by("7f3a01"), store.written_by("80bb02"):
        with pytest.raises(StoreBusyError, match=r"run 7f3a01 \(pid \d+ on host .+ is using this store"):
            store.written_by("7f3a01").__enter__()
        assert store.run("7f3a01").state is RunState.RUNNING


def test_an_unknown_run_cannot_be_gone_on_with(store: Store) -> None:
    store.begin_run(a_new_run("7f3a01"))
    with pytest.raises(RunNotFoundError, match="no run 'none'"):
        store.resume_run("none")


# --- names -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "found"),
    [("7f3a01", "7f3a01"), ("7f3a", "7f3a"), ("7f3a0", "7f3a01"), ("8", "80bb02"), ("latest", "80bb02")],
)
def test_a_run_answers_to_its_id_a_unique_beginning_and_latest(store: Store, name: str, found: str) -> None:
    for hours, run_id in enumerate(("7f3a01", "7f3a", "80bb02")):
        store.begin_run(a_new_run(run_id, created_at=NOON + hours * HOUR))
    assert store.run(name).id == found


@pytest.mark.parametrize(
    ("name", "message", "remedy"),
    [
        ("7f", "2 runs begin with '7f'", "7f3a02, 7f3a01"),
        ("7f3b01", "no run '7f3b01'", "7f3a01"),
        ("nightly", "no run 'nightly'", "80bb02."),
        ("x", "no run 'x'", "80bb02, 7f3a02, 7f3a01"),
        ("", "no run ''", "80bb02"),
        ("7F3A", "no run '7F3A'", "muster runs"),
        ("%", "no run '%'", "muster runs"),
    ],
)
def test_a_name_that_finds_no_run_or_several_is_met_with_what_was_likely_meant(
    store: Store, name: str, message: str, remedy: str
) -> None:
    store.begin_run(a_new_run("7f3a01"))
    store.begin_run(a_new_run("7f3a02", created_at=NOON + HOUR))
    store.begin_run(a_new_run("80bb02", created_at=NOON + 2 * HOUR, name="nightly"))

    with pytest.raises(RunNotFoundError) as refused:
        store.run(name)

    assert message in refused.value.message
    assert remedy in (refused.value.remedy or "")


def test_latest_of_an_empty_store_says_how_to_make_a_run(store: Store) -> None:
    with pytest.raises(RunNotFoundError) as refused:
        store.run("latest")
    assert "muster run CONFIG" in (refused.value.remedy or "")


# --- attempts --------------------------------------------------------------------------------------------------


def test_every_attempt_is_kept_in_order_and_the_last_stands_for_the_case(store: Store) -> None:
    case = a_case()
    store.begin_run(a_new_run("7f3a01", case))
    second = a_result(case, 2)
    first = a_result(case, 1, verdict=Verdict.CRASHED, reason="SIGSEGV", samples_ms=(), stopped_by=None)
    store.save_attempt("7f3a01", second)
    store.save_attempt("7f3a01", first)
    store.save_verdict("7f3a01", case.key, Verdict.OK, None)

    [found] = store.run("7f3a01").cases

    assert [attempt.number for attempt in found.attempts] == [1, 2]
    assert [attempt.result for attempt in found.attempts] == [first, second]
    assert (found.verdict, found.reason, found.result) == (Verdict.OK, None, second)


def test_the_same_result_twice_is_stored_once(store: Store) -> None:
    case = a_case()
    store.begin_run(a_new_run("7f3a01", case))
    for _ in range(2):
        store.save_attempt("7f3a01", a_result(case))
    assert only_result(store) == a_result(case)


@pytest.mark.parametrize("other", [{"verdict": Verdict.NOISY}, {"samples_ms": (99.0, 100.0)}, {"duration_s": 1.6}])
def test_another_result_for_the_same_attempt_is_refused(store: Store, other: dict[str, Any]) -> None:
    case = a_case()
    store.begin_run(a_new_run("7f3a01", case))
    store.save_attempt("7f3a01", a_result(case))

    with pytest.raises(StoreError, match="another result already"):
        store.save_attempt("7f3a01", a_result(case, **other))

    assert only_result(store) == a_result(case)


def test_a_search_and_the_batch_that_it_found_come_back(store: Store) -> None:
    case = a_case(workload=a_workload(seeks_largest=True))
    store.begin_run(a_new_run("7f3a01", case))
    store.save_attempt("7f3a01", a_result(case, batch_size=384))
    assert only_result(store) == a_result(case, batch_size=384)


def test_results_of_unknown_runs_and_cases_are_refused(store: Store) -> None:
    store.begin_run(a_new_run("7f3a01", a_case()))
    stranger = a_case(a_device("elsewhere"))

    with pytest.raises(RunNotFoundError, match="no run 'none'"):
        store.save_attempt("none", a_result())
    with pytest.raises(RunNotFoundError, match="no run 'none'"):
        store.save_verdict("none", a_case().key, Verdict.OK, None)
    with pytest.raises(RunNotFoundError, match="no run 'none'"):
        store.finish_run("none", RunState.FINISHED, NOON)
    with pytest.raises(StoreError, match=f"run 7f3a01 has no case {stranger.key}"):
        store.save_attempt("7f3a01", a_result(stranger))
    assert store.run("7f3a01").cases[0].attempts == ()


@pytest.mark.parametrize("figure", [float("nan"), float("inf")])
def test_what_is_no_number_is_never_stored_as_one(store: Store, figure: float) -> None:
    case = a_case()
    store.begin_run(a_new_run("7f3a01", case))
    for broken in (a_result(case, samples_ms=(1.0, figure)), a_result(case, peak_flops=figure)):
        with pytest.raises(ValueError, match="not JSON compliant"):
            store.save_attempt("7f3a01", broken)
    assert store.run("7f3a01").cases[0].attempts == ()


def test_half_a_surrogate_pair_in_a_reason_does_not_lose_the_result(store: Store) -> None:
    case = a_case()
    store.begin_run(a_new_run("7f3a01", case))
    result = a_result(case, reason="no such file: \udcff.so", ending=Ending(stderr_tail="\udcff"))
    for _ in range(2):
        store.save_attempt("7f3a01", result)
    store.save_verdict("7f3a01", case.key, Verdict.CRASHED, result.reason)

    [found] = store.run("7f3a01").cases

    assert found.reason == "no such file: \\udcff.so"
    assert only_result(store) == dataclasses.replace(result, reason=found.reason)


# --- late results ----------------------------------------------------------------------------------------------


def test_a_late_result_is_kept_beside_the_attempts_and_stands_for_nothing(store: Store) -> None:
    case = a_case()
    store.begin_run(a_new_run("7f3a01", case))
    given_up = a_result(case, 1, verdict=Verdict.HOST_DOWN, reason="silent", samples_ms=(), stopped_by=None)
    late = a_result(case, 1, samples_ms=(10.0, 11.0))
    second = a_result(case, 2)
    store.save_attempt("7f3a01", given_up)
    assert store.save_late("7f3a01", late)
    assert store.run("7f3a01").cases[0].result == given_up
    store.save_attempt("7f3a01", second)
    store.save_verdict("7f3a01", case.key, Verdict.OK, None)

    [found] = store.run("7f3a01").cases

    assert [attempt.result for attempt in found.attempts] == [given_up, second]
    assert [(attempt.number, attempt.result) for attempt in found.superseded] == [(1, late)]
    assert found.result == second
    [pace] = store.paces([case], simulated=False).values()
    assert pace.step_ms == 100.0
    assert store.runs()[0].figures == 1


def test_late_results_come_back_in_the_order_in_which_they_came_each_once(store: Store) -> None:
    case, other = a_case(), a_case(a_device("other"))
    store.begin_run(a_new_run("7f3a01", case, other))
    late = [a_result(case, 2), a_result(case, 1, reason="half a pair: \udcff"), a_result(case, 1)]

    assert [store.save_late("7f3a01", result) for result in late] == [True, True, True]
    assert [store.save_late("7f3a01", result) for result in late] == [False, False, False]
    assert store.save_late("7f3a01", a_result(other))

    first, second = (found.superseded for found in store.run("7f3a01").cases)
    assert [attempt.number for attempt in first] == [2, 1, 1]
    assert [attempt.result.reason for attempt in first] == [None, "half a pair: \\udcff", None]
    assert [attempt.result for attempt in second] == [a_result(other)]


def test_a_late_result_that_is_the_attempts_own_is_not_kept_again(store: Store) -> None:
    case = a_case()
    store.begin_run(a_new_run("7f3a01", case))
    store.save_attempt("7f3a01", a_result(case))
    assert not store.save_late("7f3a01", a_result(case))
    assert store.run("7f3a01").cases[0].superseded == ()


def test_late_results_of_unknown_runs_and_cases_and_what_is_no_number_are_refused(store: Store) -> None:
    store.begin_run(a_new_run("7f3a01", a_case()))
    with pytest.raises(RunNotFoundError, match="no run 'none'"):
        store.save_late("none", a_result())
    with pytest.raises(StoreError, match="has no case"):
        store.save_late("7f3a01", a_result(a_case(a_device("elsewhere"))))
    with pytest.raises(ValueError, match="not JSON compliant"):
        store.save_late("7f3a01", a_result(samples_ms=(float("nan"),)))
    assert store.run("7f3a01").cases[0].superseded == ()


# --- what is put aside -----------------------------------------------------------------------------------------


def a_quarantine(target: str = "gpu01/gpu:0", **given: Any) -> Quarantine:
    defaults: dict[str, Any] = {
        "since": NOON,
        "until": NOON + HOUR,
        "failures": 3,
        "reason": "crashed: SIGSEGV",
        "run_id": "7f3a01",
    }
    return Quarantine(target=target, **{**defaults, **given})


def test_what_is_put_aside_comes_back_by_name_until_its_time_is_over(store: Store) -> None:
    device, host = a_quarantine(), a_quarantine("attic", until=NOON + 2 * HOUR)
    for each in (device, host):
        store.put_aside(each, simulated=False)

    assert store.quarantines(NOON, simulated=False) == (host, device)
    assert store.quarantines(NOON + HOUR, simulated=False) == (host,)
    assert store.quarantines(NOON + 2 * HOUR, simulated=False) == ()


def test_what_is_put_aside_again_is_replaced(store: Store) -> None:
    store.put_aside(a_quarantine(), simulated=False)
    again = a_quarantine(since=NOON + HOUR, until=NOON + 2 * HOUR, failures=5, reason="\udcff", run_id="80bb02")
    store.put_aside(again, simulated=False)
    assert store.quarantines(NOON, simulated=False) == (dataclasses.replace(again, reason="\\udcff"),)


def test_a_made_up_lab_keeps_no_real_device_from_its_work(store: Store) -> None:
    store.put_aside(a_quarantine(), simulated=True)
    assert store.quarantines(NOON, simulated=False) == ()
    assert not store.release("gpu01/gpu:0", simulated=False)
    assert store.quarantines(NOON, simulated=True) == (a_quarantine(),)


def test_what_is_released_is_put_aside_no_longer(store: Store) -> None:
    store.put_aside(a_quarantine(), simulated=False)
    store.put_aside(a_quarantine("attic"), simulated=False)
    assert [store.release("gpu01/gpu:0", simulated=False) for _ in range(2)] == [True, False]
    assert store.quarantines(NOON, simulated=False) == (a_quarantine("attic"),)


# --- any result ------------------------------------------------------------------------------------------------

_TEXT = st.text(max_size=20)
_MAYBE_TEXT = st.none() | _TEXT
_WORDS = st.none() | st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)
_FIGURES = st.floats(allow_nan=False, allow_infinity=False)
_STEPS = st.lists(_FIGURES, max_size=20).map(tuple)
_FACTS = st.builds(Fact, value=_TEXT | st.integers() | _FIGURES | st.booleans() | st.none(), reason=_MAYBE_TEXT)
_RESULTS = st.builds(
    Result,
    case_key=st.just(a_case().key),
    attempt=st.integers(1, 2**31 - 1),
    verdict=st.sampled_from(Verdict),
    reason=_WORDS,
    warmup_ms=_STEPS,
    samples_ms=_STEPS,
    stopped_by=st.none() | st.sampled_from(StoppedBy),
    peak_flops=st.none() | _FIGURES,
    peak_reason=_WORDS,
    copy_bytes_per_s=st.none() | _FIGURES,
    copy_reason=_WORDS,
    phases=st.lists(st.builds(PhaseTiming, phase=st.sampled_from(Phase), seconds=_FIGURES), max_size=5).map(tuple),
    environment=st.builds(Environment, facts=st.lists(st.tuples(_TEXT, _FACTS), max_size=4).map(tuple)),
    ending=st.builds(Ending, exit_code=st.none() | st.integers(), signal=_MAYBE_TEXT, stderr_tail=_TEXT),
    started_at=_FIGURES,
    duration_s=_FIGURES,
)


def bits(steps_ms: tuple[float, ...]) -> bytes:
    return struct.pack(f"={len(steps_ms)}d", *steps_ms)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(result=_RESULTS)
def test_any_result_comes_back_exactly_to_the_bit(store: Store, result: Result) -> None:
    run_id = f"run-{len(store.runs())}"
    store.begin_run(a_new_run(run_id, a_case()))
    assert store.save_late(run_id, result)
    for _ in range(2):
        store.save_attempt(run_id, result)

    found = only_result(store, run_id)

    [late] = store.run(run_id).cases[0].superseded
    assert (late.number, late.result) == (result.attempt, found)
    assert bits(late.result.samples_ms) == bits(result.samples_ms)
    assert found == result
    assert bits(found.samples_ms) == bits(result.samples_ms)
    assert bits(found.warmup_ms) == bits(result.warmup_ms)


# --- paces -----------------------------------------------------------------------------------------------------


def test_a_pace_is_the_median_step_and_everything_that_was_not_a_step(store: Store) -> None:
    case = a_case()
    store.begin_run(a_new_run("7f3a01", case))
    store.save_attempt("7f3a01", a_result(case, warmup_ms=(500.0,), samples_ms=(90.0, 100.0, 310.0), duration_s=3.0))

    assert store.paces([case], simulated=False) == {
        (case.device.id, case.workload): Pace(startup_s=2.0, step_ms=100.0),
    }


def test_a_pace_is_of_the_last_attempt_with_a_figure(store: Store) -> None:
    case, resampled = a_case(), a_case(sampling=a_sampling(max_steps=500))
    for number, run_id in enumerate(("first", "second", "third"), 1):
        store.begin_run(a_new_run(run_id, case, created_at=NOON - number * HOUR))
    store.save_attempt("first", a_result(case, samples_ms=(10.0,)))
    store.save_attempt("second", a_result(case, samples_ms=(20.0,), verdict=Verdict.NOISY))
    store.save_attempt("third", a_result(case, samples_ms=(30.0,), verdict=Verdict.TIMEOUT))
    store.save_attempt("third", a_result(case, 2, samples_ms=()))

    [pace] = store.paces([resampled], simulated=False).values()

    assert pace.step_ms == 20.0


def test_paces_keep_devices_workloads_and_simulated_figures_apart(store: Store) -> None:
    case = a_case()
    store.begin_run(a_new_run("7f3a01", case, simulated=True))
    store.save_attempt("7f3a01", a_result(case))
    elsewhere, larger = a_case(a_device("elsewhere")), a_case(workload=a_workload(batch_size=256))

    assert store.paces([case, elsewhere, larger], simulated=False) == {}
    assert store.paces([elsewhere, larger], simulated=True) == {}
    assert store.paces([], simulated=True) == {}
    assert list(store.paces([case, elsewhere, larger], simulated=True)) == [(case.device.id, case.workload)]


def test_paces_of_more_devices_than_fit_in_one_question(store: Store) -> None:
    cases = tuple(a_case(a_device(f"host-{number}")) for number in range(1100))
    store.begin_run(a_new_run("7f3a01", *cases))
    for case in (cases[0], cases[600], cases[1099]):
        store.save_attempt("7f3a01", a_result(case))

    found = store.paces(cases, simulated=False)

    assert {device_id for device_id, _ in found} == {"host-0/cpu", "host-600/cpu", "host-1099/cpu"}


def test_no_start_up_time_is_below_nothing(store: Store) -> None:
    case = a_case()
    store.begin_run(a_new_run("7f3a01", case))
    store.save_attempt("7f3a01", a_result(case, samples_ms=(100.0,), warmup_ms=(), duration_s=0.05))
    [pace] = store.paces([case], simulated=False).values()
    assert pace.startup_s == 0.0


def test_a_nul_in_a_reason_does_not_lose_the_result(store: Store) -> None:
    store.begin_run(a_new_run("7f3a01", a_case()))
    for _ in range(2):
        store.save_attempt("7f3a01", a_result(reason="cut\0off", ending=Ending(stderr_tail="a\0b")))
    assert only_result(store).reason == "cut\\x00off"
    assert only_result(store).ending.stderr_tail == "a\0b"


# --- what comparisons rest on ------------------------------------------------------------------------------------


def a_floor(device_id: str = "gpu01/gpu:0", **given: Any) -> NoiseFloor:
    defaults: dict[str, Any] = {
        "device_id": device_id,
        "device_uuid": "GPU-1",
        "workload": a_workload(),
        "measured_at": NOON,
        "run_id": "7f3a01",
        "processes": 5,
        "between_sd": 0.0123456789012345,
        "within_sd": 0.004,
    }
    return NoiseFloor(**{**defaults, **given})


def test_the_newest_noise_floor_of_a_device_and_workload_comes_back(store: Store) -> None:
    older, newer = a_floor(), a_floor(between_sd=0.02, run_id="80bb02")
    other_card, other_work = a_floor(device_uuid=None), a_floor(workload=a_workload(batch_size=64))
    store.save_noise_floors([older, other_card, other_work], simulated=False)
    store.save_noise_floors([newer], simulated=False)
    assert set(store.noise_floors(simulated=False)) == {newer, other_card, other_work}


def test_made_up_noise_floors_never_mix_with_real_ones(store: Store) -> None:
    store.save_noise_floors([a_floor()], simulated=True)
    store.save_noise_floors([], simulated=False)
    assert store.noise_floors(simulated=False) == ()
    assert store.noise_floors(simulated=True) == (a_floor(),)


def test_a_baseline_stands_for_a_run_until_it_is_given_to_another_or_removed(store: Store) -> None:
    for run_id in ("7f3a01", "80bb02"):
        store.begin_run(a_new_run(run_id, a_case()))
    assert store.set_baseline("night", "7f3", NOON) == Baseline(name="night", run_id="7f3a01", set_at=NOON)
    store.set_baseline("good", "80bb02", NOON)
    store.set_baseline("night", "80bb02", NOON)
    assert [(one.name, one.run_id) for one in store.baselines()] == [("good", "80bb02"), ("night", "80bb02")]
    assert store.remove_baseline("night")
    assert not store.remove_baseline("night")
    assert [one.name for one in store.baselines()] == ["good"]
    assert store.run("80bb02").id == "80bb02"


def test_a_baseline_of_no_run_is_refused(store: Store) -> None:
    with pytest.raises(RunNotFoundError):
        store.set_baseline("night", "nowhere", NOON)
    assert store.baselines() == ()


def test_processes_company_telemetry_and_doubts_come_back(store: Store) -> None:
    case = dataclasses.replace(a_case(), process=3, company=Company.TOGETHER)
    doubt = Doubt(kind=DoubtKind.CONTENDED, text="others used 38 %", value=0.38, limit=0.1)
    seen = a_telemetry(cpu__others_percent=[38.0, None])
    result = a_result(case, verdict=Verdict.CONTENDED, doubts=(doubt,), telemetry=seen)
    store.begin_run(a_new_run("7f3a01", case))
    store.save_attempt("7f3a01", result)
    (kept,) = store.run("7f3a01").cases
    assert kept.case == case
    assert kept.result == result


# --- runs of others ----------------------------------------------------------------------------------------------


def a_foreign_run(**given: object) -> Run:
    foreign = a_run_with_attempts(**given)
    return dataclasses.replace(
        foreign, cases=tuple(dataclasses.replace(each, position=place) for place, each in enumerate(foreign.cases))
    )


FROM = Imported(source="theirs.zip", at=NOON)


def test_a_run_of_another_lab_is_kept_whole_and_says_where_it_came_from(store: Store) -> None:
    foreign = a_foreign_run()
    assert store.import_run(foreign, FROM)
    assert store.run(foreign.id) == dataclasses.replace(foreign, imported=FROM)
    (summary,) = store.runs()
    assert (summary.imported, summary.state, summary.figures) == (FROM, RunState.FINISHED, 2)


def test_the_same_run_again_changes_nothing_and_another_of_its_id_is_refused(store: Store) -> None:
    foreign = a_foreign_run()
    store.import_run(foreign, FROM)
    assert not store.import_run(foreign, Imported(source="again.zip", at=NOON + HOUR))
    assert store.run(foreign.id).imported == FROM
    with pytest.raises(StoreError, match=f"run {foreign.id} is there already, and is another one"):
        store.import_run(a_foreign_run(name="another"), FROM)
    assert store.run(foreign.id) == dataclasses.replace(foreign, imported=FROM)


def test_a_run_that_was_going_on_there_is_interrupted_here(store: Store) -> None:
    foreign = a_foreign_run(state=RunState.RUNNING, finished_at=None)
    store.import_run(foreign, FROM)
    assert store.run(foreign.id).state is RunState.INTERRUPTED
    assert not store.import_run(foreign, FROM)


def test_a_foreign_run_with_a_figure_that_is_none_leaves_nothing(store: Store) -> None:
    foreign = a_foreign_run()
    (attempt,) = foreign.cases[0].attempts[1:]
    wrong = dataclasses.replace(attempt, result=dataclasses.replace(attempt.result, samples_ms=(float("nan"),)))
    broken = dataclasses.replace(foreign.cases[0], attempts=(wrong,))
    with pytest.raises(ValueError, match="JSON"):
        store.import_run(dataclasses.replace(foreign, cases=(*foreign.cases[1:], broken)), FROM)
    assert store.runs() == ()


def test_runs_of_others_are_no_history_of_this_lab(store: Store) -> None:
    foreign = a_foreign_run(created_at=NOON + HOUR)
    store.import_run(foreign, FROM)
    assert store.run("latest").id == foreign.id
    assert store.paces([each.case for each in foreign.cases], simulated=False) == {}
    store.begin_run(a_new_run("7f3a01", a_case()))
    assert store.run("latest").id == "7f3a01"


# --- schedules -------------------------------------------------------------------------------------------------


def a_schedule(name: str = "night", **given: Any) -> Schedule:
    defaults: dict[str, Any] = {
        "added_at": NOON,
        "config_text": "version: 1\n# ünï\n",
        "config_path": "/lab/night.yaml",
        "overrides": ("measure.steps=20",),
        "simulated": False,
        "is_paused": False,
        "decided_until": NOON,
    }
    return Schedule(name=name, **{**defaults, **given})


def a_firing(hours: int, state: FiringState = FiringState.WAITING, reason: str | None = None) -> NewFiring:
    due = NOON + hours * HOUR
    return NewFiring(due_at=due, begins_at=due, cause=Cause.TIME, state=state, reason=reason)


def test_a_schedule_comes_back_is_replaced_paused_and_removed(store: Store) -> None:
    book = store.schedules
    assert not book.put(a_schedule())
    assert not book.put(a_schedule("day", simulated=True))
    assert book.every() == (a_schedule("day", simulated=True), a_schedule())
    assert book.put(a_schedule(config_text="version: 1\n"))
    assert book.pause("night", True)
    assert book.every()[1] == a_schedule(config_text="version: 1\n", is_paused=True)
    assert not book.pause("nobody", True)
    assert book.remove("night")
    assert not book.remove("night")
    assert [one.name for one in book.every()] == ["day"]


def test_times_are_decided_once_whoever_asks(store: Store) -> None:
    book = store.schedules
    book.put(a_schedule())
    (seen,) = book.every()
    until = NOON + 2 * HOUR
    skipped = a_firing(2, FiringState.SKIPPED, "the schedule was paused")
    assert book.decide(seen, [a_firing(1), skipped], until)
    assert not book.decide(seen, [a_firing(1)], until)
    assert book.every()[0].decided_until == until
    assert [(one.due_at, one.state, one.reason) for one in book.history("night", 5)] == [
        (NOON + 2 * HOUR, FiringState.SKIPPED, "the schedule was paused"),
        (NOON + HOUR, FiringState.WAITING, None),
    ]
    assert [one.due_at for one in book.open()] == [NOON + HOUR]


def test_what_came_of_a_time_comes_back(store: Store) -> None:
    book = store.schedules
    asked = book.ask("night", NOON)
    assert (asked.cause, asked.state) == (Cause.ASKED, FiringState.WAITING)
    book.change(asked.id, state=FiringState.RUNNING, run_id="7f3a01", began_at=NOON)
    assert [one.id for one in book.open()] == [asked.id]
    book.change(asked.id, state=FiringState.DONE, outcome="ok", told=("webhook: told",), ended_at=NOON + HOUR)
    done = book.firing(asked.id)
    assert done is not None
    assert (done.state, done.outcome, done.told) == (FiringState.DONE, "ok", ("webhook: told",))
    assert (done.run_id, done.began_at, done.ended_at) == ("7f3a01", NOON, NOON + HOUR)
    assert (book.open(), book.firing(asked.id + 1)) == ((), None)


def test_a_run_knows_the_schedule_that_began_it(store: Store) -> None:
    store.begin_run(a_new_run("7f3a01", a_case(), schedule="night"))
    store.begin_run(a_new_run("80bb02", a_case()))
    assert {run.id: run.schedule for run in store.runs()} == {"7f3a01": "night", "80bb02": None}
    assert store.run("7f3a01").schedule == "night"


def test_the_devices_of_a_case_come_back(store: Store) -> None:
    case = dataclasses.replace(a_case(a_device("a", "gpu:0")), peers=(a_device("a", "gpu:1"), a_device("b", "gpu:0")))
    store.begin_run(a_new_run("7f3a01", case))
    assert store.run("7f3a01").cases[0].case == case


def test_runs_are_removed_with_all_that_is_theirs_and_baselines_stay(store: Store) -> None:
    one, other = a_case(), a_case(a_device("b"))
    shared = Environment(facts=(("cpu.model", Fact(value="shared")),))
    for run_id in ("7f3a01", "80bb02", "91cc03"):
        own = Environment(facts=(("cpu.model", Fact(value=run_id)),))
        store.begin_run(a_new_run(run_id, one, other))
        store.save_attempt(run_id, a_result(one, environment=shared))
        store.save_attempt(run_id, a_result(other, environment=own))
        store.save_late(run_id, a_result(other, 1, reason="late"))
        store.finish_run(run_id, RunState.FINISHED, NOON)
    before = store.run("91cc03")
    store.set_baseline("good", "80bb02", NOON)
    assert store.remove_runs(["7f3a01", "80bb02", "no-such-run"]) == 1
    assert [run.id for run in store.runs()] == ["91cc03", "80bb02"]
    assert store.run("91cc03") == before
    with store.written_by("91cc03"):
        assert store.remove_runs(["91cc03"]) == 0
    assert store.remove_runs(["91cc03"]) == 1
    store.begin_run(a_new_run("7f3a01", one))
    store.save_attempt("7f3a01", a_result(one, environment=shared))
    assert store.run("7f3a01").cases[0].attempts[0].result.environment == shared


def test_who_is_at_work_is_told_by_name(store: Store) -> None:
    with store.written_by("scheduler"), store.written_by("firing-3"):
        assert store.at_work() == {"scheduler", "firing-3"}
        with pytest.raises(StoreBusyError), store.written_by("scheduler"):
            pass
    assert store.at_work() == frozenset()


# --- what goes on, and what has been -----------------------------------------------------------------------------


def test_where_a_run_is_is_known_while_somebody_is_at_work_on_it(store: Store) -> None:
    one, other = a_live_run("aaaaaaaaaaaa", "ünï"), a_live_run("bbbbbbbbbbbb")
    store.put_live(one)
    assert store.live() == ()
    with store.written_by("aaaaaaaaaaaa"):
        store.put_live(other)  # of a head that was killed
        assert store.live() == (one,)
        later = a_live_run("aaaaaaaaaaaa", step=7)
        store.put_live(later)
        assert store.live() == (later,)
        with store.written_by("bbbbbbbbbbbb"):
            assert store.live() == (later, other)
            store.drop_live("aaaaaaaaaaaa")
            assert store.live() == (other,)
        store.drop_live("aaaaaaaaaaaa")
        with store.written_by("bbbbbbbbbbbb"):
            assert store.live() == ()


def test_devices_are_seen_as_the_latest_run_of_this_store_has_them(store: Store) -> None:
    fill(store)
    seen = store.devices_seen(simulated=False)
    assert [(each.device.id, each.run_id, each.verdict) for each in seen] == [
        ("lab/cpu", "7bcdef012345", Verdict.NOISY),
        ("lab/gpu:0", "7bcdef012345", Verdict.DEVICE_MISSING),
    ]
    assert {each.run_id for each in store.devices_seen(simulated=True)} == {"simulated012"}


def test_a_history_has_the_runs_with_a_figure_oldest_first(store: Store) -> None:
    fill(store)
    (history,) = store.histories(simulated=False)
    assert (history.case.device.id, history.runs) == ("lab/cpu", 8)
    past = store.past("lab/cpu", history.case.workload, 3, simulated=False)
    assert [each.run_id for each in past] == [f"{number}bcdef012345" for number in (5, 6, 7)]
    assert history.last_at == past[-1].created_at
    (known,) = past[-1].cases
    assert known.result == store.run("7bcdef012345").cases[0].result
    assert [each.run_id for each in store.past("lab/cpu", history.case.workload, 9, simulated=True)] == ["simulated012"]
    assert store.past("lab/gpu:0", history.case.workload, 9, simulated=False) == ()
    assert store.past("nobody/cpu", history.case.workload, 9, simulated=False) == ()


def test_figures_taken_in_company_are_no_part_of_a_history(store: Store) -> None:
    alone, together = (
        a_case(a_device("a"), company=company, key=company.value) for company in (Company.ALONE, Company.TOGETHER)
    )
    store.begin_run(a_new_run("7f3a01", alone, together))
    for case, ms in ((alone, 10.0), (together, 20.0)):
        store.save_attempt("7f3a01", a_result(case, samples_ms=(ms, ms)))
        store.save_verdict("7f3a01", case.key, Verdict.OK, None)
    (history,) = store.histories(simulated=False)
    (past,) = store.past("a/cpu", history.case.workload, 9, simulated=False)
    assert [known.case for known in past.cases] == [alone]


def test_a_name_a_runs_end_and_the_states_are_asked_for_without_the_runs(store: Store) -> None:
    fill(store)
    assert store.resolved("latest") == store.run("latest").id
    assert store.resolved("7bcd") == "7bcdef012345"
    assert store.ended_at("7bcdef012345") == store.run("7bcdef012345").finished_at
    assert store.ended_at("nobody") is None
    store.resume_run("7bcdef012345")
    assert store.ended_at("7bcdef012345") is None
    assert store.states() == {RunState.FINISHED: 9, RunState.INTERRUPTED: 1}
    with store.written_by("7bcdef012345"):
        assert store.states() == {RunState.FINISHED: 9, RunState.RUNNING: 1}
    with pytest.raises(RunNotFoundError):
        store.resolved("nobody")
