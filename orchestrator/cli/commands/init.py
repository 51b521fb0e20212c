"""`muster init`: a starter config for this machine."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from orchestrator.errors import UsageError

if TYPE_CHECKING:
    from workers.protocol import HostReport

_TEMPLATE: Final = """\
# What this machine has: {found}
# Check it: muster check {path}      See what it would do: muster plan {path}      Run it: muster run {path}
version: 1
name: {name}

hosts:
  - name: localhost
    devices: [{devices}]

workloads:
  - model: alexnet                       # the network of the classic TensorFlow benchmark
    passes: [forward, forward_backward]
    batch_size: 128                      # lists are swept: [64, 128, 256]
    precision: float32                   # or bfloat16, or both

measure:
  warmup: 10                             # steps that are not counted
  steps: 100                             # or: until: {{relative_ci: 1%, max_steps: 500, max_time: 2m}}

report:
  references: [seed]                     # published figures shown below ours
"""


def init(
    path: Annotated[Path, typer.Argument(metavar="[PATH]", help="Where to write it.")] = Path("muster.yaml"),
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
) -> None:
    """Write a starter config for this machine."""
    import asyncio

    from orchestrator.cluster.local import LocalCluster

    if path.exists() and not force:
        raise UsageError(
            f"{path} is there already", remedy=f"name another file, or replace it: muster init {path} --force"
        )
    (report,) = asyncio.run(LocalCluster("localhost").survey(install=False)).reports
    text = _TEMPLATE.format(
        found=_found(report), path=path, name=_name(), devices=", ".join(["cpu", *(["gpu:all"] if report.gpus else [])])
    )
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror}") from error
    print(f"wrote {path}; next: muster run {path}")


def _found(report: HostReport) -> str:
    gpus = ", ".join(f"{gpu.name} (gpu:{gpu.index})" for gpu in report.gpus) or "no GPU that NVML can see"
    return f"{report.cpu.model}, {len(report.cpu.cores)} cores; {gpus}"


def _name() -> str:
    """Return this machine's name as a run's name; YAML may read a bare number or `on` otherwise."""
    kept = "".join(c if c.isalnum() or c in "-_." else "-" for c in socket.gethostname().split(".")[0])
    return f"{kept or 'this-machine'}-alexnet"
