"""With TLS, who has the token but no certificate gets into a cluster by none of its ports."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.lab.hosts import HOME
from tests.lab.standing import HARMLESS, Answers, Door, Standing, knock, let_in, standing
from workers.orders import PORTS_IN_BLOCK, RUNTIME_ENV_AGENT_PORT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.lab.lab import Lab

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def cluster(lab: Lab) -> Iterator[Standing]:
    with standing(lab, tls=True) as up:
        yield up
    assert lab.leftovers() == {}


def _files(lab: Lab, cluster: Standing, *names: str) -> dict[str, str]:
    """Bring files of the cluster to the intruder, and say where they are."""
    places = {}
    for name in names:
        place = lab["h4"].home / "work" / name
        place.write_text(cluster.read(f"{name}.pem"))
        places[name] = f"{HOME}/work/{name}"
    return places


def _opened(answers: Answers) -> dict[tuple[str, int], set[str]]:
    """Return what was said at the doors that did not stay shut."""
    said = {door: set(own.values()) for door, own in answers.items()}
    return {door: words for door, words in said.items() if words != {"UNAVAILABLE"}}


def _speak_grpc(cluster: Standing) -> tuple[Door, ...]:
    """Return the doors of Ray's own programs: all but the one of its agent for environments."""
    return tuple(door for door in cluster.doors if door.port % PORTS_IN_BLOCK != RUNTIME_ENV_AGENT_PORT)


def test_with_tls_the_token_alone_opens_nothing(lab: Lab, cluster: Standing) -> None:
    assert _opened(knock(lab, _speak_grpc(cluster), token=cluster.token)) == {}


def test_with_tls_somebody_who_encrypts_but_has_no_certificate_opens_nothing(lab: Lab, cluster: Standing) -> None:
    tls = _files(lab, cluster, "ca")

    assert _opened(knock(lab, _speak_grpc(cluster), token=cluster.token, tls=tls)) == {}


def test_with_tls_the_token_alone_does_not_open_ray_s_agent_for_environments(lab: Lab, cluster: Standing) -> None:
    doors = tuple(set(cluster.doors) - set(_speak_grpc(cluster)))

    assert doors
    assert let_in(knock(lab, doors, token=cluster.token)) == {}


def test_with_tls_token_and_certificate_open(lab: Lab, cluster: Standing) -> None:
    tls = _files(lab, cluster, "ca", "certificate", "key")
    answers = knock(lab, cluster.doors, token=cluster.token, tls=tls, only=HARMLESS)

    assert sum("OK" in own.values() for own in answers.values()) >= 6
