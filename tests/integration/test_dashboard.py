"""The dashboard as people use it: a real server, a real browser, and a real run that is watched."""

from __future__ import annotations

import csv
import re
import subprocess
import time
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import expect

from tests.browser import chromium, page_of, serving, violations
from tests.integration.muster import ROOT, muster, start

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from playwright.sync_api import Browser, Page

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

DEADLINE_MS = 120_000
EVIL = "lab <script>alert(1)</script>"

CONFIG = f"""\
version: 1
name: {EVIL}
hosts: [{{name: gpu01, devices: [cpu, "gpu:0", "gpu:1"]}}, {{name: gpu02, devices: [cpu, "gpu:0", "gpu:1"]}}]
workloads: [{{model: alexnet, batch_size: [32, 64]}}]
measure: {{warmup: 2, steps: 50}}
schedule: {{cron: "0 3 * * *", timezone: Europe/Berlin}}
"""

REAL = """\
version: 1
name: watched
hosts: [{name: localhost, devices: [cpu]}]
workloads: [{model: alexnet, batch_size: 4}]
measure: {warmup: 1, steps: 60}
policy: {busy: measure}
"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two simulated runs, a baseline and a schedule."""
    made = tmp_path_factory.mktemp("lab")
    (made / "lab.yaml").write_text(CONFIG)
    for arguments in (
        ["run", "lab.yaml", "--simulate", "--no-progress"],
        ["baseline", "set", "good"],
        ["run", "lab.yaml", "--simulate", "--no-progress", "--set", "measure.steps=60"],
        ["schedule", "add", "lab.yaml", "--simulate", "--name", "night"],
    ):
        ended = muster(*arguments, cwd=made)
        assert ended.code == 0, ended.err
    return made


@pytest.fixture(scope="module")
def site(folder: Path) -> Iterator[str]:
    with serving("--allow-runs", cwd=folder) as address:
        yield address


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    with page_of(browser) as found:
        yield found


def test_a_real_run_is_watched_from_its_start_to_its_end(browser: Browser, tmp_path: Path) -> None:
    (tmp_path / "lab.yaml").write_text(REAL)
    with serving(cwd=tmp_path) as address, page_of(browser) as page:
        page.goto(address)
        expect(page.locator("#live")).to_contain_text("No run goes on")
        expect(page.locator("#link")).to_have_text("live")
        page.evaluate("window.isTheSamePage = true")
        with start("run", "lab.yaml", "--no-progress", cwd=tmp_path) as running:
            device = page.locator('.device[data-activity="measuring"]')
            expect(device).to_be_visible(timeout=DEADLINE_MS)
            steps = device.locator('[data-field="steps"]')
            expect(steps).to_have_text(re.compile(r"^[1-9]\d*/60$"), timeout=DEADLINE_MS)
            first = int(steps.inner_text().split("/")[0])
            expect(steps).not_to_have_text(f"{first}/60", timeout=DEADLINE_MS)
            expect(device.locator('[data-field="ms"]')).to_have_text(re.compile(r"^[\d.]+ ms$"))
            expect(device.locator('[data-field="case"]')).to_contain_text("alexnet")
            expect(page.locator('[data-field="cases"]').first).to_have_text("1 of 2 cases", timeout=DEADLINE_MS)
            expect(page.locator("#live")).to_contain_text("No run goes on", timeout=DEADLINE_MS)
            out, err = running.communicate(timeout=60)
        assert running.returncode == 0, err
        assert page.evaluate("window.isTheSamePage") is True
        run_id = re.findall(r"run (\w{12}),", out)[0]
        page.get_by_role("link", name=run_id).click()
        expect(page.locator("tr.measured td.number, tr.measured td").nth(3)).to_contain_text("+/-")
        expect(page.locator(".chip").first).to_have_text("finished")
        page.get_by_role("link", name="steps", exact=True).first.click()
        page.locator("table a").first.click()
        picture = page.locator("figure img")
        expect(picture).to_be_visible()
        assert picture.evaluate("image => image.decode().then(() => image.naturalWidth)") > 100
        expect(page.get_by_text("95 % interval")).to_be_visible()
        page.get_by_text("Telemetry: what was read").click()
        expect(page.get_by_text("cpu.use_percent")).to_be_visible()


def figures(page: Page) -> list[float]:
    texts = page.locator("tr.simulated td:nth-child(4)").all_inner_texts()
    return [float(text.split()[0]) for text in texts]


def test_a_table_is_sorted_by_the_keyboard_alone(page: Page, site: str) -> None:
    page.goto(f"{site}/runs/latest")
    expect(page.get_by_role("heading", level=1)).to_contain_text(EVIL)
    as_planned = figures(page)
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    heading = page.get_by_role("link", name="Forward pass (ms)", exact=True)
    for _ in range(40):
        page.keyboard.press("Tab")
        if heading.evaluate("link => link === document.activeElement"):
            break
    page.keyboard.press("Enter")
    expect(page.locator('th[aria-sort="ascending"]')).to_have_count(1)
    assert figures(page) == sorted(as_planned) != as_planned
    page.get_by_role("link", name="Forward pass (ms)").first.click()
    expect(page.locator('th[aria-sort="descending"]')).to_have_count(1)
    assert figures(page) == sorted(as_planned, reverse=True)


def test_runs_are_searched_filtered_and_compared(page: Page, site: str) -> None:
    page.goto(f"{site}/runs")
    expect(page.get_by_role("status")).to_have_text("2 runs")
    page.get_by_label("Search").fill("nothing like it")
    page.keyboard.press("Enter")
    expect(page.get_by_role("status")).to_have_text("0 runs")
    page.get_by_label("Search").fill("script")
    page.get_by_label("Kind").select_option("simulated")
    page.get_by_role("button", name="Show").click()
    expect(page.get_by_role("status")).to_have_text("2 runs")
    page.get_by_role("link", name="Compare").click()
    page.get_by_label("Before").select_option("baseline:good")
    page.get_by_label("Now").select_option(index=2)
    page.get_by_role("button", name="Compare").click()
    expect(page.get_by_role("heading", level=2)).to_contain_text("against baseline good")
    expect(page.locator(".chip").first).to_have_text("0 regressions")
    expect(page.get_by_text("95 % from")).to_be_visible()
    picture = page.locator("figure img")
    picture.scroll_into_view_if_needed()
    assert picture.evaluate("image => image.decode().then(() => image.naturalWidth)") > 100


def test_a_run_is_taken_away_as_files(page: Page, site: str, folder: Path, tmp_path: Path) -> None:
    page.goto(f"{site}/runs/latest")
    taken = {}
    for name in ("Markdown", "CSV", "JSON", "Bundle"):
        with page.expect_download() as download:
            page.get_by_role("link", name=name, exact=True).click()
        taken[name] = tmp_path / download.value.suggested_filename
        download.value.save_as(taken[name])
    assert taken["Markdown"].read_text() == muster("show", "--format", "md", cwd=folder).out
    assert len(list(csv.reader(taken["CSV"].read_text().splitlines()))) > 12
    imported = muster("import", str(taken["Bundle"]), "--store", "sqlite:///other.db", cwd=tmp_path)
    assert imported.code == 0, imported.err


def test_a_schedule_is_paused_and_asked_for_a_run(page: Page, site: str, folder: Path) -> None:
    page.goto(f"{site}/schedules")
    page.get_by_role("button", name="Pause night").click()
    expect(page.locator(".chip").first).to_have_text("paused")
    assert "paused" in muster("schedule", "list", cwd=folder).out
    page.get_by_role("button", name="Go on night").click()
    expect(page.get_by_role("button", name="Pause night")).to_be_visible()
    page.get_by_role("button", name="Run now night").click()
    expect(page.get_by_role("cell", name="asked")).to_be_visible()
    expect(page.get_by_role("cell", name="waiting")).to_be_visible()


def addresses(page: Page, site: str) -> list[str]:
    """One of each kind of page."""
    page.goto(f"{site}/trends?simulated=1")
    trend = page.locator("table a").first.get_attribute("href")
    page.goto(f"{site}/runs/latest/cases")
    case = page.locator("table a").first.get_attribute("href")
    page.goto(f"{site}/runs?q=script")
    latest = page.locator("table a").first.get_attribute("href") or ""
    compared = f"/compare?before=baseline:good&after={latest.removeprefix('/runs/')}"
    fixed = ("/", "/runs", "/runs/latest", "/runs/latest/cases", "/runs/latest/environments", "/trends?simulated=1")
    more = ("/lab?simulated=1", "/schedules", "/schedules/night")
    return [f"{site}{each}" for each in (*fixed, *more, trend, case, compared)]


@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 1280), ("light", 390)])
def test_every_page_is_accessible_and_fits(browser: Browser, site: str, scheme: str, width: int) -> None:
    with page_of(browser, scheme=scheme, width=width) as page:
        for address in addresses(page, site):
            page.goto(address)
            for summary in page.locator("summary").all():
                if summary.locator("..").get_attribute("open") is None:
                    summary.click()
            assert violations(page) == "", address
            assert page.evaluate("document.documentElement.scrollWidth") <= width, address
            paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
            assert paper == ("rgb(22, 22, 22)" if scheme == "dark" else "rgb(255, 255, 255)")


def test_a_browser_shows_the_token_once_and_over_tls(browser: Browser, tmp_path: Path) -> None:
    token = "a-token-that-is-long-enough"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "key.pem", "-out", "cert.pem", "-subj",
         "/CN=localhost"],
        check=True, capture_output=True, cwd=tmp_path,
    )  # fmt: skip
    tls = ("--tls-cert", "cert.pem", "--tls-key", "key.pem")
    with serving("--host", "0.0.0.0", *tls, cwd=tmp_path, MUSTER_SERVE_TOKEN=token) as address:
        context = browser.new_context(ignore_https_errors=True)
        page = context.new_page()
        page.goto(address.replace("0.0.0.0", "127.0.0.1") + "/runs?q=x")
        page.get_by_label("Token").fill("a-token-that-is-wrong")
        page.keyboard.press("Enter")
        expect(page.get_by_role("alert")).to_have_text("That is not the token.")
        assert violations(page) == ""
        page.get_by_label("Token").fill(token)
        page.keyboard.press("Enter")
        expect(page.get_by_role("heading", level=1)).to_have_text("Runs")
        assert page.url.endswith("/runs?q=x")
        (cookie,) = context.cookies()
        assert (cookie["httpOnly"], cookie["secure"], cookie["sameSite"]) == (True, True, "Strict")
        page.get_by_role("button", name="Log out").click()
        expect(page.get_by_label("Token")).to_be_visible()
        context.close()


def test_it_ends_at_once_while_somebody_looks(browser: Browser, tmp_path: Path) -> None:
    with page_of(browser) as page:
        with serving(cwd=tmp_path) as address:
            page.goto(address)
            expect(page.locator("#link")).to_have_text("live")
            began = time.monotonic()
        assert time.monotonic() - began < 60.0
        expect(page.locator("#link")).to_contain_text("does not answer")


def test_nothing_is_loaded_from_elsewhere(browser: Browser, site: str) -> None:
    asked: list[str] = []
    with page_of(browser) as page:
        page.on("request", lambda request: asked.append(request.url))
        for address in addresses(page, site):
            page.goto(address)
    assert len(asked) > 20
    assert [url for url in asked if not url.startswith(site)] == []


def test_the_wheel_has_what_pages_are_made_of() -> None:
    text = (ROOT / "pyproject.toml").read_text()
    for folder, kinds in (("templates", {".html"}), ("static", {".css", ".js", ".svg"})):
        assert f"web/{folder}/" in text
        assert {path.suffix for path in (ROOT / "orchestrator/web" / folder).iterdir()} == kinds
