from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.orders import PORTS_IN_BLOCK, StartRay, TlsMaterial
from workers.portblock import blocks
from workers.raynode import arguments, endpoint, environment, last_words, python_path

ORDER = StartRay(
    python="python3",
    join=None,
    node_ip="10.77.0.1",
    labels=(("muster.host", "attic"), ("muster.gpus", "2")),
    first_port=26000,
    last_port=26999,
    gpus=2,
    object_store_bytes=80 * 2**20,
    timeout_s=60.0,
    token="5ec4e7" * 10,
)
ENCRYPTED = replace(ORDER, tls=TlsMaterial(ca_certificate="ca", certificate="own", key="secret"))
FOLDER = Path("/tmp/muster-x")


def option(given_: tuple[str, ...], name: str) -> str | None:
    return next((each.partition("=")[2] for each in given_ if each.partition("=")[0] == name), None)


def test_the_head_gets_the_first_port_and_nothing_that_it_does_not_need() -> None:
    found = arguments(ORDER, 26100, FOLDER)
    assert {"--head", "--no-monitor", "--include-dashboard=false", "--include-log-monitor=false"} <= set(found)
    assert option(found, "--port") == "26100"
    assert option(found, "--address") is None


def test_another_host_is_told_where_to_join_and_nothing_that_only_heads_take() -> None:
    found = arguments(replace(ORDER, join="10.77.0.1:26000"), 26100, FOLDER)
    assert option(found, "--address") == "10.77.0.1:26000"
    assert {each.partition("=")[0] for each in found}.isdisjoint(
        {"--head", "--port", "--include-dashboard", "--no-monitor"}
    )


def test_every_port_lies_in_the_block_and_has_one_use() -> None:
    found = arguments(ORDER, 26100, FOLDER)
    ports = [int(each.partition("=")[2]) for each in found if each.partition("=")[0].endswith("port")]
    assert len(ports) == len(set(ports)) == 9
    assert min(ports) == 26100
    assert max(ports) == 26199


def test_labels_and_devices_are_told() -> None:
    found = arguments(ORDER, 26100, FOLDER)
    assert option(found, "--labels") == "muster.host=attic,muster.gpus=2"
    assert option(found, "--num-gpus") == "2"
    assert option(arguments(replace(ORDER, labels=()), 26100, FOLDER), "--labels") is None


def test_a_worker_is_started_ahead_for_each_gpu_and_at_least_one() -> None:
    assert option(arguments(replace(ORDER, gpus=0), 26100, FOLDER), "--num-cpus") == "1"
    assert option(arguments(replace(ORDER, gpus=4), 26100, FOLDER), "--num-cpus") == "4"


def test_the_token_is_in_neither_arguments_nor_environment_nor_repr() -> None:
    given_ = environment({"HOME": "/h"}, FOLDER, ENCRYPTED, code=Path("/code"), first_port=20100)
    assert ORDER.token not in " ".join((*arguments(ORDER, 26100, FOLDER), *given_.values(), repr(ORDER)))
    assert given_["RAY_AUTH_TOKEN_PATH"] == "/tmp/muster-x/token"


def test_what_a_person_told_ray_is_left_out_and_the_rest_stays() -> None:
    inherited = {"RAY_ADDRESS": "elsewhere:6379", "RAY_AUTH_TOKEN": "theirs", "LD_LIBRARY_PATH": "/cuda"}
    given_ = environment(inherited, FOLDER, ORDER, code=Path("/code"), first_port=20100)
    assert "RAY_ADDRESS" not in given_
    assert "RAY_AUTH_TOKEN" not in given_
    assert "RAY_USE_TLS" not in given_
    assert given_["LD_LIBRARY_PATH"] == "/cuda"
    assert given_["RAY_AUTH_MODE"] == "token"


def test_with_encryption_each_file_is_named() -> None:
    given_ = environment({}, FOLDER, ENCRYPTED, code=Path("/code"), first_port=20100)
    assert {name: value for name, value in given_.items() if "TLS" in name} == {
        "RAY_USE_TLS": "1",
        "RAY_TLS_CA_CERT": "/tmp/muster-x/ca.pem",
        "RAY_TLS_SERVER_CERT": "/tmp/muster-x/certificate.pem",
        "RAY_TLS_SERVER_KEY": "/tmp/muster-x/key.pem",
    }


@pytest.mark.parametrize("silence_s", [0.0, 60.0, 600.0])
def test_ray_gives_a_host_up_later_than_we_do(silence_s: float) -> None:
    given_ = environment({}, FOLDER, replace(ORDER, silence_s=silence_s), code=Path("/code"), first_port=20100)
    # A question every three seconds, where each is refused at once.
    assert 3 * int(given_["RAY_health_check_failure_threshold"]) >= silence_s + 60


def test_ray_ends_by_itself_where_nobody_else_does_it() -> None:
    given_ = environment({}, FOLDER, replace(ORDER, alone_s=899.5), code=Path("/code"), first_port=20100)
    assert given_["RAY_gcs_rpc_server_reconnect_timeout_s"] == "900"


def test_our_code_comes_before_what_the_person_added() -> None:
    assert python_path({"PYTHONPATH": "/site/a:/site/b"}, Path("/code")) == "/code:/site/a:/site/b"
    assert python_path({}, Path("/code")) == "/code"


def test_addresses_with_colons_get_brackets() -> None:
    assert endpoint("10.0.0.1", 26000) == "10.0.0.1:26000"
    assert endpoint("fd00::1", 26000) == "[fd00::1]:26000"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ""),
        ("\n--------\n", ""),
        ("Traceback:\n  File\nValueError: too small\n\n--------\n", "ValueError: too small"),
        (
            "ValueError: too small\n2026-11-23 21:43:28,712\tINFO scripts.py:1043 -- Local node IP: x",
            "ValueError: too small",
        ),
        (
            "[2026-11-23 21:42:29,769 C 12 12] (raylet) main.cc:7: Check failed: port is taken\n*** stack ***\n @ 0x1\n"
            "[2026-11-23 21:42:29,770 I 12 12] (raylet) main.cc:9: bye\n- pending demands:",
            "Check failed: port is taken",
        ),
        ("[2026-11-23 21:42:29,770 I 12 12] (raylet) main.cc:9: all is well\n- tables", ""),
        ("\x1b[31mError:\x1b[0m it is \x1b[1mfull\x1b[0m\n", "Error: it is full"),
    ],
)
def test_the_last_line_that_tells_something_is_taken(text: str, words: str) -> None:
    assert last_words(text) == words


@given(first=st.integers(1024, 60000), length=st.integers(0, 2000))
def test_blocks_lie_in_the_range_and_fill_it_but_for_less_than_one(first: int, length: int) -> None:
    found = list(blocks(first, first + length - 1))
    assert len(found) == length // PORTS_IN_BLOCK
    covered = [port for start in found for port in range(start, start + PORTS_IN_BLOCK)]
    assert covered == list(range(first, first + len(found) * PORTS_IN_BLOCK))
