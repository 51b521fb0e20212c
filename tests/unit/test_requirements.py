"""What a locked list asks for on a host, and which of the wheels in a folder are meant."""

from __future__ import annotations

import importlib.resources

import pytest

from orchestrator.reach.requirements import MACHINES, Target, chosen, key_of, pins_for
from orchestrator.reach.wheelhouse import KINDS
from workers.orders import Wheel

A, B, C = "a" * 64, "b" * 64, "c" * 64

LOCKED = f"""
# a comment
alpha==1.0 \\
    --hash=sha256:{B} \\
    --hash=sha256:{A}
    # via beta
beta-one==2.0 ; python_full_version < '3.11' \\
    --hash=sha256:{B}
beta-one==2.1 ; python_full_version >= '3.11' \\
    --hash=sha256:{B}
gamma==3 ; platform_machine != 'x86_64' --hash=sha256:{C}
delta==4 ; sys_platform == 'win32' --hash=sha256:{C}
"""


def _target(python_minor: str = "3.11", machine: str = "x86_64", kind: str = "cpu") -> Target:
    return Target(kind=kind, python_minor=python_minor, machine=machine)


def _wheel(name: str, sha256: str = A) -> Wheel:
    return Wheel(name=name, sha256=sha256, size=1)


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        (_target("3.10"), ["alpha==1.0", "beta-one==2.0"]),
        (_target("3.11"), ["alpha==1.0", "beta-one==2.1"]),
        (_target("3.13", "aarch64"), ["alpha==1.0", "beta-one==2.1", "gamma==3"]),
    ],
)
def test_conditions_are_held_against_the_host_and_not_against_this_machine(target: Target, expected: list[str]) -> None:
    assert [str(pin) for pin in pins_for(target, LOCKED)] == expected


def test_a_pin_is_written_as_pip_reads_it() -> None:
    assert pins_for(_target(), LOCKED)[0].line == f"alpha==1.0 --hash=sha256:{A} --hash=sha256:{B}"


@pytest.mark.parametrize("line", ["alpha==1.0", f"alpha>=1.0 --hash=sha256:{A}", f"alpha --hash=sha256:{A}"])
def test_a_line_that_is_not_exact_is_refused(line: str) -> None:
    with pytest.raises(ValueError, match="alpha has no exact version with hashes"):
        pins_for(_target(), line)


def test_the_wheel_that_fits_best_is_chosen() -> None:
    names = [
        "alpha-1.0-py3-none-any.whl",
        "alpha-1.0-cp311-cp311-manylinux_2_17_x86_64.manylinux2014_x86_64.whl",
        "alpha-1.0-cp311-cp311-manylinux_2_28_x86_64.whl",
        "alpha-1.0-cp310-cp310-manylinux_2_28_x86_64.whl",
        "alpha-1.0-cp311-cp311-manylinux_2_28_aarch64.whl",
        "alpha-1.0-cp311-cp311-musllinux_1_2_x86_64.whl",
        "alpha-1.0-cp311-cp311-manylinux_2_35_x86_64.whl",
        "alpha-1.0-cp311-cp311-win_amd64.whl",
        "alpha-2.0-cp311-cp311-manylinux_2_28_x86_64.whl",
        "no wheel at all.whl",
    ]
    pin = pins_for(_target(), LOCKED)[:1]
    wheels = [_wheel(name) for name in names]
    for machine, minor, best in (
        ("x86_64", "3.11", names[2]),
        ("x86_64", "3.10", names[3]),
        ("x86_64", "3.12", names[0]),
        ("aarch64", "3.11", names[4]),
    ):
        found, missing = chosen(_target(minor, machine), pin, wheels)
        assert ([wheel.name for wheel in found], missing) == ([best], ())


@pytest.mark.parametrize(
    "tag", ["cp311-cp311-manylinux1_x86_64", "cp38-abi3-manylinux2010_x86_64", "py2.py3-none-manylinux2014_x86_64"]
)
def test_older_tags_fit_too(tag: str) -> None:
    found, _ = chosen(_target(), pins_for(_target(), LOCKED)[:1], [_wheel(f"alpha-1.0-{tag}.whl")])
    assert len(found) == 1


def test_a_wheel_with_another_hash_is_no_wheel_of_the_list() -> None:
    pins = pins_for(_target(), LOCKED)
    other = _wheel("alpha-1.0-py3-none-any.whl", C)
    beta = _wheel("beta_one-2.1-py3-none-any.whl", B)
    found, missing = chosen(_target(), pins, [other, beta])
    assert found == (beta,)
    assert [str(pin) for pin in missing] == ["alpha==1.0"]


def test_the_key_is_that_of_the_content() -> None:
    pins = pins_for(_target(), LOCKED)
    key = key_of(_target(), pins)
    assert key == key_of(_target(), pins[::-1])
    commented = LOCKED.replace("# via beta", "# via gamma")
    assert key == key_of(_target(), pins_for(_target(), commented))
    others = [
        key_of(_target(), pins[:1]),
        key_of(_target(), pins_for(_target(), LOCKED.replace(A, C))),
        key_of(_target("3.12"), pins),
        key_of(_target(machine="aarch64"), pins),
    ]
    assert len({key, *others}) == 5


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("minor", ["3.10", "3.11", "3.12", "3.13"])
def test_the_lists_that_ship_hold_what_a_host_needs(kind: str, machine: str, minor: str) -> None:
    """And in the versions that the head has, where it was installed from our own locked lists."""
    locked = importlib.resources.files("orchestrator.reach").joinpath("data", f"hosts-{kind}.txt").read_text()
    names = {pin.name for pin in pins_for(_target(minor, machine, kind), locked)}
    assert names >= {"numpy", "nvidia-ml-py", "pip", "ray"}
    assert len(names & {"tensorflow", "tensorflow-cpu"}) == 1
    assert ("nvidia-cudnn-cu12" in names) == (kind == "gpu")
    assert not names & {"sqlalchemy", "pydantic", "typer"}
