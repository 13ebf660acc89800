"""Reads the variables that begin with ROLLOVER_, and the files that hold secrets for them."""

from __future__ import annotations

import os
import pwd
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from rotation.errors import Fault
from worker.faults import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

PREFIX = "ROLLOVER_"
LARGEST_SECRET = 64 * 1024
"""Bytes of a file that holds a secret; more is some other file."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a setting came from; `path` is the file of a secret that came from one."""

    source: str
    path: Path | None = None


@dataclass(frozen=True, slots=True)
class Variables:
    """What was found, by the settings' names in lower case, and what was wrong. The values may be secrets and are not shown."""

    values: Mapping[str, str]
    origins: Mapping[str, Origin]
    faults: tuple[Fault, ...]

    def __repr__(self) -> str:
        """The names alone."""
        return f"Variables({', '.join(sorted(self.values))})"

    def without(self, names: Collection[str]) -> Variables:
        """The same with some left out, so that what is right can be checked further. The data directory is needed: / stands for it."""
        kept = {name: value for name, value in self.values.items() if name not in names}
        return replace(self, values={"data_dir": "/"} | kept)


class UnreadableSecretError(Exception):
    """The file of a secret cannot be used; says why, never what is in it."""


def read_variables(environ: Mapping[str, str], names: Collection[str], secrets: Collection[str]) -> Variables:
    """Everything in `environ` that is ours. `names` are the settings, `secrets` those that a `_FILE` variable may hold instead."""
    found = {name: value for name, value in environ.items() if name.startswith(PREFIX) and value.strip()}
    values: dict[str, str] = {}
    origins: dict[str, Origin] = {}
    faults: list[Fault] = []
    files = {_variable(name) + "_FILE": name for name in secrets}
    plain = {_variable(name): name for name in names}
    for variable, value in sorted(found.items()):
        if variable in plain:
            values[plain[variable]] = value
            origins[plain[variable]] = Origin("environment")
        elif variable not in files:
            faults.append(Fault(variable, "is no setting", did_you_mean(variable, (*plain, *files))))
    for variable, name in sorted(files.items()):
        if variable not in found:
            continue
        if name in values:
            faults.append(Fault(variable, f"is set together with {_variable(name)}", "set one of the two"))
            continue
        try:
            values[name] = read_secret(Path(found[variable]))
            origins[name] = Origin("file", Path(found[variable]).absolute())
        except UnreadableSecretError as error:
            faults.append(Fault(variable, str(error), "name a file that holds the secret and nothing else"))
    if "data_dir" not in values:
        values["data_dir"] = str(default_data_dir(environ))
    return Variables(values, origins, tuple(faults))


def read_secret(path: Path) -> str:
    """The text of a secret's file without one line end. Raises `UnreadableSecretError`."""
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST_SECRET + 1)
    except OSError as error:
        raise UnreadableSecretError(f"names a file that cannot be read: {error.strerror}") from None
    if len(content) > LARGEST_SECRET:
        raise UnreadableSecretError("names a file that is too large for a secret")
    try:
        text = content.decode()
    except UnicodeDecodeError:
        raise UnreadableSecretError("names a file that is not text") from None
    text = text.removesuffix("\n").removesuffix("\r")
    if not text.strip():
        raise UnreadableSecretError("names an empty file")
    if "\x00" in text:
        raise UnreadableSecretError("names a file that is not text")
    return text


def default_data_dir(environ: Mapping[str, str]) -> Path:
    """`$XDG_STATE_HOME/rollover`, else `~/.local/state/rollover`. A relative XDG_STATE_HOME does not count, as its specification asks."""
    state = Path(environ.get("XDG_STATE_HOME", ""))
    if state.is_absolute():
        return state / "rollover"
    home = Path(environ.get("HOME", ""))
    if not home.is_absolute():
        home = Path(pwd.getpwuid(os.getuid()).pw_dir)
    return home / ".local" / "state" / "rollover"


def _variable(name: str) -> str:
    return PREFIX + name.upper()
