"""A TOML file on its way to a checked document: what stands in it, on which lines, and everything that is wrong with it so far.

So that all faults are told at once, whatever is wrong is put on record and replaced by something harmless, and the rest is checked on.
"""

from __future__ import annotations

import json
import re
import tomllib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel, ValidationError

from rotation.errors import Fault, Invalid
from worker.documents import (
    ENDPOINTS,
    CurrentDocument,
    DatabaseDocument,
    EndpointDocument,
    PolicyDocument,
    ResourceDocument,
    SecretDocument,
)
from worker.faults import did_you_mean, told
from worker.toml_lines import line_of, lines_of

if TYPE_CHECKING:
    import pathlib
    from collections.abc import Iterable, Iterator, Mapping

    from pydantic_core import ErrorDetails

    from worker.toml_lines import Path

Document = TypeVar("Document", bound=BaseModel)

LARGEST_FILE = 512 * 1024
"""Bytes: Vercel takes 64 KB of values, so nothing larger is a resource."""
_BARE = re.compile(r"[A-Za-z0-9_-]{1,64}")
_LONGEST_SHOWN = 64
_MOST_ROUNDS = 8
"""A table within a table within a list is three deep; each round mends one level or more."""

_TABLES: Mapping[type[BaseModel], Mapping[str, type[BaseModel]]] = {
    ResourceDocument: {"database": DatabaseDocument, "policy": PolicyDocument, "secrets": SecretDocument, "current": CurrentDocument},
    DatabaseDocument: {ENDPOINTS: EndpointDocument},
}
_HARMLESS: Mapping[str, object] = {
    "installation": "x",
    "id": "x",
    "product": "x",
    "engine": "x",
    "owns_all_secrets": False,
    "server": "x",
    "name": "x",
    "owner_role": "x",
    "login_prefix": "x",
    "host": "x.invalid",
    "port": 1,
    "value": "{password}",
    "username": "x",
    "database": {},
}
"""What stands in for a required key that is missing or wrong while the rest is checked."""

_ADVICE = {
    "owns_all_secrets": (
        "true: each push replaces the resource's whole set of variables; false: it touches only those named in this file. "
        "There is no default, because a wrong guess would delete the customer's other variables"
    ),
}


@dataclass(slots=True)
class Reading:
    """What was read of a file so far. Values may be secrets and are not shown."""

    data: dict[str, Any] = field(repr=False)
    lines: Mapping[Path, int] = field(repr=False)
    faults: list[Fault] = field(default_factory=list)
    broken: set[Path] = field(default_factory=set)

    def extend(self, faults: Iterable[Fault]) -> None:
        """Put more faults on record, except those that only follow from one that is there already."""
        for fault in faults:
            path = _path(fault.field)
            if not any(path[: len(known)] == known or known[: len(path)] == path for known in self.broken):
                self.faults += self.located([fault])

    def located(self, faults: Iterable[Fault]) -> Iterator[Fault]:
        """The same faults with their lines."""
        for fault in faults:
            line = line_of(self.lines, _path(fault.field))
            yield Fault(f"{fault.field} (line {line})" if line else fault.field, fault.problem, fault.advice)

    def stop_if_wrong(self) -> None:
        """Raises `Invalid` with all faults."""
        if self.faults:
            raise self.refusal()

    def refusal(self) -> Invalid:
        """All faults, in the order of the file."""
        return Invalid(sorted(self.faults, key=_line))


def text_of(path: pathlib.Path) -> str:
    """The text of a file that a person named. Raises `Invalid`."""
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST_FILE + 1)
        if len(content) > LARGEST_FILE:
            raise Invalid([Fault(str(path), "is too large for such a file")])
        return content.decode()
    except OSError as error:
        raise Invalid([Fault(str(path), f"cannot be read: {error.strerror}")]) from None
    except UnicodeDecodeError:
        raise Invalid([Fault(str(path), "is not text in UTF-8")]) from None


def parsed(text: str) -> Reading:
    """The TOML of a text. Raises `Invalid` when it is none; the parser stops at the first fault."""
    try:
        data = tomllib.loads(text)
    except RecursionError:
        raise Invalid([Fault("file", "is not TOML that can be read: nested too deeply")]) from None
    except ValueError as error:  # also a number that is too long
        place = re.search(r"\(at ([^)]*)\)\Z", str(error))
        raise Invalid([Fault(place[1] if place else "file", f"is not TOML: {_syntax(error)}")]) from None
    return Reading(data, lines_of(text.replace("\r\n", "\n")))


def _syntax(error: ValueError) -> str:
    """What the parser says; it quotes keys and single characters, never values."""
    if not isinstance(error, tomllib.TOMLDecodeError):
        return "a number is too long"
    return re.sub(r"\s*\(at [^)]*\)\Z", "", str(error))


def checked(document: type[Document], reading: Reading) -> Document:
    """What was read as a document, with its faults put on record and something harmless in their places."""
    for _ in range(_MOST_ROUNDS):
        try:
            return document.model_validate(reading.data)
        except ValidationError as error:
            for one in error.errors(include_url=False, include_input=False):
                path = tuple(part for part in one["loc"] if part != ENDPOINTS)
                reading.extend([_fault(document, path, one)])
                reading.broken.add(path)
                _mend(reading.data, path, known=one["type"] != "extra_forbidden")
    raise reading.refusal()


def _mend(data: Any, path: Path, *, known: bool) -> None:  # noqa: ANN401  # whatever TOML holds
    for part in path[:-1]:
        data = data[part]
    last = path[-1]
    if isinstance(data, list):
        data[int(last)] = {}
    elif known and last in _HARMLESS:
        data[last] = _HARMLESS[str(last)]
    else:
        data.pop(last, None)


def _fault(document: type[BaseModel], path: Path, error: ErrorDetails) -> Fault:
    name = "".join(f"[{part}]" if isinstance(part, int) else f".{shown(part)}" for part in path).removeprefix(".")
    key = str(path[-1])
    advice = _unknown(document, path) if error["type"] == "extra_forbidden" else _ADVICE.get(key, "")
    return Fault(name, told(error), advice)


def shown(key: str) -> str:
    """A key as it would be written in a file; what a terminal might obey is escaped."""
    return key if _BARE.fullmatch(key) else json.dumps(key[:_LONGEST_SHOWN])


def _unknown(document: type[BaseModel], path: Path) -> str:
    """Where a key that is not known here belongs, or what it was perhaps meant to be."""
    key = str(path[-1])
    here = _table(document, path)
    if here is not document and key in document.model_fields:
        return "it belongs at the top of the file, before the first table"
    for name, table in _TABLES.get(document, {}).items():
        if table is not here and key in table.model_fields:
            return f"it belongs into [[{name}]]" if name == "secrets" else f"it belongs into [{name}]"
    return did_you_mean(key, here.model_fields)


def _table(document: type[BaseModel], path: Path) -> type[BaseModel]:
    """The class of the table that holds the last key of the path."""
    names = [part for part in path[:-1] if isinstance(part, str)]
    for name in names:
        tables = _TABLES.get(document, {})
        document = tables.get(name, tables.get(ENDPOINTS, document))
    return document


def _path(name: str) -> Path:
    """`secrets[0].value` as a path."""
    return tuple(int(part[1:-1]) if part.startswith("[") else part for part in re.findall(r"\[\d+\]|[^.\[\]]+", name))


def _line(fault: Fault) -> int:
    found = re.search(r"\(line (\d+)\)\Z", fault.field)
    return int(found[1]) if found else 0
