"""The ports as one machine sees them. Every call is a boundary: before its effect and after it others may go on, and it may go wrong.

A call that goes wrong before its effect has had none. After it, the effect is there and the answer lost. An act on a database may
also be lost on its way and arrive later, when nobody waits for it any more.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from rotation.cases import CredentialCase, Deadline, RotationCase
from rotation.engines.server_clocks import ServerClocks
from rotation.errors import OutcomeUnknown, Refused, Unavailable
from rotation.model import PushOutcome, PushVerdict
from tests.simulation.clocks import START

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rotation.model import Installation, RenderedSecret, Resource, Server
    from tests.simulation.processes import Machine
    from tests.simulation.world import World

WRITES = (
    "record_rotation",
    "record_credential",
    "open_attempt",
    "amend",
    "note_look",
    "note_tried",
    "note_astray",
    "begin_mending",
    "leave_mending",
    "end_mending",
    "raise_alarm",
)
READS = (
    "now",
    "claim_rotation",
    "claim_credential",
    "due_resources",
    "due_rotations",
    "due_credentials",
    "due_servers",
    "due_looks",
    "owed_logins",
    "credentials_by_id",
    "standings",
    "server",
    "resource",
    "see",
)
ACTS = ("admit", "block", "unblock", "withdraw")
LOOKS = ("check", "parity", "prove_refused")
LOOKS_AT_SERVERS = ("usage", "list_logins", "find_logins")
LAST_BOUNDARY = "between the last check and the first byte"


class StorePort:
    """The store. While it is down nothing of it answers."""

    def __init__(self, world: World, machine: Machine) -> None:
        self._world = world
        self._machine = machine
        self._real: Any = world.store
        for name in READS:
            setattr(self, name, self._call(name, writes=False))
        for name in WRITES:
            setattr(self, name, self._call(name, writes=True))

    def _call(self, name: str, *, writes: bool) -> Callable[..., object]:
        real, world, machine = getattr(self._real, name), self._world, self._machine
        before, after = f"before store.{name}", f"after store.{name}"
        raises_after: type[Unavailable | OutcomeUnknown] = OutcomeUnknown if writes else Unavailable

        def call(*args: object, **kwargs: object) -> object:
            world.boundary(machine, before)
            if world.store_is_down or world.goes_wrong(before):
                raise Unavailable(before)
            result = real(*args, **kwargs)
            if writes:
                world.written(name, args, result)
            if machine.clock.missed and isinstance(result, RotationCase | CredentialCase):
                result = replace(result, claim=machine.own(result.claim))
            world.boundary(machine, after)
            if world.goes_wrong(after):
                raise raises_after(after)
            return result

        return call

    def may_send(self, *args: object) -> bool:
        """Any doubt is a no."""
        self._world.boundary(self._machine, "before store.may_send", self._world.conditions.before_sending)
        if self._world.store_is_down:
            return False
        return bool(self._real.may_send(*args))


class EnginePort:
    """The customers' databases. An act is judged late by the server's own clock, from a reading of it that may be half a minute old."""

    def __init__(self, world: World, machine: Machine) -> None:
        self._world = world
        self._machine = machine
        self._real: Any = world.engine
        self._clocks = ServerClocks(machine.clock)
        self.capabilities = world.engine.capabilities
        self.mint = world.engine.mint
        self.verifier = world.engine.verifier
        for name in ACTS:
            setattr(self, name, self._act(name))
        for name in LOOKS:
            setattr(self, name, self._look(name))
        for name in LOOKS_AT_SERVERS:
            setattr(self, name, self._look(name, of_server=True))

    def _look(self, name: str, *, of_server: bool = False) -> Callable[..., object]:
        real, world, machine = getattr(self._real, name), self._world, self._machine
        before, after = f"before engine.{name}", f"after engine.{name}"

        def call(subject: Resource | Server, *args: Any) -> object:  # noqa: ANN401  # those of the port
            world.boundary(machine, before)
            if world.goes_wrong(before):
                raise Unavailable(before)
            self._read_clock(subject if of_server else subject.server)  # type: ignore[union-attr,arg-type]  # one or the other
            *inputs, deadline = args
            result = real(subject, *inputs, Deadline(deadline.at + machine.clock.missed))
            if name == "prove_refused":
                world.brought_back.pop(inputs[0].username, None)
            world.boundary(machine, after)
            return result

        return call

    def _act(self, name: str) -> Callable[..., object]:
        real, world, machine = getattr(self._real, name), self._world, self._machine
        before, after = f"before engine.{name}", f"after engine.{name}"

        def call(resource: Resource, *args: Any) -> object:  # noqa: ANN401  # those of the port
            *inputs, deadline = args
            server = world.engine.server(resource.server.name)
            limit = self._clocks.limit(resource.server, deadline, name, lambda: self._read_clock(resource.server))
            world.boundary(machine, before)
            if world.goes_wrong(before):
                raise world.draw.choice((Refused(before), Unavailable(before)))

            def effect() -> object:
                # By the server's clock, which may have been set since it was read.
                in_true_time = (limit - server.clock_ahead - START).total_seconds()
                before = set(server.roles)
                result = real(resource, *inputs, Deadline(in_true_time))
                world.made(server.roles.keys() - before)
                world.acted(name, resource, inputs)
                return result

            if world.goes_wrong(f"late engine.{name}", world.conditions.late):
                world.on_its_way(f"{name} by {machine.name}", effect)
                raise OutcomeUnknown("connection lost")
            result = effect()
            world.boundary(machine, after)
            if world.goes_wrong(after):
                raise OutcomeUnknown("connection lost")
            return result

        return call

    def _read_clock(self, server: Server) -> None:
        """By an answer of the server."""
        at = self._world.time.now() + self._world.engine.server(server.name).clock_ahead
        self._clocks.note(server, at, self._machine.clock.monotonic())


class SinkPort:
    """Vercel. What it answers is drawn; what it does may come later than its answer."""

    def __init__(self, world: World, machine: Machine) -> None:
        self._world = world
        self._machine = machine
        self.render, self.pause = world.sink.render, world.sink.pause

    def push(
        self,
        resource: Resource,
        installation: Installation,
        secrets: Sequence[RenderedSecret],
        may_send: Callable[[], bool],
        deadline: Deadline,
    ) -> PushOutcome:
        world, machine = self._world, self._machine
        world.boundary(machine, "before sink.push")

        def lets_it_go() -> bool:
            if not may_send():
                return False
            world.boundary(machine, LAST_BOUNDARY)
            return deadline.left(machine.clock.monotonic()) > 0

        world.sink.answers(world.answer())
        outcome = world.sink.push(resource, installation, secrets, lets_it_go, deadline)
        world.sink.script.clear()
        world.pushed(resource, secrets, outcome)
        world.boundary(machine, "after sink.push")
        if outcome.verdict is PushVerdict.APPLIED and world.goes_wrong("after sink.push"):
            return PushOutcome(PushVerdict.UNKNOWN, None, "connection lost")
        return outcome

    def resource_exists(self, resource: Resource, installation: Installation, deadline: Deadline) -> bool | None:
        self._world.boundary(self._machine, "before sink.resource_exists")
        exists = self._world.exists(resource)
        self._world.boundary(self._machine, "after sink.resource_exists")
        return exists


class LimiterPort:
    """The rate limit."""

    def __init__(self, world: World, machine: Machine) -> None:
        self._world = world
        self._machine = machine
        self.learn = world.limiter.learn

    def reserve(self, scope: str, *, urgent: bool) -> object:
        self._world.boundary(self._machine, "before limiter.reserve")
        place = self._world.limiter.reserve(scope, urgent=urgent)
        self._world.boundary(self._machine, "after limiter.reserve")
        return place
