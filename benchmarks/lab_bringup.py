"""Seconds from `muster run` to the first sample, by the number of hosts, on real hosts over SSH on this machine.

Labs of different sizes take turns in one run, and the ratio is taken to the smallest of the same round. The hosts are
those of tests/lab: namespaces, sshd, Ray and TensorFlow are real, the cores are shared. Needs root. Prints JSON.

    python benchmarks/lab_bringup.py --hosts 1 8 --rounds 5
"""

from __future__ import annotations

import argparse
import json
import statistics
import threading
import time
from pathlib import Path
from typing import Any

from orchestrator.store import open_store
from tests.lab.lab import Lab
from workers.protocol import Phase

#: What lines of `muster run` on stderr have in them, and what has just begun then.
MARKS = (
    ("reaching hosts", "reach and probe the hosts"),
    ("starting Ray", "start Ray and join, start the agents"),
    (": starting", "start the children, import TensorFlow"),
)

#: What a child does before its first step.
BEFORE_STEPS = (Phase.IMPORT, Phase.BUILD)


def config(lab: Lab, hosts: int) -> str:
    return lab.config({f"h{number}": {} for number in range(1, hosts + 1)}, limits={"attempts": 1})


def first_sample_at(store: Path) -> float:
    """Return when, in seconds since the epoch, the first step of any host began."""
    with open_store(f"sqlite:///{store}", create=False) as opened:
        cases = opened.run("latest").cases
    if any(case.verdict is None or not case.verdict.has_figure for case in cases):
        raise RuntimeError(f"not every host was measured: {[(c.case.device.id, c.verdict, c.reason) for c in cases]}")
    results = [case.result for case in cases if case.result is not None]
    return min(
        result.started_at + sum(timing.seconds for timing in result.phases if timing.phase in BEFORE_STEPS)
        for result in results
    )


def one(lab: Lab, hosts: int) -> dict[str, float]:
    """Run a lab of that many hosts once; return what took how long, in seconds, until the first sample and in all."""
    cwd = lab.write_config(config(lab, hosts))
    begun = time.time()
    started = lab.start_muster("run", "lab.yaml", cwd=cwd)
    marks: dict[str, float] = {"python, imports, config": begun}
    lines: list[str] = []

    def listen() -> None:
        assert started.popen.stderr is not None
        for line in started.popen.stderr:
            lines.append(line)
            for words, name in MARKS:
                if words in line:
                    marks.setdefault(name, time.time())

    listener = threading.Thread(target=listen)
    listener.start()
    assert started.popen.stdout is not None
    started.popen.stdout.read()
    listener.join(300)
    ended = time.time()
    if started.popen.wait(60) != 0:
        raise RuntimeError("".join(lines))
    first = first_sample_at(lab.head.home / "work" / Path(cwd).name / "muster.db")
    moments = [*marks.values(), first]
    parts = {name: after - before for name, before, after in zip(marks, moments, moments[1:], strict=False)}
    return {"to_first_sample_s": first - begun, "whole_s": ended - begun, **parts}


def measure(sizes: list[int], rounds: int) -> dict[str, Any]:
    with Lab(max(sizes)) as lab:
        one(lab, min(sizes))  # warm-up: the code is brought, files are read for the first time
        rows = [{size: one(lab, size) for size in sizes} for _ in range(rounds)]
    smallest = min(sizes)
    ratios = {
        size: [row[size]["to_first_sample_s"] / row[smallest]["to_first_sample_s"] for row in rows] for size in sizes
    }
    return {
        "rounds": rounds,
        "sizes": {
            str(size): {
                **{name: statistics.median(row[size][name] for row in rows) for name in rows[0][size]},
                "ratio": {
                    "median": statistics.median(ratios[size]),
                    "min": min(ratios[size]),
                    "max": max(ratios[size]),
                },
            }
            for size in sizes
        },
    }


def spread(values: list[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hosts", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    print(json.dumps(measure(given.hosts, given.rounds), indent=2))
