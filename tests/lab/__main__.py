"""A lab for use by hand: `make lab hosts=4`."""

from __future__ import annotations

import argparse
import contextlib
import signal
import sys
from typing import TYPE_CHECKING, NoReturn

from tests.lab.hosts import HOME, ODD, USER
from tests.lab.lab import MUSTER, Lab
from tests.lab.namespaces import HOST_KINDS
from tests.lab.needs import what_is_missing

if TYPE_CHECKING:
    from types import FrameType


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.lab", description="Real hosts on this machine, until Ctrl-C."
    )
    parser.add_argument("--hosts", type=int, default=4, help="ordinary hosts (default: 4)")
    parser.add_argument("--odd", action="store_true", help="and one of each odd kind: slow, behind another, unknown …")
    arguments = parser.parse_args()
    if arguments.hosts < 1:
        parser.error("--hosts: at least 1")
    missing = what_is_missing()
    if missing is not None:
        sys.stderr.write(f"no lab here: {missing}\n")
        return 2
    signal.signal(signal.SIGTERM, _stop)
    with contextlib.suppress(KeyboardInterrupt), Lab(arguments.hosts, ODD if arguments.odd else ()) as lab:
        sys.stdout.write(_introduction(lab))
        sys.stdout.flush()
        sys.stdin.read()
    return 0


def _stop(number: int, frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


def _introduction(lab: Lab) -> str:
    names = list(lab.hosts)
    folder = lab.write_config(lab.config({name: {} for name in names}))
    kinds = " ".join(f"--{kind}" for kind in HOST_KINDS)
    uid = lab.head.user.uid
    enter = f"nsenter --target {lab.head.namespaces.pid} {kinds} --setuid {uid} --setgid {uid} --"
    lines = [f"  {host.name:10} {host.sshd_address}" for host in lab.hosts.values()]
    return f"""\
{len(lab.up) - 1} hosts and a head are up; they reach each other and nothing else:
{chr(10).join(lines)}

The config, as the head sees it: {folder}/lab.yaml
Benchmark them (as root, in another terminal):
  {enter} env HOME={HOME} --chdir={folder} {" ".join(MUSTER)} run lab.yaml
A shell on the head, from which `ssh {names[0]}` works:
  {enter} env HOME={HOME} USER={USER} --chdir={HOME} bash

Ctrl-C takes everything down.
"""


if __name__ == "__main__":
    sys.exit(main())
