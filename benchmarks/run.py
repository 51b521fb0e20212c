"""Measure muster itself, and write benchmarks/RESULTS.md. `make bench` runs this; it takes about half an hour.

Each benchmark is a script of its own that prints JSON; their ratios are taken against a floor in the same run, for
the machines this runs on are shared.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

from workers import probe

HERE = Path(__file__).parent
RESULTS = HERE / "RESULTS.md"
#: What each benchmark printed last, so that one can be measured again without the others.
KEPT = HERE.parent / "build" / "benchmarks"

#: Arguments of each benchmark: as `make bench` runs them, and a look in a few minutes.
FULL = {
    "fidelity": ["--pairs", "5", "--steps", "20"],
    "overhead": ["--pairs", "7"],
    "dispatch_ray": ["--pairs", "7", "--cases", "3000"],
    "dispatch_simulated": [],
    "lab_bringup": ["--hosts", "1", "8", "--rounds", "3"],
    "lab_idle": ["--hosts", "2", "8", "16", "--cases", "8"],
    "telemetry": ["--pairs", "50"],
    "works": ["--pairs", "3"],
    "dashboard": [],
}
QUICK = {
    "fidelity": ["--pairs", "1", "--steps", "5"],
    "overhead": ["--pairs", "1"],
    "dispatch_ray": ["--pairs", "1", "--cases", "500"],
    "dispatch_simulated": ["--devices", "100", "1000"],
    "lab_bringup": ["--hosts", "1", "2", "--rounds", "1"],
    "lab_idle": ["--hosts", "2", "4", "--cases", "3"],
    "telemetry": ["--pairs", "2", "--seconds", "1"],
    "works": ["--pairs", "1", "--steps", "4"],
    "dashboard": ["--seconds", "5"],
}


def measured(name: str, arguments: list[str]) -> dict[str, Any]:
    print(f"{name} …", file=sys.stderr, flush=True)
    done = subprocess.run(
        [sys.executable, HERE / f"{name}.py", *arguments],
        stdout=subprocess.PIPE,
        text=True,
        cwd=HERE.parent,
        # The lab's hosts are the tests'.
        env={**os.environ, "PYTHONPATH": str(HERE.parent)},
        check=True,
    )
    # Ray may have said something before.
    found: dict[str, Any] = json.loads(done.stdout[done.stdout.index("{\n") :])
    return found


def kept(name: str) -> Path:
    return KEPT / f"{name}.json"


def machine() -> list[str]:
    facts = dict(probe.host_report("bench").environment.facts)
    packages = ("tensorflow-cpu", "tensorflow", "ray", "numpy")
    versions = [f"{name} {metadata.version(name)}" for name in packages if _is_installed(name)]
    return [
        f"- {facts['cpu.model'].value}, {len(os.sched_getaffinity(0))} cores, {facts['host.os'].value},"
        f" kernel {facts['host.kernel'].value}",
        f"- Python {facts['python.version'].value}, {', '.join(versions)}",
        f"- measured {datetime.datetime.now(datetime.timezone.utc):%Y-%m-%d}; GPU figures: not measured",
    ]


def _is_installed(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True


def page(found: dict[str, dict[str, Any]], arguments: dict[str, list[str]]) -> str:
    parts = [
        "# How muster measures up",
        "Written by `make bench`. Medians, with the least and the greatest in brackets; ratios are taken pair by pair.",
        "\n".join(machine()),
        fidelity(found["fidelity"]),
        overhead(found["overhead"]),
        dispatch_ray(found["dispatch_ray"]),
        dispatch_simulated(found["dispatch_simulated"]),
        lab_bringup(found["lab_bringup"]),
        lab_idle(found["lab_idle"], found["overhead"]),
        telemetry(found["telemetry"]),
        works(found["works"]),
        dashboard(found["dashboard"]),
        "## As printed",
        *(
            f"`python benchmarks/{name}.py {' '.join(arguments[name])}`\n\n```json\n{json.dumps(data, indent=2)}\n```"
            for name, data in found.items()
        ),
    ]
    return "\n\n".join(parts) + "\n"


def fidelity(data: dict[str, Any]) -> str:
    lines = [
        "## Fidelity",
        "",
        "The median step of muster's measuring child (`fetch: host`) over that of a plain script of the seed's",
        "protocol (graph mode, `session.run`), alternating in fresh processes. Aim: 0.97 to 1.03.",
        "",
        "| Pass | Seed's protocol (ms) | muster (ms) | Ratio |",
        "|---|---|---|---|",
    ]
    for name, row in data["passes"].items():
        lines.append(
            f"| {name} | {row['seed_median_ms']:.1f} | {row['muster_median_ms']:.1f} |"
            f" {row['median_ratio']:.3f} ({row['min_ratio']:.3f} to {row['max_ratio']:.3f}) |"
        )
    return "\n".join(lines)


def telemetry(data: dict[str, Any]) -> str:
    """What the readings beside a measurement cost it."""

    def share(row: dict[str, float], name: str) -> str:
        low, middle, high = (100 * row[key] for key in (f"{name}_low", name, f"{name}_high"))
        return f"{middle:.3f} % ({low:.3f} to {high:.3f})"

    return "\n".join(
        [
            "## What telemetry costs",
            "",
            f"AlexNet forward, in windows of one child with readings and without, A B B A, {data['pairs']} pairs. Read",
            f"{data['amplified']} times as often as a run reads, and the cost divided by as much; in brackets the 95 %",
            "interval. The last column is the same sum over windows without readings. Aim: below 0.5 %.",
            "",
            "| | Step (ms) | CPU of a reading (ms) | Steps take longer by, at one reading a second | Of nothing |",
            "|---|---|---|---|---|",
            *(
                f"| {name} | {row['step_ms']:.1f} | {row['cpu_of_a_reading_ms']:.2f} | {share(row, 'cost')} |"
                f" {share(row, 'nothing')} |"
                for name, row in data["cases"].items()
            ),
        ]
    )


def works(data: dict[str, Any]) -> str:
    """Frameworks and operations against the same bare, networks' shares of the peak, tuned against default."""
    tuned = data["tuned"]
    return "\n".join(
        [
            "## Frameworks, operations, networks",
            "",
            "The median step of muster's measuring child over that of a plain script of the same framework,",
            "alternating in fresh processes; AlexNet at batch 32. Aim: 0.97 to 1.03.",
            "",
            "| | Plain script (ms) | muster (ms) | Ratio |",
            "|---|---|---|---|",
            *(
                f"| {name} | {row['ms'][0]:.2f} | {row['ms'][1]:.2f} | {row['ratio']:.3f} ({row['min']:.3f} to"
                f" {row['max']:.3f}) |"
                for name, row in data["fidelity"].items()
            ),
            "",
            "What each network reaches of a large matrix product in the same process, TensorFlow, float32, batch 8.",
            "",
            "| | Step (ms) | TFLOP/s | Share of peak |",
            "|---|---|---|---|",
            *(
                f"| {name} | {row['ms']:.1f} | {row['tflops']:.3f} | {100 * (row['share_of_peak'] or 0):.0f} % |"
                for name, row in data["shares"].items()
            ),
            "",
            f"AlexNet forward, {tuned['tuned']} (as `muster tune` found it) against {tuned['default']} (the seed's):"
            f" {tuned['ratio']:.2f} times as many images a second ({tuned['min']:.2f} to {tuned['max']:.2f}).",
        ]
    )


def dashboard(data: dict[str, Any]) -> str:
    """How smooth the live page stays."""
    page, browser = data["kib"]["/"], data["browser"]
    seen = "The browser was not measured: there is none here."
    if browser is not None:
        seen = (
            f"In headless Chromium, {browser['elements']} elements: {browser['updates_per_s']:.2f} updates a second,"
            f" 95 % of frames within {browser['frame_ms_95']:.0f} ms, the longest {browser['frame_ms_longest']:.0f} ms,"
            f" {browser['long_tasks']} stretches of script over 50 ms, heap {browser['heap_mib']:.0f} MiB."
        )
    return "\n".join(
        [
            "## The live page",
            "",
            f"A made-up run of {data['devices']} devices that all change once a second; all else is real.",
            f"The page weighs {page['plain']:.0f} KiB, {page['compressed']:.0f} KiB as it is sent. Bare: reading what",
            f"the head said as JSON and writing the changes, {data['bare_cpu']:.1%} of a core at one a second.",
            "",
            "| Pages that look | Updates a second and page | KiB each | Server, share of a core | of bare | MiB |",
            "|---|---|---|---|---|---|",
            *(
                f"| {row['lookers']} | {row['updates_per_s']:.2f} | {row['kib_each']:.0f} | {row['server_cpu']:.0%} |"
                f" {row['server_cpu'] / data['bare_cpu']:.1f} | {row['server_mib']:.0f} |"
                for row in data["lookers"]
            ),
            "",
            f"The head, to put where its run is into the store: {data['head_cpu']:.1%} of a core.",
            "",
            seen,
        ]
    )


def spread(row: dict[str, float]) -> str:
    return f"{row['median']:.2f} ({row['min']:.2f} to {row['max']:.2f})"


def lab_bringup(data: dict[str, Any]) -> str:
    """Hosts over SSH: how long until the first of them measures."""
    sizes = data["sizes"]
    parts = [name for name in next(iter(sizes.values())) if name not in ("to_first_sample_s", "whole_s", "ratio")]
    titles = {"to_first_sample_s": "**until the first sample**", "whole_s": "until the table is there and all is gone"}
    rows = [(titles.get(name, name), name) for name in (*parts, *titles)]
    smallest, *_, largest = sizes
    return "\n".join(
        [
            "## From `muster run` to the first sample, over SSH",
            "",
            "Hosts in namespaces of this machine, with real sshd, Ray and TensorFlow: all of them and the head",
            f"share its cores, as no lab's do. Aim: {largest} hosts at most twice as long as {smallest}.",
            f"Ratio: {spread(sizes[largest]['ratio'])}.",
            "",
            f"| Seconds, medians | {' | '.join(f'{size} hosts' for size in sizes)} |",
            f"|---|{'---|' * len(sizes)}",
            *(f"| {title} | {' | '.join(f'{row[name]:.1f}' for row in sizes.values())} |" for title, name in rows),
        ]
    )


def lab_idle(data: dict[str, Any], overheads: dict[str, Any]) -> str:
    """How long devices wait between cases, and how that and the head grow with the lab."""
    sizes = data["sizes"]
    whole = [row for row in sizes if row["devices_measured"] == row["devices"]]
    first, last = whole[0], whole[-1]
    hosts = last["hosts"] - first["hosts"]
    cpu_s, mib = ((last[key] - first[key]) / hosts for key in ("head_cpu_s", "head_mib"))
    child = overheads["run"]["child_s"]
    return "\n".join(
        [
            "## Devices that wait, and a lab that grows",
            "",
            f"Two agents a host that sleep for {data['seconds_a_case']:g} s instead of measuring; SSH, Ray, the head",
            "and the store are real. The idle share is what a device waits between cases. Aim: under 10 %, 8 hosts.",
            "",
            "| Hosts | Devices | Measured | Cases | Idle share | Survey (s) | Ray joins (s) | Agents (s) | Messages"
            " | Head CPU (s) | Head memory (MiB) | Memory a host (MiB) |",
            f"|{'---|' * 12}",
            *(
                f"| {row['hosts']} | {row['devices']} | {row['devices_measured']} | {row['cases']} |"
                f" {_percent(row['idle_share'])} |"
                f" {row['survey_s']:.1f} | {row['join_s']:.1f} | {row['agents_s']:.1f} | {row['messages']} |"
                f" {row['head_cpu_s']:.1f} | {row['head_mib']:.0f} | {row['mib_a_host']:.0f} |"
                for row in sizes
            ),
            "",
            f"From {first['hosts']} to {last['hosts']} hosts the head takes {cpu_s:.2f} s of CPU more for each;",
            f"its memory changes by {mib:+.1f} MiB for each, which is noise. In a straight line 1,000 hosts cost it",
            f"{1000 * cpu_s:.0f} s of CPU: a projection, never measured; the dispatcher alone handles them as above,",
            "through the simulated engine. Survey, joining and agents are bound by this machine's cores, which all",
            "hosts share: in a lab each host brings its own. With 16 hosts on 2 cores it bends: Ray's daemon on a host",
            "waits a while for its agent there, which that many interpreters starting at once do not grant, and gives",
            "up. Those hosts are `host_down` with that reason, and the others go on.",
            "",
            f"A measuring child that does next to nothing costs {sum(child.values()):.1f} s, of which",
            f"{child['import']:.1f} s are the import of TensorFlow.",
        ]
    )


def _percent(row: dict[str, float]) -> str:
    return f"{row['median']:.1%} ({row['min']:.1%} to {row['max']:.1%})"


def overhead(data: dict[str, Any]) -> str:
    run = data["run"]
    rows = [
        "## Overhead",
        "",
        "Wall seconds of `muster run` on one small case against the bare child with the same case.",
        "Aim: under 4 s added.",
        "",
        "| What | Seconds |",
        "|---|---|",
        f"| `muster run` | {spread(run['muster_run_s'])} |",
        f"| bare child | {spread(run['bare_child_s'])} |",
        f"| **added by Ray and the head** | **{spread(run['added_s'])}** |",
        f"| Ray alone: started, one actor's answer, ended | {spread(run['bare_ray_s'])} |",
        f"| ratio of what is added to Ray alone | {spread(run['added_over_bare_ray'])} |",
        "",
        "Where it goes, medians of runs with a clock between their parts:",
        "",
        "| Part | Seconds |",
        "|---|---|",
        *(f"| head: {name} | {value:.2f} |" for name, value in run["head_s"].items()),
        *(f"| child: {name} | {value:.2f} |" for name, value in run["child_s"].items()),
        f"| agent: from the request to the result | {run['agent_s']:.2f} |",
        "",
        "Commands that touch no device. Aim: under 0.3 s.",
        "",
        "| Command | Seconds |",
        "|---|---|",
        *(f"| `{name}` | {spread(row)} |" for name, row in data["commands_s"].items()),
    ]
    return "\n".join(rows)


def dispatch_ray(data: dict[str, Any]) -> str:
    return "\n".join(
        [
            "## Dispatch over Ray",
            "",
            f"{data['agents']} agents that answer at once, {data['cases']} cases, against bare Ray actor calls in the"
            " same process. Aim: at least 0.5.",
            "",
            "| Cases a second | Bare calls a second | Ratio |",
            "|---|---|---|",
            f"| {data['engine_cases_per_s']:.0f} | {data['bare_calls_per_s']:.0f} | {spread(data['ratio'])} |",
        ]
    )


def dispatch_simulated(data: dict[str, Any]) -> str:
    rows = [
        "## Dispatch in virtual time",
        "",
        "Dispatcher and simulated engine, no store. Growth is per size: 1 is linear.",
        "",
        "| Devices | Cases | Wall (s) | of it dispatcher (s) | Cases a second | Peak memory (MiB) |",
        "|---|---|---|---|---|---|",
        *(
            f"| {row['devices']} | {row['cases']} | {row['wall_s']:.1f} | {row['dispatcher_s']:.2f} |"
            f" {row['cases_per_s']:.0f} | {row['peak_rss_mib']:.0f} |"
            for row in data["sizes"]
        ),
    ]
    for row in data["growth_per_size"]:
        rows += [
            "",
            f"At {row['size']:.0f} times the size: {row['wall_s']:.2f} of linear in time,"
            f" {row['peak_rss_mib']:.2f} in memory.",
        ]
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a few minutes; prints the page and writes no file")
    parser.add_argument("--only", choices=sorted(FULL), action="append", help="the others as they were measured last")
    given = parser.parse_args()
    if given.quick:
        print(page({name: measured(name, arguments) for name, arguments in QUICK.items()}, QUICK))
        return
    KEPT.mkdir(parents=True, exist_ok=True)
    for name in given.only or FULL:
        kept(name).write_text(json.dumps(measured(name, FULL[name])))
    RESULTS.write_text(page({name: json.loads(kept(name).read_text()) for name in FULL}, FULL))


if __name__ == "__main__":
    main()
