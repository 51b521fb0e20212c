"""What the lab needs of a machine."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from typing import Final

from tests.lab.namespaces import HOST_KINDS

#: Programs, and Debian's packages of them.
PROGRAMS: Final = {
    "ip": "iproute2",
    "sshd": "openssh-server",
    "ssh": "openssh-client",
    "ssh-keygen": "openssh-client",
    "unshare": "util-linux",
    "nsenter": "util-linux",
}


def what_is_missing() -> str | None:
    """Return why there can be no lab on this machine, with what to do about it; ``None`` where there can."""
    if sys.platform != "linux":
        return "the lab is made of Linux namespaces"
    if os.geteuid() != 0:
        return "the lab is made of network namespaces, which takes root: run it as root, in a container perhaps"
    absent = [program for program in PROGRAMS if shutil.which(program) is None]
    if absent:
        packages = " ".join(sorted({PROGRAMS[program] for program in absent}))
        return f"{', '.join(absent)} is not here: apt install {packages}"
    flags = [f"--{kind}" for kind in HOST_KINDS]
    tried = subprocess.run(["unshare", *flags, "--fork", "true"], capture_output=True)
    if tried.returncode != 0:
        return f"no namespaces can be made here, although this is root: {tried.stderr.decode().strip()}"
    return None
