"""Does a comparison find what is there, and nothing else? ``python -m benchmarks.detection collect``, ``evaluate``.

``collect`` measures one real case (AlexNet, TensorFlow, this machine's CPU) in many fresh processes: as it is, slowed
by known shares, and beside a busy loop on the same cores, all in turns. Each result is a line of a file, so that it can
be ended and gone on with. ``evaluate`` draws runs of a few processes from it, holds them against each other by
muster's rule, by pyperf's and by asv's, and writes a table and a picture.

To be run on a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import datetime
import math
import os
import random
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from orchestrator.analysis.comparison import Change, compare
from orchestrator.analysis.evidence import judge
from orchestrator.analysis.noise import noise_floor
from orchestrator.analysis.pooling import pooled
from orchestrator.config.quality import QualityConfig
from orchestrator.planning import case_key
from orchestrator.results import Attempt, CaseResult
from workers.agent import DeviceAgent
from workers.codec import from_json, to_json
from workers.protocol import AttemptRequest, Case, Device, DeviceKind, Pass, Result, Sampling, Verdict, Workload

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from orchestrator.analysis.comparison import ComparedCase
    from orchestrator.results import NoiseFloor

ROOT = Path(__file__).resolve().parent.parent

#: Shares by which a child is slowed; -1 stands for a busy loop beside it.
BUSY = -1.0
SHARES = (0.0, 0.02, 0.05, 0.08, 0.11, 0.15, 0.2)

#: Processes that the floor is measured of.
FLOOR_PROCESSES = 10
COMPARISONS = 200

#: What is planted beyond the noise floor by this share is to be found.
BEYOND = 0.05

#: By name: which cores, which pass, and the batch. The first is of all cores, and as noisy as such a case can be.
CASES = {"forward-8": (None, Pass.FORWARD, 8), "training-1": (1, Pass.FORWARD_BACKWARD, 1)}

SPIN = "import threading,sys\nt=threading.Thread(target=sys.stdin.read,daemon=True);t.start()\nwhile t.is_alive(): pass"


def the_case(name: str) -> Case:
    count, pass_, batch_size = CASES[name]
    cores = tuple(sorted(os.sched_getaffinity(0)))[:count]
    device = Device(host="here", selector="cpu", kind=DeviceKind.CPU, name="CPU", cores=cores)
    workload = Workload(model="alexnet", pass_=pass_, batch_size=batch_size)
    sampling = Sampling(warmup=10, min_steps=60, max_steps=60)
    key = case_key(device, workload, sampling)
    return Case(key=key, device=device, workload=workload, sampling=sampling)


# --- collecting ------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def neighbour(share: float, cores: Sequence[int]) -> Iterator[None]:
    """A busy loop on the cores of the measurement, where that is what is asked for."""
    if share != BUSY:
        yield
        return
    with subprocess.Popen([sys.executable, "-c", SPIN], stdin=subprocess.PIPE) as process:
        os.sched_setaffinity(process.pid, cores)
        yield
        process.communicate(timeout=60)


def one(case: Case, share: float, number: int) -> Result:
    argv = [sys.executable, "-m", "benchmarks.slowed_child", str(max(share, 0.0)), "--parent", str(os.getpid())]
    agent = DeviceAgent(to_json(case.device), child_argv=argv)
    request = AttemptRequest(
        run_id="detection", case=case, attempt=number, start_timeout_s=120.0, case_timeout_s=300.0,
        telemetry_interval_s=0.5,
    )  # fmt: skip
    with neighbour(share, case.device.cores):
        result = from_json(Result, agent.run_case(to_json(request)))
    agent.acknowledge(result.case_key, result.attempt)
    agent.shutdown()
    return result


def collect(file: Path, case: Case, plan: Counter[float], for_s: float) -> None:
    """Measure until every share has as many processes as the plan says, or the time is over."""
    have = Counter(share for share, _ in read(file))
    until = time.monotonic() + for_s
    number = sum(have.values())
    while (wanted := [share for share in plan if have[share] < plan[share]]) and time.monotonic() < until:
        # The one that is furthest behind: all are spread over the whole time.
        share = min(wanted, key=lambda each: have[each] / plan[each])
        number += 1
        result = one(case, share, number)
        if result.verdict is Verdict.OK:
            with file.open("a") as lines:
                lines.write(f"{share}\t{to_json(result)}\n")
            have[share] += 1
        print(f"{sum(have.values())}/{sum(plan.values())}  {share:g}  {result.verdict.value}  {result.reason or ''}")


def read(file: Path) -> list[tuple[float, Result]]:
    if not file.exists():
        return []
    lines = (line.partition("\t") for line in file.read_text().splitlines())
    return [(float(share), from_json(Result, text)) for share, _, text in lines]


# --- the rules -------------------------------------------------------------------------------------------------


def run_of(results: Sequence[Result]) -> list[CaseResult]:
    case = the_case(next(iter(CASES)))  # any: rules look at the samples alone
    return [
        CaseResult(
            case=dataclasses.replace(case, key=f"{case.key}{process}", process=process),
            position=process,
            verdict=Verdict.OK,
            attempts=(Attempt(number=1, result=result),),
        )
        for process, result in enumerate(results, start=1)
    ]


def by_muster(before: Sequence[Result], after: Sequence[Result], floor: NoiseFloor) -> ComparedCase:
    (found,) = compare(run_of(before), run_of(after), floors=[floor]).cases
    return found


def by_pyperf(before: Sequence[Result], after: Sequence[Result]) -> bool:
    """Two-sided Student's t at 95 % with pooled variance, over all values: ``pyperf._utils.is_significant``."""
    from scipy.stats import ttest_ind

    old, new = (np.concatenate([result.samples_ms for result in side]) for side in (before, after))
    return bool(ttest_ind(old, new).pvalue < 0.05 and new.mean() > old.mean())


def by_asv(before: Sequence[Result], after: Sequence[Result]) -> bool:
    """A factor of 1.1 between medians, and a Mann-Whitney test below 0.002: ``asv.statistics.is_different``."""
    from scipy.stats import mannwhitneyu

    old, new = (np.concatenate([result.samples_ms for result in side]) for side in (before, after))
    is_different = mannwhitneyu(old, new, alternative="two-sided").pvalue < 0.002
    return bool(is_different and np.median(new) > 1.1 * np.median(old))


OTHERS = {"pyperf": by_pyperf, "asv": by_asv}
RULES = ("muster", *OTHERS)


@dataclasses.dataclass
class Found:
    floor: NoiseFloor
    #: By share and rule: how often the second of two drawn runs was called slower.
    rates: dict[float, dict[str, float]]
    #: Of the comparisons whose planted share was beyond their own noise floor by so much: how many, and how many found.
    beyond: int = 0
    beyond_found: int = 0


def curves(results: Sequence[tuple[float, Result]], processes: int) -> Found:
    """Hold drawn runs of so many processes against each other, by each rule."""
    by_share: dict[float, list[Result]] = {}
    for share, result in results:
        by_share.setdefault(share, []).append(result)
    same = by_share[0.0]
    for_floor, rest = same[::6][:FLOOR_PROCESSES], [result for place, result in enumerate(same) if place % 6]
    (pool,) = pooled(run_of(for_floor))
    floor = noise_floor(pool, run_id="detection", measured_at=datetime.datetime.now(datetime.timezone.utc))
    assert floor is not None
    chance, found = random.Random(1), Found(floor, {})
    for share in sorted(each for each in by_share if each >= 0):
        called: Counter[str] = Counter()
        for _ in range(COMPARISONS):
            drawn = chance.sample(rest, 2 * processes)
            after = drawn[processes:] if share == 0 else chance.sample(by_share[share], processes)
            before = drawn[:processes]
            case = by_muster(before, after, floor)
            called["muster"] += case.change is Change.SLOWER
            for name, rule in OTHERS.items():
                called[name] += rule(before, after)
            if share >= (case.floor or math.inf) + BEYOND:
                found.beyond += 1
                found.beyond_found += case.change is Change.SLOWER
        found.rates[share] = {name: called[name] / COMPARISONS for name in RULES}
    return found


def contended(results: Sequence[tuple[float, Result]], case: Case) -> dict[str, tuple[int, int]]:
    """Return how many results were called contended: of those on the quiet machine, and beside a busy loop."""
    counts = {"quiet": [0, 0], "beside a busy loop": [0, 0]}
    for share, result in results:
        entry = counts["beside a busy loop" if share == BUSY else "quiet"]
        entry[0] += judge(case, result, QualityConfig()).verdict is Verdict.CONTENDED
        entry[1] += 1
    return {name: (called, of) for name, (called, of) in counts.items()}


def evaluate(file: Path, case: Case, processes: int, picture: Path | None) -> None:
    from orchestrator.analysis.noise import floor_share

    results = read(file)
    found = curves(results, processes)
    floor = found.floor
    share = floor_share(floor.between_sd, floor.processes, processes, processes)
    print(f"{len(results)} processes; runs of {processes}, {COMPARISONS} comparisons for each share")
    print(
        f"between processes {100 * floor.between_sd:.2f} %, within {100 * floor.within_sd:.2f} %;"
        f" floor {100 * share:.1f} %"
    )
    print("\n| Slower by | muster | pyperf's rule | asv's rule |\n|---:|---:|---:|---:|")
    for each, rates in found.rates.items():
        print(f"| {100 * each:g} % | " + " | ".join(f"{100 * rates[name]:.1f} %" for name in RULES) + " |")
    print(
        f"\nplanted beyond the comparison's own floor by {100 * BEYOND:g} % or more: {found.beyond_found} of"
        f" {found.beyond} found"
    )
    for name, (called, of) in contended(results, case).items():
        print(f"contended {name}: {called} of {of} ({100 * called / max(of, 1):.1f} %)")
    if picture is not None:
        draw(found.rates, share, picture)


def draw(found: dict[float, dict[str, float]], floor: float, picture: Path) -> None:
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    FigureCanvasSVG(figure)
    axes = figure.add_subplot()
    styles = {"muster": ("o-", "black"), "pyperf": ("s--", "0.45"), "asv": ("^:", "0.65")}
    for name, (style, colour) in styles.items():
        points = [(100 * share, 100 * rates[name]) for share, rates in found.items()]
        axes.plot(*zip(*points, strict=True), style, color=colour, label=f"{name}'s rule")
    axes.axvline(100 * floor, color="0.8", linewidth=6, zorder=0, label="noise floor")
    axes.axhline(2, color="0.5", linewidth=0.6)
    axes.set_xlabel("planted slowdown, %")
    axes.set_ylabel("called slower, % of 200 comparisons")
    axes.legend(loc="center right", facecolor="white", framealpha=1, edgecolor="none")
    figure.savefig(picture, metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.detection", description=__doc__)
    parser.add_argument("stage", choices=["collect", "evaluate"])
    parser.add_argument("--file", type=Path, default=ROOT / "build" / "detection.tsv")
    parser.add_argument("--case", choices=list(CASES), default="training-1", help="what is measured")
    parser.add_argument("--processes", type=int, default=3, help="of each drawn run")
    parser.add_argument("--same", type=int, default=80, help="processes that are not slowed")
    parser.add_argument("--slowed", type=int, default=20, help="processes of each share, and beside a busy loop")
    parser.add_argument("--minutes", type=float, default=60.0, help="end after so long; what is there is kept")
    parser.add_argument("--picture", type=Path, help="write the curves there, as SVG")
    given = parser.parse_args()
    given.file.parent.mkdir(parents=True, exist_ok=True)
    if given.stage == "collect":
        plan = Counter({0.0: given.same, BUSY: given.slowed, **dict.fromkeys(SHARES[1:], given.slowed)})
        collect(given.file, the_case(given.case), plan, given.minutes * 60)
    else:
        evaluate(given.file, the_case(given.case), given.processes, given.picture)


if __name__ == "__main__":
    main()
