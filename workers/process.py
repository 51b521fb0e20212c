"""The one owner of a child process: its start, what it says, its end, and the evidence of how it ended.

A child runs in a session and process group of its own, and bears a mark. It is read with bounds on everything, stopped
by TERM, a deadline and KILL, and when it has ended its whole group is swept, and then whatever bears its mark, so that
nothing it started lives on, daemons that left the group on purpose among them.
"""

from __future__ import annotations

import collections
import contextlib
import enum
import os
import resource
import selectors
import signal
import subprocess
import threading
import time
from typing import IO, TYPE_CHECKING, Final

from workers.descendants import look
from workers.oom import Witness
from workers.protocol import Ending
from workers.strays import Mark, Swept, sweep

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path
    from types import TracebackType

MAX_LINE_BYTES: Final = 2**20
MAX_OUTPUT_BYTES: Final = 64 * 2**20
STDERR_TAIL_BYTES: Final = 16 * 2**10
#: Lines that have come and that nobody has asked for: short ones take many times the memory of their bytes.
MAX_UNREAD_LINES: Final = 2**17

#: How long a child may take over TERM before KILL.
GRACE_S: Final = 5.0
#: How long KILL may take; a process stuck in a driver can outlive it, and then we say so instead of waiting for ever.
KILL_WAIT_S: Final = 10.0

_CHUNK_BYTES: Final = 2**16
#: What is left in a pipe when the child has gone: no pipe holds more (pipe(7)), but somebody else may go on writing.
_LEFT_CHUNKS: Final = 2**20 // _CHUNK_BYTES
#: Selectors cannot wait for ever by a number; callers go round.
_LONGEST_WAIT_S: Final = 3600.0


class Silence(enum.Enum):
    """Why there is no line."""

    #: The child has ended and everything that it said has been read.
    ENDED = "ended"
    #: The deadline of this call has passed.
    DEADLINE = "deadline"
    #: Another thread called :meth:`ChildProcess.wake`.
    WOKEN = "woken"
    #: The child has written more than it may; nothing more is read.
    FLOODED = "flooded"


class LineSplitter:
    """Cuts a stream of bytes into lines, however the bytes arrive; a line over the bound is dropped and counted."""

    def __init__(self, max_line_bytes: int = MAX_LINE_BYTES) -> None:
        self._max = max_line_bytes
        self._open = bytearray()
        self._is_skipping = False
        self.dropped = 0

    def feed(self, chunk: bytes) -> list[bytes]:
        """Return the lines that ``chunk`` completes, without their ends."""
        *ended, rest = chunk.split(b"\n")
        lines = [line for part in ended if (line := self._close(part)) is not None]
        self._extend(rest)
        return lines

    def _close(self, part: bytes) -> bytes | None:
        self._extend(part)
        skipped, self._is_skipping = self._is_skipping, False
        line = bytes(self._open)
        self._open.clear()
        return None if skipped else line

    def _extend(self, part: bytes) -> None:
        if self._is_skipping:
            return
        if len(self._open) + len(part) > self._max:
            self._open.clear()
            self._is_skipping = True
            self.dropped += 1
        else:
            self._open += part


class ChildProcess:
    """A child process, from its start to its end.

    Made, read and stopped by one thread; only :meth:`wake` may come from others. Use it as a context manager: leaving
    it stops the child. It inherits the descriptors ``keep``. Raises OSError where ``argv`` cannot be started.
    """

    def __init__(
        self,
        argv: Sequence[str],
        *,
        stdin: bytes = b"",
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        keep: Sequence[int] = (),
        max_line_bytes: int = MAX_LINE_BYTES,
        max_output_bytes: int = MAX_OUTPUT_BYTES,
    ) -> None:
        self._max_rss_before = _own_max_rss_bytes()
        self._witness = Witness()
        self._splitter = LineSplitter(max_line_bytes)
        self._lines: collections.deque[bytes] = collections.deque()
        self._may_read_bytes = max_output_bytes
        self._stdin = memoryview(stdin)
        self._stderr_tail = bytearray()
        self._exit: os.waitid_result | None = None
        self._has_exited = threading.Event()
        self._was_killed = False
        self._is_settled = False
        self._mark = Mark()
        self._swept = Swept()
        self._max_rss_bytes: int | None = None
        self._oom_evidence: str | None = None
        self._process = self._started(argv, env=env, cwd=cwd, keep=keep)
        itself = look(self.pid)
        self._since = 0 if itself is None else itself.started
        self._wake = _WakeUp()
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._wake.reader, selectors.EVENT_READ, self._on_wake)
        self._watch(self._process.stdout, selectors.EVENT_READ, self._on_stdout)
        self._watch(self._process.stderr, selectors.EVENT_READ, self._on_stderr)
        self._watch(self._process.stdin, selectors.EVENT_WRITE, self._on_stdin)
        self._waiter = threading.Thread(target=self._await_exit, name=f"waiter-{self.pid}", daemon=True)
        self._waiter.start()

    @property
    def pid(self) -> int:
        """The child's process id, which is its group's id too."""
        return self._process.pid

    @property
    def dropped_lines(self) -> int:
        """How many lines were longer than allowed, and so were not kept."""
        return self._splitter.dropped

    @property
    def is_gone(self) -> bool:
        """True once the child itself has ended; False after :meth:`stop` means that not even KILL ended it."""
        return self._has_exited.is_set()

    @property
    def swept(self) -> Swept:
        """What was found of the child outside its group, and ended, once it has ended itself."""
        return self._swept

    def wake(self) -> None:
        """Make a :meth:`next_line` that waits, now or next, return :attr:`Silence.WOKEN`; any thread may call it."""
        self._wake.request()

    def next_line(self, until: float) -> bytes | Silence:
        """Return the next whole line without its end, or why there is none.

        Waits until ``until`` on :func:`time.monotonic` at most; a line that was not ended by a newline is no line.
        """
        while True:
            if self._wake.take_request():
                return Silence.WOKEN
            remaining_s = until - time.monotonic()
            if remaining_s <= 0:
                return Silence.DEADLINE
            if self._lines:
                return self._lines.popleft()
            if self._may_read_bytes <= 0:
                return Silence.FLOODED
            if self._is_settled:
                return Silence.ENDED
            self._advance(remaining_s)

    def stop(self, grace_s: float = GRACE_S) -> None:
        """End the child and its group: TERM, ``grace_s`` of time, KILL; what it said until then can still be read."""
        for ending_signal, wait_s in ((signal.SIGTERM, grace_s), (signal.SIGKILL, KILL_WAIT_S)):
            if self._is_settled:
                return
            if not self.is_gone:
                self._was_killed = self._was_killed or ending_signal is signal.SIGKILL
                self._signal_group(ending_signal)
            self._advance_until_settled(time.monotonic() + wait_s)
        if not self._is_settled:
            self._sweep()

    def ending(self) -> Ending:
        """Return how the child ended, as far as it has."""
        tail = bytes(self._stderr_tail).decode(errors="replace")
        if self._exit is None:
            return Ending(stderr_tail=tail, max_rss_bytes=self._max_rss_bytes)
        if self._exit.si_code == os.CLD_EXITED:
            return Ending(exit_code=self._exit.si_status, stderr_tail=tail, max_rss_bytes=self._max_rss_bytes)
        return Ending(
            signal=_signal_name(self._exit.si_status),
            stderr_tail=tail,
            max_rss_bytes=self._max_rss_bytes,
            oom_evidence=self._oom_evidence,
        )

    def close(self) -> None:
        """Stop the child if it still runs and give everything back; safe to call twice."""
        self.stop()
        self._waiter.join(timeout=1.0)
        self._selector.close()
        for stream in (self._process.stdin, self._process.stdout, self._process.stderr):
            if stream is not None:
                stream.close()
        self._wake.close()
        self._witness.close()

    def __enter__(self) -> ChildProcess:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _started(
        self, argv: Sequence[str], *, env: Mapping[str, str] | None, cwd: Path | None, keep: Sequence[int]
    ) -> subprocess.Popen[bytes]:
        try:
            return subprocess.Popen(
                argv,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=self._mark.put_on(os.environ if env is None else env),
                cwd=cwd,
                pass_fds=keep,
                bufsize=0,
                start_new_session=True,
            )
        except BaseException:
            self._witness.close()
            raise

    # --- waiting -----------------------------------------------------------------------------------------------

    def _await_exit(self) -> None:
        # WNOWAIT leaves the child as a zombie: until we reap it, nobody else can get its id, so that the group which
        # is swept is surely ours. Whoever ignores SIGCHLD (a parent may have) loses the exit code, not the rest.
        with contextlib.suppress(ChildProcessError):
            self._exit = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)
        self._has_exited.set()
        self._wake.ring()

    def _advance(self, wait_s: float) -> None:
        """Wait for the next thing to happen and deal with it."""
        if self.is_gone:
            self._settle()
            return
        for key, _ in self._selector.select(min(wait_s, _LONGEST_WAIT_S)):
            key.data()

    def _advance_until_settled(self, until: float) -> None:
        while not self._is_settled and (remaining_s := until - time.monotonic()) > 0:
            self._advance(remaining_s)

    def _settle(self) -> None:
        """The child has ended: sweep its group, reap it, sweep what has its mark, read what is left in the pipes."""
        self._signal_group(signal.SIGKILL)
        self._reap()
        self._sweep()
        self._is_settled = True
        for take in (self._on_stdout, self._on_stderr):
            for _ in range(_LEFT_CHUNKS):
                if not take():
                    break

    def _reap(self) -> None:
        """Take the child's exit, and the evidence that goes with it."""
        with contextlib.suppress(ChildProcessError):  # as above: a parent that ignores SIGCHLD has no say
            _, status, usage = os.wait4(self.pid, 0)
            self._process.returncode = os.waitstatus_to_exitcode(status)
            # A process begins with the mark of the one that it was forked from: less than ours tells nothing.
            max_rss_bytes = usage.ru_maxrss * 1024
            self._max_rss_bytes = max_rss_bytes if max_rss_bytes > self._max_rss_before else None
        self._process.wait()
        if self.ending().signal == "SIGKILL" and not self._was_killed:
            self._oom_evidence = self._witness.evidence(self.pid, self._max_rss_bytes)

    def _sweep(self) -> None:
        self._swept = sweep(self._mark, self.pid, since=self._since)

    def _signal_group(self, number: signal.Signals) -> None:
        # Nothing is left to signal, or what is left has become another user's: neither is ours to force.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, number)

    # --- the pipes ---------------------------------------------------------------------------------------------

    def _watch(self, stream: IO[bytes] | None, event: int, then: object) -> None:
        assert stream is not None  # all three are pipes
        os.set_blocking(stream.fileno(), False)
        self._selector.register(stream, event, then)

    def _on_wake(self) -> bool:
        self._wake.drain()
        return True

    def _on_stdin(self) -> bool:
        stream = self._process.stdin
        assert stream is not None
        try:
            written = os.write(stream.fileno(), self._stdin) if self._stdin else 0
        except BlockingIOError:
            return False
        except BrokenPipeError:
            written = len(self._stdin)
        self._stdin = self._stdin[written:]
        if not self._stdin:
            self._selector.unregister(stream)
            stream.close()
        return True

    def _on_stdout(self) -> bool:
        """Take what has come on stdout; return whether there may be more."""
        if self._may_read_bytes <= 0:
            return False
        chunk = self._read(self._process.stdout)
        self._may_read_bytes -= len(chunk)
        self._lines.extend(self._splitter.feed(chunk))
        if len(self._lines) > MAX_UNREAD_LINES:
            self._may_read_bytes = 0
        if self._may_read_bytes <= 0:
            self._selector.unregister(self._process.stdout)  # type: ignore[arg-type]  # not None: a pipe
        return bool(chunk)

    def _on_stderr(self) -> bool:
        """Take what has come on stderr; return whether there may be more."""
        chunk = self._read(self._process.stderr)
        self._stderr_tail += chunk
        del self._stderr_tail[:-STDERR_TAIL_BYTES]
        return bool(chunk)

    def _read(self, stream: IO[bytes] | None) -> bytes:
        if stream is None or stream.closed:
            return b""
        try:
            chunk = os.read(stream.fileno(), _CHUNK_BYTES)
        except BlockingIOError:
            return b""
        if not chunk:
            self._selector.unregister(stream)
            stream.close()
        return chunk


class _WakeUp:
    """A pipe that ends another thread's wait, and a mark that says whether it was asked for."""

    def __init__(self) -> None:
        self.reader, self._writer = os.pipe()
        os.set_blocking(self.reader, False)
        os.set_blocking(self._writer, False)
        self._lock = threading.Lock()
        self._is_closed = False
        self._is_requested = False

    def request(self) -> None:
        with self._lock:
            self._is_requested = True
        self.ring()

    def take_request(self) -> bool:
        with self._lock:
            taken, self._is_requested = self._is_requested, False
        return taken

    def ring(self) -> None:
        with self._lock, contextlib.suppress(BlockingIOError):  # a full pipe has rung already
            if not self._is_closed:
                os.write(self._writer, b"!")

    def drain(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self.reader, _CHUNK_BYTES)

    def close(self) -> None:
        with self._lock:
            if not self._is_closed:
                self._is_closed = True
                os.close(self.reader)
                os.close(self._writer)


def _own_max_rss_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # real-time signals have no names of their own
        return f"signal {number}"
