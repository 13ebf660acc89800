"""`make demo` as a newcomer types it first: nothing is installed, nothing is configured, and the machine has other users.

Where the tests run as root, the newcomer is `nobody`. Where they do not, where no Python with which the Makefile could begin is open to
`nobody` (root's own may lie in root's home), or where the system knows no user but root, the newcomer is the present user, and everything
else is the same.
"""

from __future__ import annotations

import ast
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

ROOT = Path(__file__).parents[2]
NOBODY = 65534
PATIENCE = 240.0
"""Seconds: most of it is an installation from an index that may be far away."""

DEMO = ("make", "demo", "ARGS=--for 12s --json")
CAN_BEGIN = ("make", "--eval=can-begin: python ; @'$(PYTHON)' -c 'import ensurepip, venv'", "can-begin")
"""Whether the Python that the Makefile finds may be run, and brings what an environment is made with."""

PIP_SECTIONS = ("global", "install", ":env:")
"""Of pip's configuration, a later one over an earlier one."""
NETWORK = frozenset({"http_proxy", "https_proxy", "all_proxy", "no_proxy", "ssl_cert_file", "ssl_cert_dir", "requests_ca_bundle"})

pytestmark = pytest.mark.timeout(3 * PATIENCE)


@dataclass(frozen=True, slots=True)
class Newcomer:
    """A user with an empty home and a fresh clone, both in a directory of their own whose name has a space."""

    place: Path
    user: int
    group: int

    @property
    def home(self) -> Path:
        return self.place / "home"

    @property
    def clone(self) -> Path:
        return self.place / "fresh clone"

    def settles(self) -> bool:
        """Own all of it, closed to every other user. Gives whether the work can begin: a container may have this user not at all."""
        try:
            for path in (self.place, *self.place.rglob("*")):
                os.chown(path, self.user, self.group, follow_symlinks=False)
        except OSError:
            return False
        return self.run(*CAN_BEGIN, variables={}).returncode == 0

    def run(self, *command: str, variables: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
        """With these variables, a path and a home, and nothing else of ours."""
        environment = {"PATH": os.environ.get("PATH", os.defpath), "HOME": str(self.home), **variables}
        with subprocess.Popen(  # noqa: S603 - our own Makefile
            [*self._becoming(), *command],
            cwd=self.clone,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            process_group=0,
        ) as running:
            try:
                output, errors = running.communicate(timeout=PATIENCE)
            except BaseException:
                os.killpg(running.pid, signal.SIGKILL)
                raise
        return subprocess.CompletedProcess(running.args, running.returncode, output, errors)

    def left_running(self) -> list[str]:
        """The processes with a program or a working directory of this place. Asked as its owner, whose processes root may not see into."""
        links = ("find", "/proc", "-mindepth", "2", "-maxdepth", "2", "(", "-name", "exe", "-o", "-name", "cwd", ")")
        ours = ("-lname", f"{self.place}/*", "-printf", "%p -> %l\n")
        command = [*self._becoming(), *links, *ours]
        with subprocess.Popen(command, cwd=self.clone, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as looking:  # noqa: S603 - a constant
            found = looking.communicate()[0].splitlines()
        found.remove(f"/proc/{looking.pid}/cwd -> {self.clone}")  # it sees itself, or its seeing nothing would say nothing
        return found

    def _becoming(self) -> tuple[str, ...]:
        """The command in front of each of the newcomer's."""
        if self.user == os.geteuid():
            return ()
        return ("setpriv", f"--reuid={self.user}", f"--regid={self.group}", "--clear-groups")


@pytest.fixture
def newcomer() -> Iterator[Newcomer]:
    with tempfile.TemporaryDirectory(prefix="a newcomer ") as place:  # pytest's directories are below one that is closed to others
        us = Newcomer(Path(place), os.geteuid(), os.getegid())
        nobody = Newcomer(Path(place), NOBODY, NOBODY)
        us.home.mkdir(0o700)
        shutil.copytree(ROOT, us.clone, symlinks=True, ignore=not_cloned)
        yield next((one for one in (nobody, us) if one.settles()), us)


def not_cloned(directory: str, names: Iterable[str]) -> set[str]:
    """What a clone would not have once everything is committed: what `.gitignore` names."""
    patterns = [".git", *(ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()]
    here = [pattern.strip("/") for pattern in patterns if not pattern.startswith("/") or Path(directory) == ROOT]
    return {name for name in names if any(fnmatch(name, pattern) for pattern in here)}


def pip_settings() -> dict[str, str]:
    """As variables what pip is told on this machine: where packages come from is its business, and a new home says nothing about it."""
    command = [sys.executable, "-m", "pip", "config", "list"]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout  # noqa: S603 - this interpreter
    settings = {}
    for section in PIP_SECTIONS:
        for name, _, value in (line.partition("=") for line in told.splitlines()):
            if name.startswith(f"{section}."):
                settings["PIP_" + name.removeprefix(f"{section}.").replace("-", "_").upper()] = str(ast.literal_eval(value))
    return settings


def demonstrated(newcomer: Newcomer) -> subprocess.CompletedProcess[str]:
    """One demo, which has held what it promises and has left nothing running."""
    network = {name: value for name, value in os.environ.items() if name.lower() in NETWORK}
    done = newcomer.run(*DEMO, variables=network | pip_settings())

    assert done.returncode == 0, done.stdout + done.stderr
    figures = json.loads(done.stdout)
    assert figures["rotations"] >= 1
    assert (figures["logins_refused"], figures["orphan_logins"]) == (0, 0)
    assert newcomer.left_running() == []
    return done


def test_make_demo_works_from_a_fresh_clone_that_belongs_to_nobody_in_a_directory_whose_name_has_a_space(newcomer: Newcomer) -> None:
    made_of = newcomer.clone / ".venv" / "made-of.json"
    assert not made_of.parent.exists()
    assert list(newcomer.home.iterdir()) == []
    assert newcomer.home.stat().st_mode & 0o777 == 0o700

    first = demonstrated(newcomer)
    assert "rollover: installing requirements.lock" in first.stderr
    made_at = made_of.stat().st_mtime_ns

    second = demonstrated(newcomer)
    assert second.stderr == ""
    assert made_of.stat().st_mtime_ns == made_at
