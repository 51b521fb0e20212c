"""Where runs are, as a page shows it: what is sent is enough, and no more than has changed."""

from __future__ import annotations

import asyncio
import json
from contextlib import closing
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.live import LiveDevice, LiveRun
from orchestrator.report.table import Cell, Column, Row, RowKind, Table
from orchestrator.store import open_store
from orchestrator.web.feed import Feed
from orchestrator.web.liveview import changes, everything, structure, views
from orchestrator.web.sorting import sorted_by
from orchestrator.web.source import StoreSource
from tests.stores import a_live_run

if TYPE_CHECKING:
    from pathlib import Path

    from orchestrator.report.table import CellValue
    from orchestrator.web.liveview import RunView

devices = st.builds(
    LiveDevice,
    id=st.sampled_from(["a/cpu", "a/gpu:0", "b/gpu:0"]),
    host=st.sampled_from(["a", "b"]),
    name=st.text(max_size=3),
    activity=st.sampled_from(["measuring", "queued", "lost"]),
    case=st.none() | st.text(max_size=3),
    attempt=st.none() | st.integers(1, 3),
    doing=st.none() | st.text(max_size=3),
    step=st.none() | st.integers(0, 9),
    max_steps=st.none() | st.integers(1, 9),
    last_ms=st.none() | st.floats(0, 1e6),
    temperature_c=st.none() | st.floats(0, 100),
    power_w=st.none() | st.floats(0, 1000),
    left_s=st.none() | st.floats(0, 1e5),
    done=st.integers(0, 5),
    failed=st.integers(0, 5),
    total=st.integers(0, 5),
)
runs = st.builds(
    LiveRun,
    run_id=st.just("r1"),
    name=st.just("lab"),
    simulated=st.just(False),
    at=st.just("2026-11-30T00:00:00+00:00"),
    elapsed_s=st.floats(0, 1e5),
    left_s=st.none() | st.floats(0, 1e5),
    done=st.integers(0, 9),
    failed=st.integers(0, 9),
    total=st.integers(0, 9),
    stages=st.lists(st.text(max_size=3), max_size=2).map(tuple),
    silent=st.lists(st.text(max_size=3), max_size=2).map(tuple),
    devices=st.lists(devices, max_size=4).map(tuple),
)


def page(view: RunView) -> dict[str, Any]:
    """What a page has of a run, as the script sees it."""
    shown = asdict(view)
    shown["devices"] = {str(line["number"]): line for line in shown["devices"]}
    return shown


def applied(shown: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    """What the script makes of it."""
    lines = {number: {**line, **change.get("devices", {}).get(number, {})} for number, line in shown["devices"].items()}
    return {**shown, **change, "devices": lines}


@given(runs, runs)
def test_changes_bring_a_page_up_to_date_or_have_it_drawn_anew(before: LiveRun, now: LiveRun) -> None:
    old, new = views([before]), views([now])
    told = changes(old, new)
    assert told["structure"] == structure(new)
    if structure(old) != structure(new):
        assert told["runs"] == {}
        return
    json.dumps(told)
    assert applied(page(old[0]), told["runs"].get("r1", {})) == page(new[0])
    assert changes(new, new)["runs"] == {}


@given(runs, runs)
def test_everything_brings_any_page_of_that_structure_up_to_date(before: LiveRun, now: LiveRun) -> None:
    now = replace(
        now,
        devices=tuple(
            replace(each, id=old.id, host=old.host, name=old.name)
            for each, old in zip(now.devices, before.devices, strict=False)
        ),
    )
    before = replace(before, devices=before.devices[: len(now.devices)])
    old, new = views([before]), views([now])
    told = everything(new)
    assert told["structure"] == structure(new) == structure(old)
    assert applied(page(old[0]), told["runs"]["r1"]) == page(new[0])


def test_only_the_fields_that_changed_are_told() -> None:
    before, now = a_live_run(step=3), a_live_run(step=4)
    assert changes(views([before]), views([now]))["runs"] == {
        "aaaaaaaaaaaa": {"devices": {"0": {"steps": "4/50", "step": 4}, "1": {"steps": "4/50", "step": 4}}}
    }


def test_other_devices_or_runs_are_another_structure() -> None:
    one, more = a_live_run(), a_live_run(devices=3)
    assert len({structure(views(found)) for found in ([], [one], [more], [one, replace(one, run_id="b")])}) == 4


def test_devices_of_a_host_stand_together_wherever_they_are_in_the_plan() -> None:
    run = a_live_run(devices=3)
    mixed = replace(run, devices=tuple(replace(each, host="ab"[number % 2]) for number, each in enumerate(run.devices)))
    (view,) = views([mixed])
    assert [(host, [line.number for line in lines]) for host, lines in view.hosts] == [("a", [0, 2]), ("b", [1])]


def test_a_looker_is_told_everything_at_first_then_what_changes_until_the_end(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'muster.db'}"

    async def told() -> list[dict[str, Any]]:
        feed = Feed(StoreSource(url), every_s=0.01)
        with closing(open_store(url)) as store, store.written_by("aaaaaaaaaaaa"):
            store.put_live(a_live_run(step=3))
            shown = structure(views(store.live()))
            events = feed.events(shown)
            found = [await anext(events)]
            store.put_live(a_live_run(step=4))
            found.append(await asyncio.wait_for(anext(events), 20))
            store.drop_live("aaaaaaaaaaaa")
            found.append(await asyncio.wait_for(anext(events), 20))
            late = feed.events(shown)
            found.append(await anext(late))
            feed.close()
            assert [each async for each in events] == []
            await late.aclose()  # type: ignore[attr-defined]
            return [json.loads(each.removeprefix("data: ")) for each in found]

    first, second, third, late = asyncio.run(told())
    line = first["runs"]["aaaaaaaaaaaa"]["devices"]["0"]
    assert (line["steps"], line["heat"], first["runs"]["aaaaaaaaaaaa"]["cases"]) == ("3/50", "61 °C", "1 of 4 cases")
    assert second["runs"]["aaaaaaaaaaaa"]["devices"]["0"] == {"steps": "4/50", "step": 4}
    assert third["runs"] == late["runs"] == {}
    assert third["structure"] == structure(())


def test_what_is_wrong_with_the_store_is_told_to_the_page(tmp_path: Path) -> None:
    (tmp_path / "muster.db").write_text("not a store at all, and long enough to be looked at")

    async def told() -> list[str]:
        return [each async for each in Feed(StoreSource(f"sqlite:///{tmp_path / 'muster.db'}")).events("")]

    (event,) = asyncio.run(told())
    assert "not a SQLite file" in json.loads(event.removeprefix("data: "))["problem"]


# --- the order of a table ---------------------------------------------------------------------------------------


def a_table(*values: CellValue) -> Table:
    rows = tuple(
        Row(kind=RowKind.MEASURED, cells=(Cell(text=str(place)), Cell(text="", value=value)))
        for place, value in enumerate(values)
    )
    return Table(title="", columns=(Column(key="place", heading=""), Column(key="x", heading="")), rows=rows)


def order(table: Table) -> list[int]:
    return [int(row.cells[0].text) for row in table.rows]


def test_rows_without_a_figure_are_last_whichever_way() -> None:
    table = a_table(2.0, None, 1, "b", "A", None)
    assert order(sorted_by(table, "x")) == [2, 0, 4, 3, 1, 5]
    assert order(sorted_by(table, "x", is_descending=True)) == [3, 4, 0, 2, 1, 5]
    assert sorted_by(table, "y") is table
    assert sorted_by(table, None) is table


@given(st.lists(st.none() | st.integers() | st.floats(allow_nan=False) | st.text()))
def test_sorting_loses_no_row_and_is_stable(values: list[CellValue]) -> None:
    table = a_table(*values)
    once = sorted_by(table, "x")
    assert sorted(order(once)) == list(range(len(values)))
    assert sorted_by(once, "x") == once
