"""Real hosts on one machine: a switch, a head and hosts, each in namespaces of its own.

Nothing of it has a name outside of a folder: the namespaces live as long as pipes of this process do, so the kernel
takes them away even when this process is killed; the folder of a lab whose process is gone is removed by the next one.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import psutil
import yaml

from orchestrator.config.quality import QualityConfig
from tests.integration.muster import ROOT, Ended
from tests.lab.environments import GOOD, OLD_RAY, OLD_RAY_VERSION, make_environment, other_interpreter
from tests.lab.hosts import HOME, UID, Host, HostOptions, KnownKey, Started
from tests.lab.leftovers import SETTLE_TIMEOUT_S
from tests.lab.network import HEAD_ADDRESS, Switch, address_of, management_address

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

#: On a disk, unlike /tmp on many machines: an environment on a host takes 1.5 GB.
PLACE: Final = Path("/var/tmp")

#: A lab's folder is called so, with its process's number and something random after it.
PREFIX: Final = "muster-lab-"

#: The machine's settings that programs of a host read.
_ETC: Final = (
    *("alternatives", "bash.bashrc", "debian_version", "environment", "ld.so.cache", "ld.so.conf", "ld.so.conf.d"),
    *("localtime", "login.defs", "nsswitch.conf", "os-release", "profile", "protocols", "services", "shells"),
)

#: The machine's folders of programs that a host sees.
_PROGRAMS: Final = ("/usr", "/opt", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")

#: Seconds for `muster` to end.
MUSTER_TIMEOUT_S: Final = 170.0


class Lab:
    """``hosts`` ordinary hosts (``h1``, ``h2`` …) and some odd ones, and a head that reaches them.

    ``with Lab(hosts=2) as lab:`` brings all of them up and takes them down.
    """

    def __init__(self, hosts: int = 4, odd: Sequence[HostOptions] = ()) -> None:
        self._options = [*(HostOptions(name=f"h{number}") for number in range(1, hosts + 1)), *odd]
        self._stack = contextlib.ExitStack()
        self.hosts: dict[str, Host] = {}
        #: Something stands on it that outlives a test, and whoever put it there looks at what is left.
        self.is_in_use = False

    def __enter__(self) -> Lab:
        try:
            self._come_up()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def __getitem__(self, name: str) -> Host:
        return self.hosts[name]

    @property
    def ordinary(self) -> list[Host]:
        """The hosts about which nothing is odd."""
        return [host for host in self.hosts.values() if host.options == HostOptions(name=host.name)]

    @property
    def up(self) -> list[Host]:
        """Every host that is up, and the head."""
        return [host for host in (self.head, *self.hosts.values()) if host.is_up]

    # --- coming up ---

    def _come_up(self) -> None:
        remove_stale()
        self.folder = self._stack.enter_context(_folder())
        self._make_keys()
        etc = self._make_etc()
        self.switch = Switch()
        self._stack.callback(self.switch.close)
        self.head = self._host(HostOptions(name="head", has_sshd=False), HEAD_ADDRESS, HEAD_ADDRESS)
        for number, options in enumerate(self._options, start=1):
            address = address_of(number)
            sshd_address = address if options.behind is None else management_address(number)
            self.hosts[options.name] = self._host(options, address, sshd_address)
        self._furnish_head()
        hosts = [host for host in (self.head, *self.hosts.values()) if not host.options.is_down]
        shown = list(_shown())
        for host in hosts:
            self._stack.callback(host.close)
            host.build(etc=etc, network=self._network_of(host), shown=shown)
        self.switch.power_on()
        for host in hosts:
            host.await_built()
        self.switch.plug_in((host.name, host.namespaces.pid) for host in hosts)
        for host in hosts:
            host.plug_in()
        for host in hosts:
            host.await_up()

    def _host(self, options: HostOptions, address: str, sshd_address: str) -> Host:
        """Make a host's folder: its home with who may log in, its key, its Python."""
        host = Host(options, folder=self.folder / options.name, address=address, sshd_address=sshd_address)
        (host.home / ".ssh").mkdir(parents=True)
        (host.home / "work").mkdir()
        make_environment(host.home / GOOD)
        make_environment(host.home / OLD_RAY, {"ray": OLD_RAY_VERSION})
        if options.lets_in:
            shutil.copy(self._key.with_suffix(".pub"), host.home / ".ssh/authorized_keys")
        shutil.copy(self._key_of(options.name), host.folder / "host_key")
        _give_to_user(host.home)
        return host

    def _network_of(self, host: Host) -> list[str]:
        lines = [f"addr add {host.address}/16 dev eth0"]
        behind = [each for each in self.hosts.values() if each.options.behind is not None]
        if host in behind:
            lines.append(f"addr add {host.sshd_address}/16 dev eth0")
        if any(each.options.behind == host.name for each in behind):
            # Its leg in the network of those behind it.
            number = int(host.address.rpartition(".")[2])
            lines.append(f"addr add 10.78.0.{number}/16 dev eth0")
        return lines

    # --- keys, settings ---

    def _make_keys(self) -> None:
        self._key = self.folder / "login_key"
        for path in (self._key, *map(self._key_of, ["head", "wrong", *(each.name for each in self._options)])):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "lab", "-f", path], check=True)

    def _key_of(self, name: str) -> Path:
        return self.folder / f"{name}.host_key"

    def known_host(self, host: Host) -> str | None:
        """Return the head's line about the host, as `ssh-keyscan` would print it."""
        key = {KnownKey.RIGHT: host.name, KnownKey.CHANGED: "wrong", KnownKey.MISSING: None}[host.options.known_key]
        if key is None:
            return None
        port = host.options.port
        names = [host.sshd_address, host.name]
        if port != 22:
            names = [f"[{name}]:{port}" for name in names]
        return f"{','.join(names)} {self._key_of(key).with_suffix('.host_key.pub').read_text()}"

    def _furnish_head(self) -> None:
        ssh = self.head.home / ".ssh"
        shutil.copy(self._key, ssh / "id_ed25519")
        known = (self.known_host(host) for host in self.hosts.values())
        (ssh / "known_hosts").write_text("".join(line for line in known if line is not None))
        jumps = (host for host in self.hosts.values() if host.options.behind is not None)
        (ssh / "config").write_text(
            "".join(
                f"Host {host.name}\n  HostName {host.sshd_address}\n  ProxyJump {host.options.behind}\n"
                for host in jumps
            )
        )
        _give_to_user(self.head.home)

    def _make_etc(self) -> Path:
        etc = self.folder / "etc"
        etc.mkdir()
        for name in _ETC:
            source = Path("/etc", name)
            if source.is_symlink() or source.is_file():
                shutil.copy(source, etc / name, follow_symlinks=False)
            elif source.is_dir():
                shutil.copytree(source, etc / name, symlinks=True)
        numbers = enumerate(self._options, start=1)
        lines = [f"{address_of(number)} {options.name}" for number, options in numbers if options.behind is None]
        (etc / "hosts").write_text("\n".join(["127.0.0.1 localhost", f"{HEAD_ADDRESS} head", *lines]) + "\n")
        # Nobody is asked for a name: there is nobody.
        (etc / "resolv.conf").touch()
        return etc

    # --- the command line on the head ---

    def write_config(self, text: str, name: str = "lab.yaml") -> str:
        """Write a config into a new folder of the head, and return the folder as the head sees it."""
        folder = Path(tempfile.mkdtemp(dir=self.head.home / "work"))
        (folder / name).write_text(text)
        _give_to_user(folder)
        return f"{HOME}/work/{folder.name}"

    def muster(self, *arguments: str, cwd: str, timeout_s: float = MUSTER_TIMEOUT_S, **extra: str) -> Ended:
        """Run `muster` on the head."""
        env = {"COLUMNS": "200", **extra}
        return self.head.run(*MUSTER, *arguments, cwd=cwd, env=env, timeout_s=timeout_s)

    def start_muster(self, *arguments: str, cwd: str, **extra: str) -> Started:
        """Start `muster` on the head, to be talked to and to be sent signals."""
        return self.head.start(*MUSTER, *arguments, cwd=cwd, env={"COLUMNS": "200", **extra})

    def config(
        self,
        hosts: Mapping[str, Mapping[str, Any]],
        *,
        cluster: Mapping[str, Any] | None = None,
        **top: Any,
    ) -> str:
        """Return a config of these hosts, each with keys of its own over what the lab knows of it.

        ``top`` are other keys of the config; a small workload unless it says otherwise.
        """
        content: dict[str, Any] = {
            "version": 1,
            "name": "lab",
            "cluster": {"mode": "ssh", "head_address": HEAD_ADDRESS, **(cluster or {})},
            "defaults": {"python": f"~/{GOOD}/bin/python"},
            "hosts": [{**self._known_of(name), **own} for name, own in hosts.items()],
            "workloads": [{"model": "alexnet", "batch_size": 1, "passes": "forward"}],
            "measure": {"warmup": 1, "steps": 3},
            **top,
            # All hosts of the lab share this machine's cores, and know nothing of each other.
            "policy": {"busy": "measure", **top.get("policy", {})},
            "quality": dict.fromkeys(QualityConfig.model_fields) | top.get("quality", {}),
        }
        return yaml.safe_dump(content, sort_keys=False)

    def _known_of(self, name: str) -> dict[str, Any]:
        host = self.hosts.get(name)
        if host is None:
            # One of them under another name; its address is given.
            return {"name": name, "devices": ["cpu"]}
        address = host.sshd_address if host.options.behind is None else name
        port = {} if host.options.port == 22 else {"port": host.options.port}
        return {"name": name, "address": address, **port, "devices": ["cpu"]}

    # --- faults ---

    def cut(self, name: str) -> None:
        """Pull a host's cable."""
        self.switch.cut(name)

    def heal(self, name: str) -> None:
        """Put a host's cable back."""
        self.switch.heal(name)

    def power_off(self, name: str) -> None:
        """Cut a host's power: its processes, its network card and its memory are gone at once."""
        self.hosts[name].close()

    def power_on(self, name: str) -> None:
        """Boot a host again, which has its home and its key from before."""
        host = self.hosts[name]
        host.build(etc=self.folder / "etc", network=self._network_of(host), shown=list(_shown()))
        host.await_built()
        self.switch.plug_in([(name, host.namespaces.pid)])
        host.plug_in()
        host.await_up()

    # --- afterwards ---

    def leftovers(self, timeout_s: float = SETTLE_TIMEOUT_S) -> dict[str, object]:
        """Return what is left on hosts, the head among them, once what is on its way out has ended."""
        found = {host.name: host.settled(timeout_s) for host in self.up}
        return {name: left for name, left in found.items() if left}

    def forgive(self) -> None:
        """End what is left and overlook its files, so that one test's leftovers are not the next one's."""
        for host in self.up:
            if host.watch is not None:
                for process in host.watch.strangers():
                    with contextlib.suppress(psutil.NoSuchProcess):
                        process.kill()
                psutil.wait_procs(host.watch.strangers(), timeout=SETTLE_TIMEOUT_S)
                host.watch.accept()


#: The command line, in the environment that the tests run in.
MUSTER: Final = (sys.executable, "-m", "orchestrator.cli.app")


def _give_to_user(folder: Path) -> None:
    """Make the ordinary user of the hosts the owner of all that is below."""
    for root, folders, files in os.walk(folder):
        for name in (".", *folders, *files):
            os.chown(Path(root, name), UID, UID, follow_symlinks=False)


def _shown() -> Iterator[Path]:
    """Yield the folders of this machine that a host sees: programs, this environment, the checkout, another Python."""
    yield from (Path(folder) for folder in _PROGRAMS if Path(folder).is_dir() and not Path(folder).is_symlink())
    other = other_interpreter()
    prefixes = [Path(sys.base_prefix), Path(sys.prefix), ROOT, *([] if other is None else [other.resolve().parents[1]])]
    seen: list[Path] = [Path("/usr"), Path("/opt")]
    for prefix in sorted({prefix.resolve() for prefix in prefixes}):
        if not any(prefix.is_relative_to(each) for each in seen):
            seen.append(prefix)
            yield prefix


# --- its folder ------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _folder() -> Iterator[Path]:
    """Make a lab's folder and hold a lock on it, which says that its process lives."""
    folder = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-", dir=PLACE))
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        folder.chmod(0o755)
        yield folder
    finally:
        shutil.rmtree(folder)
        os.close(handle)


def remove_stale() -> None:
    """Remove the folders of labs whose processes are gone; there is nothing else of them."""
    for folder in PLACE.glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError):
            handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            try:
                # Held by its process; which takes it a moment after it has made the folder, so that one may live.
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if not psutil.pid_exists(int(folder.name.removeprefix(PREFIX).split("-")[0])):
                    shutil.rmtree(folder)
            finally:
                os.close(handle)
