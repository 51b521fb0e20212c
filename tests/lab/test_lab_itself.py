"""The lab's hosts are apart from each other and from everything else, and go without a trace."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from tests.integration.muster import ROOT, environment
from tests.lab.environments import GOOD, OLD_RAY, OLD_RAY_VERSION
from tests.lab.hosts import HOME, HostOptions
from tests.lab.lab import PLACE, PREFIX, Lab
from tests.lab.leftovers import Leftovers

if TYPE_CHECKING:
    from tests.integration.muster import Ended
    from tests.lab.bystander import Bystander
    from tests.lab.hosts import Host

pytestmark = pytest.mark.slow

#: Never asks anybody anything.
_SSH = ("ssh", "-o", "BatchMode=yes")


def _ssh(lab: Lab, name: str, command: str) -> Ended:
    host = lab[name]
    destination = name if host.options.behind else host.sshd_address
    return lab.head.run(*_SSH, "-p", str(host.options.port), destination, command)


# --- apart from each other -------------------------------------------------------------------------------------


def test_each_host_has_a_name_of_its_own(lab: Lab) -> None:
    names = [host.run("hostname").out.strip() for host in lab.up]

    assert names == [host.name for host in lab.up]
    assert len(set(names)) == len(names) > 4
    assert os.uname().nodename not in names


@pytest.mark.parametrize("folder", ["/tmp", "/dev/shm", "/home/bench", "/var/tmp"])
def test_what_one_host_has_in_its_folders_no_other_sees(lab: Lab, folder: str) -> None:
    path = f"{folder}/only-here"
    lab["h1"].run("touch", path)
    try:
        seen = [host.name for host in lab.up if host.run("test", "-e", path).code == 0]
        assert seen == ["h1"]
        assert not Path(path).exists()
    finally:
        lab["h1"].run("rm", path)


def test_a_host_sees_its_own_processes_alone(lab: Lab) -> None:
    sleeper = lab["h2"].start("sleep", "1000")
    try:
        assert sleeper.process in lab["h2"].processes()
        assert "sleep" in lab["h2"].run("ps", "-e", "-o", "args=").out
        assert "sleep" not in lab["h1"].run("ps", "-e", "-o", "args=").out
        assert str(os.getpid()) not in lab["h2"].run("ps", "-e", "-o", "pid=").out.split()
    finally:
        sleeper.process.kill()
        sleeper.popen.communicate()


def test_orphans_are_reaped(lab: Lab) -> None:
    assert lab["h1"].run("sh", "-c", "(sleep 0.2 &)").code == 0

    # A process that nobody waits for would be there for ever.
    assert lab["h1"].settled() == Leftovers()


def test_an_ordinary_user_runs_things_and_can_change_nothing_that_is_this_machine_s(lab: Lab) -> None:
    host = lab["h1"]

    assert host.run("id", "-un").out.strip() == "bench"
    for place in ("/usr", "/etc", str(ROOT), sys.base_prefix):
        assert host.run("test", "-d", place).code == 0
        assert host.run("touch", f"{place}/planted").code != 0
        # Read-only, and not just somebody else's; but the settings are the host's own.
        assert place == "/etc" or host.run("test", "-w", place, root=True).code != 0


# --- apart from everything else --------------------------------------------------------------------------------


def test_no_host_has_a_way_out(lab: Lab) -> None:
    for host in lab.up:
        routes = host.run("ip", "route").out.splitlines()
        assert routes
        assert all(route.startswith(("10.77.0.0/16 ", "10.78.0.0/16 ")) for route in routes)
        assert host.run("ip", "route", "get", "192.0.2.1").code != 0
        assert host.run("getent", "ahosts", "example.com").code != 0


def test_a_host_knows_of_its_own_network_cards_alone(lab: Lab) -> None:
    for host in lab.ordinary:
        assert host.run("ls", "/sys/class/net").out.split() == ["eth0", "lo"]
        assert host.run("cut", "-s", "-d:", "-f1", "/proc/net/dev").out.split() == ["lo", "eth0"]


def test_this_machine_has_no_way_in(lab: Lab) -> None:
    devices = subprocess.run(["ip", "-o", "addr"], capture_output=True, text=True, check=True).stdout

    assert "10.77." not in devices
    assert all(f": {host.name}" not in devices for host in lab.up)


def test_every_host_reaches_every_other(lab: Lab) -> None:
    for host in lab.ordinary:
        for other in (lab.head, *lab.ordinary):
            assert host.run("ip", "route", "get", other.address).code == 0
    # The key is the head's, so a host gets as far as the refusal of another.
    anybody = ("-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null")
    assert "Permission denied" in lab["h1"].run(*_SSH, *anybody, lab["h2"].address, "true").err


# --- real SSH --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["h1", "h4", "port", "dash"])
def test_the_head_logs_in_with_openssh(lab: Lab, name: str) -> None:
    assert _ssh(lab, name, "hostname").out.strip() == name


def test_a_shell_can_be_another_one(lab: Lab) -> None:
    assert _ssh(lab, "dash", "echo $0").out.strip() == "dash"
    assert _ssh(lab, "h1", "echo $0").out.strip() == "bash"


def test_a_host_behind_another_is_reached_through_it_alone(lab: Lab) -> None:
    host = lab["behind"]

    assert _ssh(lab, "behind", "hostname").out.strip() == "behind"
    assert "from 10.78.0.1" in host.log
    for address in (host.sshd_address, host.address):
        assert lab.head.run(*_SSH, "-F", "none", address, "true").code == 255


def test_a_slow_host_says_nothing_at_first(lab: Lab) -> None:
    host = lab["slow"]

    impatient = lab.head.run(*_SSH, "-o", "ConnectTimeout=2", host.sshd_address, "true")
    assert "timed out" in impatient.err
    assert _ssh(lab, "slow", "hostname").out.strip() == "slow"


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("unknown", "Host key verification failed"),
        ("changed", "Host key for 10.77.1.10 has changed"),
        ("refused", "Permission denied (publickey)"),
        ("down", "No route to host"),
    ],
)
def test_openssh_notices_what_is_wrong(lab: Lab, name: str, complaint: str) -> None:
    ended = _ssh(lab, name, "true")

    assert ended.code == 255
    assert complaint in ended.err


def test_a_cable_can_be_pulled_and_put_back(lab: Lab) -> None:
    lab.cut("h3")
    try:
        cut = lab.head.run(*_SSH, "-o", "ConnectTimeout=1", lab["h3"].sshd_address, "true")
        assert cut.code == 255
    finally:
        lab.heal("h3")
    assert _ssh(lab, "h3", "hostname").out.strip() == "h3"


# --- environments ----------------------------------------------------------------------------------------------


def test_a_host_s_python_has_ray_but_not_muster(lab: Lab) -> None:
    python = f"~/{GOOD}/bin/python"
    asked = "import importlib.util as i; print(*[bool(i.find_spec(n)) for n in ('ray', 'tensorflow', 'workers')])"

    assert _ssh(lab, "h1", f'cd /; {python} -c "{asked}"').out.split() == ["True", "True", "False"]


def test_an_environment_can_have_the_wrong_ray(lab: Lab) -> None:
    asked = "import importlib.metadata as m; print(m.version('ray'))"

    assert _ssh(lab, "h1", f'~/{OLD_RAY}/bin/python -c "{asked}"').out.strip() == OLD_RAY_VERSION
    assert _ssh(lab, "h1", f'~/{GOOD}/bin/python -c "{asked}"').out.strip() != OLD_RAY_VERSION


# --- what is left of a test ------------------------------------------------------------------------------------


def _left_on(host: Host) -> str:
    return str(host.leftovers())


@pytest.mark.parametrize(
    "path", ["/tmp/muster-abc/token", "/dev/shm/plasma", "/home/bench/.ray/auth_token", "/run/muster/pid"]
)
def test_a_file_that_is_left_is_seen(lab: Lab, path: str) -> None:
    folder = str(Path(path).parent)
    lab["h4"].run("sh", "-c", f"mkdir -p {folder} && touch {path}", root=True)
    try:
        assert Path(path).name in _left_on(lab["h4"])
    finally:
        lab["h4"].run("rm", "-r", path if folder == "/dev/shm" else folder, root=True)
    assert not lab["h4"].leftovers()


def test_a_process_that_is_left_is_seen_though_it_is_an_orphan_in_a_session_of_its_own(lab: Lab) -> None:
    _ssh(lab, "h4", "setsid sleep 987 </dev/null >/dev/null 2>&1 &")
    (sleeper,) = lab["h4"].find("sleep 987")
    try:
        assert "sleep 987" in _left_on(lab["h4"])
    finally:
        sleeper.kill()
        sleeper.wait(10)
    assert not lab["h4"].leftovers()


def test_a_lease_that_is_held_is_seen_and_its_file_alone_is_not(lab: Lab) -> None:
    hold = "import fcntl, sys; f = open('/tmp/muster-leases/cpu', 'w'); fcntl.%s(f, fcntl.LOCK_EX); print(); input()"
    lab["h4"].run("mkdir", "/tmp/muster-leases")
    for kind in ("flock", "lockf"):
        holder = lab["h4"].start(sys.executable, "-c", hold % kind)
        assert holder.popen.stdout is not None
        holder.popen.stdout.readline()
        assert "/tmp/muster-leases/cpu" in _left_on(lab["h4"])
        holder.popen.communicate("\n")
    assert not lab["h4"].leftovers()


def test_caches_may_stay(lab: Lab) -> None:
    lab["h4"].run("sh", "-c", "mkdir -p ~/.cache/muster/code && touch ~/.cache/muster/code/a ~/.cache/else")
    try:
        assert lab["h4"].leftovers().files == ("~/.cache/else",)
    finally:
        lab["h4"].run("rm", "-r", "/home/bench/.cache")


@pytest.mark.timeout(300)
def test_somebody_else_s_ray_is_seen_to_be_well_and_to_be_gone(lab: Lab, neighbour: Bystander) -> None:
    assert neighbour.is_well()
    assert not neighbour.host.leftovers()
    (daemon,) = neighbour.host.find("/gcs_server ")
    daemon.suspend()
    try:
        assert not neighbour.is_well(timeout_s=2.0)
    finally:
        daemon.resume()


# --- where there can be none -----------------------------------------------------------------------------------


def _tests_of_an_ordinary_user(lab: Lab, **env: str) -> Ended:
    chosen = ("tests/lab/test_lab_itself.py", "-k", "test_each_host_has_a_name_of_its_own")
    apart = ("-p", "no:cacheprovider", f"--basetemp={HOME}/work/pytest")
    return lab.head.run(sys.executable, "-m", "pytest", *apart, *chosen, cwd=str(ROOT), env=env)


def test_an_ordinary_user_is_told_why_the_lab_s_tests_are_skipped(lab: Lab) -> None:
    ended = _tests_of_an_ordinary_user(lab)

    assert ended.code == 0, ended.out
    assert "1 skipped" in ended.out
    assert "takes root" in ended.out


def test_in_ci_a_lab_that_cannot_be_is_a_failure(lab: Lab) -> None:
    ended = _tests_of_an_ordinary_user(lab, CI="true")

    assert ended.code == 1
    assert "must run in CI" in ended.out


# --- its end ---------------------------------------------------------------------------------------------------


def _trace() -> dict[str, object]:
    """What a lab could leave on this machine; of this process's labs, for there may be others'."""
    return {
        "namespaces": subprocess.run(["ip", "netns", "list"], capture_output=True, text=True).stdout,
        "mounts": Path("/proc/self/mounts").read_text(),
        "folders": sorted(PLACE.glob(f"{PREFIX}{os.getpid()}-*")),
        "links": subprocess.run(["ip", "-o", "link"], capture_output=True, text=True).stdout.count("\n"),
    }


def test_a_lab_goes_without_a_trace_also_after_an_exception() -> None:
    before = _trace()
    with pytest.raises(ZeroDivisionError), Lab(2) as lab:
        folder = lab.folder
        pids = [host.namespaces.pid for host in lab.up]
        lab["h1"].run("touch", "/tmp/left", "/home/bench/left")
        _ = 1 / 0

    assert not folder.exists()
    assert not any(psutil.pid_exists(pid) for pid in pids)
    assert _trace() == before


def test_a_lab_that_does_not_come_up_goes_without_a_trace() -> None:
    before = _trace()
    odd = [HostOptions(name="a-name-too-long-for-a-network-card")]
    with pytest.raises(subprocess.CalledProcessError), Lab(1, odd):
        pass

    assert _trace() == before


def test_a_host_that_was_switched_off_comes_back_with_its_home_and_its_key() -> None:
    with Lab(2) as lab:
        lab["h1"].run("touch", "/tmp/gone", "/home/bench/work/kept")
        lab.power_off("h1")
        assert _ssh(lab, "h1", "true").code != 0
        lab.power_on("h1")
        listed = _ssh(lab, "h1", "ls /tmp ~/work")

    assert (listed.code, listed.err) == (0, "")
    assert "kept" in listed.out
    assert "gone" not in listed.out


def test_two_labs_stand_side_by_side(lab: Lab) -> None:
    with Lab(1) as other:
        assert other["h1"].address == lab["h1"].address
        other["h1"].run("touch", "/home/bench/other")
        assert _ssh(other, "h1", "ls ~/other").code == 0
        assert _ssh(lab, "h1", "ls ~/other").code != 0


def _by_hand(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.lab", *arguments],
        env=environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _until_up(process: subprocess.Popen[str]) -> tuple[str, list[psutil.Process]]:
    assert process.stdout is not None
    told = ""
    while "Ctrl-C" not in told:
        line = process.stdout.readline()
        assert line, process.communicate()
        told += line
    return told, psutil.Process(process.pid).children(recursive=True)


def _folders_of(process: subprocess.Popen[str]) -> list[Path]:
    return list(PLACE.glob(f"{PREFIX}{process.pid}-*"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_lab_by_hand_tells_how_to_get_in_and_goes_when_it_is_told_to(number: signal.Signals) -> None:
    process = _by_hand("--hosts", "1")
    told, below = _until_up(process)
    (shell,) = [line for line in told.splitlines() if line.endswith(" bash")]
    entered = subprocess.run([*shell.split(), "-c", "ssh h1 hostname"], capture_output=True, text=True)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)

    assert entered.stdout.strip() == "h1"
    assert (process.returncode, err) == (0, "")
    assert psutil.wait_procs(below, timeout=20)[1] == []
    assert _folders_of(process) == []


def test_nothing_lives_on_of_a_lab_that_is_killed_and_the_next_one_removes_its_folder() -> None:
    process = _by_hand("--hosts", "1")
    _, below = _until_up(process)
    process.kill()
    process.communicate(timeout=60)

    assert len(below) > 4
    assert psutil.wait_procs(below, timeout=20)[1] == []
    assert len(_folders_of(process)) == 1
    with Lab(1):
        assert _folders_of(process) == []


def test_a_lab_that_lives_keeps_its_folder_when_another_comes(lab: Lab) -> None:
    with Lab(1):
        assert lab.folder.exists()
