"""Each failure that wants a person: driven on fakes, it is told in a line with `alarm`, it is counted, and it is over when it is over.

Those of servers and of Vercel, which belong to the guards, are in `test_guards`; here they are seen from a whole fleet.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from structlog.testing import capture_logs

from rotation import health, requests
from rotation.errors import AdminRefused, Invalid, Refused, Unavailable
from rotation.model import Event
from rotation.states import Alarm, ResourceState, RotationState, Stage, Trigger
from tests.fakes import sink as answers
from tests.fakes.engine import FakeRole
from tests.fleets import FleetWorld
from tests.world import World

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

SECOND, MINUTE, HOUR, DAY = timedelta(seconds=1), timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)


@pytest.fixture
def lines() -> Iterator[Sequence[Any]]:
    with capture_logs() as captured:
        yield captured


def told(lines: Sequence[Any]) -> set[str]:
    """The alarms among the lines."""
    alarms = [line for line in lines if line.get("alarm")]
    assert all(line["log_level"] == "warning" for line in alarms)
    return {str(line["event"]) for line in alarms}


def stand(world: World | FleetWorld) -> dict[str, int]:
    return dict(world.store.standing_alarms())


def failing(world: World, name: str, error: Exception) -> Callable[[str, str], None]:
    """From now on this act of the engine fails."""

    def on_act(act: str, phase: str) -> None:
        if (act, phase) == (name, "before"):
            raise error

    world.engine.on_act = on_act
    return on_act


def well(world: World) -> None:
    world.engine.on_act = lambda _act, _phase: None


# -- a rotation before its offer


def test_a_login_of_somebody_else(lines: Sequence[Any]) -> None:
    world = World()

    def taken_by_another(act: str, phase: str) -> None:
        if (act, phase) == ("admit", "before"):
            new = world.credential(2).username
            world.engine.server("pg-1").roles[new] = FakeRole(new, "somebody else's")

    world.engine.on_act = taken_by_another
    world.rotate()
    world.sweep()
    assert world.states() == [RotationState.FAILED]
    assert told(lines) == {Alarm.NAME_CLASH}
    assert stand(world) == {"name_clash": 1}
    well(world)
    world.run(for_=HOUR)
    assert stand(world) == {"retirement_stuck": 1}, "another rotation succeeded; the stranger's login stays, and stays told"


def test_an_admin_login_that_is_refused_is_one_alarm_of_its_server(lines: Sequence[Any]) -> None:
    world = FleetWorld(resources=20, servers=2)
    world.rotate_all()
    world.run_until_ended(MINUTE)
    world.clock.advance(DAY)
    world.rotate_all()

    def revoked(_act: str, _phase: str) -> None:
        raise AdminRefused("pg-0 refused the login with 28P01", advice="mend it")

    world.engine.on_act = revoked
    world.tick()
    assert world.states() == {RotationState.COMPLETED: 20, RotationState.FAILED: 20}
    assert told(lines) == {Alarm.ADMIN_REFUSED}
    assert sum(bool(line.get("alarm")) for line in lines) == 2
    assert stand(world) == {"admin_refused": 2}
    waiting = [one for one in world.store.credentials.values() if one.stage is Stage.PREVIOUS]
    assert len(waiting) == 20
    assert {one.problem for one in waiting} == {"pg-0 refused the login with 28P01"}
    world.engine.on_act = lambda _act, _phase: None
    world.run(6 * MINUTE)
    assert stand(world) == {}


def test_a_rotation_that_is_given_up(lines: Sequence[Any]) -> None:
    world = World()
    failing(world, "admit", Refused("no right to create a login"))
    world.rotate()
    world.sweep()
    assert told(lines) == {Alarm.ROTATION_FAILED}
    assert stand(world) == {"rotation_failed": 1}
    well(world)
    world.run(for_=HOUR)
    assert stand(world) == {}


# -- the push


def test_a_push_of_the_current_values_that_is_refused(lines: Sequence[Any]) -> None:
    world = World()
    world.rotate()
    world.run(for_=MINUTE)
    world.sink.answers(answers.REFUSED)
    requests.push_again(world.resource_id, "test", "why", world.ports)
    world.run(for_=MINUTE)
    assert told(lines) == {Alarm.ROTATION_FAILED}
    assert stand(world) == {"rotation_failed": 1}
    requests.push_again(world.resource_id, "test", "why", world.ports)
    world.run(for_=MINUTE)
    assert stand(world) == {}


def test_a_push_without_a_clear_answer_for_an_hour(lines: Sequence[Any]) -> None:
    world = World()
    world.sink.otherwise = answers.LOST_AND_UNKNOWN
    world.rotate()
    world.run(for_=HOUR)
    assert told(lines) == set()
    world.run(for_=5 * MINUTE)
    assert told(lines) == {Alarm.OFFER_STANDING_TOO_LONG}
    assert stand(world) == {"offer_standing_too_long": 1}
    world.sink.otherwise = answers.APPLIED
    world.run(for_=MINUTE)
    assert stand(world) == {}


def test_a_push_that_is_held_back_for_an_hour_is_no_less_an_alarm_but_is_told_once(lines: Sequence[Any]) -> None:
    world = World()
    world.sink.answers(answers.LOST_AND_UNKNOWN)
    world.rotate()
    world.sweep()
    world.sink.paused_for = 20 * SECOND
    world.run(for_=HOUR + 10 * MINUTE)
    assert stand(world) == {"offer_standing_too_long": 1}
    assert sum(bool(line.get("alarm")) for line in lines) == 1
    world.sink.paused_for = None
    world.run(for_=MINUTE)
    assert stand(world) == {}


def test_a_token_that_vercel_refuses(lines: Sequence[Any]) -> None:
    world = World()
    world.sink.answers(answers.UNAUTHORIZED)
    world.rotate()
    world.run()
    assert told(lines) == {Alarm.INSTALLATION_PARKED}
    assert stand(world) == {"installation_parked": 1}
    world.store.unpark("icfg_1", Event("installation_unparked", "test"))
    world.run(for_=MINUTE)
    assert stand(world) == {}


def test_values_that_vercel_refuses_after_a_push_that_it_may_have_applied(lines: Sequence[Any]) -> None:
    world = World()
    world.sink.answers(answers.APPLIED_BUT_UNKNOWN, answers.REFUSED)
    world.rotate()
    world.run(for_=MINUTE)
    assert told(lines) == {Alarm.PUSH_REFUSED}
    assert stand(world) == {"push_refused": 1}
    world.run(for_=HOUR)
    assert stand(world) == {}


def test_a_404_for_a_resource_that_is_there(lines: Sequence[Any]) -> None:
    world = World()
    world.sink.answers(answers.MISSING)
    world.rotate()
    world.run()
    assert told(lines) == {Alarm.PUSH_REFUSED}
    assert stand(world) == {"push_refused": 1}
    world.run(for_=MINUTE)
    assert stand(world) == {}


def test_a_resource_that_vercel_does_not_know(lines: Sequence[Any]) -> None:
    world = World()
    world.sink.otherwise = answers.MISSING
    world.sink.exists = False
    world.rotate()
    world.run(for_=20 * MINUTE)
    assert told(lines) == {Alarm.RESOURCE_MISSING}
    assert stand(world) == {"resource_missing": 1}
    world.sink.held.clear()
    world.run(for_=3 * DAY)
    assert world.store.resources[world.resource_id].state is ResourceState.GONE
    assert stand(world) == {}


def test_a_push_that_meets_409_again_and_again(lines: Sequence[Any]) -> None:
    world = World()
    world.sink.answers(*[answers.CONFLICT] * 6)
    world.rotate()
    while len(world.sink.pushes) < 4:
        world.run(for_=SECOND)
    assert told(lines) == set()
    while len(world.sink.pushes) < 5:
        world.run(for_=SECOND)
    assert told(lines) == {Alarm.PUSH_IN_CONFLICT}
    assert stand(world) == {"push_in_conflict": 1}
    world.run(for_=10 * MINUTE)
    assert stand(world) == {}


def test_a_push_that_meets_409_once_after_others_went_unanswered(lines: Sequence[Any]) -> None:
    world = World()
    world.sink.answers(*[answers.LOST_AND_UNKNOWN] * 5, answers.CONFLICT)
    world.rotate()
    world.run(for_=10 * MINUTE)
    assert len(world.sink.pushes) >= 7
    assert told(lines) == set()


def test_something_else_that_stands_in_the_way_after_the_offer(lines: Sequence[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    world.sink.answers(answers.LOST_AND_UNKNOWN)
    world.rotate()
    world.sweep()

    def unrenderable(*_: object) -> tuple[()]:
        raise Invalid([])

    with monkeypatch.context() as patch:
        patch.setattr(world.sink, "render", unrenderable)
        world.run(for_=MINUTE)
        assert told(lines) == {Alarm.ROTATION_STUCK}
        assert stand(world) == {"rotation_stuck": 1}
    world.run(for_=10 * MINUTE)
    assert stand(world) == {}


def test_a_key_that_is_missing(lines: Sequence[Any]) -> None:
    world = World()
    world.sink.answers(answers.LOST_AND_UNKNOWN)
    world.rotate()
    world.sweep()
    world.sealer.lose_key("key-1")
    world.run(for_=2 * MINUTE)
    assert told(lines) == {Alarm.KEY_MISSING}
    assert stand(world) == {"key_missing": 1}
    world.sealer.bring_key_back("key-1")
    world.run(for_=5 * MINUTE)
    assert stand(world) == {}


# -- retirement


def rotated() -> World:
    world = World()
    world.rotate()
    world.run()
    return world


def test_a_login_that_is_used_beyond_its_grace(lines: Sequence[Any]) -> None:
    world = rotated()
    old = world.credential(1).username
    world.engine.open_session("pg-1", old)
    world.run(for_=DAY + MINUTE)
    assert told(lines) == {Alarm.CREDENTIAL_STILL_USED}
    assert stand(world) == {"credential_still_used": 1}
    world.engine.close_sessions("pg-1", old)
    world.run(for_=7 * HOUR)
    assert world.stages() == [Stage.RETIRED, Stage.CURRENT]
    assert stand(world) == {}


def test_a_login_on_which_objects_depend(lines: Sequence[Any]) -> None:
    world = rotated()
    failing(world, "withdraw", Unavailable("pg-1: PostgreSQL did not remove a login: 2BP01 DependentObjectsStillExist"))
    world.run(for_=DAY + 11 * MINUTE)
    assert told(lines) == set(), "it may be over the next time"
    world.run(for_=HOUR)
    assert world.stages() == [Stage.BLOCKED, Stage.CURRENT]
    assert told(lines) == {Alarm.RETIREMENT_STUCK}
    assert stand(world) == {"retirement_stuck": 1}
    well(world)
    world.run(for_=10 * MINUTE)
    assert stand(world) == {}


def test_clocks_that_disagree(lines: Sequence[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    world = rotated()
    now = world.store.now
    with monkeypatch.context() as patch:
        patch.setattr(world.store, "now", lambda: now() + 25 * HOUR)
        world.sweep()
        assert told(lines) == {Alarm.CLOCKS_DISAGREED}
        assert stand(world) == {"clocks_disagreed": 1}
        assert world.stages() == [Stage.PREVIOUS, Stage.CURRENT]
    world.run(for_=2 * DAY)
    assert stand(world) == {}


def test_sessions_that_cannot_be_read(lines: Sequence[Any]) -> None:
    world = World()
    failing(world, "usage", Refused("the admin login cannot see sessions"))
    for _ in range(3):
        health.sample_use("pg-1", world.ports)
    assert told(lines) == {Alarm.USE_UNREADABLE}
    assert stand(world) == {"use_unreadable": 1}
    well(world)
    health.sample_use("pg-1", world.ports)
    world.clock.advance(6 * MINUTE)
    assert stand(world) == {}


def test_logins_that_cannot_be_looked_at_are_one_alarm_of_their_server(lines: Sequence[Any]) -> None:
    world = World()
    failing(world, "list_logins", Refused("the admin may not read the catalogs"))
    for _ in range(5):
        health.look_after("pg-1", world.ports)
        world.clock.advance(MINUTE)
    assert [line["event"] for line in lines if line.get("alarm")] == [Alarm.LOGINS_UNREADABLE]
    assert stand(world) == {"logins_unreadable": 1}
    well(world)
    for _ in range(5):
        health.look_after("pg-1", world.ports)
        world.clock.advance(MINUTE)
    assert stand(world) == {}


# -- the fleet


def test_a_server_and_a_vercel_that_do_not_answer_are_one_alarm_each_for_a_whole_fleet(lines: Sequence[Any]) -> None:
    world = FleetWorld(resources=30, servers=3, processes=2)
    world.engine.server("pg-0").reachable = False
    world.sink.otherwise = answers.LOST_AND_UNKNOWN
    world.rotate_all()
    world.run(10 * MINUTE)
    assert told(lines) == {Alarm.SERVER_UNREACHABLE, Alarm.VERCEL_UNREACHABLE}
    assert sum(bool(line.get("alarm")) for line in lines) == 2
    assert stand(world) == {"server_unreachable": 1, "vercel_unreachable": 1}
    world.engine.server("pg-0").reachable = True
    world.sink.otherwise = answers.APPLIED
    world.run_until_ended(5 * MINUTE)
    world.clock.advance(5 * MINUTE)
    assert stand(world) == {}


def test_an_emergency_raises_no_alarm_of_its_own(lines: Sequence[Any]) -> None:
    world = World()
    world.rotate(Trigger.EMERGENCY)
    world.settle()
    assert told(lines) == set()
    assert stand(world) == {}
    assert replace(world.credential(1), alarm=None) == world.credential(1)
