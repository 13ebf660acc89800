"""The layer around the ports of a crashing worker: it writes down every call, and lets one fault happen, once."""

from __future__ import annotations

import os
import signal
import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from tests.crash.boundaries import BROKER, ENGINE, LIMITER, SEALER, SINK, STORE, Fault, Kind, Position
from tests.crash.cables import cut
from tests.crash.failures import Gives, failure
from tests.crash.hands import Hands

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import timedelta

    from rotation.ports import Ports
    from tests.crash.journal import Journal

GOES_ON_FOR = 0.005
"""Seconds at most between an answer and a SIGKILL `after` it: the worker dies in the middle of what it does next."""


class Injector:
    """Stands between a worker and its ports. `servers` are the TCP ports by the name of the port; `patience` is how long a call may take.

    `chance`, from [0, 1), draws how far a worker gets before it is killed after a call.
    """

    def __init__(self, journal: Journal, fault: Fault | None, servers: Mapping[str, int], patience: timedelta, chance: float) -> None:
        self._journal = journal
        self._fault = fault
        self._servers = servers
        self._patience = patience.total_seconds()
        self._chance = chance
        self._hands = Hands()
        self._still_to_come = threading.Lock()
        """Taken by the thread in which the fault happens."""
        self._next_fails: dict[str, Kind] = {}

    def around(self, ports: Ports) -> Ports:
        """The same ports, watched."""
        return replace(
            ports,
            store=self.watched(STORE, ports.store),
            engines={kind: self.watched(ENGINE, engine) for kind, engine in ports.engines.items()},
            sink=self.watched(SINK, ports.sink),
            sealer=self.watched(SEALER, ports.sealer),
            limiter=self.watched(LIMITER, ports.limiter),
        )

    def watched(self, port: str, real: object) -> Any:  # noqa: ANN401 - it stands for any port
        return Watched(port, real, self)

    def call(self, port: str, method: str, arguments: Sequence[object], act: Callable[[], Any]) -> Any:  # noqa: ANN401 - as above
        """Make the call, unless it is where the worker dies."""
        boundary = self._hands.before(port, method, arguments)
        fault = self._fault
        if fault is not None and fault.position is Position.BEFORE and boundary.may_become(fault.boundary) and self._happens():
            return self._instead(port, method, fault, act)
        if port in self._next_fails:
            kind = self._next_fails.pop(port)
            return self._failed(port, method, Position.BEFORE, kind, act)
        result = act()
        boundary = self._hands.after(boundary, method, result)
        self._journal.passed(boundary)
        if fault is not None and fault.position is not Position.BEFORE and boundary == fault.boundary and self._happens():
            return self._lost(port, method, fault, result) if fault.position is Position.LOST else self._afterwards(port, fault, result)
        return result

    def broker(self, method: str, act: Callable[..., Any]) -> Callable[..., Any]:
        """A function that talks to the broker, watched. Sending nothing is no call."""

        def call(*arguments: Any, **named: Any) -> Any:  # noqa: ANN401 - it stands for any function
            if method == "send" and not arguments[-1]:
                return act(*arguments, **named)
            return self.call(BROKER, method, arguments, lambda: act(*arguments, **named))

        return call

    def _happens(self) -> bool:
        """Whether it is here and now: it happens once, in one thread."""
        if not self._still_to_come.acquire(blocking=False):
            return False
        self._journal.fired()
        return True

    def _instead(self, port: str, method: str, fault: Fault, act: Callable[[], Any]) -> Any:  # noqa: ANN401 - what the call would give
        """Nothing of it was done; a connection that was cut is found out by the call itself."""
        if fault.kind is Kind.KILL:
            _die()
        return self._failed(port, method, Position.BEFORE, fault.kind, act)

    def _lost(self, port: str, method: str, fault: Fault, result: object) -> object:
        """It was done, and the caller is told otherwise."""
        if fault.kind is Kind.KILL:
            _die()
        if fault.kind is Kind.RESET:
            cut(self._servers[port])
        return self._failed(port, method, Position.LOST, fault.kind, lambda: result)

    def _afterwards(self, port: str, fault: Fault, result: object) -> object:
        """The caller has its answer, and then it happens: to the process, to the connections, to the next call of that port."""
        if fault.kind is Kind.KILL:
            threading.Thread(target=_die, args=(self._chance * GOES_ON_FOR,), daemon=True).start()
        elif fault.kind is Kind.RESET:
            cut(self._servers[port])
        else:
            self._next_fails[port] = fault.kind
        return result

    def _failed(self, port: str, method: str, position: Position, kind: Kind, act: Callable[[], Any]) -> Any:  # noqa: ANN401 - as above
        if position is Position.BEFORE and kind is Kind.RESET:
            cut(self._servers[port])
            return act()
        if kind is Kind.TIMEOUT:
            time.sleep(self._patience)
        failed = failure(port, method, position, kind)
        if failed is None:
            return act()
        if isinstance(failed, Gives):
            return failed.answer
        raise failed


class Watched:
    """A port whose every call goes through the injector."""

    def __init__(self, port: str, real: object, injector: Injector) -> None:
        self._port = port
        self._real = real
        self._injector = injector

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - it stands for every method of the port
        member = getattr(self._real, name)
        if not callable(member):
            return member

        def call(*arguments: object, **named: object) -> object:
            return self._injector.call(self._port, name, arguments, lambda: member(*arguments, **named))

        return call


def _die(after: float = 0.0) -> None:
    time.sleep(after)
    os.kill(os.getpid(), signal.SIGKILL)
