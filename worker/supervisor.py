"""`rollover up`: one parent that starts everything, starts again what dies, and leaves nothing behind.

A child lives in a process group of its own, so that Ctrl-C reaches the parent alone, which then ends the children in order. When the
parent itself is killed, each child is told by the kernel (PR_SET_PDEATHSIG, prctl(2)) and also looks by itself whether its parent is
still there (`worker.orphans`).

Our own programs are forks of the parent, which has imported all that they need: a second of processor time is spent once instead of at
each start, a child that died is back at once, and the memory of what was imported is there once.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, Protocol, Self

import structlog

from rotation.errors import RolloverError
from worker.orphans import die_with

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

DRAIN_SECONDS = 45.0
"""How long a child may take to end its work: no step lasts longer than the longest claim."""
FIRST_DELAY, LONGEST_DELAY = 0.2, 15.0
"""Seconds before a child that died is started again; doubled each time that it dies young."""
SETTLED_SECONDS = 30.0
"""A child that has run this long starts again without the delays of its earlier deaths."""

log = structlog.get_logger()


class Child(Protocol):
    """Something that is kept running."""

    @property
    def name(self) -> str:
        """What the log calls it."""
        ...

    @property
    def pid(self) -> int | None:
        """Its process, while it runs."""
        ...

    def start(self) -> None:
        """Start it; returns when it runs. Raises `RolloverError` or `OSError` when it cannot."""
        ...

    def ended(self) -> int | None:
        """How it ended, as `subprocess` says it; None while it runs."""
        ...

    def signal(self, number: signal.Signals) -> None:
        """Send a signal; a no-op when it has ended."""
        ...


class Copy:
    """A child that is a fork of this process and does something else; its descendants are in a process group of its own.

    This process must have one thread only: a lock that another one holds would stay locked in the copy for ever. What it has open stays
    open in the copy, so nothing may be connected yet.
    """

    def __init__(self, name: str, run: Callable[[], None], *, drain: float = DRAIN_SECONDS) -> None:
        self.name = name
        self._run = run
        self._drain = drain
        self._pid: int | None = None
        self._status: int | None = 0

    @property
    def pid(self) -> int | None:
        """The first process of its group, while it runs."""
        return self._pid

    def start(self) -> None:
        """Start it. Raises `OSError` when there can be no more processes."""
        parent = os.getpid()
        for stream in (sys.stdout, sys.stderr):
            stream.flush()  # what is still in the buffer would be written twice
        # A signal that comes meanwhile is for one of the two; in the copy, our handlers would put it into our own inbox.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, (*Inbox.ENDING, signal.SIGCHLD))
        try:
            pid = os.fork()
            if pid == 0:
                self._live(parent, before)
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.setpgid(pid, pid)  # it does the same: whoever needs it first is sure of it
            self._pid, self._status = pid, None
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def _live(self, parent: int, mask: set[int] | set[signal.Signals]) -> NoReturn:
        """The life of the copy. It never returns to what its parent was doing, and cleans up nothing that is its parent's."""
        status = 1
        try:
            os.setpgid(0, 0)
            _name_process(self.name)
            signal.set_wakeup_fd(-1)
            for number in (*Inbox.ENDING, signal.SIGCHLD):
                if signal.getsignal(number) is not signal.SIG_IGN:
                    signal.signal(number, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            die_with(parent, drain=self._drain)
            self._run()
            status = 0
        except SystemExit as end:
            status = _exit_code(end)
        except BaseException:  # noqa: BLE001 - a process ends here, whatever was raised
            sys.excepthook(*sys.exc_info())
        finally:
            for stream in (sys.stdout, sys.stderr):
                with contextlib.suppress(OSError, ValueError):
                    stream.flush()
            os._exit(status)

    def ended(self) -> int | None:
        """How it ended. What is left of its group is killed before its number can be another's."""
        return self._ended(os.WNOHANG)

    def wait(self) -> int:
        """Wait for its end; gives how it ended."""
        return self._ended(0) or 0

    def _ended(self, how: int) -> int | None:
        if self._pid is None:
            return self._status
        if os.waitid(os.P_PID, self._pid, os.WEXITED | os.WNOWAIT | how) is None:
            return None
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._pid, signal.SIGKILL)
        self._status = os.waitstatus_to_exitcode(os.waitpid(self._pid, 0)[1])
        self._pid = None
        return self._status

    def signal(self, number: signal.Signals) -> None:
        """A request to end goes to the first process, which ends its own; SIGKILL goes to the whole group."""
        if self._pid is None:
            return
        with contextlib.suppress(ProcessLookupError):
            if number is signal.SIGKILL:
                os.killpg(self._pid, number)
            else:
                os.kill(self._pid, number)


def _exit_code(end: SystemExit) -> int:
    """As the interpreter has it: a text is an error, and is printed."""
    if end.code is None or isinstance(end.code, int):
        return end.code or 0
    sys.stderr.write(f"{end.code}\n")
    return 1


def _name_process(name: str) -> None:
    """What `top`, `pstree` and `ps -o comm` call this process; its command line stays its parent's."""
    with contextlib.suppress(OSError):
        Path("/proc/self/comm").write_text(name)


class Inbox:
    """The signals that reach this process, one after another; a child's end is one of them. For the main thread only."""

    ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

    def __init__(self) -> None:
        self._reader, self._writer = socket.socketpair()

    def __enter__(self) -> Self:
        """Take the signals over. One that is ignored stays ignored, as `nohup` wants it."""
        self._reader.setblocking(False)
        self._writer.setblocking(False)
        heeded = [one for one in self.ENDING if signal.getsignal(one) is not signal.SIG_IGN]
        self._before = {one: signal.signal(one, lambda *_: None) for one in (*heeded, signal.SIGCHLD)}
        self._wakeup = signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        return self

    def __exit__(self, *_: object) -> None:
        """Give them back."""
        signal.set_wakeup_fd(self._wakeup)
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._reader.close()
        self._writer.close()

    def wait(self, seconds: float) -> signal.Signals | None:
        """Wait for signals, at most so long. Gives the first that asks us to end, None when there was none."""
        select.select([self._reader], [], [], max(0.0, seconds))
        with contextlib.suppress(BlockingIOError):
            numbers = self._reader.recv(4096)
            return next((one for one in self.ENDING if one in numbers), None)
        return None


@dataclass(slots=True)
class _Watched:
    """A child, and when it is started again."""

    child: Child
    delay: float = 0.0
    started_at: float = 0.0
    again_at: float | None = None


class Supervisor:
    """Keeps children running, tier by tier: a tier is started after the one before it, and ended before it."""

    def __init__(self, tiers: Sequence[Sequence[Child]], *, drain: float = DRAIN_SECONDS) -> None:
        self._tiers = [[_Watched(child) for child in tier] for tier in tiers]
        self._drain = drain

    def run(self) -> None:
        """Start all, keep them running, and end all on SIGTERM, SIGINT or SIGHUP; a second such signal ends them by force."""
        with Inbox() as inbox:
            try:
                while (asked := inbox.wait(self._look_after())) is None:
                    continue
                log.info("ending_began", signal=asked.name)
            finally:
                for tier in reversed(self._tiers):
                    self._end([one.child for one in tier], inbox)

    def _look_after(self) -> float:
        """Start what is due to start, in order. Gives the seconds until the next start, an hour where there is none."""
        waits = [3600.0]
        for one in (one for tier in self._tiers for one in tier):
            self._bury(one)
            if one.child.pid is None and (one.again_at is None or one.again_at <= time.monotonic()):
                self._start(one)
            if one.again_at is not None:
                waits.append(one.again_at - time.monotonic())
        return min(waits)

    def _start(self, one: _Watched) -> None:
        one.started_at = time.monotonic()
        try:
            one.child.start()
        except (RolloverError, OSError) as error:
            self._postpone(one)
            log.error("child_not_started", child=one.child.name, problem=str(error), again_in_seconds=one.delay)  # noqa: TRY400 - the message says it
            return
        one.again_at = None
        log.info("child_started", child=one.child.name, pid=one.child.pid)

    def _bury(self, one: _Watched) -> None:
        """Note that a child has died, once."""
        if one.started_at == 0.0 or one.again_at is not None or (status := one.child.ended()) is None:
            return
        if time.monotonic() - one.started_at > SETTLED_SECONDS:
            one.delay = 0.0
        self._postpone(one)
        log.warning("child_died", child=one.child.name, how=how_it_ended(status), again_in_seconds=one.delay)

    @staticmethod
    def _postpone(one: _Watched) -> None:
        one.delay = min(LONGEST_DELAY, one.delay * 2 or FIRST_DELAY)
        one.again_at = time.monotonic() + one.delay

    def _end(self, children: Sequence[Child], inbox: Inbox) -> None:
        """Ask them to end; after the drain, or a second signal, they are ended by force."""
        running = [child for child in children if child.pid is not None and child.ended() is None]
        for child in running:
            child.signal(signal.SIGTERM)
        until = time.monotonic() + self._drain
        forced = False
        while running := [child for child in running if child.ended() is None]:
            left = until - time.monotonic()
            if inbox.wait(0.5 if forced else left) is not None or left <= 0:
                forced = True
                for child in running:
                    log.warning("child_killed", child=child.name, pid=child.pid)
                    child.signal(signal.SIGKILL)


def how_it_ended(status: int) -> str:
    """`exit code 1`, or the signal's name."""
    return signal.Signals(-status).name if status < 0 else f"exit code {status}"
