"""What every way to a host has to do alike."""

from __future__ import annotations

import asyncio
import os
import pwd
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import psutil
import pytest

from orchestrator.errors import ClusterError
from orchestrator.reach.base import ChannelClosedError, Destination
from orchestrator.reach.choice import is_here, reach_of
from tests.integration.leaks import assert_no_more_than, held
from tests.integration.muster import survivors
from tests.sshd import ssh_lab

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Iterator

    from orchestrator.reach.base import Reach

T = TypeVar("T")

#: Seconds within which things happen that happen at once.
SOON_S = 60.0

#: Bytes of one long line.
LONG = 5 * 2**20

ECHO = "import sys\nfor line in sys.stdin.buffer:\n sys.stdout.buffer.write(line)\n sys.stdout.buffer.flush()"
SHOW = "import os, sys; os.write(1, b'\\0'.join(map(os.fsencode, sys.argv[1:])))"


@pytest.fixture(params=["here", "ssh"])
def destination(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Destination]:
    """This machine, by itself and over SSH."""
    if request.param == "here":
        home = tmp_path / "home"
        home.mkdir()
        monkeypatch.setenv("HOME", str(home))
        yield Destination(name="h1", address="localhost")
        return
    with ssh_lab(tmp_path / "lab", monkeypatch) as lab:
        yield Destination(name="h1", address="127.0.0.1", port=lab.server().port)


def _scene(destination: Destination, act: Callable[[Reach], Coroutine[Any, Any, T]]) -> T:
    """Return what ``act`` does with the host; afterwards nothing is left of it in this process."""

    async def scene() -> T:
        reach = await reach_of(destination)
        try:
            return await asyncio.wait_for(act(reach), SOON_S)
        finally:
            await reach.close()
            await reach.close()
            assert asyncio.all_tasks() == {asyncio.current_task()}

    before = held()
    try:
        return asyncio.run(scene())
    finally:
        assert_no_more_than(before)


def _python(code: str, *arguments: str) -> list[str]:
    return [sys.executable, "-I", "-S", "-c", code, *arguments]


async def _silent(what: Awaitable[object]) -> bool:
    """Return whether it is still waiting once everything else that could happen has happened."""
    try:
        await asyncio.wait_for(what, 0.5)
    except asyncio.TimeoutError:
        return True
    return False


def test_a_program_is_run_to_its_end(destination: Destination) -> None:
    async def act(reach: Reach) -> None:
        code = "import sys; data = sys.stdin.buffer.read(); print(len(data)); sys.stderr.write('oh'); sys.exit(7)"
        done = await reach.run(_python(code), stdin=b"x" * 3 * 2**20, timeout_s=SOON_S)
        assert (done.exit_code, done.out, done.err) == (7, b"3145728\n", b"oh")

    _scene(destination, act)


def test_a_program_that_says_much_before_it_reads_does_not_get_stuck(destination: Destination) -> None:
    async def act(reach: Reach) -> None:
        code = "import sys; sys.stdout.write('y' * (6 << 20)); sys.stdout.flush(); sys.stdin.read()"
        done = await reach.run(_python(code), stdin=b"x" * 6 * 2**20, timeout_s=SOON_S)
        assert (done.exit_code, len(done.out)) == (0, 6 * 2**20)

    _scene(destination, act)


def test_a_program_that_does_not_read_its_input_is_run_to_its_end(destination: Destination) -> None:
    async def act(reach: Reach) -> None:
        done = await reach.run(_python("print('done')"), stdin=b"x" * 6 * 2**20, timeout_s=SOON_S)
        assert (done.exit_code, done.out) == (0, b"done\n")

    _scene(destination, act)


def test_a_program_that_is_not_there_ends_with_127_and_says_so(destination: Destination) -> None:
    async def act(reach: Reach) -> None:
        done = await reach.run(["/no/such/python", "-c", ""], timeout_s=SOON_S)
        assert done.exit_code == 127
        assert b"/no/such/python" in done.err

    _scene(destination, act)


def test_a_program_that_a_signal_ended_has_a_shells_exit_code(destination: Destination) -> None:
    async def act(reach: Reach) -> None:
        done = await reach.run(_python("import os; os.kill(os.getpid(), 9)"), timeout_s=SOON_S)
        assert done.exit_code == 128 + 9

    _scene(destination, act)


def test_arguments_arrive_byte_for_byte(destination: Destination) -> None:
    arguments = [
        "",
        " a  b ",
        "it's",
        '"',
        "\\",
        "!!",
        "\n\n",
        "$HOME $(id) `id`",
        "; exit 1",
        "~",
        "*",
        "ä→😀",
        "\udcff",
    ]

    async def act(reach: Reach) -> None:
        done = await reach.run(_python(SHOW, *arguments), timeout_s=SOON_S)
        assert done.out == b"\0".join(map(os.fsencode, arguments))

    _scene(destination, act)


def test_a_program_may_lie_in_the_home(destination: Destination) -> None:
    async def act(reach: Reach) -> None:
        making = 'cd && mkdir "my bin" && ln -s /usr/bin/printf "my bin/show"'
        assert (await reach.run(["/bin/sh", "-c", making], timeout_s=SOON_S)).exit_code == 0
        done = await reach.run(["~/my bin/show", "%s", "~/x"], timeout_s=SOON_S)
        assert done.out == b"~/x"

    _scene(destination, act)


def test_a_program_starts_in_the_home(destination: Destination) -> None:
    # Whatever HOME says, sshd goes to the one of the user's account.
    home = Path.home() if is_here(destination) else Path(pwd.getpwuid(os.getuid()).pw_dir)

    async def act(reach: Reach) -> None:
        done = await reach.run(["/bin/pwd"], timeout_s=SOON_S)
        assert Path(done.out.decode().rstrip()) == home.resolve()

    _scene(destination, act)


def test_what_cannot_be_an_argument_is_refused(destination: Destination) -> None:
    async def act(reach: Reach) -> None:
        with pytest.raises(ClusterError, match="NUL"):
            await reach.run(["/bin/echo", "a\0b"], timeout_s=SOON_S)
        with pytest.raises(ClusterError, match="NUL"):
            await reach.open(["/bin/echo", "a\0b"])

    _scene(destination, act)


def test_a_program_is_talked_with_line_by_line(destination: Destination) -> None:
    async def act(reach: Reach) -> None:
        channel = await reach.open(_python(ECHO))
        for line in (b"one", b"", b"two \xff\0", b"three"):
            await channel.write(line + b"\n")
            assert await channel.read_line() == line
        await channel.write(b"four\nfive\nsix")
        assert [await channel.read_line(), await channel.read_line()] == [b"four", b"five"]
        await channel.close()

    _scene(destination, act)


def test_a_line_may_be_of_any_length(destination: Destination) -> None:
    async def act(reach: Reach) -> None:
        channel = await reach.open(_python(ECHO))
        sending = asyncio.ensure_future(channel.write(b"x" * LONG + b"\nnext\n"))
        assert await channel.read_line() == b"x" * LONG
        assert await channel.read_line() == b"next"
        await sending
        await channel.close()

    _scene(destination, act)


def test_one_waits_for_a_program_that_does_not_read(destination: Destination) -> None:
    async def act(reach: Reach) -> None:
        channel = await reach.open(["/bin/sleep", "1000"])
        writing = asyncio.ensure_future(channel.write(b"y" * 4 * LONG))
        assert await _silent(asyncio.shield(writing)), "all of it was taken, so it lies in our memory"
        closing = asyncio.ensure_future(channel.close())
        with pytest.raises(ChannelClosedError):
            await writing
        await closing

    _scene(destination, act)


def test_a_program_whose_output_nobody_reads_has_to_wait(destination: Destination) -> None:
    code = (
        "import sys\n"
        "for n in range(64):\n"
        " sys.stdout.write('z' * (1 << 20) + '\\n'); sys.stdout.flush()\n"
        " sys.stderr.write(f'{n}\\n'); sys.stderr.flush()\n"
    )

    async def act(reach: Reach) -> None:
        channel = await reach.open(_python(code))
        assert len(await channel.read_line()) == 2**20
        await _silent(asyncio.Event().wait())
        said = int(channel.complaint.splitlines()[-1])
        assert said < 32, f"it could write {said + 1} MiB while nobody read"
        assert [len(await channel.read_line()) for _ in range(63)] == [2**20] * 63
        with pytest.raises(ChannelClosedError):
            await channel.read_line()
        await channel.close()

    _scene(destination, act)


def test_the_end_of_a_program_is_told_with_its_code_and_its_last_words(destination: Destination) -> None:
    async def act(reach: Reach) -> None:
        code = "import sys; print('whole'); print('half', end=''); sys.exit('no\\nModuleNotFoundError: x')"
        channel = await reach.open(_python(code))
        assert await channel.read_line() == b"whole"
        for _ in range(2):
            with pytest.raises(ChannelClosedError, match="exit code 1: ModuleNotFoundError: x"):
                await channel.read_line()
        with pytest.raises(ChannelClosedError):
            await channel.write(b"more\n")
        await channel.close()

    _scene(destination, act)


def test_of_many_complaints_the_last_ones_are_kept(destination: Destination) -> None:
    async def act(reach: Reach) -> None:
        code = "import sys\nfor n in range(100_000): sys.stderr.write(f'complaint {n}\\n')"
        channel = await reach.open(_python(code))
        with pytest.raises(ChannelClosedError):
            await channel.read_line()
        assert channel.complaint.splitlines() == [f"complaint {n}" for n in range(99_980, 100_000)]
        await channel.close()

    _scene(destination, act)


def test_closing_ends_the_input_and_lets_the_program_end_by_itself(destination: Destination, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    code = (
        "import sys, pathlib; print('ready', flush=True); sys.stdin.read(); pathlib.Path(sys.argv[1]).write_text('end')"
    )

    async def act(reach: Reach) -> None:
        channel = await reach.open(_python(code, str(mark)))
        assert await channel.read_line() == b"ready"
        await channel.close()
        await channel.close()
        assert mark.read_text() == "end"
        with pytest.raises(ChannelClosedError):
            await channel.read_line()
        with pytest.raises(ChannelClosedError):
            await channel.write(b"x")

    _scene(destination, act)


def test_a_program_that_has_much_to_say_at_its_end_is_let_end(destination: Destination, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    code = "import sys; print('z' * (20 << 20), flush=True); open(sys.argv[1], 'w').write('end')"

    async def act(reach: Reach) -> None:
        channel = await reach.open(_python(code, str(mark)))
        await _silent(asyncio.Event().wait())
        assert not mark.exists(), "it was not made to wait"
        await channel.close()
        assert mark.read_text() == "end"

    _scene(destination, act)


def test_a_program_that_goes_on_is_asked_to_end(destination: Destination) -> None:
    code = "import os, time; print(os.getpid(), flush=True); time.sleep(1000)"

    async def act(reach: Reach) -> psutil.Process:
        channel = await reach.open(_python(code))
        process = psutil.Process(int(await channel.read_line()))
        await channel.close()
        return process

    assert survivors([_scene(destination, act)]) == []


def test_a_program_that_still_talks_can_be_closed(destination: Destination) -> None:
    code = "import sys\nwhile True: sys.stdout.write('z' * 70_000)"

    async def act(reach: Reach) -> None:
        channel = await reach.open(_python(code))
        await _silent(channel.read_line())
        await channel.close()

    _scene(destination, act)


def test_a_program_that_takes_too_long_is_ended(destination: Destination, tmp_path: Path) -> None:
    sleeping = [*_python("import time; time.sleep(1000)"), str(tmp_path)]

    async def act(reach: Reach) -> None:
        with pytest.raises(ClusterError, match=r"did not end within 0\.5 s"):
            await reach.run(sleeping, timeout_s=0.5)

    _scene(destination, act)
    assert survivors([one for one in psutil.process_iter() if _command(one) == sleeping]) == []


def _command(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def test_ctrl_c_in_the_terminal_does_not_reach_what_runs_there(destination: Destination) -> None:
    async def act(reach: Reach) -> None:
        done = await reach.run(_python("import os; print(os.getsid(0))"), timeout_s=SOON_S)
        assert int(done.out) != os.getsid(0)

    _scene(destination, act)


def test_whatever_is_open_when_the_host_is_let_go_is_closed(destination: Destination) -> None:
    code = "import os, sys; print(os.getpid(), flush=True); sys.stdin.read()"

    async def act(reach: Reach) -> list[psutil.Process]:
        channels = [await reach.open(_python(code)) for _ in range(3)]
        return [psutil.Process(int(await channel.read_line())) for channel in channels]

    assert survivors(_scene(destination, act)) == []


def test_a_reader_who_gives_up_loses_nothing(destination: Destination) -> None:
    async def act(reach: Reach) -> None:
        channel = await reach.open(_python(ECHO))
        assert await _silent(channel.read_line())
        await channel.write(b"one\n")
        assert await channel.read_line() == b"one"
        await channel.close()

    _scene(destination, act)


def test_the_other_end_knows_where_this_machine_is(destination: Destination) -> None:
    async def act(reach: Reach) -> str | None:
        return reach.local_ip

    assert _scene(destination, act) == (None if is_here(destination) else "127.0.0.1")


@pytest.mark.parametrize(
    ("address", "user", "port", "expected"),
    [
        ("localhost", None, None, True),
        ("LocalHost", None, None, True),
        ("localhost", "bench", None, False),
        ("localhost", None, 22, False),
        ("127.0.0.1", None, None, False),
        ("gpu01.lab.example", None, None, False),
    ],
)
def test_localhost_alone_is_this_machine(address: str, user: str | None, port: int | None, expected: bool) -> None:
    assert is_here(Destination(name="h1", address=address, user=user, port=port)) is expected
