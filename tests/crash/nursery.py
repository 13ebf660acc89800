"""Real processes at the price of a fork: one process that has imported everything, and forks a worker or a beat whenever it is asked.

What it forks is what `rollover worker` is: its own environment, arguments, process group and log, and the same command in it.
It must be started while its parent has one thread.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from importlib import import_module
from typing import TYPE_CHECKING, Any, NoReturn, Self

from tests.processes import Process

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

PR_SET_PDEATHSIG = 1
LONGEST_REQUEST = 256 * 1024
IMPORTED = (
    "worker.cli.main",
    "worker.cli.processes",
    "worker.tasks",
    "celery.apps.worker",
    "celery.apps.beat",
    "celery.worker.consumer",
    "celery.concurrency.thread",
    "kombu.transport.redis",
    "rotation.engines.postgresql",
    "tests.crash.injector",
)
"""What a worker needs, so that it is there before the fork. None of it does anything on import."""


def die_with_the_parent() -> None:
    """SIGKILL for this process when the thread that forked it ends (prctl(2))."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL))


class Nursery:
    """The parent of all workers of one lane."""

    def __init__(self) -> None:
        self._line, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.pid = os.fork()
        if self.pid == 0:
            self._line.close()
            _tend(theirs)
        theirs.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._line.close()  # it ends when nobody asks any more
        os.waitpid(self.pid, 0)

    def start(self, arguments: Sequence[str], environment: Mapping[str, str], log: Path, first: Sequence[str] = ()) -> int:
        """A process that runs the command `rollover` with these arguments, after it has imported `first`. Gives its id."""
        return self._ask({"arguments": list(arguments), "environment": dict(environment), "log": str(log), "first": list(first)})

    def code(self, pid: int) -> int:
        """How a process that has ended did end, as `subprocess` says it."""
        return self._ask({"ended": pid})

    def _ask(self, request: dict[str, object]) -> int:
        self._line.send(json.dumps(request).encode())
        answer = self._line.recv(64)
        if not answer:
            raise ChildProcessError("the nursery is gone")
        return int(answer)


class Forked(Process):
    """A process out of the nursery. It is ended by SIGKILL: what it leaves behind is what the run has judged already."""

    def __init__(
        self, name: str, nursery: Nursery, arguments: Sequence[str], environment: Mapping[str, str], log: Path, *first: str
    ) -> None:
        self.name = name
        self.log = log
        self.command = tuple(arguments)
        self._child = ForkedChild(nursery, nursery.start(arguments, environment, log, first))

    def ask_to_end(self) -> None:
        self.kill()

    def end(self) -> None:
        self.kill()


class ForkedChild:
    """What `subprocess.Popen` would be for it: its parent is the nursery, which alone learns how it ended."""

    def __init__(self, nursery: Nursery, pid: int) -> None:
        self.pid = pid
        self._nursery = nursery
        self._handle = os.pidfd_open(pid)
        self._code: int | None = None

    def poll(self) -> int | None:
        return self._ended_within(0)

    def wait(self, timeout: float | None = None) -> int:
        code = self._ended_within(timeout)
        if code is None:
            raise subprocess.TimeoutExpired(str(self.pid), timeout or 0)
        return code

    def _ended_within(self, timeout: float | None) -> int | None:
        if self._code is None:
            waiting = select.poll()
            waiting.register(self._handle, select.POLLIN)
            if waiting.poll(None if timeout is None else timeout * 1000):
                self._code = self._nursery.code(self.pid)
                os.close(self._handle)
        return self._code


def _tend(line: socket.socket) -> NoReturn:
    """The nursery itself."""
    die_with_the_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for module in IMPORTED:
        import_module(module)
    gc.collect()
    gc.freeze()  # what is never looked at again is not copied
    while request := line.recv(LONGEST_REQUEST):
        asked = json.loads(request)
        if "ended" in asked:
            _, status = os.waitpid(asked["ended"], 0)
            line.send(str(os.waitstatus_to_exitcode(status)).encode())
            continue
        pid = os.fork()
        if pid == 0:
            line.close()
            _be(asked)
        with contextlib.suppress(OSError):  # so that it has its group before anybody is told of it
            os.setpgid(pid, pid)
        line.send(str(pid).encode())
    os._exit(0)


def _be(asked: dict[str, Any]) -> NoReturn:
    """Become the process that was asked for."""
    die_with_the_parent()
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    output = os.open(asked["log"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    for descriptor in (sys.stdout.fileno(), sys.stderr.fileno()):
        os.dup2(output, descriptor)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.environ.clear()
    os.environ.update(asked["environment"])
    time.tzset()
    sys.argv = ["rollover", *asked["arguments"]]
    code: object = 1
    try:
        for module in asked["first"]:
            import_module(module)
        import_module("worker.cli.main").main()
    except SystemExit as leaving:
        code = leaving.code
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code if isinstance(code, int) else 0)
