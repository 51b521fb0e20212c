"""How smooth the live page stays: its weight, updates a second, the server's CPU, and the browser's frames.

The run is made up: a process says once a second where 500 devices are, as a head would, each with another step. The
store, the server and the browser (headless Chromium, where it is installed) are real ones. Prints JSON.

    PYTHONPATH=. python benchmarks/dashboard.py [--devices 500] [--lookers 8] [--seconds 15]
"""

from __future__ import annotations

import argparse
import contextlib
import gzip
import json
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from datetime import datetime, timezone
from typing import TYPE_CHECKING

import psutil

from orchestrator.live import LiveDevice, LiveRun
from orchestrator.store import open_store
from orchestrator.web.liveview import changes, views
from workers import codec

if TYPE_CHECKING:
    from collections.abc import Iterator

HOSTS_HAVE = 8
STEPS = 1000

#: Asked of the page: gaps between frames, and how long its script kept the browser busy at a stretch.
WATCH = """
() => { window.gaps = []; window.long = []; let last = performance.now();
  new PerformanceObserver((list) => window.long.push(...list.getEntries().map((e) => e.duration)))
    .observe({ type: "longtask" });
  const frame = (now) => { window.gaps.push(now - last); last = now; requestAnimationFrame(frame); };
  requestAnimationFrame(frame); }
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--devices", type=int, default=500)
    parser.add_argument("--lookers", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=15.0)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        url = f"sqlite:///{folder}/muster.db"
        with made_up_run(url, asked.devices), server(url) as (address, process):
            found = {
                "devices": asked.devices,
                "cores": os.cpu_count(),
                "kib": {path: weight(address, path) for path in ("/", "/static/live.js", "/static/muster.css")},
                "bare_cpu": bare(asked.devices),
                "head_cpu": said_once_a_second(folder, asked.devices),
                "lookers": [watch(address, process, number, asked.seconds) for number in (1, asked.lookers)],
                "browser": browse(address, asked.seconds),
            }
    print(json.dumps(found, indent=2))


def bare(devices: int) -> float:
    """Share of a core that it takes, once a second, to read what a head said as JSON and to write the changes."""
    said, told = codec.to_json(state(1, devices)), changes(views([state(1, devices)]), views([state(2, devices)]))
    began, rounds = time.process_time(), 50
    for _ in range(rounds):
        json.loads(said)
        json.dumps(told)
    return (time.process_time() - began) / rounds


@contextlib.contextmanager
def made_up_run(url: str, devices: int) -> Iterator[None]:
    over = threading.Event()
    said = threading.Event()

    def say() -> None:
        with open_store(url) as store, store.written_by("0123456789ab"):
            number = 0
            while not over.is_set():
                store.put_live(state(number, devices))
                said.set()
                number += 1
                over.wait(1.0)

    thread = threading.Thread(target=say)
    thread.start()
    said.wait(30)
    try:
        yield
    finally:
        over.set()
        thread.join()


def state(number: int, devices: int) -> LiveRun:
    return LiveRun(
        run_id="0123456789ab",
        name="lab",
        simulated=True,
        at=datetime.now(timezone.utc).isoformat(),
        elapsed_s=float(number),
        left_s=3600.0 - number,
        done=number,
        failed=0,
        total=devices * 8,
        devices=tuple(device(number, each) for each in range(devices)),
    )


def device(number: int, each: int) -> LiveDevice:
    host, index = f"node{each // HOSTS_HAVE:03}", each % HOSTS_HAVE
    return LiveDevice(
        id=f"{host}/gpu:{index}",
        host=host,
        name="NVIDIA H100 80GB HBM3",
        activity="measuring",
        done=number // 50,
        total=8,
        case="alexnet forward_backward b128 float32",
        attempt=1,
        doing="measuring",
        step=(7 * number + each) % STEPS,
        max_steps=STEPS,
        last_ms=random.uniform(50, 60),
        temperature_c=random.uniform(50, 70),
        power_w=random.uniform(400, 700),
        left_s=float(STEPS - number % STEPS),
    )


@contextlib.contextmanager
def server(url: str) -> Iterator[tuple[str, psutil.Process]]:
    command = [sys.executable, "-m", "orchestrator.cli", "serve", "--port", "0", "--store", url]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as started:
        assert started.stderr is not None
        found = re.search(r"http://\S+/", started.stderr.readline())
        assert found is not None
        try:
            yield found[0].rstrip("/"), psutil.Process(started.pid)
        finally:
            started.terminate()


def said_once_a_second(folder: str, devices: int) -> float:
    """Share of a core that a head takes to put where its run is into a store, once a second."""
    with open_store(f"sqlite:///{folder}/head.db") as store:
        states = [state(number, devices) for number in range(20)]
        began = time.process_time()
        for each in states:
            store.put_live(each)
        return (time.process_time() - began) / len(states)


def weight(address: str, path: str) -> dict[str, float]:
    data = urllib.request.urlopen(address + path).read()
    return {"plain": len(data) / 1024, "compressed": len(gzip.compress(data)) / 1024}


def watch(address: str, process: psutil.Process, lookers: int, seconds: float) -> dict[str, float]:
    """Take events as that many pages do, and look at what the server uses meanwhile."""
    page = urllib.request.urlopen(address + "/").read().decode()
    shown = re.search(r'data-structure="(\w+)"', page)
    assert shown is not None
    counts, sizes, over = [0] * lookers, [0] * lookers, threading.Event()

    def look(number: int) -> None:
        with urllib.request.urlopen(f"{address}/now/events?shown={shown[1]}") as events:
            while not over.is_set():
                line = events.readline()
                counts[number] += line.startswith(b"data:")
                sizes[number] += len(line)

    threads = [threading.Thread(target=look, args=(number,), daemon=True) for number in range(lookers)]
    for thread in threads:
        thread.start()
    time.sleep(2)  # the first event has everything
    counts[:], sizes[:] = [0] * lookers, [0] * lookers
    before, began = process.cpu_times(), time.monotonic()
    time.sleep(seconds)
    after, took = process.cpu_times(), time.monotonic() - began
    over.set()
    cpu = (after.user + after.system - before.user - before.system) / took
    for thread in threads:
        thread.join(5)
    return {
        "lookers": lookers,
        "updates_per_s": sum(counts) / lookers / took,
        "kib_each": sum(sizes) / max(1, sum(counts)) / 1024,
        "server_cpu": cpu,
        "server_mib": process.memory_info().rss / 2**20,
    }


def browse(address: str, seconds: float) -> dict[str, float] | None:
    chromium = shutil.which("chromium")
    if chromium is None:
        return None  # not measured
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.goto(address)
        page.wait_for_selector("[data-updates]", state="attached")
        updates = int(page.get_attribute("#live", "data-updates") or 0)
        page.evaluate(WATCH)
        page.wait_for_timeout(1000 * seconds)
        gaps = sorted(page.evaluate("window.gaps"))
        long = page.evaluate("window.long")
        seen = int(page.get_attribute("#live", "data-updates") or 0) - updates
        heap = page.evaluate("performance.memory.usedJSHeapSize") / 2**20
        nodes = page.evaluate("document.querySelectorAll('*').length")
        found = {
            "updates_per_s": seen / seconds,
            "elements": nodes,
            "frame_ms_95": gaps[int(0.95 * len(gaps))],
            "frame_ms_longest": gaps[-1],
            "long_tasks": len(long),
            "long_task_ms_longest": max(long, default=0.0),
            "heap_mib": heap,
        }
        browser.close()
        return found


if __name__ == "__main__":
    main()
