"""The layer around the ports, for a real worker and for a history in process: it names every call, and lets go wrong what is due there."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from tests.crash.boundaries import ENGINE, LIMITER, SEALER, SINK, STORE, Kind, Position
from tests.crash.failures import Gives, failure
from tests.crash.hands import Hands

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rotation.ports import Ports
    from tests.crash.boundaries import Boundary, Fault


class Faults:
    """Stands between a worker and its ports. How it dies, waits and loses its connections is said by who inherits from this."""

    def __init__(self) -> None:
        self._hands = Hands()

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
        """Make the call, unless it is where something goes wrong."""
        boundary = self._hands.before(port, method, arguments)
        fault = self.due()
        if fault is not None and fault.position is Position.BEFORE and boundary.may_become(fault.boundary) and self.happens(fault):
            return self._failed(port, method, fault, act)
        result = act()
        boundary = self._hands.after(boundary, method, result)
        self.note(boundary)
        fault = self.due()  # a call that was made within this one may have met with another
        if fault is None or fault.position is Position.BEFORE or boundary != fault.boundary or not self.happens(fault):
            return result
        if fault.position is Position.LOST:
            return self._failed(port, method, fault, lambda: result)
        self.afterwards(port, fault)
        return result

    def _failed(self, port: str, method: str, fault: Fault, act: Callable[[], Any]) -> Any:  # noqa: ANN401 - what the call would give
        """It goes wrong in this call, of which nothing was done, or all."""
        if fault.kind is Kind.KILL:
            self.die()
        if fault.kind is Kind.TIMEOUT:
            self.wait()
        was_cut = fault.kind is Kind.RESET and self.disconnect(port)
        if was_cut and fault.position is Position.BEFORE:
            return act()  # which finds out by itself
        failed = failure(port, method, fault.position, fault.kind)
        if failed is None:
            if fault.kind is Kind.RESET and not was_cut:
                self.in_vain()
            return act()
        if isinstance(failed, Gives):
            return failed.answer
        raise failed

    # -- what differs

    def due(self) -> Fault | None:
        """What is to go wrong next."""
        raise NotImplementedError

    def happens(self, fault: Fault) -> bool:
        """Whether it is here and now: it happens once, in one thread."""
        raise NotImplementedError

    def note(self, boundary: Boundary) -> None:
        """A call was made, and nothing has gone wrong in it."""
        raise NotImplementedError

    def die(self) -> None:
        """The process ends here."""
        raise NotImplementedError

    def wait(self) -> None:
        """As long as a call may take."""
        raise NotImplementedError

    def disconnect(self, port: str) -> bool:
        """Cut every connection to the port's other side. Gives whether there was one."""
        raise NotImplementedError

    def afterwards(self, port: str, fault: Fault) -> None:
        """The caller has its answer, and then it happens: to the process, or to its connections."""
        raise NotImplementedError

    def in_vain(self) -> None:
        """What happened last has changed nothing for anybody."""
        raise NotImplementedError


class Watched:
    """A port whose every call goes through the faults."""

    def __init__(self, port: str, real: object, faults: Faults) -> None:
        self._port = port
        self._real = real
        self._faults = faults

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - it stands for every method of the port
        member = getattr(self._real, name)
        if not callable(member):
            return member

        def call(*arguments: object, **named: object) -> object:
            return self._faults.call(self._port, name, arguments, lambda: member(*arguments, **named))

        return call
