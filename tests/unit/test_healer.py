"""The healer on fakes: what a server has lost is there again, what was dead stays dead, whoever dies or stands still on the way."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
from structlog.testing import capture_logs

from rotation import driver, health, lifecycle, requests, survey
from rotation.errors import LostClaim, NotAsked, OutcomeUnknown, Refused
from rotation.model import Login
from rotation.sensitive import Sensitive
from rotation.states import RotationState, Stage, Trigger
from tests.fakes import sink as answers
from tests.fakes.engine import FakeRole, fake_verifier
from tests.world import ADOPTED, SPEC, Killed, World, with_policy

if TYPE_CHECKING:
    from collections.abc import Callable

    from rotation.model import Credential

HOUR = timedelta(hours=1)
SECOND = timedelta(seconds=1)


class Ward(World):
    """A world in which logins may be lost: what is lost is no broken promise until the healer has had its turn."""

    at: Callable[[str], None] | None = None
    """What happens at the next boundary of the healer."""
    beyond_healing: bool = False
    """What is lost cannot be made again, so that until a rotation helps, promises are broken."""

    def _boundary(self, name: str) -> None:
        self.boundaries.append(name)
        if self.kill_at is not None and len(self.boundaries) > self.kill_at:
            self.kill_at = None
            raise Killed(name)
        if self.at is not None:
            self.at(name)

    def look(self) -> tuple[str, ...]:
        """What the workers do once a minute."""
        ids = health.look_after("pg-1", self.ports)
        for one in ids:
            health.heal(one, self.ports)
        return ids

    @property
    def roles(self) -> dict[str, FakeRole]:
        return self.engine.server("pg-1").roles

    def credential_of(self, login: Login) -> Credential:
        """The newest of that name."""
        return next(one for one in reversed(self.store.credentials.values()) if one.username == login.username)

    def lose(self, generation: int) -> None:
        del self.roles[self.credential(generation).username]

    def work(self, *, for_: timedelta) -> None:
        """Everybody else goes on: the sweep, and a look every ten seconds."""
        until = self.clock.now() + for_
        step = max(5 * SECOND, for_ / 20)
        while self.clock.now() < until:
            self.sweep()
            self.clock.advance(min(step, until - self.clock.now()))
            self.look()

    def sweep(self) -> None:
        at, self.at = self.at, None
        super().sweep()
        self.at = at

    def check(self) -> None:
        """What is astray is known to be, and is being put right."""
        if not self.beyond_healing and all(one.username in self.roles for one in self.store.owed_logins("pg-1")):
            super().check()

    def events(self, kind: str) -> int:
        return [one.event.kind for one in self.store.events].count(kind)


def rotated() -> Ward:
    """A world with one credential in grace and its successor."""
    world = Ward()
    world.rotate()
    world.run()
    assert world.stages() == [Stage.PREVIOUS, Stage.CURRENT]
    return world


# What is lost is there again


def test_nothing_is_done_where_nothing_is_lost() -> None:
    world = rotated()
    before = (dict(world.roles), len(world.store.events), list(world.engine.acts))

    assert world.look() == ()

    assert (world.roles, len(world.store.events), world.engine.acts) == before


@pytest.mark.parametrize("generation", [1, 2])
def test_a_login_that_is_gone_is_made_again_with_the_same_password(generation: int) -> None:
    world = rotated()
    world.lose(generation)

    world.look()

    world.check()
    assert world.can_log_in(world.credential(generation))
    held = world.held_login()
    assert held is not None
    assert world.logs_in(held)
    assert world.logs_in(ADOPTED)
    assert world.events("credential_healed") == 1
    assert world.look() == ()


def test_all_logins_of_a_resource_are_made_again() -> None:
    world = rotated()
    world.roles.clear()

    world.look()

    world.check()
    assert world.logs_in(ADOPTED)


def test_a_login_is_made_again_like_its_sibling() -> None:
    world = rotated()
    username = world.credential(2).username
    world.roles[username] = with_settings = replace(world.roles[username], settings=("search_path=app",))
    world.lose(1)

    world.look()

    assert world.roles[ADOPTED.username].settings == with_settings.settings


def test_a_login_that_may_not_log_in_is_let_in_again() -> None:
    world = rotated()
    username = world.credential(2).username
    world.roles[username] = replace(world.roles[username], can_log_in=False)

    world.look()

    world.check()


@pytest.mark.parametrize("generation", [1, 2])
def test_a_password_that_was_changed_by_hand_is_the_stored_one_again(generation: int) -> None:
    world = rotated()
    username = world.credential(generation).username
    world.roles[username] = replace(world.roles[username], verifier="another")

    world.look()

    world.check()
    assert world.logs_in(ADOPTED)


def test_an_offered_login_is_made_again_and_one_that_is_not_offered_yet_is_not() -> None:
    world = Ward()
    world.sink.answers(answers.APPLIED_BUT_UNKNOWN)
    world.rotate()
    world.sweep()
    assert world.states() == [RotationState.OFFERED]
    world.lose(2)

    world.look()

    assert world.can_log_in(world.credential(2))


def test_what_is_to_be_discarded_is_not_made_again() -> None:
    world = Ward()
    world.sink.answers(answers.REFUSED)
    world.rotate()
    world.sweep()
    assert world.stages() == [Stage.CURRENT, Stage.DISCARDING]
    world.lose(2)

    assert world.look() == ()


def test_a_login_whose_grace_is_over_is_left_to_its_retirement() -> None:
    world = rotated()
    world.lose(1)
    world.clock.advance(25 * HOUR)

    assert world.look() == ()


def test_a_login_that_is_still_used_after_its_grace_is_made_again() -> None:
    world = rotated()
    world.clock.advance(24 * HOUR)
    world.engine.open_session("pg-1", ADOPTED.username)
    world.sweep()
    assert world.stages() == [Stage.PREVIOUS, Stage.CURRENT]
    world.lose(1)

    world.look()

    assert world.logs_in(ADOPTED)


def test_somebody_elses_login_of_that_name_is_left_alone_with_an_alarm() -> None:
    world = rotated()
    username = world.credential(2).username
    world.roles[username] = FakeRole(username, "theirs", marker=world.sealer.mark("another credential"))

    with capture_logs() as lines:
        world.look()

    assert world.roles[username].verifier == "theirs"
    assert [line["event"] for line in lines if line.get("alarm")] == ["login_lost", "orphan_found", "login_not_healed"]


def test_a_login_that_was_kept_and_adopted_again_is_made_again_like_any_other() -> None:
    world = rotated()
    held = world.held_login()
    assert held is not None
    requests.leave(world.resource_id, "test", "", world.ports, ends_in=None)
    requests.register(replace(SPEC, external_id="store_43"), held, "test", world.ports)
    assert world.look() == ()

    world.roles[held.username] = replace(world.roles[held.username], can_log_in=False)
    world.look()
    assert world.logs_in(held)

    world.roles[held.username] = replace(world.roles[held.username], verifier="another")
    world.clock.advance(world.store.terms.login_check)
    world.look()
    assert world.logs_in(held)
    assert world.credential_of(held).astray_at is None


def test_a_login_that_was_proved_dead_and_is_adopted_by_a_person_is_not_removed() -> None:
    world = Ward()
    for _ in range(2):
        world.rotate()
        world.settle()
    dead = world.credential(2)
    revived = FakeRole(dead.username, fake_verifier(Sensitive("password")).reveal(), marker=world.sealer.mark(dead.id))
    world.roles[dead.username] = revived
    spec = replace(SPEC, external_id="store_43", database=replace(SPEC.database, login_prefix="other"))
    requests.register(spec, Login(dead.username, Sensitive("password")), "test", world.ports)

    assert world.look() == ()

    assert world.roles[dead.username] == revived


def test_a_login_that_is_adopted_between_the_look_and_its_removal_stays() -> None:
    world = Ward()
    for _ in range(2):
        world.rotate()
        world.settle()
    dead = world.credential(2)
    world.roles[dead.username] = FakeRole(dead.username, "verifier", marker=world.sealer.mark(dead.id))
    assert health.look_after("pg-1", world.ports) == (dead.id,)
    spec = replace(SPEC, external_id="store_43", database=replace(SPEC.database, login_prefix="other"))
    requests.register(spec, Login(dead.username, Sensitive("password")), "test", world.ports)

    assert not health.heal(dead.id, world.ports)

    assert dead.username in world.roles


def test_a_login_that_works_again_by_itself_is_astray_no_more() -> None:
    world = rotated()
    role = world.roles.pop(world.credential(2).username)
    health.look_after("pg-1", world.ports)
    assert world.credential(2).astray_at is not None
    world.roles[role.username] = role

    world.clock.advance(20 * SECOND)
    world.look()

    assert world.credential(2).astray_at is None
    assert world.events("credential_healed") == 1


def test_a_server_that_does_not_answer_is_told_and_looked_at_again() -> None:
    world = rotated()
    world.engine.server("pg-1").reachable = False

    with capture_logs() as lines:
        assert world.look() == ()

    assert [line["event"] for line in lines] == ["logins_unreadable"]


def test_a_healing_that_fails_is_tried_again_with_growing_pauses() -> None:
    world = rotated()
    username = world.credential(2).username
    world.roles[username] = FakeRole(username, "theirs", marker=world.sealer.mark("another credential"))
    tries = []

    for second in range(600):
        if world.look():
            tries.append(second)
        world.clock.advance(SECOND)

    pauses = [later - earlier for earlier, later in pairwise(tries)]
    assert pauses == sorted(pauses)
    assert pauses[0] <= 20
    assert max(pauses) > 60


def test_a_login_recorded_while_the_clock_was_ahead_is_made_again_at_once() -> None:
    world = rotated()
    new = world.credential(2)
    world.store.credentials[new.id] = replace(new, recorded_at=world.clock.now() + HOUR)
    world.lose(2)

    assert world.look() == (new.id,)

    world.check()


def test_a_healing_that_failed_while_the_clock_was_ahead_is_tried_again_when_it_is_right() -> None:
    world = rotated()
    world.lose(2)
    world.clock.jump(HOUR)
    health.look_after("pg-1", world.ports)
    assert world.store.begin_mending(world.credential(2).id) is not None
    world.clock.jump(-HOUR)

    world.look()

    world.check()
    assert world.can_log_in(world.credential(2))


def test_a_healing_that_began_while_the_clock_was_ahead_holds_up_no_emergency_after_it() -> None:
    world = rotated()
    world.lose(1)
    world.clock.jump(HOUR)
    world.look()
    world.clock.jump(-HOUR)

    world.rotate(Trigger.EMERGENCY)
    world.run(for_=timedelta(minutes=1))

    assert world.credential(1).stage is Stage.RETIRED


def test_a_login_that_nobody_can_try_has_its_turn_all_the_same() -> None:
    world = rotated()
    world.sealer.lose_key("key-1")
    world.look()
    assert {one.tried_at for one in world.store.credentials.values()} == {world.clock.now()}

    world.lose(2)
    world.look()

    assert world.can_log_in(world.credential(2)), "its verifier was sealed with another key"
    assert world.credential(2).astray_at is None


def test_a_login_that_nobody_can_try_is_not_taken_to_work_again() -> None:
    world = rotated()
    refused = world.credential(2)
    world.roles[refused.username] = replace(world.roles[refused.username], verifier="another")
    health.look_after("pg-1", world.ports)
    world.sealer.lose_key("key-1")

    health.look_after("pg-1", world.ports)
    assert world.credential(2).astray_at is not None
    assert world.events("credential_healed") == 0

    world.look()
    world.check()
    assert world.credential(2).astray_at is None
    assert world.events("credential_healed") == 1


def test_logins_that_stay_refused_keep_no_other_from_its_turn() -> None:
    world = rotated()
    current = world.credential(2)
    for number in range(2 * survey.TRIES_A_LOOK):
        username = f"other_{number}"
        world.engine.add_login("pg-1", username, "another password")
        spec = replace(SPEC, external_id=username, database=replace(SPEC.database, name=username, login_prefix=username))
        requests.register(spec, Login(username, Sensitive("the password")), "test", world.ports)
    refused = {one.id for one in world.store.credentials.values() if one.username.startswith("other_")}
    world.store.note_astray(list(refused))
    tried = set()
    for _ in range(5):
        world.clock.advance(world.store.terms.login_check)
        health.look_after("pg-1", world.ports)
        now = world.clock.now()
        assert world.credential(2).tried_at == now
        tried |= {one.id for one in world.store.credentials.values() if one.tried_at == now}
    assert tried == {current.id, world.credential_of(ADOPTED).id} | refused


def test_a_login_whose_secrets_are_destroyed_works_again_when_it_is_there() -> None:
    world = rotated()
    world.store.credentials[world.credential(1).id] = replace(world.credential(1), sealed_password=None, sealed_verifier=None)
    role = world.roles.pop(ADOPTED.username)
    world.look()
    assert world.credential(1).astray_at is not None
    world.roles[role.username] = role

    world.look()

    assert world.credential(1).astray_at is None


def test_what_is_told_of_a_lost_login_is_told_once() -> None:
    world = rotated()
    username = world.credential(2).username
    world.roles[username] = FakeRole(username, "theirs")
    with capture_logs() as lines:
        for _ in range(20):
            world.look()
            world.clock.advance(10 * SECOND)
    told = [line["event"] for line in lines if line.get("alarm")]
    assert told.count("login_lost") == 1
    assert 3 <= told.count("login_not_healed") <= 10


def test_a_login_that_is_lost_is_an_alarm_until_it_is_made_again() -> None:
    world = rotated()
    lost = world.roles.pop(world.credential(2).username)
    world.roles[lost.username] = FakeRole(lost.username, "theirs", marker=world.sealer.mark("another credential"))
    for _ in range(7):
        world.look()
        world.clock.advance(10 * SECOND)
    assert world.store.standing_alarms() == {"login_lost": 1, "login_not_healed": 1, "orphan_found": 1}
    world.roles.pop(lost.username)
    world.clock.advance(HOUR)
    world.look()
    world.look()
    assert world.store.standing_alarms() == {}


# What was not asked


def keep_back(world: Ward, *acts: str) -> None:
    """From now on these acts are not asked for, and all others are."""

    def on_act(act: str, phase: str) -> None:
        if phase == "before" and act in acts:
            raise NotAsked("enough of this worker's threads wait for it", retry_after=2 * SECOND)

    world.engine.on_act = on_act


def test_a_look_that_was_not_taken_is_no_alarm() -> None:
    world = rotated()
    keep_back(world, "list_logins")
    with capture_logs() as lines:
        assert world.look() == ()
    assert [(line["event"], line["log_level"]) for line in lines] == [("logins_not_looked_at", "info")]
    assert world.store.standing_alarms() == {}


@pytest.mark.parametrize("act", ["find_logins", "admit", "check"])
def test_a_healing_that_was_not_begun_is_no_try_and_no_alarm(act: str) -> None:
    world = rotated()
    world.lose(2)
    (lost,) = health.look_after("pg-1", world.ports)
    keep_back(world, act)
    with capture_logs() as lines:
        assert not health.heal(lost, world.ports)
    assert [(line["event"], line["log_level"]) for line in lines] == [("healing_put_off", "info")]
    keep_back(world)
    assert health.heal(lost, world.ports)
    assert world.can_log_in(world.credential(2))


def test_a_login_that_was_not_logged_in_with_has_its_turn_with_the_next_look() -> None:
    world = rotated()
    world.clock.advance(HOUR)
    keep_back(world, "check")
    world.look()
    assert not {one.tried_at for one in world.store.credentials.values()} & {world.clock.now()}
    keep_back(world)
    world.look()
    assert {one.tried_at for one in world.store.credentials.values()} == {world.clock.now()}


# What is dead stays dead


def test_a_login_that_was_proved_dead_and_is_there_again_is_removed_again() -> None:
    world = Ward()
    for _ in range(2):
        world.rotate()
        world.settle()
    world.check_at_rest()
    dead = world.credential(2)
    assert dead.stage is Stage.RETIRED
    world.roles[dead.username] = FakeRole(dead.username, "old", owner="orders_owner", marker=world.sealer.mark(dead.id))

    with capture_logs() as lines:
        world.look()

    world.check_at_rest()
    assert world.events("credential_removed_again") == 1
    assert [line["event"] for line in lines if line.get("alarm")] == ["login_revived"]


def test_a_login_that_carries_our_mark_and_has_no_row_is_told_and_left_alone() -> None:
    world = rotated()
    world.roles["planted"] = FakeRole("planted", "x", marker=world.sealer.mark("cred_unknown"))

    with capture_logs() as lines:
        world.look()

    assert "planted" in world.roles
    assert [line["event"] for line in lines if line.get("alarm")] == ["orphan_found"]
    assert world.store.looks["pg-1"].orphans == 1


# Deaths and standstills


def test_a_healer_that_dies_anywhere_is_replaced_by_the_next_look() -> None:
    whole = rotated()
    whole.boundaries.clear()
    whole.lose(2)
    whole.look()
    assert len(whole.boundaries) > 20
    for number in range(len(whole.boundaries)):
        world = rotated()
        world.lose(2)
        world.boundaries.clear()
        world.kill_at = number
        with pytest.raises(Killed):
            world.look()
        for _ in range(3):
            world.clock.advance(10 * SECOND)
            world.look()
        world.check()
        assert world.credential(2).astray_at is None
        assert world.events("credential_healed") == 1


STANDSTILLS = [2 * SECOND, 9 * SECOND, 11 * SECOND, HOUR]


@pytest.mark.parametrize("standstill", STANDSTILLS)
@pytest.mark.parametrize("generation", [1, 2])
def test_a_healer_that_stands_still_anywhere_revives_no_login_that_an_emergency_ends_meanwhile(
    generation: int, standstill: timedelta
) -> None:
    whole = rotated()
    whole.boundaries.clear()
    whole.lose(generation)
    whole.look()
    for number, boundary in enumerate(whole.boundaries):
        world = rotated()
        world.lose(generation)
        world.boundaries.clear()

        def stand_still(_name: str, world: Ward = world, number: int = number) -> None:
            if len(world.boundaries) > number:
                world.at = None
                world.rotate(Trigger.EMERGENCY)
                world.work(for_=standstill)

        world.at = stand_still
        world.look()
        world.work(for_=timedelta(minutes=5))
        world.check()
        ended = world.credential(generation)
        assert ended.stage is Stage.RETIRED, f"after {boundary}"
        assert ended.username not in world.roles, f"there after {boundary}"
        assert world.events("credential_removed_again") == 0, f"revived after {boundary}"


def test_a_retirement_waits_for_a_healer_no_longer_than_an_emergency_may_take() -> None:
    world = rotated()
    world.lose(1)
    health.look_after("pg-1", world.ports)
    assert world.store.begin_mending(world.credential(1).id) is not None
    requested_at = world.clock.now()

    world.rotate(Trigger.EMERGENCY)
    world.run(for_=30 * SECOND)

    ended = world.credential(1)
    assert ended.stage is Stage.RETIRED
    assert ended.ended_at is not None
    assert 10 * SECOND <= ended.ended_at - requested_at <= 15 * SECOND


def in_use_after_its_grace() -> Ward:
    world = Ward(spec=with_policy(in_use_cap=None))
    world.rotate()
    world.run()
    world.engine.open_session("pg-1", ADOPTED.username)
    world.run(for_=25 * HOUR)
    assert "still used" in world.credential(1).problem
    return world


def test_a_login_that_is_used_after_its_grace_is_made_again_also_after_its_server_did_not_answer() -> None:
    world = in_use_after_its_grace()
    world.engine.server("pg-1").reachable = False
    world.clock.advance(timedelta(minutes=1))
    world.beyond_healing = True
    world.sweep()
    assert "cannot be reached" in world.credential(1).problem
    world.engine.server("pg-1").reachable = True
    world.beyond_healing = False

    world.lose(1)
    world.look()

    assert world.logs_in(ADOPTED)


def test_a_login_that_is_used_again_when_its_block_was_not_answered_is_let_in() -> None:
    world = in_use_after_its_grace()
    world.engine.close_sessions("pg-1", ADOPTED.username)

    def lose_the_answer(name: str, phase: str) -> None:
        if (name, phase) == ("block", "after"):
            world.engine.on_act = lambda _name, _phase: None
            world.engine.open_session("pg-1", ADOPTED.username)
            raise OutcomeUnknown("no answer")

    world.engine.on_act = lose_the_answer
    world.run(for_=7 * HOUR)

    credential = world.credential(1)
    assert (credential.stage, credential.tries) == (Stage.PREVIOUS, 0)
    assert "still used" in credential.problem
    assert world.events("credential_unblocked") == 1
    assert world.logs_in(ADOPTED)
    world.lose(1)
    world.look()
    assert world.logs_in(ADOPTED)


def test_a_healer_waits_for_a_retirement_that_holds_the_row() -> None:
    world = Ward(spec=with_policy(in_use_cap=None))
    world.rotate()
    world.run()
    world.lose(1)
    health.look_after("pg-1", world.ports)
    requests.extend(world.resource_id, world.credential(1).id, 48 * HOUR, "test", world.ports)
    assert world.store.claim_credential(world.credential(1).id) is not None

    assert not health.heal(world.credential(1).id, world.ports)

    world.clock.advance(timedelta(minutes=1))
    assert health.heal(world.credential(1).id, world.ports)


def test_a_login_whose_healing_came_too_late_is_healed_at_the_next_look() -> None:
    world = Ward()
    world.lose(1)

    def too_late(name: str, phase: str) -> None:
        if (name, phase) == ("admit", "before"):
            world.engine.on_act = lambda _name, _phase: None
            raise LostClaim("time stood still here")

    world.engine.on_act = too_late
    lost = world.look()
    assert not world.logs_in(ADOPTED)

    assert world.look() == lost
    assert world.logs_in(ADOPTED)


def test_a_rotation_is_not_disturbed_by_a_healing() -> None:
    world = rotated()
    healed: list[str] = []

    def heal_meanwhile(name: str) -> None:
        if name == "before sink.push":
            world.at = None
            world.lose(2)
            healed.extend(world.look())

    received = world.rotate()
    world.at = heal_meanwhile
    driver.advance(lifecycle.STORY, received.rotation_id or "", world.ports)
    world.run()

    assert healed == [world.credential(2).id]
    assert world.store.rotations[received.rotation_id or ""].state is RotationState.COMPLETED
    assert world.stages() == [Stage.PREVIOUS, Stage.PREVIOUS, Stage.CURRENT]
    world.check()


def test_a_rotation_whose_current_login_is_lost_waits_for_the_healer() -> None:
    world = rotated()
    world.lose(2)
    received = world.rotate()
    world.sweep()
    assert world.store.rotations[received.rotation_id or ""].state is RotationState.PLANNED

    world.work(for_=timedelta(minutes=3))

    assert world.store.rotations[received.rotation_id or ""].state is RotationState.COMPLETED
    world.check()


def lose_for_good(world: Ward, generation: int) -> None:
    """The login is gone, and nobody can make it again."""
    credential = world.credential(generation)
    world.store.credentials[credential.id] = replace(credential, sealed_verifier=None, sealed_password=None)
    world.lose(generation)
    world.beyond_healing = True


def rotated_since(world: Ward) -> None:
    """An emergency rotation completes within minutes, and what Vercel holds then logs in."""
    world.rotate(Trigger.EMERGENCY)
    world.work(for_=timedelta(minutes=5))
    assert world.states()[-1] is RotationState.COMPLETED
    held = world.held_login()
    assert held is not None
    assert held.username == world.credential(3).username
    assert world.logs_in(held)


def test_a_rotation_helps_where_the_current_login_cannot_be_made_again() -> None:
    world = rotated()
    world.roles[ADOPTED.username] = replace(world.roles[ADOPTED.username], settings=("statement_timeout=1min",))
    lose_for_good(world, 2)

    rotated_since(world)

    assert world.roles[world.credential(3).username].settings == ("statement_timeout=1min",), "it is like the newest that is there"
    assert world.stages() == [Stage.RETIRED, Stage.BLOCKED, Stage.CURRENT]


def test_a_rotation_helps_where_no_login_is_left_and_none_can_be_made_again() -> None:
    world = rotated()
    for generation in (1, 2):
        lose_for_good(world, generation)

    rotated_since(world)


def test_a_stranger_who_has_the_name_of_the_current_login_is_nobody_to_be_like() -> None:
    world = rotated()
    username = world.credential(2).username
    theirs = FakeRole(username, "theirs", settings=("search_path=theirs",))
    world.roles[username] = theirs
    world.beyond_healing = True
    world.work(for_=timedelta(minutes=2))

    rotated_since(world)

    assert world.roles[world.credential(3).username].settings == ()


def test_where_the_current_login_is_there_nobody_is_asked_whom_to_be_like() -> None:
    world = rotated()
    world.boundaries.clear()
    world.rotate()
    world.sweep()
    assert world.states()[-1] is RotationState.COMPLETED
    assert "before engine.find_logins" not in world.boundaries


def test_the_rights_of_a_current_login_that_cannot_be_mended_count_as_long_as_it_is_there() -> None:
    """It is locked out by hand, say, and the admin may not change that: the new one must not be less able for it."""
    world = rotated()
    username = world.credential(2).username
    world.roles[username] = replace(world.roles[username], can_log_in=False, owner="somebody", settings=("role=somebody",))

    def refuse(name: str, phase: str) -> None:
        if (name, phase) == ("admit", "before"):
            raise Refused("the admin may not do that")

    world.engine.on_act = refuse
    world.beyond_healing = True
    world.work(for_=timedelta(minutes=2))
    world.engine.on_act = lambda _name, _phase: None
    world.rotate()
    world.sweep()
    assert world.states()[-1] is RotationState.CREATED
