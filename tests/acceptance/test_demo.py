from __future__ import annotations

import fcntl
import json
import os
import pty
import signal
import struct
import subprocess
import sys
import termios
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
PATIENCE = 150.0
"""Seconds: most of it is the start of five Python processes on a machine that is busy with other tests."""

pytestmark = pytest.mark.timeout(2 * PATIENCE)


def environment(place: Path) -> dict[str, str]:
    """Everything that the demo makes is below `place`, which so marks its processes, too."""
    return {**os.environ, "TMPDIR": str(place), "TERM": "xterm", "COLUMNS": "80", "LINES": "24"}


def command(*options: str) -> list[str]:
    return [sys.executable, "-m", "worker", "demo", *options]


def run(place: Path, *options: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # noqa: S603 - our own command
        command(*options), cwd=ROOT, env=environment(place) | variables, capture_output=True, text=True, timeout=PATIENCE, check=False
    )


def left_running(place: Path) -> list[str]:
    """The processes that were started by the demo, by what they were started with; the dead that nobody buried are not counted."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            told = (process / "cmdline").read_bytes()
            if os.fsencode(place) in told + (process / "environ").read_bytes():
                found.append(told.replace(b"\0", b" ").decode(errors="replace"))
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
    return found


def read(terminal: int, until: str) -> str:
    """What is written on a terminal until this text is among it, or until its program ends."""
    end, text = time.monotonic() + PATIENCE, ""
    while until not in text:
        assert time.monotonic() < end, text[-3000:]
        try:
            text += os.read(terminal, 65536).decode(errors="replace")
        except OSError:  # how Linux says that the other side has closed
            break
    return text


@contextmanager
def at_a_terminal(place: Path, *options: str) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """The demo as a person sees it: 24 lines of 80 columns."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    surroundings = environment(place)
    with subprocess.Popen(command(*options), cwd=ROOT, env=surroundings, stdin=theirs, stdout=theirs, stderr=theirs) as running:  # noqa: S603 - our own command
        os.close(theirs)
        try:
            yield running, ours
        finally:
            running.kill()
            os.close(ours)


def test_every_promise_is_held_and_nothing_is_left(tmp_path: Path) -> None:
    done = run(tmp_path, "--for", "30s", "--json")

    assert done.returncode == 0, done.stdout + done.stderr
    figures = json.loads(done.stdout)
    assert False not in figures["promises"].values()
    assert figures["rotations"] >= 5
    assert figures["retirements_proved"] > 0
    assert figures["logins_tried"] > 100
    assert (figures["logins_refused"], figures["connection_errors"], figures["orphan_logins"]) == (0, 0, 0)
    assert left_running(tmp_path) == []
    assert list(tmp_path.iterdir()) == []


def test_at_a_terminal_it_shows_a_board_until_ctrl_c_ends_it_and_leaves_nothing(tmp_path: Path) -> None:
    with at_a_terminal(tmp_path) as (running, terminal):
        shown = read(terminal, "Vercel holds it")
        running.send_signal(signal.SIGINT)
        shown += read(terminal, "no login was left behind")
        status = running.wait(PATIENCE)

    assert status == 0, shown[-3000:]
    assert "in grace" in shown
    assert "no login was left behind" in shown
    assert "BROKEN" not in shown
    assert left_running(tmp_path) == []
    assert list(tmp_path.iterdir()) == []


def test_killed_it_takes_its_servers_and_workers_along(tmp_path: Path) -> None:
    with at_a_terminal(tmp_path) as (running, terminal):
        read(terminal, "in grace")
        running.kill()
        running.wait(PATIENCE)
        end = time.monotonic() + PATIENCE
        while left_running(tmp_path) and time.monotonic() < end:
            time.sleep(0.1)

    assert left_running(tmp_path) == []


@pytest.mark.parametrize(("option", "value"), [("--for", "soon"), ("--every", "0s"), ("--grace", "500ms"), ("--resources", "11")])
def test_an_option_that_makes_no_sense_is_wrong_use(tmp_path: Path, option: str, value: str) -> None:
    done = run(tmp_path, option, value)

    assert done.returncode == 2
    assert option in done.stderr


def test_without_postgresql_it_says_what_to_do(tmp_path: Path) -> None:
    done = run(tmp_path, ROLLOVER_SANDBOX_POSTGRESQL_BIN=str(tmp_path))

    assert done.returncode == 1
    assert "name the directory that holds PostgreSQL's binaries" in done.stderr
