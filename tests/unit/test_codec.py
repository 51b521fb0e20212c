from __future__ import annotations

import json
import math

import pytest

from tests.builders import a_case, a_device, a_result, a_workload
from workers.codec import CodecError, event_from_json, event_to_json, from_data, from_json, to_data, to_json
from workers.protocol import (
    Case,
    Device,
    Environment,
    Fact,
    Finished,
    Pass,
    PhaseEntered,
    PhaseTiming,
    Result,
    SampleBatch,
    Verdict,
    Workload,
)


def test_json_is_one_canonical_line() -> None:
    line = to_json(a_workload())
    assert line.startswith('{"batch_size":128,"compiler":"none"')
    assert "\n" not in line
    assert list(json.loads(line)) == sorted(json.loads(line))


def test_a_trailing_underscore_stays_in_python() -> None:
    data = to_data(a_workload(pass_=Pass.FORWARD_BACKWARD))
    assert data["pass"] == "forward_backward"
    assert "pass_" not in data
    assert from_data(Workload, data).pass_ is Pass.FORWARD_BACKWARD


@pytest.mark.parametrize("value", [a_device(), a_device(selector="gpu:1"), a_case(), a_result()])
def test_what_is_written_is_read_again(value: Device | Case | Result) -> None:
    assert from_json(type(value), to_json(value)) == value


def test_what_came_later_is_not_written_where_it_says_nothing() -> None:
    assert "seeks_largest" not in to_data(a_workload())
    assert from_data(Workload, to_data(a_workload())).seeks_largest is False
    assert to_data(a_workload(seeks_largest=True))["seeks_largest"] is True


def test_names_of_any_script_survive_in_ascii() -> None:
    device = a_device(name="GeForce Ω ☃ \u2028 | \x00")
    assert to_json(device).isascii()
    assert from_json(Device, to_json(device)) == device


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_figure_that_is_none_is_neither_written_nor_read(value: float) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        to_json(SampleBatch(warmup=False, ms=(value,)))
    with pytest.raises(CodecError, match="is not a number"):
        event_from_json((SampleBatch,), '{"event":"SampleBatch","warmup":false,"ms":[NaN]}')
    with pytest.raises(CodecError, match="is not a number"):
        from_json(SampleBatch, '{"warmup":false,"ms":[-Infinity]}')
    with pytest.raises(CodecError, match=r"SampleBatch\.ms\[0\]: inf is not a number"):
        from_json(SampleBatch, '{"warmup":false,"ms":[1e999]}')
    with pytest.raises(CodecError, match=r"peak_flops: inf is not a number"):
        from_json(Finished, '{"verdict":"ok","peak_flops":1e999}')


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not JSON"),
        ("{", "not JSON"),
        (b"\xff", "not JSON"),
        ("[]", "SampleBatch: expected a mapping"),
        ("{}", "SampleBatch: warmup is missing"),
        ('{"warmup":1,"ms":[]}', "SampleBatch.warmup: expected bool, found 1"),
        ('{"warmup":true,"ms":{}}', "SampleBatch.ms: expected a list"),
        ('{"warmup":true,"ms":[1,"2"]}', r"SampleBatch.ms\[1\]: expected float, found '2'"),
        ('{"warmup":true,"ms":[true]}', r"SampleBatch.ms\[0\]: expected float, found True"),
        ('{"warmup":true,"ms":[],"more":1}', r"SampleBatch: unknown \['more'\]"),
    ],
)
def test_what_does_not_fit_is_refused_with_its_place(text: str | bytes, message: str) -> None:
    with pytest.raises(CodecError, match=message):
        from_json(SampleBatch, text)


def test_whole_numbers_are_read_as_times() -> None:
    batch = from_json(SampleBatch, '{"warmup":true,"ms":[3]}')
    assert isinstance(batch.ms[0], float)


def test_facts_keep_their_types() -> None:
    facts = tuple((name, Fact(value=value)) for name, value in (("a", True), ("b", 1), ("c", 1.0), ("d", "1")))
    found = from_json(Environment, to_json(Environment(facts=facts)))
    assert [type(fact.value) for _, fact in found.facts] == [bool, int, float, str]


def test_a_whole_number_too_large_for_a_float_is_refused() -> None:
    with pytest.raises(CodecError, match=r"PhaseTiming.seconds: a number too large for a float"):
        from_json(PhaseTiming, '{"phase":"measure","seconds":1' + 400 * "0" + "}")


def test_a_pair_has_two_members() -> None:
    with pytest.raises(CodecError, match="expected 2 items, found 1"):
        from_json(Environment, '{"facts":[["alone"]]}')


def test_no_member_of_a_union_fits() -> None:
    with pytest.raises(CodecError, match=r"Fact\.value: expected one of str, int, float, bool, found \[\]"):
        from_json(Fact, '{"value":[]}')


def test_an_unknown_verdict_is_refused_and_those_there_are_named() -> None:
    with pytest.raises(CodecError, match=r"'great' is not one of .*'ok'"):
        from_json(Finished, '{"verdict":"great"}')


def test_events_carry_their_names() -> None:
    event = Finished(verdict=Verdict.OK)
    line = event_to_json(event)
    assert json.loads(line)["event"] == "Finished"
    assert event_from_json((PhaseEntered, Finished), line) == event


@pytest.mark.parametrize("line", ["{}", "[]", '{"event":"Ended"}', '{"event":7}', '{"event":["Finished"]}'])
def test_other_events_are_refused(line: str) -> None:
    with pytest.raises(CodecError, match="is not one of"):
        event_from_json((Finished,), line)
