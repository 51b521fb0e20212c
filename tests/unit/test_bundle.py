"""Bundles: what goes in comes out, and nothing else does."""

from __future__ import annotations

import hashlib
import io
import json
import struct
import zipfile
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import jsonschema
import pytest

from orchestrator.bundle import archive
from orchestrator.bundle.archive import CONFIG, MANIFEST, PAGE, RUN, packed, unpacked
from orchestrator.bundle.document import document_of, read, run_of, written
from orchestrator.bundle.schema import run_schema
from orchestrator.errors import BundleError
from orchestrator.results import NoiseFloor
from tests.builders import a_case, a_device, a_telemetry, a_workload
from tests.goldens import assert_golden
from tests.runs import WHEN, a_case_result, a_lab_run, a_run, a_run_with_attempts, an_environment
from workers.protocol import Company

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from orchestrator.results import Run

PAGE_TEXT = "<!doctype html><title>lab</title>"


def as_read(run: Run) -> Run:
    """The run with its cases at the places that they have in it."""
    return replace(run, cases=tuple(replace(each, position=place) for place, each in enumerate(run.cases)))


def a_full_run(**given: object) -> Run:
    case = a_case(a_device("gpu01", "gpu:0"), a_workload(batch_size=32), key="k", company=Company.ALONE)
    seen = a_telemetry(window_s=(10.0, 14.0), gpu__clock_mhz=[1980.0, 1970.0])
    environment = an_environment(framework__version="2.21.0", cpu__cores="0-7")
    one = a_case_result(case, samples_ms=(1.25, 1.5), telemetry=seen, environment=environment, warmup_ms=(9.0,))
    return as_read(a_run(one, *a_run_with_attempts().cases, *a_lab_run().cases, **given))


def a_floor(device_id: str = "gpu01/gpu:0") -> NoiseFloor:
    return NoiseFloor(
        device_id=device_id, device_uuid=None, workload=a_workload(), measured_at=WHEN, run_id="7f3a9c", processes=5,
        between_sd=0.01, within_sd=0.02,
    )  # fmt: skip


# --- the document --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("run", [a_full_run(), a_run(), a_full_run(simulated=True, finished_at=None, rerun_of="1")])
def test_a_run_comes_back_whole(run: Run) -> None:
    text = written(document_of(run))
    assert run_of(read(text.encode(), "x"), "x") == (run, ())
    assert written(document_of(run)) == text


def test_floors_of_other_devices_stay_at_home() -> None:
    run = a_full_run()
    uuid = run.cases[0].case.device.uuid
    own, others = replace(a_floor(), device_uuid=uuid), a_floor("elsewhere/gpu:0")
    assert run_of(read(written(document_of(run, (own, others))).encode(), "x"), "x")[1] == (own,)


def test_an_environment_is_there_once() -> None:
    environment = an_environment(framework__version="2.21.0")
    cases = [a_case_result(a_case(workload=a_workload(batch_size=size)), environment=environment) for size in (1, 2)]
    assert len(document_of(a_run(*cases)).environments) == 1


def test_the_document_is_as_it_is_published() -> None:
    data = json.loads(written(document_of(a_full_run(), (a_floor(),))))
    validator = jsonschema.Draft202012Validator(run_schema())
    validator.validate(data)
    for broken in ({**data, "schema_version": 2}, {**data, "cases": [{"case": None}]}, {**data, "run": {}}):
        assert list(validator.iter_errors(broken))


def test_the_published_form_is_what_it_was() -> None:
    case = a_case(a_device("gpu01", "gpu:0"), a_workload(batch_size=32), key="k")
    seen = a_telemetry(window_s=(10.0, 14.0), gpu__clock_mhz=[1980.0, 1970.0])
    run = as_read(a_run(a_case_result(case, samples_ms=(1.25, 1.5), telemetry=seen), *a_run_with_attempts().cases))
    assert_golden("bundle/run.json", written(document_of(run, (a_floor(),))))


def changed(change: Callable[[dict[str, Any]], object]) -> bytes:
    data = json.loads(written(document_of(a_full_run())))
    change(data)
    return json.dumps(data).encode()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"{", "x: not JSON"),
        (b"[]", "x: not a run of muster's"),
        (b"[" * 100_000, "x: not JSON"),
        (changed(lambda data: data.update(format="other")), "x: not a run of muster's"),
        (changed(lambda data: data.update(schema_version=9)), "x: has schema version 9, and this muster reads 1"),
        (changed(lambda data: data["run"].pop("name")), "x: RunDocument.run: name is missing"),
        (changed(lambda data: data["run"].update(more=1)), r"x: RunDocument.run: unknown \['more'\]"),
        (changed(lambda data: data["run"].update(created_at="noon")), "x: 'noon' is no time"),
        (changed(lambda data: data["run"].update(created_at="2026-11-26T12:00:00")), "x: .* has no time zone"),
        (changed(lambda data: data["cases"].append(data["cases"][0])), "x: has a case twice"),
        (
            changed(lambda data: data["environments"][0].update(facts=[])),
            "x: environment '[0-9a-f]{12}' has been changed",
        ),
        (changed(lambda data: data["environments"].clear()), "x: case .* names an environment that is not there"),
        (
            changed(lambda data: data["cases"][0]["attempts"].append(data["cases"][0]["attempts"][0])),
            r"x: case .* has attempts \[1, 1\]",
        ),
        (changed(lambda data: data["cases"][0]["attempts"][0].update(number=0)), r"x: case .* has attempts \[0\]"),
        # What would steer a terminal or a shell, or what a database does not take.
        (changed(lambda data: data["run"].update(id="1; rm -rf ~")), "x: '1; rm -rf ~' is no id of a run"),
        (changed(lambda data: data["run"].update(id="latest")), "x: 'latest' is no id of a run"),
        (changed(lambda data: data["run"].update(rerun_of="--store")), "x: '--store' is no id of a run"),
        (changed(lambda data: data["run"].update(name="lab\x1b[2J")), r"x: the name 'lab\\x1b\[2J' is not one line"),
        (changed(lambda data: data["run"].update(name="lab\ud800")), "x: the name .* is not one line"),
        (changed(lambda data: data["run"].update(muster_version="1\x00")), "x: the version .* is not one line"),
        (changed(lambda data: data["run"].update(config_text="a: \x00")), "x: the config is no text"),
        (changed(lambda data: data["cases"][0]["case"].update(key="k\x00")), "x: a case's key .* is not one line"),
        (
            changed(lambda data: data["cases"][0]["case"]["device"].update(host="a\nb")),
            "x: a device .* is not one line",
        ),
        (
            changed(lambda data: data["cases"][0]["attempts"][0].update(number=2**31)),
            "x: case .* has the number 2147483648, and none is so large",
        ),
        (
            changed(lambda data: data["cases"][0]["attempts"][0].update(duration_s=10**400)),
            "x: has a number of 1329 bits",
        ),
        (changed(lambda data: data["cases"][0]["case"].update(process=-(2**60))), "x: has a number of 61 bits"),
        (changed(lambda data: data["run"].update(created_at="0001-01-01T00:00:00+14:00")), "x: .* is no time of a run"),
        (written(document_of(a_full_run())).replace("1.25", "NaN").encode(), "x: RunDocument.* is not a number"),
        (written(document_of(a_full_run())).replace("1.25", "1e999").encode(), "x: RunDocument.*is not a number"),
        (written(document_of(a_full_run())).replace("1.25", '"1"').encode(), "x: RunDocument.cases.0..attempts"),
    ],
)
def test_what_is_no_run_is_refused_by_its_place(text: bytes, message: str) -> None:
    with pytest.raises(BundleError, match=message):
        run_of(read(text, "x"), "x")


# --- the archive ---------------------------------------------------------------------------------------------------


def a_bundle(**given: object) -> bytes:
    return packed(a_full_run(**given), PAGE_TEXT, (a_floor(),))


def test_a_bundle_has_the_run_its_config_and_a_page(tmp_path: Path) -> None:
    path = tmp_path / "lab.muster.zip"
    path.write_bytes(a_bundle())
    bundle = archive.read(path)
    assert bundle.run == a_full_run()
    assert not bundle.is_anonymous
    assert unpacked(packed(a_full_run(), PAGE_TEXT, is_anonymous=True), "x").is_anonymous
    with zipfile.ZipFile(path) as opened:
        assert sorted(opened.namelist()) == sorted([MANIFEST, RUN, CONFIG, PAGE])
        assert opened.read(PAGE).decode() == PAGE_TEXT
        assert opened.read(CONFIG).decode() == a_full_run().config_text
        assert opened.testzip() is None


def test_the_same_run_makes_the_same_bundle() -> None:
    assert a_bundle() == a_bundle()


def repacked(data: bytes, change: Callable[[dict[str, bytes]], object], **given: Any) -> bytes:
    with zipfile.ZipFile(io.BytesIO(data)) as opened:
        files = {name: opened.read(name) for name in opened.namelist()}
    change(files)
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w", zipfile.ZIP_DEFLATED) as made:
        for name, content in files.items():
            made.writestr(name, content)
    return whole.getvalue()


def with_manifest(packed_files: dict[str, bytes], **given: object) -> None:
    packed_files[MANIFEST] = json.dumps({**json.loads(packed_files[MANIFEST]), **given}).encode()


@pytest.mark.parametrize("name", ["../evil", "/etc/passwd", "..\\evil", "run.json/../../evil", "more.txt", "folder/"])
def test_a_bundle_with_any_other_file_is_refused(name: str) -> None:
    data = repacked(a_bundle(), lambda files: files.update({name: b"x"}))
    with pytest.raises(BundleError, match=r"x: has '.*', and a bundle has no such file"):
        unpacked(data, "x")


@pytest.mark.parametrize("name", [MANIFEST, RUN, CONFIG, PAGE])
def test_a_bundle_without_a_file_is_refused(name: str) -> None:
    with pytest.raises(BundleError, match=f"x: has no {name}"):
        unpacked(repacked(a_bundle(), lambda files: files.pop(name)), "x")


def test_a_bundle_with_a_file_twice_is_refused() -> None:
    whole = io.BytesIO(a_bundle())
    with zipfile.ZipFile(whole, "a") as opened, pytest.warns(UserWarning, match="Duplicate name"):
        opened.writestr(RUN, b"{}")
    with pytest.raises(BundleError, match="x: has a file twice"):
        unpacked(whole.getvalue(), "x")


@pytest.mark.parametrize("name", [RUN, CONFIG, PAGE])
def test_a_file_that_was_changed_is_refused(name: str) -> None:
    data = repacked(a_bundle(), lambda files: files.update({name: files[name] + b" "}))
    with pytest.raises(BundleError, match=f"x: {name} is not what bundle.json says it is"):
        unpacked(data, "x")


def test_a_config_that_is_not_the_runs_is_refused() -> None:
    def change(files: dict[str, bytes]) -> None:
        files[CONFIG] = b"version: 1\n"
        entry = {"bytes": len(files[CONFIG]), "sha256": hashlib.sha256(files[CONFIG]).hexdigest()}
        with_manifest(files, files={**json.loads(files[MANIFEST])["files"], CONFIG: entry})

    with pytest.raises(BundleError, match=r"x: config.yaml is not the config of the run in run.json"):
        unpacked(repacked(a_bundle(), change), "x")


def test_a_bomb_is_not_unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(archive.MOST_BYTES, PAGE, 1000)
    data = repacked(a_bundle(), lambda files: files.update({PAGE: b"0" * 10_000_000}))
    assert len(data) < 50_000
    with pytest.raises(BundleError, match=r"x: report.html unpacks to more than 1000 bytes"):
        unpacked(data, "x")


def test_a_bomb_that_lies_about_its_size_is_not_unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(archive.MOST_BYTES, PAGE, 1000)
    data = repacked(a_bundle(), lambda files: files.update({PAGE: b"0" * 10_000_000}))
    honest = struct.pack("<I", 10_000_000)
    assert data.count(honest) == 2
    with pytest.raises(BundleError, match="x: "):
        unpacked(data.replace(honest, struct.pack("<I", 10)), "x")


def test_a_file_larger_than_any_bundle_is_not_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "lab.zip"
    path.write_bytes(a_bundle())
    monkeypatch.setattr(archive, "MOST_PACKED_BYTES", 100)
    with pytest.raises(BundleError, match="larger than any bundle"):
        archive.read(path)


def test_a_run_too_large_to_be_read_again_is_not_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(archive.MOST_BYTES, RUN, 100)
    with pytest.raises(BundleError, match=r"run 7f3a9c: run.json would have \d+ bytes, and 100 can be read"):
        a_bundle()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda files: files.update({MANIFEST: b"{"}), "bundle.json is none of muster's"),
        (lambda files: files.update({MANIFEST: b"[]"}), "bundle.json is none of muster's"),
        (lambda files: with_manifest(files, format="other"), "bundle.json is none of muster's"),
        (lambda files: with_manifest(files, schema_version=2), "a bundle of version 2, and this muster reads 1"),
        (lambda files: with_manifest(files, files=[]), "bundle.json is not whole"),
        (lambda files: with_manifest(files, anonymous="no"), "bundle.json is not whole"),
        (lambda files: with_manifest(files, run_id=1), "bundle.json is not whole"),
        (lambda files: with_manifest(files, files={}), "run.json is not what bundle.json says it is"),
        (lambda files: with_manifest(files, run_id="other"), "bundle.json is of run 'other', and run.json of another"),
    ],
)
def test_a_manifest_that_is_none_is_refused(change: Callable[[dict[str, bytes]], object], message: str) -> None:
    with pytest.raises(BundleError, match=f"x: {message}"):
        unpacked(repacked(a_bundle(), change), "x")


@pytest.mark.parametrize("size", [0, 10, 200, 1000, -40])
def test_a_bundle_that_was_cut_off_is_refused(size: int) -> None:
    with pytest.raises(BundleError, match="x: no zip that can be read"):
        unpacked(a_bundle()[:size], "x")


def test_damage_anywhere_is_noticed_or_does_no_harm() -> None:
    whole = a_bundle()
    for place in range(0, len(whole), 97):
        damaged = bytearray(whole)
        damaged[place] ^= 0xFF
        try:
            assert unpacked(bytes(damaged), "x").run == a_full_run()
        except BundleError as error:
            assert error.message.startswith("x: ")


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"lab.zip cannot be read: No such file"):
        archive.read(tmp_path / "lab.zip")
