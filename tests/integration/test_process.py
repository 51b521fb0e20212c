"""Children that do everything wrong, each a real process."""

from __future__ import annotations

import contextlib
import json
import math
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from tests.integration.leaks import assert_no_more_than, held
from workers.codec import from_json
from workers.descendants import await_one, look
from workers.process import (
    MAX_LINE_BYTES,
    MAX_OUTPUT_BYTES,
    MAX_UNREAD_LINES,
    STDERR_TAIL_BYTES,
    ChildProcess,
    LineSplitter,
    Silence,
)
from workers.protocol import Ending
from workers.strays import end_orphans

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Never reached unless something is broken.
DEADLINE_S = 30.0


def python(code: str, **given: object) -> ChildProcess:
    return ChildProcess([sys.executable, "-c", code], **given)  # type: ignore[arg-type]


def soon() -> float:
    return time.monotonic() + DEADLINE_S


def read_all(child: ChildProcess) -> list[bytes]:
    lines = []
    until = soon()
    while isinstance(line := child.next_line(until), bytes):
        lines.append(line)
    assert line is Silence.ENDED
    return lines


def has_gone(pid: int) -> bool:
    """True once the process has ended, reaped or not."""
    process = look(pid)
    return process is None or process.is_zombie or await_one((process,), soon())


def has_ended(pid: int) -> bool:
    process = look(pid)
    return process is None or process.is_zombie


@pytest.fixture(autouse=True)
def no_leaks() -> Iterator[None]:
    """Every test gives back its threads, descriptors and children."""
    before, children = held(), psutil.Process().children()
    yield
    assert_no_more_than(before)
    assert psutil.Process().children() == children


def test_lines_come_whole_and_in_order() -> None:
    with python("import sys\nfor i in range(3): print('line', i)\nsys.stdout.write('no end')") as child:
        assert read_all(child) == [b"line 0", b"line 1", b"line 2"]
        assert child.next_line(soon()) is Silence.ENDED
        assert child.ending().exit_code == 0
        assert child.ending().signal is None


def test_stdin_is_given_whole_and_then_closed() -> None:
    text = b"x" * 300_000  # more than a pipe holds
    with python("import sys; print(len(sys.stdin.buffer.read()), sys.stdin.buffer.read())", stdin=text) as child:
        assert read_all(child) == [b"300000 b''"]


def test_a_child_that_does_not_read_its_stdin_is_no_trouble() -> None:
    with python("import os; os.close(0); print('deaf')", stdin=b"x" * 300_000) as child:
        assert read_all(child) == [b"deaf"]


def test_a_command_that_does_not_exist_is_an_error_at_once() -> None:
    with pytest.raises(FileNotFoundError):
        ChildProcess(["/no/such/command"])


def test_garbage_is_handed_on_as_it_is() -> None:
    garbage = bytes(range(256)).replace(b"\n", b"")
    with python("import os; os.write(1, bytes(range(256)).replace(b'\\n', b'') + b'\\n\\n')") as child:
        assert read_all(child) == [garbage, b""]


def test_a_line_too_long_is_dropped_and_the_next_one_kept() -> None:
    with python("print('x' * 10 * 2**20); print('after')") as child:
        assert read_all(child) == [b"after"]
        assert child.dropped_lines == 1


def test_a_flood_is_cut_off_with_bounded_memory() -> None:
    peak_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with python("import os\nfor _ in range(1024): os.write(1, b'x' * 2**20)") as child:
        assert child.next_line(soon()) is Silence.FLOODED
        child.stop()
        assert child.ending().signal == "SIGTERM"
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak_kib < 32 * 1024


@pytest.mark.parametrize("line", ["", "x", "xy"])
def test_a_flood_of_short_lines_is_cut_off_with_bounded_memory(line: str) -> None:
    code = (
        "import os, signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready', flush=True)\n"
        f"while True: os.write(1, b'{line}\\n' * 2**15)"
    )
    with python(code) as child:
        assert child.next_line(soon()) == b"ready"
        child.stop(grace_s=0.5)  # which reads on: what was said before it shall be told
        assert child.ending().signal == "SIGKILL"
        lines = 0
        while isinstance(child.next_line(soon()), bytes):
            lines += 1
    assert 0 < lines <= MAX_UNREAD_LINES + 2**16


def test_a_flood_of_lines_is_kept_up_to_the_bound() -> None:
    with python("while True: print('y' * 99)", max_output_bytes=10_000) as child:
        lines = []
        while isinstance(line := child.next_line(soon()), bytes):
            lines.append(line)
        assert line is Silence.FLOODED
        assert 100 <= len(lines) <= 1000


def test_only_the_end_of_stderr_is_kept() -> None:
    code = "import sys; sys.stderr.write('x' * 10 * 2**20 + '\\nlast words\\n'); sys.stderr.flush()"
    with python(code) as child:
        read_all(child)
        assert child.ending().stderr_tail.endswith("x\nlast words\n")
        assert len(child.ending().stderr_tail) == STDERR_TAIL_BYTES


def test_bytes_on_stderr_that_are_no_text_are_replaced() -> None:
    with python("import os; os.write(2, b'ok \\xff')") as child:
        read_all(child)
        assert child.ending().stderr_tail == "ok \ufffd"


def test_a_deadline_is_kept_by_a_child_that_says_nothing() -> None:
    with python("import time; time.sleep(600)") as child:
        begun = time.monotonic()
        assert child.next_line(begun + 0.05) is Silence.DEADLINE
        assert time.monotonic() >= begun + 0.05
        assert not child.is_gone
    assert child.ending().signal == "SIGTERM"


def test_a_deadline_is_kept_by_a_child_that_never_stops_talking() -> None:
    with python("while True: print('more')") as child:
        until = time.monotonic() + 0.3
        while isinstance(line := child.next_line(until), bytes):
            assert line == b"more"
        assert line is Silence.DEADLINE


def test_another_thread_can_end_the_wait() -> None:
    with python("import time; time.sleep(600)") as child:
        threading.Timer(0.05, child.wake).start()
        assert child.next_line(soon()) is Silence.WOKEN
        child.wake()
        child.wake()
        assert child.next_line(soon()) is Silence.WOKEN
        assert child.next_line(time.monotonic() + 0.05) is Silence.DEADLINE
    child.wake()  # too late, and harmless


def test_what_was_said_before_the_stop_can_still_be_read() -> None:
    with python("import os, time\nos.write(1, b'one\\ntwo\\n')\ntime.sleep(600)") as child:
        assert child.next_line(soon()) == b"one"
        child.stop()
        assert read_all(child) == [b"two"]


def test_a_child_may_end_in_its_own_way_when_asked() -> None:
    # Not print in the handler: the signal may come while print itself is at work, which is not re-entrant.
    code = (
        "import os, signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: (os.write(1, b'bye\\n'), sys.exit(7)))\n"
        "print('ready', flush=True)\ntime.sleep(600)"
    )
    with python(code) as child:
        assert child.next_line(soon()) == b"ready"
        child.stop()
        assert read_all(child) == [b"bye"]
        assert child.ending().exit_code == 7


def test_a_child_that_ignores_sigterm_is_killed() -> None:
    code = (
        "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "print('ready', flush=True)\ntime.sleep(600)"
    )
    with python(code) as child:
        assert child.next_line(soon()) == b"ready"
        child.stop(grace_s=0.05)
        assert child.is_gone
        assert child.ending().signal == "SIGKILL"
        assert child.ending().oom_evidence is None


def test_a_stopped_child_is_killed() -> None:
    with python("import os, signal; print('ready', flush=True); os.kill(os.getpid(), signal.SIGSTOP)") as child:
        assert child.next_line(soon()) == b"ready"
        child.stop(grace_s=0.05)
        assert child.ending().signal in ("SIGKILL", "SIGTERM")


GRANDCHILD = "import subprocess, sys; print(subprocess.Popen([sys.executable, '-c', {code!r}]).pid, flush=True)"
SLEEPER = "import time; time.sleep(600)"
STUBBORN_SLEEPER = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"


def test_a_grandchild_does_not_outlive_a_child_that_ended_well() -> None:
    # The grandchild holds the child's stdout open: its end must not be waited for either.
    with python(GRANDCHILD.format(code=SLEEPER)) as child:
        (pid,) = map(int, read_all(child))
        assert child.ending().exit_code == 0
        assert has_gone(pid)


def test_a_grandchild_does_not_outlive_a_child_that_is_stopped() -> None:
    with python(GRANDCHILD.format(code=STUBBORN_SLEEPER) + f"; {SLEEPER}") as child:
        line = child.next_line(soon())
        assert isinstance(line, bytes)
        child.stop(grace_s=0.05)
        assert has_gone(int(line))


# --- what leaves the group -------------------------------------------------------------------------------------

OWN_SESSION = GRANDCHILD.replace("]).pid", "], start_new_session=True).pid")
OWN_GROUP = GRANDCHILD.replace("]).pid", "], preexec_fn=os.setpgrp).pid").replace("import", "import os,")
#: As daemons do it; and without another program, so that no exec has refreshed anything.
DOUBLE_FORK = (
    "import os, sys, time\nif os.fork() == 0:\n    os.setsid()\n    if os.fork() == 0:\n"
    "        os.write(1, b'%d\\n' % os.getpid())\n        time.sleep(600)\n    os._exit(0)\nos.wait()\n"
)
#: A child that goes on, in a session of its own.
UNSWEPT = "import os, time; os.write(1, b'%d\\n' % os.getpid()); time.sleep(600)"
KILLS_ITSELF = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"


@pytest.mark.parametrize("leave", [OWN_SESSION, OWN_GROUP, DOUBLE_FORK])
@pytest.mark.parametrize("then", ["pass", KILLS_ITSELF, "raise SystemExit(3)"])
def test_what_left_the_group_does_not_outlive_the_child(leave: str, then: str) -> None:
    with python(f"{leave.format(code=STUBBORN_SLEEPER)}\n{then}") as child:
        (pid,) = map(int, read_all(child))
        assert has_gone(pid)
        assert [stray.pid for stray in child.swept.strays] == [pid]
        assert str(child.swept) == f"{child.swept.strays[0].name} ({pid})"
        assert child.swept.left == ()


def test_what_left_the_group_does_not_outlive_a_child_that_is_stopped() -> None:
    with python(DOUBLE_FORK + SLEEPER) as child:
        line = child.next_line(soon())
        assert isinstance(line, bytes)
        child.stop()
        assert has_gone(int(line))


def test_what_starts_more_while_it_is_ended_is_ended_with_all_of_it() -> None:
    code = (
        "import subprocess, sys\nprint(flush=True)\nif len(sys.argv) < 30:\n"
        "    subprocess.Popen([sys.executable, *sys.orig_argv[1:], 'x'], start_new_session=True)"
    )
    with python(code) as child:
        read_all(child)
    assert [each for each in psutil.process_iter(["cmdline"]) if code in (each.info["cmdline"] or [])] == []


def test_what_stayed_in_the_group_is_no_stray() -> None:
    with python(GRANDCHILD.format(code=SLEEPER)) as child:
        (pid,) = map(int, read_all(child))
        assert has_gone(pid)
        assert child.swept.strays == ()


UNMARKED = OWN_SESSION.replace("start_new_session", "env={{}}, start_new_session")
CHATTER = "import os, time\ntry:\n    while True: os.write(2, b'x' * 4096)\nexcept OSError:\n    time.sleep(600)"


def test_nothing_without_the_mark_is_ended_and_its_chatter_is_not_waited_for() -> None:
    with python(UNMARKED.format(code=CHATTER)) as child, python(SLEEPER) as other:
        (pid,) = map(int, read_all(child))
        child.close()
        assert not other.is_gone
    daemon = psutil.Process(pid)
    assert daemon.is_running()
    daemon.kill()
    assert has_gone(pid)


#: A parent that is killed, and a stray of its child that nobody swept; a second one has a parent that lives.
_KILLED_PARENT = (
    "import math, os, signal, sys\nfrom workers.process import ChildProcess\n"
    "child = ChildProcess([sys.executable, '-c', {code!r}])\n"
    "os.write(1, child.next_line(math.inf) + b'\\n')\n"
)


def test_what_the_child_of_a_killed_parent_left_is_ended_by_whoever_comes_next() -> None:
    code = _KILLED_PARENT.format(code=UNSWEPT)
    root = Path(__file__).parents[2]
    with (
        ChildProcess([sys.executable, "-c", code + SLEEPER], cwd=root) as living,
        python(UNSWEPT) as ours,
        subprocess.Popen([sys.executable, "-c", code + KILLS_ITSELF], cwd=root, stdout=subprocess.PIPE) as killed,
    ):
        pids = [int(bytes(child.next_line(soon()))) for child in (living, ours)]  # type: ignore[arg-type]
        assert killed.stdout is not None
        orphan = int(killed.stdout.readline())
        killed.wait(DEADLINE_S)
        end_orphans()
        assert has_gone(orphan)
        assert not any(has_ended(pid) for pid in pids)
        os.kill(living.pid, signal.SIGKILL)
        read_all(living)
        end_orphans()
        assert has_gone(pids[0])


def test_a_child_has_all_of_its_environment_and_a_mark_of_its_own() -> None:
    code = "import os; print(os.environ.get('A'), os.environ.get('HOME'), os.environ['MUSTER_ATTEMPT'])"
    with python(code, env={"A": "1"}) as one, python(code) as two:
        (first,), (second,) = read_all(one), read_all(two)
    assert first.startswith(b"1 None ")
    assert second.startswith(f"None {os.environ.get('HOME')} ".encode())
    assert first.split()[-1] != second.split()[-1]


@pytest.mark.parametrize("name", ["SIGSEGV", "SIGABRT", "SIGKILL"])
def test_a_signal_is_told_by_its_name(name: str) -> None:
    with python(f"import os, signal; os.kill(os.getpid(), signal.{name})") as child:
        assert read_all(child) == []
        assert child.ending().signal == name
        assert child.ending().exit_code is None
        assert child.ending().oom_evidence is None


def test_a_signal_without_a_name_is_told_by_its_number() -> None:
    number = signal.SIGRTMIN + 3
    with python(f"import os; os.kill(os.getpid(), {number})") as child:
        read_all(child)
        assert child.ending().signal == f"signal {number}"


def test_an_exit_code_is_told() -> None:
    with python("raise SystemExit(3)") as child:
        read_all(child)
        assert child.ending().exit_code == 3


def test_a_running_child_has_no_ending_yet() -> None:
    with python(SLEEPER) as child:
        assert child.ending().exit_code is None
        assert child.ending().signal is None


def test_a_child_has_a_session_of_its_own() -> None:
    with python("import os; print(os.getsid(0), os.getpgid(0), os.getpid())") as child:
        assert read_all(child) == [f"{child.pid} {child.pid} {child.pid}".encode()]


def test_stopping_and_closing_twice_changes_nothing() -> None:
    child = python("print('done')")
    child.close()
    ending = child.ending()
    child.stop()
    child.close()
    assert child.ending() == ending


def test_a_parent_that_ignores_sigchld_loses_the_exit_code_and_nothing_else() -> None:
    code = (
        "import json, signal, sys, time\nfrom workers.process import ChildProcess, Silence\n"
        "signal.signal(signal.SIGCHLD, signal.SIG_IGN)\n"
        "with ChildProcess([sys.executable, '-c', 'print(1); raise SystemExit(3)']) as child:\n"
        "    line = child.next_line(time.monotonic() + 30)\n"
        "    assert child.next_line(time.monotonic() + 30) is Silence.ENDED\n"
        "    print(json.dumps([line.decode(), child.ending().exit_code, child.ending().signal]))\n"
    )
    with ChildProcess([sys.executable, "-c", code], cwd=Path(__file__).parents[2]) as parent:
        (line,) = read_all(parent)
    assert json.loads(line) == ["1", None, None]


# --- evidence of an end for want of memory ---------------------------------------------------------------------

MIB = 2**20

#: Version 2, and version 1 with its limit's name.
_GROUPS = (("/sys/fs/cgroup", "memory.max"), ("/sys/fs/cgroup/memory", "memory.limit_in_bytes"))


@pytest.fixture
def small_group() -> Iterator[Path]:
    """A control group with 96 MiB, where we may make one."""
    for parent, limit in _GROUPS:
        group = Path(parent) / f"muster-test-{os.getpid()}"
        with contextlib.suppress(OSError):
            group.mkdir()
            try:
                if (group / limit).exists():  # the kernel's own file, and no plain folder
                    (group / limit).write_text(str(96 * MIB))
                    yield group
                    return
            finally:
                group.rmdir()
    pytest.skip("no control group with a limit to its memory can be made here")


#: Takes all memory that there is, and goes first when the kernel has to choose, as a measuring child does.
HOG = "open('/proc/self/oom_score_adj', 'w').write('1000')\nhog = []\nwhile True: hog.append(bytearray(2**20))"

#: A parent in a control group, as an agent may be, whose child is in the same.
_IN_GROUP = (
    "import math, os, sys\nfrom pathlib import Path\nfrom workers.codec import to_json\n"
    "from workers.process import ChildProcess\n"
    "Path('{group}/cgroup.procs').write_text(str(os.getpid()))\n"
    "with ChildProcess([sys.executable, '-c', {code!r}]) as child:\n"
    "    child.next_line(math.inf)\n    print(to_json(child.ending()))\n"
)


def ending_in(group: Path, code: str) -> Ending:
    """How a child ends whose parent is in ``group``."""
    command = [sys.executable, "-c", _IN_GROUP.format(group=group, code=code)]
    with ChildProcess(command, cwd=Path(__file__).parents[2]) as parent:
        (line,) = read_all(parent)
    return from_json(Ending, line)


def test_a_child_that_the_kernel_ends_for_want_of_memory_is_known_as_such(small_group: Path) -> None:
    ending = ending_in(small_group, HOG)
    assert ending.signal == "SIGKILL"
    assert ending.oom_evidence is not None
    # What it shares with others is not counted to its group. A child inherits the mark of this process: what is not
    # above that says nothing of the child, and is not told.
    own_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    if ending.max_rss_bytes is None:
        assert own_bytes > 48 * MIB
    else:
        assert 48 * MIB < ending.max_rss_bytes < 192 * MIB


def test_without_the_kernels_log_the_control_group_is_evidence(small_group: Path) -> None:
    blind = "import workers.oom; workers.oom.KernelLog.from_now_on = lambda root: None\n"
    command = [sys.executable, "-c", blind + _IN_GROUP.format(group=small_group, code=HOG)]
    with ChildProcess(command, cwd=Path(__file__).parents[2]) as parent:
        (line,) = read_all(parent)
    expected = f"the kernel counted an out-of-memory kill in the control group {small_group}"
    assert from_json(Ending, line).oom_evidence == expected


def test_a_kill_from_outside_while_the_kernel_ends_another_is_no_want_of_memory(small_group: Path) -> None:
    with python(SLEEPER) as child:
        assert ending_in(small_group, HOG).oom_evidence is not None
        os.kill(child.pid, signal.SIGKILL)
        read_all(child)
        assert child.ending().signal == "SIGKILL"
        assert child.ending().oom_evidence is None


def test_our_own_kill_is_no_want_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workers.process.Witness.evidence", lambda *_: "all says so")
    with python(f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); {SLEEPER}") as child:
        child.next_line(soon())
        child.stop(grace_s=0.05)
        assert child.ending().signal == "SIGKILL"
        assert child.ending().oom_evidence is None


def test_an_exit_code_is_no_signal_whatever_its_number() -> None:
    with python("raise SystemExit(9)") as child:
        read_all(child)
        assert (child.ending().exit_code, child.ending().oom_evidence) == (9, None)


def test_the_most_memory_that_a_child_held_is_told_if_it_is_more_than_ours() -> None:
    ours = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    with python(f"x = bytearray({ours + 64 * MIB})") as large, python("pass") as small:
        read_all(large)
        read_all(small)
        assert (large.ending().max_rss_bytes or 0) > ours + 64 * MIB
        assert small.ending().max_rss_bytes is None


# --- lines -----------------------------------------------------------------------------------------------------


def test_the_bounds_are_those_of_the_house() -> None:
    assert (MAX_LINE_BYTES, MAX_OUTPUT_BYTES, STDERR_TAIL_BYTES) == (2**20, 2**26, 2**14)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 100])
def test_lines_are_the_same_however_the_bytes_arrive(size: int) -> None:
    stream = b"a\n\n1234567890\n12345678901\nb\n12345678901234567890\nlast\nopen"
    splitter = LineSplitter(10)
    lines = [line for at in range(0, len(stream), size) for line in splitter.feed(stream[at : at + size])]
    assert lines == [b"a", b"", b"1234567890", b"b", b"last"]
    assert splitter.dropped == 2


def test_one_may_wait_without_a_deadline() -> None:
    with python("print('at last')") as child:
        assert child.next_line(math.inf) == b"at last"
        assert child.next_line(math.inf) is Silence.ENDED
