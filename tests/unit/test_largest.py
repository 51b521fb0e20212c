from __future__ import annotations

import dataclasses

import pytest

from tests.builders import a_case, a_result, a_sampling, a_workload
from workers.codec import event_to_json
from workers.largest import ProbeStory, Search, facts, failed, measuring, probing
from workers.protocol import (
    AttemptRequest,
    Ending,
    Environment,
    Fact,
    Finished,
    SampleBatch,
    Sampling,
    Started,
    StoppedBy,
    Verdict,
)


def tried(start: int, limit: int) -> list[int]:
    """The batches that a search tries where ``limit`` is the largest that fits."""
    search, batches = Search(start), []
    while (batch_size := search.next_batch) is not None:
        batches.append(batch_size)
        search.tell(batch_size, fits=batch_size <= limit)
    assert search.found == max((batch for batch in batches if batch <= limit), default=None)
    return batches


def test_it_doubles_while_batches_fit_and_then_halves_what_is_left() -> None:
    assert tried(128, 417) == [128, 256, 512, 384, 448, 416, 432]


def test_it_goes_down_where_not_even_the_start_fits() -> None:
    assert tried(128, 100) == [128, 64, 96, 112, 104, 100]


def test_where_not_one_image_fits_it_gives_up() -> None:
    assert tried(8, 0) == [8, 4, 2, 1]


def test_far_from_the_start_its_steps_grow_and_the_gap_is_halved_by_its_ratio() -> None:
    assert tried(100, 30_000)[:9] == [100, 200, 400, 800, 1600, 6400, 25_600, 102_400, 51_200]


def test_it_ends_at_the_largest_number_that_there_is() -> None:
    assert tried(2**30, 2**40) == [2**30, 2**31 - 1]


def test_what_is_known_so_far_is_told_in_words() -> None:
    search = Search(128)
    assert search.in_words() == "128 comes first"
    search.tell(128, fits=False)
    assert search.in_words() == "128 does not fit"
    search.tell(64, fits=True)
    assert search.in_words() == "64 fits, 128 does not"
    other = Search(2)
    other.tell(2, fits=True)
    assert other.in_words() == "2 fits"


def test_every_batch_that_was_tried_is_a_fact_and_the_limit_beside_it() -> None:
    search = Search(2)
    for batch_size, fits in ((2, True), (4, False), (3, True)):
        search.tell(batch_size, fits=fits)
    assert facts(search, 7).facts == (
        ("search.memory_bytes", Fact(value=7)),
        ("search.tried", Fact(value="2 fits, 4 does not, 3 fits")),
    )
    assert facts(search, None).get("search.memory_bytes").reason == "no limit but the device's own memory"


def test_a_probe_that_shows_neither_says_where_the_search_was() -> None:
    search = Search(2)
    search.tell(2, fits=True)
    stop = failed(search, 4, a_result(verdict=Verdict.CRASHED, reason="ended by SIGSEGV"))
    assert (stop.verdict, stop.reason) == (Verdict.CRASHED, "while batch 4 was tried (2 fits): ended by SIGSEGV")


def test_a_batch_that_does_not_fit_for_long_gives_way_to_a_smaller_one() -> None:
    search = Search(8)
    search.tell(8, fits=True)
    found = []
    while search.found is not None:
        found.append(search.found)
        search.retract()
    assert found == [8, 7, 6, 5, 4, 3, 2, 1]
    assert search.tried.startswith("8 fits, 8 does not for long, 7 does not for long")


# --- its children ----------------------------------------------------------------------------------------------


@pytest.fixture
def request_() -> AttemptRequest:
    case = a_case(workload=a_workload(seeks_largest=True), sampling=a_sampling(max_steps=7, min_steps=7))
    return AttemptRequest(run_id="r", case=case, attempt=1, start_timeout_s=10.0, case_timeout_s=60.0)


def test_the_last_child_measures_one_batch_as_the_case_says(request_: AttemptRequest) -> None:
    measured = measuring(request_, 384, 9)
    assert measured.case.workload == a_workload(batch_size=384)
    assert (measured.case.sampling, measured.memory_bytes) == (request_.case.sampling, 9)
    assert measured.case.key == request_.case.key


def test_a_probe_takes_one_step_after_one_of_warm_up(request_: AttemptRequest) -> None:
    probed = probing(request_, 384, None)
    assert probed.case.workload == a_workload(batch_size=384)
    assert probed.case.sampling == Sampling(warmup=1, min_steps=1, max_steps=1)
    assert probed.memory_bytes is None


def test_a_probe_may_take_less_than_the_child_that_measures(request_: AttemptRequest) -> None:
    assert probing(request_, 384, 800).memory_bytes == 700


def test_the_head_hears_nothing_of_a_probe_that_fits(request_: AttemptRequest) -> None:
    story = ProbeStory(probing(request_, 2, None), begun_at=0.0, until=60.0)

    for event in (
        Started(environment=Environment()),
        SampleBatch(warmup=False, ms=(1.0,)),
        Finished(verdict=Verdict.OK, stopped_by=StoppedBy.STEPS),
    ):
        assert story.observe(event_to_json(event).encode(), at=1.0) == ()
    assert story.shown(Ending(exit_code=0), None).verdict is Verdict.OK


def test_a_probe_has_the_deadlines_of_a_case_and_that_of_the_search(request_: AttemptRequest) -> None:
    early = ProbeStory(probing(request_, 2, None), begun_at=0.0, until=60.0)
    assert early.deadline == 10.0
    assert early.passed_deadline().reason == "no first step within 10 s (before it said anything)"
    late = ProbeStory(dataclasses.replace(request_, start_timeout_s=90.0), begun_at=0.0, until=60.0)
    assert late.deadline == 60.0
    assert (late.passed_deadline().verdict, late.passed_deadline().reason) == (
        Verdict.TIMEOUT,
        "the search had taken as long as a case may",
    )
