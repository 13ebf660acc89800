"""Makes `.venv` hold what the lock files say; does nothing when it already does.

    python tools/environment.py runtime    what `rollover demo` needs: requirements.lock
    python tools/environment.py dev        the same, with the tools of requirements-dev.lock on top

It runs before anything is installed, so it uses the standard library only.

There is one environment in two layers. The development lock is resolved under the constraint of the other one, so it only adds to it, and
neither command undoes the other one's work.

What the environment was made of is written into it. So an interrupted installation, a changed lock, another Python and a moved checkout
(an environment holds absolute paths) all show as a difference, and it is made anew.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

ENVIRONMENT = Path(".venv")
MADE_OF = ENVIRONMENT / "made-of.json"
RUNTIME, DEV, PROJECT = "requirements.lock", "requirements-dev.lock", "pyproject.toml"
CALLERS_OWN = {"PIP_TARGET", "PIP_PREFIX", "PIP_ROOT", "PIP_REQUIRE_HASHES"}
UNFINISHED = "unfinished"
LAYERS = {"runtime": [RUNTIME], "dev": [RUNTIME, DEV]}


def main() -> None:
    """Make the layer that the first argument names."""
    if sys.argv[1:] not in [[layer] for layer in LAYERS]:
        sys.exit("usage: environment.py runtime|dev")
    with Path(PROJECT).open(encoding="utf-8") as one_at_a_time:
        fcntl.flock(one_at_a_time, fcntl.LOCK_EX)
        make(LAYERS[sys.argv[1]])


def make(locks: list[str]) -> None:
    """Bring the environment to these locks with as little work as its record allows; ends the program where that cannot be."""
    foundation = {"python": f"{sys.version} {sys.base_prefix}", "directory": str(Path.cwd())}
    record = read_record()
    moved = any(record.get(key) != value for key, value in foundation.items())
    due = [lock for lock in locks if record.get(lock) != digest(lock)]
    if not moved and not due and record.get(PROJECT) == digest(PROJECT):
        return
    in_the_way = obstacle()
    if in_the_way:
        sys.exit(f"rollover: {in_the_way}")
    if moved or UNFINISHED in record or any(lock in record for lock in due):
        create()
        record, due = foundation, locks
    for lock in due:
        sys.stderr.write(f"rollover: installing {lock} into {ENVIRONMENT}; this happens once\n")
        write_record(record | {UNFINISHED: lock})
        pip("--require-hashes", "-r", lock)
        record[lock] = digest(lock)
    # pip refuses an editable requirement among hashed ones; what builds it stands in the lock.
    pip("--no-deps", "--no-build-isolation", "-e", ".")
    write_record(record | {PROJECT: digest(PROJECT)})


def obstacle() -> str | None:
    """What keeps an environment from being made here, and what to do about it; None where nothing does."""
    here = str(Path.cwd())
    target = ENVIRONMENT.absolute() if ENVIRONMENT.exists() else here
    if ":" in here or here != here.rstrip() or any(ord(c) < ord(" ") or "\ud800" <= c <= "\udfff" for c in here):
        return f"Python cannot install below {here!r}: rename what has ':', control characters, a space at its end or no UTF-8"
    if None in (importlib.util.find_spec("venv"), importlib.util.find_spec("ensurepip")):
        return f"this Python comes without venv or ensurepip. On Debian and Ubuntu: apt install python3.{sys.version_info[1]}-venv"
    if not os.access(target, os.W_OK | os.X_OK):
        return f"this user may not write to {str(target)!r}. Work in a copy of your own: cp -R . ~/rollover && cd ~/rollover"
    return None


def read_record() -> dict[str, str]:
    """What the environment says it was made of; empty where it is missing or unfinished."""
    try:
        return dict(json.loads(MADE_OF.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return {}


def write_record(record: dict[str, str]) -> None:
    """Say in the environment what it is made of."""
    MADE_OF.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def create() -> None:
    """A new environment with nothing but pip, in place of whatever is there."""
    import venv  # noqa: PLC0415  may be missing where `obstacle` has to say so

    venv.EnvBuilder(clear=True, symlinks=True, with_pip=True).create(ENVIRONMENT)


def pip(*arguments: str) -> None:
    """Install with the environment's pip; ends the program with advice when it fails."""
    # The caller's configuration says where packages come from. It must not say where they go, or ask hashes of the project itself.
    surroundings = {name: value for name, value in os.environ.items() if name not in CALLERS_OWN} | {"PIP_USER": "0"}
    command = [str(ENVIRONMENT / "bin" / "python"), "-m", "pip", "install", "--quiet", "--no-input", "--disable-pip-version-check"]
    if subprocess.run([*command, *arguments], env=surroundings, check=False).returncode:  # noqa: S603  our own words and file names
        sys.exit(
            "rollover: pip failed, see above. It needs its package index, or the mirror that its configuration names,"
            " and a system for which there are wheels: Linux with glibc 2.28 or later, macOS"
        )


def digest(name: str) -> str:
    """The SHA-256 of a file of the project."""
    return hashlib.sha256(Path(name).read_bytes()).hexdigest()


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("rollover: interrupted; the next run begins the installation again")
