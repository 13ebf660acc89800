"""The supervisor with real processes: what dies comes back, what is ended stays away, and nothing outlives its parent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from worker.supervisor import how_it_ended

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).parents[2]
DEADLINE_SECONDS = 20.0

PARENT = """
    import os, signal, sys, time
    from worker.supervisor import Copy, Supervisor
    directory, kinds, drain = sys.argv[1], sys.argv[2].split(","), float(sys.argv[3])
    def live(kind):
        if kind == "stubborn":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        grandchild = os.fork()
        if grandchild == 0:
            time.sleep(600)
        with open(f"{directory}/{kind}", "a") as file:
            file.write(f"{os.getpid()} {grandchild}\\n")
        signal.pause()
    Supervisor([[Copy(kind, lambda kind=kind: live(kind), drain=1.0)] for kind in kinds], drain=drain).run()
    print("ended", flush=True)
"""


def eventually(holds: Callable[[], bool]) -> bool:
    end = time.monotonic() + DEADLINE_SECONDS
    while time.monotonic() < end:
        if holds():
            return True
        time.sleep(0.02)
    return False


def runs(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


class Family:
    """A supervisor in a process of its own, and the children that it started, as they reported themselves."""

    def __init__(self, directory: Path, kinds: str, drain: float) -> None:
        self.directory = directory
        (directory / "parent.py").write_text(textwrap.dedent(PARENT))
        self.kinds = kinds.split(",")
        command = [sys.executable, str(directory / "parent.py"), str(directory), kinds, str(drain)]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        self.log = directory / "parent.log"
        with self.log.open("wb") as log:  # a pipe would be held open by every descendant
            self.process = subprocess.Popen(command, env=environment, stdout=log, process_group=0)  # noqa: S603 - this interpreter
        assert eventually(lambda: all(self.lives(kind) for kind in self.kinds))

    def lives(self, kind: str) -> list[tuple[int, int]]:
        """The pids of each life of a child and of the process that it started."""
        try:
            lines = (self.directory / kind).read_text().splitlines()
        except FileNotFoundError:
            return []
        return [(int(one), int(other)) for one, other in (line.split() for line in lines)]

    @property
    def everybody(self) -> list[int]:
        return [pid for kind in self.kinds for life in self.lives(kind) for pid in life]

    def nobody_runs(self) -> bool:
        return not any(runs(pid) for pid in self.everybody)

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        for pid in self.everybody:
            if runs(pid):
                os.kill(pid, signal.SIGKILL)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Family]]:
    families: list[Family] = []

    def started(kinds: str = "one,two", drain: float = 10.0) -> Family:
        families.append(Family(tmp_path, kinds, drain))
        return families[-1]

    yield started
    for family in families:
        family.end()


def test_a_killed_child_is_started_again_and_its_own_child_is_gone(start: Callable[..., Family]) -> None:
    family = start()
    child, grandchild = family.lives("one")[0]
    os.kill(child, signal.SIGKILL)
    assert eventually(lambda: len(family.lives("one")) == 2)
    assert not runs(child)
    assert not runs(grandchild)
    assert len(family.lives("two")) == 1


def test_a_child_that_dies_again_and_again_comes_back_each_time(start: Callable[..., Family]) -> None:
    family = start("one")
    for life in range(1, 4):
        os.kill(family.lives("one")[-1][0], signal.SIGKILL)
        assert eventually(lambda life=life: len(family.lives("one")) == life + 1)  # type: ignore[misc]  # mypy cannot type a default of a lambda


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_ending_the_parent_ends_everybody(start: Callable[..., Family], number: signal.Signals) -> None:
    family = start()
    family.process.send_signal(number)
    assert family.process.wait(DEADLINE_SECONDS) == 0
    assert family.log.read_text().splitlines()[-1] == "ended"
    assert eventually(family.nobody_runs)


def test_a_child_that_does_not_listen_is_killed_after_the_drain(start: Callable[..., Family]) -> None:
    family = start("stubborn", drain=0.3)
    family.process.terminate()
    assert family.process.wait(DEADLINE_SECONDS) == 0
    assert "child_killed" in family.log.read_text()
    assert eventually(family.nobody_runs)


def test_a_second_signal_does_not_wait_for_the_drain(start: Callable[..., Family]) -> None:
    family = start("stubborn", drain=600)
    family.process.terminate()
    assert eventually(lambda: "ending_began" in family.log.read_text())
    family.process.terminate()
    assert family.process.wait(DEADLINE_SECONDS) == 0
    assert eventually(family.nobody_runs)


@pytest.mark.parametrize("kind", ["one", "stubborn"])
def test_nobody_outlives_a_parent_that_is_killed(start: Callable[..., Family], kind: str) -> None:
    family = start(kind)
    child = family.lives(kind)[0][0]
    family.process.kill()
    assert eventually(lambda: not runs(child))


ENDINGS = """
    import atexit, os, signal, sys
    from worker.supervisor import Copy
    atexit.register(print, "the end of the parent")
    def refuse(): sys.exit("said why")
    def leave(): sys.exit(3)
    def crash(): raise ValueError("unexpected")
    def die(): signal.raise_signal(signal.SIGKILL)
    def work(): print("worked")
    print("begun", end=" ")
    for run in (work, leave, refuse, crash, die):
        copy = Copy(run.__name__, run)
        copy.start()
        assert copy.pid is not None
        print(run.__name__, copy.wait(), copy.ended(), copy.pid)
"""


def test_a_copy_ends_as_a_process_of_its_own_would() -> None:
    command = [sys.executable, "-c", textwrap.dedent(ENDINGS)]
    ended = subprocess.run(command, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=True)  # noqa: S603 - this interpreter
    assert ended.stdout.split("\n")[:-1] == [
        "begun worked",
        "work 0 0 None",
        "leave 3 3 None",
        "refuse 1 1 None",
        "crash 1 1 None",
        "die -9 -9 None",
        "the end of the parent",
    ]
    assert "said why" in ended.stderr
    assert "ValueError: unexpected" in ended.stderr


def test_how_a_process_ended_is_said_in_words() -> None:
    assert how_it_ended(3) == "exit code 3"
    assert how_it_ended(-9) == "SIGKILL"
