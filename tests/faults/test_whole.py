"""All of it at once: four hosts, a head that is killed three times, a network that is cut twice."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.faults.figures import Figure
from tests.faults.running import Kept, Watched, config, measured_twice, missing

if TYPE_CHECKING:
    from tests.faults.figures import Figures
    from tests.lab.lab import Lab

pytestmark = [pytest.mark.long, pytest.mark.timeout(1800)]

NAMES = ("h1", "h2", "h3", "h4")


def _rows(lab: Lab, folder: str) -> set[tuple[Any, ...]]:
    """What each row of the latest run's table is of, and its verdicts."""
    shown = lab.muster("show", "--json", cwd=folder)
    assert shown.code == 0, shown.err
    return {
        (
            *sorted((key, str(value)) for key, value in row["definition"].items()),
            row["cells"]["forward_ms"]["verdict"],
            row["cells"]["forward_backward_ms"]["text"],
        )
        for row in json.loads(shown.out)["rows"]
    }


def test_a_run_that_is_killed_and_cut_ends_with_the_rows_of_one_that_is_left_alone(lab: Lab, figures: Figures) -> None:
    # So many cases that some are left after each of the lives.
    workloads = [{"model": "alexnet", "passes": "forward", "batch_size": list(range(1, 13))}]
    measure = {"warmup": 1, "steps": 20}
    text = config(lab, *NAMES, limits={"host_grace": "2m"}, workloads=workloads, measure=measure)
    with Watched(lab, text) as undisturbed:
        assert undisturbed.end(600.0) == 0, undisturbed.err
    folder = lab.write_config(text)
    lost, kept = 0, tuple[Kept, ...]()
    arguments: tuple[str, ...] = ("run", "lab.yaml")
    for cut in ("h2", "h3", None):
        lost, kept = _disturbed(lab, folder, arguments, cut, lost, kept)
        arguments = ("resume",)
    with Watched(lab, None, folder, "resume") as last:
        assert last.end(600.0) == 0, last.err
    after = last.kept()
    assert _rows(lab, folder) == _rows(lab, undisturbed.folder)
    assert (lost + missing(kept, after), measured_twice(after)) == (0, 0)
    figures.add(
        Figure(
            kind="head",
            fault="four hosts: the head gets SIGKILL three times, and two cables are pulled for 20 s each",
            lost=lost,
            measured_twice=measured_twice(after),
            noticed_s=None,
            went_on_s=None,
            outcome=f"the same {len(_rows(lab, folder))} rows as an undisturbed run, every case ok",
        )
    )


def _disturbed(
    lab: Lab, folder: str, arguments: tuple[str, ...], cut: str | None, lost: int, kept: tuple[Kept, ...]
) -> tuple[int, tuple[Kept, ...]]:
    """Live once: go on, have a cable pulled and put back, measure something more, be killed."""
    with Watched(lab, None, folder, *arguments) as head:
        head.until_kept(sum(each.has_figure for each in kept) + 2)
        if cut is not None:
            lab.cut(cut)
            cut_at = time.monotonic()
            # The cut itself is what lasts so long: there is nothing to wait for.
            time.sleep(20.0)
            lab.heal(cut)
            head.heard(rf"{cut}: heard again|{cut}/cpu: back|in all|is kept", since=cut_at)
        before = head.kept()
        head.kill()
    now = head.kept()
    return lost + missing(kept, now) + missing(before, now), now
