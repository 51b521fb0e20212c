"""The dashboard's pages, asked as a browser would, over a store that has one of everything."""

from __future__ import annotations

import csv
import io
import json
import re
import zipfile
from collections import Counter
from contextlib import closing
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin, urlsplit

import pytest
from fastapi.testclient import TestClient

from orchestrator.cli.app import call
from orchestrator.results import FiringState, RunState
from orchestrator.store import open_store
from orchestrator.web.app import create_app
from orchestrator.web.settings import ServeSettings
from tests.stores import NOW, a_kept_run, a_live_run, fill, keep

if TYPE_CHECKING:
    from collections.abc import Iterator

    from orchestrator.store.repository import Store

EVIL = "<script>alert(1)</script>$x$\u202e\x1b[31m\"'"
LAST = "7bcdef012345"


@pytest.fixture
def url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MUSTER_STORE", raising=False)
    return "sqlite:///muster.db"


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    with closing(open_store(url)) as opened:
        yield opened


def browser(url: str, **given: Any) -> TestClient:
    app = create_app(ServeSettings(store_url=url, **given), feed_every_s=0.05)
    return TestClient(app, base_url="http://127.0.0.1:8787", headers={"accept": "text/html"})


@pytest.fixture
def client(url: str, store: Store) -> Iterator[TestClient]:
    fill(store)
    with browser(url) as found:
        yield found


class Links(HTMLParser):
    """What a page leads to, loads and sends to, and whether it has a script or style of its own."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.leads: list[str] = []
        self.loads: list[str] = []
        self.inline: list[str] = []
        self.scripts: list[str | None] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag == "script":
            self.scripts.append(given.get("src"))
        self.inline += [name for name, _ in attrs if name.startswith("on") or name == "style"]
        if tag == "a" and given.get("href"):
            self.leads.append(given["href"] or "")
        for name in ("src", "srcset"):
            if given.get(name):
                self.loads.append(given[name] or "")


def kind_of(address: str) -> str:
    """What pages that differ in their subject alone have in common."""
    path, query = urlsplit(address)[2:4]
    return re.sub(r"/(runs|cases|trends)/\w+", r"/\1/ONE", path) + re.sub(r"=[^&]*", "=", query)


def crawl(client: TestClient) -> dict[str, str]:
    """Six of each kind of page that links lead to, and two of each kind of picture; each must be there."""
    waiting, seen, kinds = ["/"], dict[str, str](), Counter[str]()
    while waiting:
        address = waiting.pop()
        kind = kind_of(address)
        if (
            address in seen
            or urlsplit(address).netloc
            or "/download/" in address
            or kinds[kind] == (2 if ".svg" in kind else 6)
        ):
            continue
        kinds[kind] += 1
        answer = client.get(address)
        assert answer.status_code == 200 or ".svg" in address, (address, answer.status_code, answer.text[:500])
        seen[address] = answer.text if "html" in answer.headers["content-type"] else ""
        if seen[address]:
            links = Links(seen[address])
            found = [urljoin(address, each) for each in (*links.leads, *links.loads)]
            waiting += [each for each in found if "sort=" not in each or "desc" not in each]
    return seen


def test_every_link_leads_somewhere_and_what_hosts_said_is_text_everywhere(url: str, store: Store) -> None:
    fill(store, EVIL)
    keep(store, a_kept_run("aaaaaaaaaaaa", word=EVIL, state=RunState.RUNNING))
    with store.written_by("aaaaaaaaaaaa"), browser(url, allow_runs=True) as client:
        store.put_live(a_live_run(word=EVIL))
        pages = crawl(client)
    assert {"/", "/runs", "/compare", "/trends", "/lab", "/schedules", "/schedules/night"} <= set(pages)
    assert {"/runs/ONE/cases/ONE", "/runs/ONE/cases/ONE/samples.svgtheme=", "/trends/ONE"} <= set(map(kind_of, pages))
    for address, text in pages.items():
        links = Links(text)
        assert "<script>alert" not in text, address
        assert "\u202e" not in text, address
        assert links.inline == [], address
        assert links.scripts in ([], ["/static/live.js"]), address
    assert "&lt;script&gt;" in pages["/"]
    assert "&lt;script&gt;" in pages["/lab"]


def test_runs_are_listed_searched_and_filtered(client: TestClient) -> None:
    def listed(**asked: str) -> list[str]:
        text = client.get("/runs", params=asked).text
        return re.findall(r'<a href="/runs/(\w+)">', text)

    assert len(listed()) == 10
    assert listed()[-1] == "0bcdef012345"
    assert listed(q="7BCDEF") == [LAST]
    assert set(listed(schedule="night")) == {f"{number}bcdef012345" for number in range(4, 8)}
    assert listed(kind="imported") == ["imported0123"]
    assert listed(kind="simulated") == ["simulated012"]
    assert listed(q="lab 5bc", state="finished") == ["5bcdef012345"]
    assert listed(state="running") == []
    assert "None is like that" in client.get("/runs", params={"q": "nothing"}).text


def test_long_lists_have_pages(url: str, store: Store) -> None:
    for number in range(51):
        keep(store, a_kept_run(f"{number:012}", hours_ago=number))
    with browser(url) as client:
        first, second = client.get("/runs").text, client.get("/runs", params={"page": 2}).text
    assert "page 1 of 2" in first
    assert re.findall(r'<a href="/runs/(\d+)">', second) == [f"{50:012}"]
    assert 'rel="prev"' in second
    assert 'rel="next"' not in second


def test_a_runs_table_can_be_sorted_both_ways(url: str) -> None:
    Path("lab.yaml").write_text(
        "version: 1\nname: lab\nhosts: [{name: a, devices: [cpu, 'gpu:0', 'gpu:1']}]\n"
        "workloads: [{model: alexnet, batch_size: [8, 16]}]\nmeasure: {warmup: 2, steps: 50}\n"
    )
    assert call(["run", "lab.yaml", "--simulate", "--no-progress"]) == 0

    client = browser(url)

    def figures(**asked: str) -> list[float]:
        text = client.get("/runs/latest", params=asked).text
        body = text[text.index("<tbody>") : text.index("</tbody>")]
        rows = re.findall(r'<tr class="simulated">(.*?)</tr>', body, re.DOTALL)
        return [float(re.findall(r"<td[^>]*>\s*([\d.]+) \+/-", row)[0]) for row in rows]

    with client:
        as_planned = figures()
        assert figures(sort="forward_ms") == sorted(as_planned) != as_planned
        assert figures(sort="forward_ms", desc="1") == sorted(as_planned, reverse=True)
        assert figures(sort="nothing") == as_planned
        text = client.get("/runs/latest", params={"sort": "forward_ms", "desc": "1"}).text
        assert text.count('aria-sort="descending"') == 1
        assert "images/s" in client.get("/runs/latest", params={"wide": "1"}).text
        assert "muster rerun" in text


def test_what_is_taken_away_is_what_the_command_line_gives(
    client: TestClient, capsys: pytest.CaptureFixture[str]
) -> None:
    def taken(form: str) -> bytes:
        answer = client.get(f"/runs/{LAST}/download/{form}")
        assert answer.status_code == 200
        name = {"bundle": ".muster.zip", "steps": ".steps.csv"}.get(form, f".{form}")
        assert answer.headers["content-disposition"] == f'attachment; filename="muster-{LAST}{name}"'
        data: bytes = answer.content
        return data

    for form in ("md", "csv"):
        assert call(["show", LAST, "--format", form]) == 0
        assert taken(form).decode() == capsys.readouterr().out
    assert call(["show", LAST, "--json"]) == 0
    assert taken("json").decode() == capsys.readouterr().out
    assert len(list(csv.DictReader(io.StringIO(taken("steps").decode())))) == 31
    with zipfile.ZipFile(io.BytesIO(taken("bundle"))) as bundle:
        assert bundle.testzip() is None
    Path("other").mkdir()
    Path("other/run.muster.zip").write_bytes(taken("bundle"))
    assert call(["import", "other/run.muster.zip", "--store", "sqlite:///other/muster.db"]) == 0
    assert taken("html").startswith(b"<!doctype html>")
    assert client.get(f"/runs/{LAST}/download/exe").status_code == 404


def test_pictures_come_for_light_and_dark_pages(client: TestClient) -> None:
    key = re.findall(rf"/runs/{LAST}/cases/(\w+)", client.get(f"/runs/{LAST}/cases").text)[0]
    trend = re.findall(r'"/trends/(\w+)"', client.get("/trends").text)[0]
    addresses = (
        f"/runs/{LAST}/bars.svg",
        f"/runs/{LAST}/cases/{key}/samples.svg",
        f"/compare.svg?before=good&after={LAST}",
        f"/trends/{trend}/picture.svg",
    )
    for address in addresses:
        mark = "&" if "?" in address else "?"
        light, dark = (client.get(f"{address}{mark}theme={theme}") for theme in ("light", "dark"))
        assert (light.status_code, dark.status_code) == (200, 200), address
        assert light.headers["content-type"] == "image/svg+xml"
        assert "sandbox" in light.headers["content-security-policy"]
        assert b"#161616" in dark.content
        assert b"#161616" not in light.content
        assert client.get(f"{address}{mark}theme=light").content == light.content
    assert client.get(f"/runs/{LAST}/nothing.svg").status_code == 404
    assert client.get(f"/runs/{LAST}/bars.svg?theme=pink").status_code == 400


def test_two_runs_are_compared_with_what_differs(client: TestClient) -> None:
    text = client.get("/compare", params={"before": "baseline:good", "after": LAST}).text
    assert f"run {LAST} against baseline good" in text
    assert "+29.9" in text
    assert "/compare.svg?before=baseline%3Agood&amp;after=" in text
    assert "Choose two runs" in client.get("/compare").text
    same = client.get("/compare", params={"before": LAST, "after": LAST})
    assert same.status_code == 409
    assert "both are run" in same.text
    mixed = client.get("/compare", params={"before": LAST, "after": "simulated012"})
    assert (mixed.status_code, "is simulated, and the other is not" in mixed.text) == (409, True)
    wrong = client.get("/compare", params={"before": "good", "after": LAST, "threshold": "much"})
    assert "expected a share" in wrong.text
    assert "beyond 50 %" in client.get(
        "/compare", params={"before": "good", "after": LAST, "threshold": "50%"}
    ).text  # fmt: skip


def test_a_trend_shows_where_its_level_changed(client: TestClient) -> None:
    text = client.get("/trends").text
    (word,) = re.findall(r'"/trends/(\w+)"', text)
    assert 'class="number">8<' in text
    shown = client.get(f"/trends/{word}").text
    assert "1 change of level" in shown
    assert "Since run 4bcdef012345 a step takes +29.9 %" in shown
    assert "0 of 1 histories" in client.get("/trends", params={"q": "nothing"}).text
    assert "1 of 1 histories" in client.get("/trends", params={"simulated": "1"}).text
    assert client.get("/trends/nothing").status_code == 404


def test_the_lab_shows_who_is_put_aside_and_who_holds_what(client: TestClient, store: Store) -> None:
    text = client.get("/lab").text
    assert "1 host, 2 devices" in text
    assert "muster quarantine release lab/gpu:0" in text
    assert "device_missing" in text
    assert "free" in text
    with store.written_by("aaaaaaaaaaaa"):
        store.put_live(a_live_run(devices=1))
        held = client.get("/lab").text
    assert '<a href="/runs/aaaaaaaaaaaa">lab</a>' in held
    assert "1 host, 2 devices" in client.get("/lab", params={"simulated": "1"}).text


def test_what_goes_on_is_drawn_and_without_it_what_comes_next(client: TestClient, store: Store) -> None:
    text = client.get("/").text
    assert "No run goes on" in text
    assert "Coming next" in text
    with store.written_by("aaaaaaaaaaaa"):
        store.put_live(a_live_run())
        text = client.get("/").text
    for shown in ("1 of 4 cases", "1 without a figure", "3/50", "12.35 ms", "61 °C", "402 W", "~12 s", "attempt 2"):
        assert shown in text
    assert "lab: lab: oom: lab" in text
    assert "No run goes on" in client.get("/").text


def test_an_empty_store_says_how_to_begin(url: str) -> None:
    with browser(url) as client:
        pages = crawl(client)
    assert "muster run lab.yaml" in pages["/"]
    assert "muster schedule add lab.yaml" in pages["/schedules"]
    assert "No run has seen a device yet" in pages["/lab"]


def test_what_is_not_there_is_said_as_a_page_or_as_data(client: TestClient) -> None:
    page = client.get("/runs/nope")
    assert page.status_code == 404
    assert "there is no run &#39;nope&#39;" in page.text
    assert "<nav" in page.text
    data = client.get("/api/v1/runs/nope", headers={"accept": "*/*"})
    assert data.status_code == 404
    assert "there is no run 'nope'" in data.json()["error"]
    assert client.get("/nowhere").status_code == 404
    assert client.get(f"/runs/{LAST}/cases/nope").status_code == 404
    assert client.get("/runs", params={"page": "many"}).status_code == 400


# --- schedules: the only thing that can be done ---------------------------------------------------------------


def test_a_dashboard_that_only_shows_has_no_buttons_and_takes_no_orders(client: TestClient, store: Store) -> None:
    assert "<button" not in client.get("/schedules").text.replace('class="quiet"', "")
    for address in ("/schedules/night/pause", "/api/v1/schedules/night/pause"):
        assert client.post(address).status_code == 403
    assert store.schedules.every()[0].is_paused is False


def word_of(page: str) -> str:
    return str(re.findall(r'name="word" value="(\w+)"', page)[0])


def test_schedules_are_paused_and_run_by_forms_of_this_server_alone(url: str, store: Store) -> None:
    fill(store)
    with browser(url, allow_runs=True) as client:
        word = word_of(client.get("/schedules").text)
        for wrong in ({}, {"word": "wrong"}, {"word": word[:-1]}):
            assert client.post("/schedules/night/pause", data=wrong).status_code == 403
        assert store.schedules.every()[0].is_paused is False
        after = client.post("/schedules/night/pause", data={"word": word})
        assert after.status_code == 200  # led back to the schedule's page
        assert "paused" in after.text
        assert store.schedules.every()[0].is_paused is True
        client.post("/schedules/night/unpause", data={"word": word})
        assert store.schedules.every()[0].is_paused is False
        client.post("/schedules/night/run-now", data={"word": word})
        assert [each.state for each in store.schedules.open()] == [FiringState.WAITING]
        assert client.post("/schedules/night/remove", data={"word": word}).status_code == 404
        assert client.post("/schedules/other/pause", data={"word": word}).status_code == 404
        with browser(url, allow_runs=True) as other:
            assert word_of(other.get("/schedules").text) != word


def test_a_schedule_shows_its_next_times_and_what_came_of_the_last(client: TestClient, store: Store) -> None:
    text = client.get("/schedules/night").text
    times = re.findall(r"<li>(\d{4}-\d\d-\d\d \d\d:\d\d UTC)</li>", text)
    assert len(times) == 5
    assert times == sorted(times)
    assert {time.split()[1] for time in times} <= {"01:00", "02:00"}  # three in the morning in Berlin
    assert "regression" in text
    (schedule,) = store.schedules.every()
    store.schedules.put(replace(schedule, config_text="version: 99"))
    broken = client.get("/schedules/night").text
    assert "Its next times" not in broken
    assert "version" in broken
    assert "cannot be read any more" in client.get("/schedules").text


def test_the_api_does_the_same(url: str, store: Store) -> None:
    fill(store)
    with browser(url, allow_runs=True) as client:
        assert client.post("/api/v1/schedules/night/pause").json() == {"schedule": "night", "done": "pause"}
        assert store.schedules.every()[0].is_paused is True
        client.post("/api/v1/schedules/night/unpause")
        client.post("/api/v1/schedules/night/run-now")
        assert store.schedules.every()[0].is_paused is False
        assert len(store.schedules.open()) == 1
        assert client.post("/api/v1/schedules/other/pause").status_code == 404


# --- the API is the command line's JSON -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("address", "command"),
    [
        ("/runs", ["runs"]),
        (f"/runs/{LAST}", ["show", LAST]),
        ("/runs/good", ["show", "good"]),
        (f"/runs/{LAST}/attempts", ["show", LAST, "--attempts"]),
        (f"/runs/{LAST}/environments", ["env", LAST]),
        (f"/compare?before=good&after={LAST}", ["compare", "good", LAST]),
        (f"/compare?before=good&after={LAST}&threshold=5%25", ["compare", "good", LAST, "--threshold", "5%"]),
        ("/quarantine", ["quarantine", "list"]),
        ("/baselines", ["baseline", "list"]),
        ("/schedules", ["schedule", "list"]),
        ("/schedules/night/history", ["schedule", "history", "night"]),
    ],
)
def test_the_api_gives_what_the_command_line_gives(
    client: TestClient, address: str, command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    call([*command, "--json"])
    assert client.get(f"/api/v1{address}").json() == json.loads(capsys.readouterr().out)


def test_the_api_gives_trends_and_the_lab(client: TestClient, capsys: pytest.CaptureFixture[str]) -> None:
    (history,) = client.get("/api/v1/trends").json()
    assert (history["device_id"], history["runs"]) == ("lab/cpu", 8)
    assert call(["trend", "--json", "--last", "100"]) == 0
    assert client.get(f"/api/v1/trends/{history['id']}").json() == json.loads(capsys.readouterr().out)
    lab = client.get("/api/v1/lab").json()
    assert [(each["id"], each["last_verdict"], bool(each["quarantine"])) for each in lab] == [
        ("lab/cpu", "noisy", False),
        ("lab/gpu:0", "device_missing", True),
    ]


def test_the_api_refuses_questions_that_it_does_not_know(client: TestClient) -> None:
    answer = client.get("/api/v1/runs", params={"sate": "running"})
    assert answer.status_code == 400
    assert answer.json()["error"] == "'sate' is no question of this address"
    assert "state" in answer.json()["remedy"]
    assert client.get("/api/v1/runs", params={"limit": 0}).status_code == 400


def test_prometheus_reads_the_metrics(client: TestClient, store: Store) -> None:
    from prometheus_client.parser import text_string_to_metric_families

    with store.written_by("aaaaaaaaaaaa"):
        store.put_live(a_live_run())
        answer = client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain")
    samples = {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }
    assert samples["muster_runs", "finished"] == 10
    assert samples["muster_live_cases", "aaaaaaaaaaaa", "open"] == 3
    assert samples["muster_device_temperature_celsius", "aaaaaaaaaaaa", "lab", "lab/gpu:0"] == 61.4
    assert samples["muster_quarantined", "lab/gpu:0"] == 1
    assert samples["muster_schedule_last_outcome", "night", "regression"] == 1
    assert samples["muster_schedule_paused", "night"] == 0
    assert samples["muster_scheduler_at_work",] == 0


def test_a_run_that_was_shown_is_read_again_once_it_is_another(client: TestClient, store: Store) -> None:
    first = client.get(f"/runs/{LAST}").text
    assert client.get(f"/runs/{LAST}").text == first
    store.resume_run(LAST)
    assert "interrupted" in client.get(f"/runs/{LAST}").text
    store.finish_run(LAST, RunState.FINISHED, NOW)
    assert "interrupted" not in client.get(f"/runs/{LAST}").text
    store.remove_runs([LAST])
    assert client.get(f"/runs/{LAST}").status_code == 404


def test_a_store_that_is_replaced_or_made_later_is_seen(url: str, tmp_path: Path) -> None:
    with browser(url) as client:
        assert "There are no runs yet" in client.get("/").text
        for name in ("muster.db", "muster.db-wal", "muster.db-shm"):
            (tmp_path / name).unlink(missing_ok=True)
        with closing(open_store(url)) as store:
            fill(store)
        assert LAST in client.get("/runs").text


def test_a_store_that_cannot_be_written_is_shown_as_it_is(
    url: str, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(store)
    store.close()
    # Whoever runs the tests as root may write everything.
    for module in ("orchestrator.web.source", "orchestrator.store.opening"):
        monkeypatch.setattr(f"{module}.is_writable", lambda path: False)
    with browser(url) as client:
        assert LAST in client.get("/runs").text
        assert client.get(f"/runs/{LAST}").status_code == 200
