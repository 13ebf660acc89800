"""Real processes for tests: each with its log in a file, signalled and ended by its own id, gone with the test."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

END_SECONDS = 30.0
LOOK_SECONDS = 0.02


class Child(Protocol):
    """As much of `subprocess.Popen` as a process here needs."""

    @property
    def pid(self) -> int: ...

    def poll(self) -> int | None: ...

    def wait(self, timeout: float | None = None) -> int: ...


class Process:
    """A child process, running from the start; `log` is where both of its outputs go, one JSON object a line where it writes our logs."""

    def __init__(self, name: str, command: Sequence[str], environment: Mapping[str, str], log: Path) -> None:
        self.name = name
        self.log = log
        self.command = tuple(command)
        dies_with_us = ["setpriv", "--pdeathsig=KILL", *command]
        with log.open("ab") as output:
            self._child: Child = subprocess.Popen(  # noqa: S603 - this interpreter and our own module
                dies_with_us,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                process_group=0,  # a signal from a terminal is not for it, and SIGKILL reaches the children of its pool
            )

    @property
    def pid(self) -> int:
        return self._child.pid

    @property
    def runs(self) -> bool:
        return self._child.poll() is None

    def catches(self, number: signal.Signals) -> bool:
        """Whether it has a handler for the signal, as the kernel knows it (SigCgt in proc(5))."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        (mask,) = (int(line.split()[1], 16) for line in status.splitlines() if line.startswith("SigCgt"))
        return bool(mask >> (number - 1) & 1)

    def lines(self) -> Iterator[dict[str, Any]]:
        """Its log so far; lines that are no JSON come as the field `event`."""
        for line in self.log.read_text(errors="replace").splitlines():
            try:
                value = json.loads(line)
            except ValueError:
                value = None
            yield value if isinstance(value, dict) else {"event": line}

    def last_words(self, count: int = 12) -> str:
        """The end of its log, without Celery's own chatter."""
        told = [line for line in self.lines() if (line.get("level"), str(line.get("logger"))[:6]) != ("info", "celery")]
        return "\n".join(f"{self.name}: {' '.join(f'{name}={value}' for name, value in line.items())}" for line in told[-count:])

    def freeze(self) -> None:
        """Stop it and what it started in their tracks; their sockets stay open."""
        os.killpg(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        os.killpg(self.pid, signal.SIGCONT)

    def kill(self) -> None:
        """End it, and what it started, at once, as a power cut would. Ended already: a no-op."""
        if self.runs:
            os.killpg(self.pid, signal.SIGKILL)
        self._child.wait()

    def ask_to_end(self) -> None:
        """SIGTERM to the first process alone, as an init system sends it. A frozen one hears it when it is let go on."""
        if self.runs:
            os.kill(self.pid, signal.SIGTERM)

    def ended(self, within: float = END_SECONDS) -> int:
        """Its exit code. Raises `subprocess.TimeoutExpired` when it has not ended in time."""
        return self._child.wait(within)

    def end(self) -> None:
        """Ask it to end, also when it is frozen; by force when that takes too long."""
        if self.runs:
            self.thaw()
            self.ask_to_end()
        try:
            self.ended()
        except subprocess.TimeoutExpired:
            self.kill()


def eventually(holds: Callable[[], object], within: float, look: float = LOOK_SECONDS) -> bool:
    """Whether it holds at some time within so many seconds."""
    end = time.monotonic() + within
    while not holds():
        if time.monotonic() > end:
            return False
        time.sleep(look)
    return True
