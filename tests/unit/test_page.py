"""The page of a run: whole, escaped, and in need of nothing."""

from __future__ import annotations

import html.parser
import re
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from orchestrator.analysis import references
from orchestrator.report.page.render import render_page
from tests.builders import a_case, a_device, a_telemetry, a_workload
from tests.runs import a_case_result, a_case_without_attempt, a_lab_run, a_run, an_environment
from workers.protocol import Verdict

if TYPE_CHECKING:
    from orchestrator.results import Run

SCRIPT = "<script>alert(1)</script>"
STEADY = tuple(100.0 + i % 5 for i in range(40))


class Parsed(html.parser.HTMLParser):
    """Tags that were opened, what they lead to, and whether all were closed in order."""

    VOID = frozenset({"meta", "img", "br"})

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.sources: list[str] = []
        self.links: list[str] = []
        self.handlers: list[str] = []
        self._open: list[str] = []
        self.feed(page)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in self.VOID:
            self._open.append(tag)
        for name, value in attrs:
            if name == "src":
                self.sources.append(str(value))
            if name == "href":
                self.links.append(str(value))
            if name.startswith("on"):
                self.handlers.append(name)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag


def a_full_run(**given: object) -> Run:
    seen = a_telemetry(window_s=(10.0, 14.0), gpu__clock_mhz=[1980.0, 1970.0])
    device = a_device("h", "gpu:0")
    cases = [
        a_case_result(
            a_case(device, a_workload(batch_size=size)), samples_ms=STEADY, telemetry=seen,
            environment=an_environment(framework__version="2.21.0"),
        )
        for size in (32, 64)
    ]  # fmt: skip
    doubtful = replace(cases[1], verdict=Verdict.THROTTLED, reason="the GPU slowed itself down")
    lost = a_case_without_attempt(a_case(a_device("lost")), Verdict.HOST_DOWN, "no answer")
    return a_run(cases[0], doubtful, lost, **given)


def test_a_page_has_everything_and_needs_nothing() -> None:
    page = render_page(a_full_run(), references=references.load(["seed"]))
    parsed = Parsed(page)
    assert "script" not in parsed.tags
    assert "link" not in parsed.tags
    assert parsed.handlers == []
    assert len(parsed.sources) == 4  # bars, scaling, and the steps of two cases
    assert all(source.startswith("data:image/svg+xml;base64,") for source in parsed.sources)
    assert all(link.startswith("https://") for link in parsed.links)
    for words in (
        "throttled",
        "the GPU slowed itself down",
        "host_down",
        "Titan X",
        "muster rerun 7f3a9c",
        "name: lab",
    ):
        assert words in page
    assert "default-src &#39;none&#39;" in page or "default-src 'none'" in page


def test_what_came_from_a_config_or_a_host_is_never_markup() -> None:
    device = a_device(f"h{SCRIPT}", "gpu:0", name=SCRIPT, memory=SCRIPT)
    case = replace(
        a_case_result(
            a_case(device), samples_ms=STEADY, environment=an_environment(env__TF_XLA_FLAGS=SCRIPT, cpu__model=SCRIPT)
        ),
        verdict=Verdict.NOISY,
        reason=f'"><img src=x onerror=alert(1)>{SCRIPT}',
    )
    run = a_run(case, name=SCRIPT, config_text=f"# {SCRIPT}\n", overrides=(SCRIPT,), muster_version=SCRIPT)
    page = render_page(run)
    parsed = Parsed(page)
    assert "script" not in parsed.tags
    assert parsed.handlers == []
    assert SCRIPT not in page
    assert "&lt;script&gt;" in page
    assert not re.search(r"<img src=x", page)


def test_a_link_of_a_reference_that_is_no_address_is_no_link() -> None:
    (first, *_) = references.load(["seed"])
    evil = replace(first, links=tuple(replace(link, url="javascript:alert(1)") for link in first.links))
    assert Parsed(render_page(a_full_run(), references=[evil])).links == []


@pytest.mark.parametrize("simulated", [False, True])
def test_a_run_of_which_nothing_can_be_drawn_has_a_page_all_the_same(simulated: bool) -> None:
    page = render_page(a_run(simulated=simulated))
    assert "There is nothing to draw." in page
    assert ("nothing was measured" in page) is simulated
    Parsed(page)


def test_a_verdict_is_said_once_in_its_cell() -> None:
    case = a_case_result(a_case(), samples_ms=STEADY)
    page = render_page(a_run(replace(case, verdict=Verdict.NOISY, reason="12 % apart")))
    cells = re.findall(r"<td[^>]*>[^\n]*noisy[^\n]*", page[: page.index("<h2>Pictures")])
    assert {cell.count("noisy") for cell in cells} == {1}


def test_every_kind_of_row_is_on_the_page() -> None:
    Parsed(render_page(a_lab_run(), references=references.load(["seed"])))
