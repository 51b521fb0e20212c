from __future__ import annotations

import pytest

from orchestrator.config.selectors import MAX_HOSTS, DeviceSelector, count_hosts, expand_hosts, parse_selector
from workers.protocol import DeviceKind

CPU, GPU = DeviceKind.CPU, DeviceKind.GPU


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("cpu", DeviceSelector(kind=CPU, text="cpu")),
        ("cpu:0-3,9", DeviceSelector(kind=CPU, text="cpu:0-3,9", cores=(0, 1, 2, 3, 9))),
        ("cpu:9,0-1,1", DeviceSelector(kind=CPU, text="cpu:9,0-1,1", cores=(0, 1, 9))),
        ("cpu:numa0", DeviceSelector(kind=CPU, text="cpu:numa0", numa_node=0)),
        ("gpu:all", DeviceSelector(kind=GPU, text="gpu:all", every=True)),
        ("gpu:any", DeviceSelector(kind=GPU, text="gpu:any", every=True, may_be_none=True)),
        ("gpu:3", DeviceSelector(kind=GPU, text="gpu:3", indices=(3,))),
        ("gpu:0-2", DeviceSelector(kind=GPU, text="gpu:0-2", indices=(0, 1, 2))),
        ("gpu:GPU-1a2b", DeviceSelector(kind=GPU, text="gpu:GPU-1a2b", uuid_prefix="GPU-1a2b")),
    ],
)
def test_a_selector_says_which_devices_are_meant(text: str, expected: DeviceSelector) -> None:
    assert parse_selector(text) == expected
    assert str(parse_selector(text)) == text


@pytest.mark.parametrize(
    "text",
    ["", "gpu", "cpu:", "gpu:", "gpu:-1", "gpu:0-", "gpu:0,,1", "gpu:1a2b", "gpu:GPU-", "gpu:numa0", "cpu:all", "CPU",
     " cpu", "cpu\n", "gpu:0 ", "tpu:0", "gpu:٣", "cpu:GPU-1a2b"],
)  # fmt: skip
def test_anything_else_is_refused_with_the_forms_there_are(text: str) -> None:
    with pytest.raises(ValueError, match="a device: cpu, cpu:0-7,9"):
        parse_selector(text)


def test_a_range_must_ascend() -> None:
    with pytest.raises(ValueError, match="ascends, not 3-1"):
        parse_selector("gpu:3-1")


def test_a_number_that_no_host_has_is_refused_before_it_is_counted_to() -> None:
    with pytest.raises(ValueError, match="at most 65535, not 999999"):
        parse_selector("cpu:0-999999")


@pytest.mark.parametrize(
    ("pattern", "hosts"),
    [
        ("attic", ("attic",)),
        ("gpu[01-03]", ("gpu01", "gpu02", "gpu03")),
        ("gpu[8-11]", ("gpu8", "gpu9", "gpu10", "gpu11")),
        ("r[1-2]n[1,3].lab", ("r1n1.lab", "r1n3.lab", "r2n1.lab", "r2n3.lab")),
        ("n[0-8/4]", ("n0", "n4", "n8")),
        ("n[5]", ("n5",)),
    ],
)
def test_a_range_names_its_hosts(pattern: str, hosts: tuple[str, ...]) -> None:
    assert expand_hosts(pattern) == hosts
    assert count_hosts(pattern) == len(hosts)


@pytest.mark.parametrize(
    "pattern",
    ["", "gpu[", "gpu[]", "gpu[a-b]", "gpu]", "@all", "a,b", "a!b", "a&b", "a b", "-a", "gpu[1-2-3]", "ä", "a[1-2/]"],
)
def test_what_is_not_a_host_name_is_refused(pattern: str) -> None:
    with pytest.raises(ValueError, match="a host name such as gpu01"):
        expand_hosts(pattern)


@pytest.mark.parametrize(
    ("pattern", "reason"), [("n[4-1]", r"ascends, not \[4-1\]"), ("n[1-4/0]", "a step of at least 1")]
)
def test_a_range_that_makes_no_sense_is_refused(pattern: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        expand_hosts(pattern)


def test_a_huge_range_is_counted_and_never_built() -> None:
    assert count_hosts("n[1-999999999]") == 999_999_999
    with pytest.raises(ValueError, match="at most 10,000 hosts"):
        expand_hosts("n[1-999999999]m[1-999999999]")


def test_the_largest_lab_that_is_allowed() -> None:
    assert len(expand_hosts(f"n[1-{MAX_HOSTS}]")) == MAX_HOSTS


def test_a_range_that_only_the_library_knows_to_be_wrong_is_refused_too() -> None:
    with pytest.raises(ValueError, match="a host name such as gpu01"):
        expand_hosts("gpu[01-3]")
