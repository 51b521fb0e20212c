"""What starts the scheduler by itself: a systemd user unit, a cron line, a Kubernetes CronJob. Pure."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Final

import yaml

if TYPE_CHECKING:
    from collections.abc import Sequence

UNIT_NAME: Final = "muster-scheduler.service"

#: What makes a word of systemd's command lines need quotes.
_QUOTED: Final = frozenset(" \t\n\"'\\;")


def systemd_unit(command: Sequence[str], folder: str) -> str:
    """Return a user unit that keeps the scheduler at work; when it is stopped, runs end as by Ctrl-C."""
    return f"""\
[Unit]
Description=muster: runs that start by themselves
After=network-online.target

[Service]
ExecStart={" ".join(map(_word, command))}
WorkingDirectory={folder.replace("%", "%%")}
Restart=on-failure
RestartSec=10
KillMode=mixed
TimeoutStopSec=120

[Install]
WantedBy=default.target
"""


def _word(text: str) -> str:
    """Return a word as systemd's command lines want it, where ``%`` and ``$`` mean something of their own."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return f'"{escaped}"' if _QUOTED & set(text) else escaped


def cron_line(cron: str, command: Sequence[str], folder: str) -> str:
    """Return a line for crontab(5) that begins one run at the schedule's times, in the machine's own time zone."""
    # A percent sign would end the line.
    return f"{cron} cd {shlex.quote(folder)} && {shlex.join(command)}".replace("%", "\\%")


def cron_job(name: str, cron: str, timezone: str, command: Sequence[str]) -> str:
    """Return a Kubernetes CronJob that begins one run at the schedule's times; the image is to be filled in."""
    container = {"name": "muster", "image": "IMAGE-WITH-MUSTER", "command": list(command)}
    pod = {"restartPolicy": "Never", "containers": [container]}
    job = {"backoffLimit": 0, "template": {"spec": pod}}
    return yaml.safe_dump(
        {
            "apiVersion": "batch/v1",
            "kind": "CronJob",
            "metadata": {"name": name},
            "spec": {
                "schedule": cron,
                "timeZone": timezone,
                "concurrencyPolicy": "Forbid",
                "jobTemplate": {"spec": job},
            },
        },
        sort_keys=False,
    )
