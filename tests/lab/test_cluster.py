"""`muster run` on a lab of real hosts: real SSH, real Ray, real TensorFlow."""

from __future__ import annotations

import json
import os
import re
import signal
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import pytest

from tests.lab.environments import OLD_RAY, OLD_RAY_VERSION, other_interpreter
from tests.lab.standing import long_config, stop_now, until_measuring

if TYPE_CHECKING:
    from pathlib import Path

    from tests.lab.bystander import Bystander
    from tests.lab.lab import Lab

#: A run of a dozen hosts on a machine of two cores takes a minute.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(420), pytest.mark.usefixtures("neighbour")]

_RUN_TIMEOUT_S = 400.0

#: By host and check: what `muster check --json` says.
Findings: TypeAlias = dict[tuple[str, str], dict[str, Any]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Cell:
    verdict: str
    value: float | None
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Done:
    """A run that has ended."""

    code: int
    out: str
    err: str
    #: By device: what became of its one case.
    cells: dict[str, Cell]


def _run(lab: Lab, config: str) -> Done:
    folder = lab.write_config(config)
    ended = lab.muster("run", "lab.yaml", cwd=folder, timeout_s=_RUN_TIMEOUT_S)
    shown = lab.muster("show", "--json", cwd=folder)
    assert shown.code == 0, ended.err + shown.err
    return Done(code=ended.code, out=ended.out, err=ended.err, cells=_cells(json.loads(shown.out)))


def _cells(table: dict[str, Any]) -> dict[str, Cell]:
    return {
        row["definition"]["device_id"]: Cell(
            verdict=row["cells"]["forward_ms"]["verdict"],
            value=row["cells"]["forward_ms"]["value"],
            reason=row["cells"]["forward_ms"]["reason"] or "",
        )
        for row in table["rows"]
        if row["kind"] == "measured"
    }


@pytest.fixture(scope="module")
def other_python() -> Path | None:
    """An interpreter of another minor version; ``None`` where there is none, and all but its own rows are tested."""
    found = other_interpreter()
    if found is None and os.environ.get("CI") == "true":
        pytest.fail("CI needs a Python of another minor version than the one that runs the tests")
    return found


def _every_kind(lab: Lab, other_python: Path | None) -> dict[str, dict[str, Any]]:
    """Each kind of host once; two of the four ordinary ones a second time under another name, as what they are not."""
    unlike = {"address": lab["h3"].address, "devices": ["cpu"], "python": str(other_python)}
    return {
        "h1": {"devices": ["cpu:0"]},
        "h2": {"devices": ["cpu:1"]},
        "h3": {"devices": ["cpu"]},
        "h4": {"devices": ["cpu", "gpu:0"]},
        "port": {},
        "slow": {},
        "behind": {},
        "dash": {},
        "unknown": {},
        "changed": {},
        "refused": {},
        "down": {},
        **({} if other_python is None else {"new-python": unlike}),
        "old-ray": {"address": lab["h4"].address, "devices": ["cpu"], "python": f"~/{OLD_RAY}/bin/python"},
    }


#: Devices that are measured in a lab of every kind.
MEASURED = ("h1/cpu:0", "h2/cpu:1", "h3/cpu", "h4/cpu", "port/cpu", "slow/cpu", "behind/cpu", "dash/cpu")


@pytest.fixture(scope="module")
def every_kind(lab: Lab, neighbour: Bystander, other_python: Path | None) -> Done:
    """One run of hosts of every kind."""
    assert neighbour.is_well()
    return _run(lab, lab.config(_every_kind(lab, other_python)))


# --- one run of every kind of host -----------------------------------------------------------------------------


def test_every_device_has_a_row_and_the_run_says_that_some_have_no_figure(every_kind: Done) -> None:
    others = [f"{name}/cpu" for name in ("unknown", "changed", "refused", "down", "new-python", "old-ray")]
    if other_interpreter() is None:
        others.remove("new-python/cpu")

    assert list(every_kind.cells) == [*MEASURED[:4], "h4/gpu:0", *MEASURED[4:], *others]
    assert every_kind.code == 3, every_kind.err


@pytest.mark.parametrize("device", MEASURED)
def test_hosts_that_can_be_measured_are(every_kind: Done, device: str) -> None:
    cell = every_kind.cells[device]

    assert cell.verdict == "ok", cell.reason + every_kind.err
    assert cell.value is not None
    assert cell.value > 0


@pytest.mark.parametrize(
    ("device", "verdict", "reason"),
    [
        ("h4/gpu:0", "device_missing", "GPU"),
        ("unknown/cpu", "host_down", "key of 10.77.1.9 is not known"),
        ("changed/cpu", "host_down", "key of 10.77.1.10 has CHANGED"),
        ("refused/cpu", "host_down", "10.77.1.11 refuses to let bench in"),
        ("down/cpu", "host_down", "no route to 10.77.1.12"),
        ("new-python/cpu", "unsupported", "Python"),
        ("old-ray/cpu", "unsupported", re.escape(OLD_RAY_VERSION)),
    ],
)
def test_the_others_say_why_not(every_kind: Done, device: str, verdict: str, reason: str) -> None:
    if device not in every_kind.cells:
        pytest.skip("this machine has no Python of another minor version than ours")
    cell = every_kind.cells[device]

    assert (cell.verdict, cell.value) == (verdict, None)
    assert re.search(reason, cell.reason), cell.reason


def test_the_table_that_is_printed_has_every_host(every_kind: Done) -> None:
    for device in every_kind.cells:
        assert device.split("/")[0] in every_kind.out


# --- what check says -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def findings(lab: Lab, other_python: Path | None) -> Findings:
    """By host and check: what `muster check` finds in a lab of every kind."""
    folder = lab.write_config(lab.config(_every_kind(lab, other_python)))
    ended = lab.muster("check", "lab.yaml", "--json", cwd=folder)
    assert ended.code == 1, ended.err
    return {(each["host"], each["check"]): each for each in json.loads(ended.out)["findings"]}


@pytest.mark.parametrize("name", ["h1", "h2", "h3", "port", "slow", "behind", "dash"])
def test_check_finds_nothing_that_stops_a_sound_host(findings: Findings, name: str) -> None:
    own = {check: finding for (host, check), finding in findings.items() if host == name}

    assert {"name", "port", "key", "login", "python", "ray"} <= set(own)
    assert [finding for finding in own.values() if finding["level"] == "problem"] == []


@pytest.mark.parametrize(
    ("name", "check", "remedy"),
    [
        ("unknown", "key", r"ssh-keyscan .* 10\.77\.1\.9 >>"),
        ("changed", "key", r"ssh-keygen -R 10\.77\.1\.10; ssh-keyscan"),
        ("refused", "login", "ssh-copy-id .* bench@10.77.1.11"),
        ("down", "port", "is it up"),
        ("new-python", "python", "install: true"),
        ("old-ray", "ray", r"old-ray/bin/python -m pip install ray=="),
    ],
)
def test_check_says_what_mends_the_others(findings: Findings, name: str, check: str, remedy: str) -> None:
    if name == "new-python" and other_interpreter() is None:
        pytest.skip("this machine has no Python of another minor version than ours")
    finding = findings[name, check]

    assert finding["level"] == "problem"
    assert re.search(remedy, finding["remedy"] or "")


@pytest.mark.parametrize("name", ["unknown", "changed"])
def test_the_command_that_check_names_makes_a_key_known(lab: Lab, findings: Findings, name: str) -> None:
    known = lab.head.home / ".ssh" / "known_hosts"
    before = known.read_text()
    remedy = findings[name, "key"]["remedy"].rpartition("then: ")[2]
    try:
        mended = lab.head.run("bash", "-c", remedy)
        checked = lab.muster("check", "lab.yaml", cwd=lab.write_config(lab.config({name: {}})))
    finally:
        known.write_text(before)
        known.with_suffix(".old").unlink(missing_ok=True)

    assert mended.code == 0, mended.err
    assert checked.code == 0, checked.out


# --- ways in ---------------------------------------------------------------------------------------------------


def test_an_unknown_key_can_be_taken_on_trust_which_is_said_loudly(lab: Lab) -> None:
    done = _run(lab, lab.config({"unknown": {"insecure_host_keys": True}}))

    assert (done.code, done.cells["unknown/cpu"].verdict) == (0, "ok"), done.err
    assert "INSECURE" in done.err


def test_names_of_the_config_never_reach_a_shell(lab: Lab) -> None:
    hostile = "~/x y'\"; touch /tmp/muster-was-here; $(touch /tmp/muster-too)/python"
    done = _run(lab, lab.config({"h1": {"python": hostile}, "dash": {"python": hostile}}))

    assert {cell.verdict for cell in done.cells.values()} == {"unsupported"}, done.err
    assert done.code == 4


@pytest.mark.long  # quoting itself: tests/properties/test_quoting.py
def test_a_python_in_a_folder_with_a_name_that_needs_quotes_is_found(lab: Lab) -> None:
    folder = "it's a $(folder); really"
    lab["h3"].run("ln", "-s", "../env", f"/home/bench/work/{folder}")
    try:
        done = _run(lab, lab.config({"h3": {"python": f"~/work/{folder}/bin/python"}}))
        assert done.cells["h3/cpu"].verdict == "ok", done.cells
    finally:
        lab["h3"].run("rm", f"/home/bench/work/{folder}")


# --- ends ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.long)])
def test_a_run_that_is_told_to_stop_leaves_every_host_as_it_was(lab: Lab, number: signal.Signals) -> None:
    with lab.start_muster("run", "lab.yaml", cwd=lab.write_config(long_config(lab))) as started:
        until_measuring(lab, started)
        ended = stop_now(started) if number is signal.SIGINT else started.end(number)

    assert ended.code == 130, ended.err
    assert lab.leftovers() == {}


@pytest.mark.long
def test_hosts_clear_up_by_themselves_when_the_head_is_killed(lab: Lab) -> None:
    with lab.start_muster("run", "lab.yaml", cwd=lab.write_config(long_config(lab))) as started:
        until_measuring(lab, started)
        started.end(signal.SIGKILL)

    assert lab.leftovers(timeout_s=60.0) == {}
