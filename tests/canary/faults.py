"""Faults at the ports of a real worker, ordered by a test: what an adapter may answer, and what nobody expects."""

from __future__ import annotations

from dataclasses import replace
from enum import StrEnum
from functools import partial
from typing import TYPE_CHECKING, Any, Never

from rotation.engines import scram
from rotation.errors import Fault, Invalid, OutcomeUnknown, Refused, Unavailable
from rotation.model import Login, Resource, Server
from rotation.sensitive import Sensitive
from tests.canary.needles import CANARY, CanaryEntropy

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from rotation.errors import RolloverError
    from rotation.ports import Ports

OTHER = Sensitive(f"{CANARY}IsNotThePasswordOfAnybody")


class Kind(StrEnum):
    """What happens to a call."""

    REFUSED = "refused"
    UNAVAILABLE = "unavailable"
    UNKNOWN = "unknown"
    LOST = "lost"
    """It is done, and its answer is lost."""
    INVALID = "invalid"
    CRASH = "crash"
    """An exception that nothing foresees, with secrets in the local variables of every frame."""
    WRONG = "wrong"
    """It is done with another password."""


class Orders:
    """Faults that were ordered, each a file that the first worker who meets it takes away."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def order(self, subject: str, faults: Mapping[str, Kind]) -> None:
        """The next of each of these calls about a resource (by the provider's id) or a server (by its name) goes wrong."""
        for call, kind in faults.items():
            (self._directory / f"{subject} {call} {kind}").touch()

    def take(self, subject: str, call: str) -> Kind | None:
        """What this call is to come to, if anything was ordered for it."""
        for path in sorted(self._directory.glob(f"{subject} {call} *")):
            try:
                path.unlink()
            except FileNotFoundError:
                continue  # another thread was faster
            return Kind(path.name.rpartition(" ")[2])
        return None

    def left(self) -> list[str]:
        """What nobody has met yet."""
        return sorted(path.name for path in self._directory.iterdir())


def failing(ports: Ports, orders: Orders) -> Ports:
    """The same ports, with engines and sink that fail as ordered, and passwords that begin with the canary."""
    engines = {name: Failing(engine, "engine", orders) for name, engine in ports.engines.items()}
    return replace(ports, engines=engines, sink=Failing(ports.sink, "sink", orders), entropy=CanaryEntropy())


class Failing:
    """A port of which calls fail as ordered."""

    def __init__(self, port: object, name: str, orders: Orders) -> None:
        self._port = port
        self._name = name
        self._orders = orders

    def __getattr__(self, method: str) -> Any:  # noqa: ANN401 - whatever the port has
        real = getattr(self._port, method)
        return partial(self._call, f"{self._name}.{method}", real) if callable(real) else real

    def _call(self, call: str, real: Callable[..., object], about: object, *given: object, **named: object) -> object:
        kind = self._orders.take(_subject(about), call)
        if kind is None:
            return real(about, *given, **named)
        if kind is Kind.WRONG:
            return real(about, *map(_other, given), **named)
        if kind is Kind.LOST:
            real(about, *given, **named)
        if kind is Kind.CRASH:
            _crash(about, *given)
        error = ANSWERS[kind]()
        raise error


ANSWERS: Mapping[Kind, Callable[[], RolloverError]] = {
    Kind.REFUSED: lambda: Refused("refused as ordered", advice="order something else"),
    Kind.UNAVAILABLE: lambda: Unavailable("unavailable as ordered"),
    Kind.UNKNOWN: lambda: OutcomeUnknown("unknown as ordered"),
    Kind.LOST: lambda: OutcomeUnknown("the answer was lost, as ordered"),
    Kind.INVALID: lambda: Invalid([Fault("secrets", "cannot be rendered, as ordered")]),
}


def _crash(*given: object) -> Never:
    """A bug, of ours or a library's: the cause has the secrets in its locals as well."""
    password = OTHER.reveal()
    url = f"postgresql://orders:{password}@db.example.com/orders"
    values = {"DATABASE_URL": url, "given": given}
    try:
        int(values.pop("missing", "no number"))  # type: ignore[call-overload]  # the bug
    except ValueError as cause:
        raise LookupError("a bug, as ordered") from cause
    raise AssertionError(url)


def _subject(about: object) -> str:
    match about:
        case Resource():
            return about.spec.external_id
        case Server():
            return about.name
        case _:
            return ""


def _other(given: object) -> object:
    match given:
        case Sensitive():
            return scram.verifier(OTHER, scram.Salting(CanaryEntropy().bytes(scram.SALT_BYTES)))
        case Login():
            return Login(given.username, OTHER)
        case _:
            return given
