"""Random histories in which a server loses logins, and brings dead ones back, while everything else goes wrong as well.

What is lost is no broken promise until it is found; whatever else must hold holds at every instant, and at rest everything works again.
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from structlog.testing import capture_logs

from rotation import health
from rotation.errors import Conflict
from rotation.states import Stage, Trigger
from tests.fakes.engine import FakeRole
from tests.restless import ACTS, SECOND, Restless

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

COUNT = int(os.environ.get("ROLLOVER_HEALER_HISTORIES", "160"))
FIRST = int(os.environ.get("ROLLOVER_FIRST_HISTORY", "0"))
BATCHES = 4
SPOILED = "another password"


class Ailing(Restless):
    """A restless world whose server cannot be relied upon."""

    def __init__(self, seed: int) -> None:
        self.lost: set[str] = set()
        self.returned: set[str] = set()
        self.healed = 0
        super().__init__(seed)

    @property
    def roles(self) -> dict[str, FakeRole]:
        return self.engine.server("pg-1").roles

    def _something(self) -> None:
        act = self.draw.choices([None, lose, spoil, revive, look], [sum(ACTS.values()), 6, 4, 4, 25])[0]
        if act is None:
            super()._something()
            return
        self.tell(act.__name__)
        self._alive(lambda: act(self))

    def _boundary(self, name: str) -> None:
        super()._boundary(name)
        if self.restless and name == "after store.begin_mending" and self.depth < 2 and self.draw.random() < 0.3:
            self._is_overtaken()

    def _is_overtaken(self) -> None:
        """The healer stands still where it hurts most, while an emergency ends the very login."""
        self.depth += 1
        self.tell("the healer is overtaken")
        with suppress(Conflict):
            self._alive(lambda: self.rotate(Trigger.EMERGENCY))
        for _ in range(4):
            self.sweep()
            self.clock.advance(self.draw.choice((timedelta(0), SECOND, 4 * SECOND)))
        self.depth -= 1

    def sweep(self) -> None:
        self._alive(lambda: look(self) if self.store.due_looks(1) else None)
        super().sweep()

    def _next_due(self) -> datetime | None:
        """A server is looked at every minute, and there is no date for that: it matters only while something is astray."""
        due = super()._next_due()
        astray = self.lost or self.returned
        return min(due or self.clock.now() + timedelta(minutes=1), self.clock.now() + timedelta(minutes=1)) if astray else due

    def check(self) -> None:
        """With those aside that the server has lost, or brought back, and that nobody has found yet."""
        self._forget_what_is_right_again()
        before = dict(self.roles)
        for name in self._names_of_the_living():
            if name in self.lost:
                self.roles[name] = FakeRole(name, SPOILED)
        for name in self.returned:
            self.roles.pop(name, None)
        try:
            super().check()
        finally:
            self.roles.clear()
            self.roles.update(before)

    def _names_of_the_living(self) -> Iterator[str]:
        return (one.username for one in self.store.credentials.values() if one.stage not in (Stage.RETIRED, Stage.DISCARDED))

    def _forget_what_is_right_again(self) -> None:
        roles, living = self.roles, set(self._names_of_the_living())
        works = {name for name, role in roles.items() if role.can_log_in and role.verifier != SPOILED}
        right = {name for name in self.lost if name not in living or name in works}
        self.lost -= right
        self.returned -= {name for name in self.returned if name not in roles}

    def _check_punctual(self, began_at: datetime) -> None:
        """The end of an old login is proved while the current one gets in: a password that was changed is found when it is tried."""
        super()._check_punctual(began_at + self.store.terms.login_check + timedelta(minutes=6))

    def rest(self) -> None:
        super().rest()
        assert not self.lost, f"never healed: {self.lost}"
        assert not self.returned, f"never removed again: {self.returned}"


def lose(world: Ailing) -> None:
    ours = sorted(world.roles)
    if ours:
        name = world.draw.choice(ours)
        if name not in world.returned:
            world.lost.add(name)
        del world.roles[name]


def spoil(world: Ailing) -> None:
    ours = sorted(set(world.roles) - world.returned)
    if ours:
        name = world.draw.choice(ours)
        world.lost.add(name)
        changed = {"can_log_in": False} if world.draw.random() < 0.5 else {"verifier": SPOILED}
        world.roles[name] = replace(world.roles[name], **changed)


def revive(world: Ailing) -> None:
    dead = [one for one in world.store.credentials.values() if one.stage in (Stage.RETIRED, Stage.DISCARDED) and not one.adopted]
    if dead:
        one = world.draw.choice(dead)
        world.returned.add(one.username)
        world.roles[one.username] = FakeRole(one.username, "old", owner="orders_owner", marker=world.sealer.mark(one.id))


def look(world: Ailing) -> None:
    for one in health.look_after("pg-1", world.ports):
        world.healed += health.heal(one, world.ports)


def histories(batch: int) -> Iterator[Ailing]:
    for seed in range(FIRST + batch, FIRST + COUNT, BATCHES):
        world = Ailing(seed)
        try:
            with capture_logs():  # thousands of lines that nobody reads
                world.live(world.draw.choice((15, 30, 60)))
                world.rest()
        except BaseException as error:
            error.add_note(f"history {seed}:\n" + "\n".join(world.told))
            raise
        yield world


@pytest.mark.parametrize("batch", range(BATCHES))
def test_whatever_a_server_loses_or_brings_back_no_promise_is_broken_and_in_the_end_all_is_right(batch: int) -> None:
    assert sum(world.healed for world in histories(batch)) > COUNT // BATCHES // 2
