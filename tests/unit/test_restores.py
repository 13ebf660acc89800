"""A store that was set back: what it has lost is held, gone past, and ended only when Vercel has something newer for certain."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from structlog.testing import capture_logs

from rotation import health, requests
from rotation.errors import Conflict
from rotation.model import Event, Login
from rotation.reconciliation import after_restore, reconcile
from rotation.requests import Asked
from rotation.sensitive import Sensitive
from rotation.states import ResourceState, RotationState, Stage, Trigger
from tests.fakes import sink as answers
from tests.world import ADOPTED, SERVER, SPEC, World

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.fakes.store import FakeStore

MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)


def backup(store: FakeStore) -> dict[str, Any]:
    """All that the store holds, as it is now: its values are frozen."""
    return {name: _copied(value) for name, value in vars(store).items() if isinstance(value, dict | list)}


def restore(store: FakeStore, saved: dict[str, Any]) -> None:
    for name, value in saved.items():
        setattr(store, name, _copied(value))


def _copied(value: Any) -> Any:  # noqa: ANN401 - whatever the store holds
    copied = value.copy()
    for key, one in copied.items() if isinstance(copied, dict) else ():
        if isinstance(one, dict | list):
            copied[key] = one.copy()
    return copied


class SetBack(World):
    """A world whose boundaries are looked at from outside: what Vercel holds must log in, whatever the store believes."""

    saved: dict[str, Any] | None = None
    save_at: int | None = None
    before_sending: Callable[[], object] | None = None
    """What happens right before a push is sent."""

    def _boundary(self, name: str) -> None:
        self.boundaries.append(name)
        if name == "before store.may_send" and self.before_sending is not None:
            self.before_sending()
        if self.save_at is not None and len(self.boundaries) > self.save_at:
            self.save_at = None
            self.saved = backup(self.store)
        self.check()

    def check(self) -> None:
        held = self.held_login()
        assert held is None or self.logs_in(held), f"I1: Vercel holds {held}, which does not log in"

    def set_back(self) -> None:
        assert self.saved is not None
        restore(self.store, self.saved)
        self.store.holds.clear()

    def bring_on(self) -> None:
        for line in after_restore(SERVER, "test", self.ports, apply=True):
            assert line.mended, line

    def work(self, *, for_: timedelta) -> None:
        until = self.clock.now() + for_
        while self.clock.now() < until:
            for one in health.look_after("pg-1", self.ports):
                health.heal(one, self.ports)
            self.run(for_=MINUTE)


def ahead() -> SetBack:
    """A store that was set back by two rotations: the login that it calls current is gone, and Vercel holds one that it does not know."""
    world = SetBack()
    world.rotate()
    world.run()
    world.saved = backup(world.store)
    world.rotate()
    world.settle()
    world.rotate()
    world.run()
    assert world.stages()[-2:] == [Stage.PREVIOUS, Stage.CURRENT]
    world.set_back()
    return world


def test_a_resource_with_a_login_newer_than_its_rows_is_held_with_an_alarm() -> None:
    world = ahead()
    roles = dict(world.engine.server("pg-1").roles)

    with capture_logs() as lines:
        assert health.look_after("pg-1", world.ports) == ()

    alarms = [line["event"] for line in lines if line.get("alarm")]
    assert alarms.count("resource_held") == 1
    assert alarms.count("orphan_found") == 2
    resource = world.store.resource(world.resource_id)
    assert resource.state is ResourceState.PAUSED
    assert "newer than all that the store knows" in resource.held_because
    world.clock.advance(60 * DAY)
    world.work(for_=5 * MINUTE)
    assert world.engine.server("pg-1").roles == roles
    assert world.store.looks["pg-1"].orphans == 2


def offered_before() -> SetBack:
    """A store that was set back to an offer, which completed since, and whose login was retired since: Vercel holds a later one."""
    world = SetBack()
    world.sink.answers(answers.APPLIED_BUT_UNKNOWN)
    world.rotate()
    world.sweep()
    assert world.states() == [RotationState.OFFERED]
    world.saved = backup(world.store)
    world.settle()
    world.rotate()
    world.settle()
    world.set_back()
    return world


@pytest.mark.parametrize("paused", [True, False])
def test_what_was_offered_before_is_not_pushed_while_it_is_held(paused: bool) -> None:  # noqa: FBT001 - a parameter
    world = offered_before()
    if paused:
        requests.pause(world.resource_id, "test", "", world.ports)
    pushes = len(world.sink.pushes)

    health.look_after("pg-1", world.ports)
    world.run(for_=HOUR)

    assert len(world.sink.pushes) == pushes
    (rotation,) = world.store.rotations.values()
    assert rotation.state is RotationState.OFFERED
    assert "newer than all that the store knows" in rotation.problem
    assert rotation.advice == "`rollover reconcile --after-restore`"
    world.bring_on()
    if paused:
        assert world.store.resource(world.resource_id).state is ResourceState.PAUSED
        requests.resume(world.resource_id, "test", "", world.ports)
    world.settle()
    world.check_at_rest()


def test_who_is_about_to_push_when_it_is_held_does_not_send() -> None:
    world = offered_before()
    pushes = len(world.sink.pushes)
    world.before_sending = lambda: health.look_after("pg-1", world.ports)

    world.run(for_=HOUR)

    assert world.sink.not_sent == 1
    assert len(world.sink.pushes) == pushes


def test_what_is_held_is_neither_resumed_nor_rotated_by_a_person() -> None:
    world = ahead()
    health.look_after("pg-1", world.ports)

    with pytest.raises(Conflict, match="--after-restore"):
        requests.resume(world.resource_id, "test", "", world.ports)
    with pytest.raises(Conflict, match="--after-restore"):
        world.rotate(Trigger.EMERGENCY)


@pytest.mark.parametrize("noticed", [True, False])
def test_it_is_brought_on_and_only_what_vercel_holds_for_certain_is_left(noticed: bool) -> None:  # noqa: FBT001 - a parameter
    world = ahead()
    if noticed:
        health.look_after("pg-1", world.ports)
    held = world.held_login()
    assert held is not None

    world.bring_on()

    newest = [one for one in world.store.credentials.values() if one.stage is Stage.CURRENT]
    assert [one.username for one in newest] == [held.username]
    world.work(for_=12 * MINUTE)
    assert world.states()[-1] is RotationState.COMPLETED
    assert world.logs_in(held), "it was promised a grace by nobody, but late redeployers use it"
    assert max(one.generation for one in world.store.credentials.values()) == 5
    world.settle()
    world.check_at_rest()
    assert {one.stage for one in world.store.credentials.values()} == {Stage.CURRENT, Stage.RETIRED}


def test_nothing_is_pushed_before_a_push_of_before_has_expired() -> None:
    world = ahead()
    pushes = len(world.sink.pushes)
    world.bring_on()

    world.run(for_=world.store.terms.server_allowance)
    assert len(world.sink.pushes) == pushes

    world.run(for_=MINUTE)
    assert len(world.sink.pushes) == pushes + 1


def whoever_asks(world: SetBack) -> None:
    world.rotate()


def whoever_unparks(world: SetBack) -> None:
    world.store.park("icfg_1", "by hand", Event("installation_parked", "test"))
    world.store.unpark("icfg_1", Event("installation_unparked", "test"))


def whoever_resumes(world: SetBack) -> None:
    requests.pause(world.resource_id, "test", "", world.ports)
    requests.resume(world.resource_id, "test", "", world.ports)


@pytest.mark.parametrize("wake", [whoever_asks, whoever_unparks, whoever_resumes])
@pytest.mark.parametrize("lost", ["with its login", "with its attempt"])
def test_whoever_wakes_the_rotation_a_push_of_before_is_waited_for(wake: Callable[[SetBack], None], lost: str) -> None:
    world = ahead() if lost == "with its login" else offered_before()
    world.bring_on()
    before = world.held_login()
    assert before is not None
    held = dict(world.sink.held["icfg_1", "store_42"])
    world.run(for_=MINUTE)
    pushes = len(world.sink.pushes)

    wake(world)
    world.run(for_=MINUTE)

    assert len(world.sink.pushes) == pushes + 1
    assert world.states()[-1] is RotationState.OFFERED
    world.sink.held["icfg_1", "store_42"] = held  # the push of before arrives
    world.run(for_=world.store.terms.server_allowance)
    assert world.states()[-1] is RotationState.COMPLETED
    after = world.held_login()
    assert after is not None
    assert after.username == next(one.username for one in world.store.credentials.values() if one.stage is Stage.CURRENT)
    world.settle()
    world.check_at_rest()


def test_a_refused_rotation_is_given_up_whatever_push_was_presumed() -> None:
    world = SetBack()
    world.saved = backup(world.store)
    world.rotate()
    world.settle()
    world.set_back()
    world.bring_on()
    assert world.stages() == [Stage.PREVIOUS, Stage.CURRENT]

    world.sink.answers(answers.REFUSED)
    world.run(for_=10 * MINUTE)

    assert world.states() == [RotationState.FAILED]


def test_without_apply_nothing_is_changed() -> None:
    world = ahead()
    events = len(world.store.events)

    lines = after_restore(SERVER, "test", world.ports, apply=False)

    assert [one.mended for one in lines] == [None]
    assert len(world.store.events) == events


def test_bringing_on_twice_is_bringing_on_once() -> None:
    world = ahead()
    world.bring_on()
    credentials = len(world.store.credentials)

    assert after_restore(SERVER, "test", world.ports, apply=True) == ()
    assert len(world.store.credentials) == credentials


def test_a_store_that_was_not_set_back_has_nothing_to_bring_on() -> None:
    world = SetBack()
    world.rotate()
    world.run()
    assert after_restore(SERVER, "test", world.ports, apply=True) == ()


def test_what_a_person_has_paused_stays_paused() -> None:
    world = SetBack()
    world.rotate()
    world.run()
    requests.pause(world.resource_id, "test", "", world.ports)
    world.saved = backup(world.store)
    requests.resume(world.resource_id, "test", "", world.ports)
    world.rotate()
    world.run()
    world.set_back()
    health.look_after("pg-1", world.ports)

    (line,) = after_restore(SERVER, "test", world.ports, apply=True)

    assert "rollover resource resume" in line.remedy
    assert world.store.resource(world.resource_id).state is ResourceState.PAUSED
    requests.resume(world.resource_id, "test", "", world.ports)
    world.settle()
    world.check_at_rest()


def test_a_compromised_login_that_was_removed_after_the_backup_is_not_made_again() -> None:
    world = SetBack()
    world.saved = backup(world.store)
    world.rotate(Trigger.EMERGENCY)
    world.settle()
    world.set_back()

    world.work(for_=3 * MINUTE)
    assert not world.logs_in(ADOPTED)
    world.bring_on()
    world.work(for_=30 * HOUR)
    world.settle()

    assert not world.logs_in(ADOPTED)
    world.check_at_rest()


def test_a_login_without_a_resource_is_only_told() -> None:
    world = SetBack()
    roles = world.engine.server("pg-1").roles
    username = "others_g3_0123456789abcdef"
    world.engine.add_login("pg-1", username, "x")
    roles[username] = type(roles[username])(username, "x", marker=world.sealer.mark("cred_lost"))

    (line,) = reconcile(SERVER, world.ports, apply=True)

    assert (line.kind, line.login, line.mended) == ("orphan", username, None)
    assert "by hand" in line.remedy
    assert username in roles


def adopts(world: SetBack, username: str, prefix: str) -> str:
    """A person registers a resource with a login that we made and know no more."""
    password = Sensitive("the password that its customer uses")
    spec = replace(SPEC, external_id="store_43", database=replace(SPEC.database, name=prefix, login_prefix=prefix))
    return requests.register(spec, Login(username, password), "test", world.ports).id


def test_a_login_that_was_made_after_the_backup_is_adopted_and_goes_on() -> None:
    world = SetBack()
    username, roles = "acme_g5_0123456789abcdef", world.engine.server("pg-1").roles
    world.engine.add_login("pg-1", username, "the password that its customer uses")
    roles[username] = replace(roles[username], marker=world.sealer.mark("cred_lost"), owner=SPEC.database.owner_role)
    assert [one.kind for one in reconcile(SERVER, world.ports, apply=False)] == ["orphan"]

    resource_id = adopts(world, username, "acme")

    with capture_logs() as lines:
        assert health.look_after("pg-1", world.ports) == ()
    assert not lines
    assert reconcile(SERVER, world.ports, apply=True) == ()
    assert after_restore(SERVER, "test", world.ports, apply=True) == ()
    requests.trigger(resource_id, Asked(Trigger.MANUAL, "test"), world.ports)
    for _ in range(30):
        world.work(for_=MINUTE)
        world.clock.advance(HOUR)
        assert world.store.resource(resource_id).state is ResourceState.ACTIVE
    assert username not in roles


def test_what_cannot_be_brought_on_is_told_and_keeps_no_other_waiting() -> None:
    world = ahead()
    username = next(name for name in world.engine.server("pg-1").roles if "_g4_" in name)
    other = adopts(world, username, "other")
    (adopted,) = (one for one in world.store.credentials.values() if one.username == username)
    world.store.credentials[adopted.id] = replace(adopted, adopted=False)
    world.sink.answers(answers.APPLIED_BUT_UNKNOWN)
    requests.trigger(other, Asked(Trigger.MANUAL, "test"), world.ports)
    world.sweep()

    lines = after_restore(SERVER, "test", world.ports, apply=True)

    assert [(one.resource_id, one.mended) for one in lines] == [(world.resource_id, False), (other, True)]
    assert "belongs to another credential" in lines[0].problem


def shares_its_prefix(world: SetBack, generation: int) -> str:
    """Another resource that names its logins alike, as a store of before may have one."""
    world.engine.add_login("pg-1", "other_app", "the password that its customer uses")
    other = adopts(world, "other_app", "other")
    resource = world.store.resource(other)
    world.store.resources[other] = replace(
        resource, spec=replace(resource.spec, database=replace(resource.spec.database, login_prefix=SPEC.database.login_prefix))
    )
    (row,) = (one for one in world.store.credentials.values() if one.resource_id == other)
    world.store.credentials[row.id] = replace(row, generation=generation)
    return other


def test_only_what_was_set_back_is_held_when_another_resource_names_its_logins_alike() -> None:
    world = ahead()
    other = shares_its_prefix(world, generation=9)

    health.look_after("pg-1", world.ports)

    assert world.store.resource(world.resource_id).held_because
    assert world.store.resource(other).state is ResourceState.ACTIVE
    world.bring_on()
    world.work(for_=12 * MINUTE)
    assert world.states()[-1] is RotationState.COMPLETED


def test_what_may_be_either_ones_login_is_told_and_neither_goes_on_before_a_person_says_whose_it_is() -> None:
    world = ahead()
    other = shares_its_prefix(world, generation=1)
    health.look_after("pg-1", world.ports)
    events = len(world.store.events)

    lines = after_restore(SERVER, "test", world.ports, apply=True)

    assert {(one.resource_id, one.mended) for one in lines} == {(None, None)}
    assert all(f"{world.resource_id}, {other}" in one.remedy for one in lines)
    assert len(world.store.events) == events
    spec = world.store.resource(other).spec
    renamed = replace(spec, database=replace(spec.database, login_prefix="other"))
    requests.revise(world.store.resource(other), renamed, "test", world.ports)

    world.bring_on()
    world.work(for_=12 * MINUTE)

    assert world.states()[-1] is RotationState.COMPLETED
    assert {one.state for one in world.store.resources.values()} == {ResourceState.ACTIVE}


# The store may be set back to any instant


def history(world: SetBack) -> None:
    """Two rotations, the first of which needs two pushes, and the end of the login before."""
    world.sink.answers(answers.APPLIED_BUT_UNKNOWN)
    world.rotate()
    world.run(for_=HOUR)
    world.rotate(grace=2 * HOUR)
    world.run(for_=4 * HOUR)


def instants() -> int:
    world = SetBack()
    history(world)
    return len(world.boundaries)


@pytest.mark.parametrize("part", range(4))
def test_a_store_that_was_set_back_to_any_instant_is_brought_on_without_a_broken_promise(part: int) -> None:
    for instant in range(part, instants(), 4):
        world = SetBack()
        world.boundaries.clear()
        world.save_at = instant
        history(world)
        if world.saved is None:
            continue
        world.set_back()

        with capture_logs():
            world.bring_on()
            world.work(for_=10 * MINUTE)
            world.settle()

        world.check_at_rest()
