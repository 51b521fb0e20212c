"""Watch a real run of the README's lab in a real browser, and keep two pictures: ``python docs/capture_dashboard.py``.

The lab is the tests', so this takes root, and the browser is Debian's Chromium. ``docs/images/dashboard-now.png`` is
the live page while the run goes on, ``dashboard-run.png`` the run's own page when it has ended, on a dark screen.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Final

if __name__ == "__main__":  # started as a script: the packages lie one folder up
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from playwright.sync_api import expect

from docs.capture import LAB
from orchestrator.config.load import load_text
from tests.browser import chromium, page_of, serving
from tests.lab.hosts import HostOptions
from tests.lab.lab import Lab

IMAGES: Final = Path(__file__).resolve().parent / "images"

#: More steps than the README's lab has, so that there is something to watch.
CONFIG: Final = LAB.replace("steps: 20", "steps: 60")

_RUN_TIMEOUT_MS: Final = 300_000


def main() -> None:
    """Take both pictures."""
    hosts = load_text(CONFIG, "lab.yaml").config.hosts
    with Lab(0, [HostOptions(name=host.name) for host in hosts]) as lab:
        cwd = lab.write_config(CONFIG)
        folder = lab.head.home / "work" / cwd.rpartition("/")[2]
        with (
            lab.start_muster("run", "lab.yaml", "--no-progress", cwd=cwd) as running,
            chromium() as browser,
            # The head's user makes the store; it is looked at from outside.
            serving(cwd=_with_store(folder)) as address,
        ):
            with page_of(browser, width=1200) as page:
                page.set_viewport_size({"width": 1200, "height": 720})
                page.goto(address)
                measuring = page.locator('.device[data-activity="measuring"] [data-field="ms"]:not(:empty)')
                expect(measuring.nth(1)).to_be_visible(timeout=_RUN_TIMEOUT_MS)
                page.wait_for_timeout(3000)
                page.screenshot(path=IMAGES / "dashboard-now.png")
                expect(page.locator("#live")).to_contain_text("No run goes on", timeout=_RUN_TIMEOUT_MS)
            with page_of(browser, scheme="dark", width=1200) as page:
                page.goto(f"{address}/runs/latest")
                page.screenshot(path=IMAGES / "dashboard-run.png")
            running.popen.wait(60)


def _with_store(folder: Path) -> Path:
    """Return the folder once the run has made its store there."""
    while not (folder / "muster.db").exists():
        time.sleep(0.1)
    return folder


if __name__ == "__main__":
    main()
