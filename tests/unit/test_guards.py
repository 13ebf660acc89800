"""The engine and the sink behind their guards: what is asked, what is kept back, and what is told of it."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from itertools import cycle, islice
from typing import TYPE_CHECKING, Any

import pytest
from structlog.testing import capture_logs

from rotation.cases import Deadline
from rotation.errors import AdminRefused, LostClaim, NotAsked, OutcomeUnknown, Refused, RolloverError, Unavailable, Unreachable
from rotation.model import Installation, PushOutcome, PushVerdict, Resource
from rotation.states import ResourceState
from tests.fakes import sink as answers
from tests.fakes.clock import FakeClock
from tests.fakes.engine import FakeEngine
from tests.fakes.entropy import FakeEntropy
from tests.fakes.sealer import FakeSealer
from tests.fakes.sink import FakeSink
from tests.fakes.store import FakeStore
from tests.world import SERVER, SPEC
from worker import guarded_engine, guarded_sink
from worker.alarms import StandingAlarms
from worker.breakers import Bulkhead
from worker.guarded_engine import GuardedEngine
from worker.guarded_sink import GuardedSink

if TYPE_CHECKING:
    from collections.abc import Callable

MINUTE, SECOND = timedelta(minutes=1), timedelta(seconds=1)
OTHER = replace(SERVER, name="pg-2")


class Guarded:
    """An engine, a sink, and what they are behind."""

    def __init__(self, threads: int = 4) -> None:
        self.clock = FakeClock()
        self.store = FakeStore(self.clock)
        self.inner = FakeEngine(FakeSealer(), self.clock)
        self.vercel = FakeSink()
        alarms = StandingAlarms(self.store, self.clock)
        self.engine = GuardedEngine(self.inner, self.clock, FakeEntropy(), alarms, threads=threads)
        self.sink = GuardedSink(self.vercel, self.clock, FakeEntropy(), alarms, threads=threads)
        self.asked: list[str] = []
        self.fails: Callable[[str], RolloverError | None] = lambda _name: None
        self.inner.on_act = self._on_act

    def _on_act(self, name: str, phase: str) -> None:
        if phase == "before":
            self.asked.append(name)
            if (error := self.fails(name)) is not None:
                raise error

    def ask(self, server: Any = SERVER) -> type[RolloverError] | None:  # noqa: ANN401 - a server
        """What a question to the server raises."""
        try:
            self.engine.usage(server, Deadline(self.clock.monotonic() + 20))
        except RolloverError as error:
            self.error = error
            return type(error)
        return None

    def while_waiting(self, monkeypatch: pytest.MonkeyPatch, call: Callable[[], object]) -> None:
        """The next caller waits for a place, and meanwhile others call."""
        take = Bulkhead.take

        def wait(bulkhead: Bulkhead, places: int) -> float | None:
            monkeypatch.setattr(Bulkhead, "take", take)
            for _ in range(3):
                call()
            return bulkhead.take(places)

        monkeypatch.setattr(Bulkhead, "take", wait)

    def always(self, error: RolloverError) -> None:
        self.fails = lambda _name: error

    def push(self, installation: str = "icfg_1", *, may_send: bool = True) -> PushOutcome | None:
        """What a push came to; None when it was kept back."""
        resource = Resource("res_1", ResourceState.ACTIVE, 1, replace(SPEC, installation_id=installation), SERVER)
        if self.sink.pause(Installation(installation), emergency=False) is not None:
            return None
        return self.sink.push(resource, Installation(installation), (), lambda: may_send, Deadline(self.clock.monotonic() + 20))


# -- servers


@pytest.mark.parametrize("error", [Unreachable("no answer"), OutcomeUnknown("the answer was lost")])
def test_a_server_that_does_not_answer_is_soon_not_asked_any_more(error: RolloverError) -> None:
    guarded = Guarded()
    guarded.always(error)
    assert [guarded.ask() for _ in range(5)] == [type(error)] * 3 + [NotAsked] * 2
    assert len(guarded.asked) == 3


@pytest.mark.parametrize("error", [Refused("no"), LostClaim("too late"), Unavailable("an endpoint cannot be reached")])
def test_an_answer_and_what_says_nothing_about_the_server_open_no_breaker(error: RolloverError) -> None:
    guarded = Guarded()
    guarded.always(error)
    assert [guarded.ask() for _ in range(50)] == [type(error)] * 50


def test_other_servers_are_asked_as_before() -> None:
    guarded = Guarded()
    guarded.inner.server(SERVER.name).reachable = False
    assert [guarded.ask() for _ in range(4)][-1] is NotAsked
    assert guarded.ask(OTHER) is None


def test_one_asks_the_clock_first_and_when_it_answers_everybody_goes_on() -> None:
    guarded = Guarded()
    guarded.inner.server(SERVER.name).reachable = False
    with capture_logs() as lines:
        while guarded.ask() is not NotAsked:
            pass
        guarded.clock.advance(10 * SECOND)
        guarded.asked.clear()
        assert guarded.ask() is NotAsked
        guarded.inner.server(SERVER.name).reachable = True
        guarded.clock.advance(10 * SECOND)
        assert guarded.ask() is None
    assert guarded.asked == ["clock", "clock", "usage"]
    assert [line["event"] for line in lines] == ["breaker_opened", "breaker_closed"]
    assert {line["server"] for line in lines} == {SERVER.name}


def test_who_is_not_asked_is_told_when_to_come_back_and_not_all_at_the_same_time() -> None:
    guarded = Guarded()
    guarded.always(Unreachable("no answer"))
    while guarded.ask() is not NotAsked:
        pass
    pauses = set()
    for _ in range(50):
        guarded.ask()
        assert isinstance(guarded.error, NotAsked)
        assert guarded.error.retry_after is not None
        pauses.add(guarded.error.retry_after)
    assert len(pauses) == 50
    assert max(pauses) <= guarded_engine.TEMPER.longest + guarded_engine.SPREAD <= 30 * SECOND
    assert max(pauses) - min(pauses) > guarded_engine.SPREAD / 2


def test_a_server_keeps_so_many_threads_busy_and_no_more() -> None:
    guarded = Guarded(threads=2)
    meanwhile: list[type[RolloverError] | None] = []

    def ask_again(_name: str) -> None:
        """Another thread asks while this call takes long."""
        if len(guarded.asked) < 3:
            guarded.clock.advance(SECOND)
            meanwhile.append(guarded.ask())

    guarded.fails = ask_again
    assert guarded.ask() is None
    assert meanwhile == [NotAsked, None]
    assert guarded.ask() is None


def test_a_server_that_is_silent_for_a_minute_is_one_alarm_until_it_answers() -> None:
    guarded = Guarded()
    guarded.inner.server(SERVER.name).reachable = False
    with capture_logs() as lines:
        for _ in range(20):
            guarded.ask()
            guarded.clock.advance(10 * SECOND)
        assert guarded.store.standing_alarms() == {"server_unreachable": 1}
        guarded.inner.server(SERVER.name).reachable = True
        assert guarded.ask() is None
    assert guarded.store.standing_alarms() == {}
    assert [(line["subject"], line["alarm"]) for line in lines if line["event"] == "server_unreachable"] == [(SERVER.name, True)]


def test_a_server_that_is_seldom_asked_is_an_alarm_as_soon_as_it_is_left_alone() -> None:
    guarded = Guarded()
    guarded.inner.server(SERVER.name).reachable = False
    for _ in range(3):
        guarded.clock.advance(2 * MINUTE)
        assert guarded.ask() is Unreachable
    assert guarded.store.standing_alarms() == {"server_unreachable": 1}


def test_a_refused_admin_login_is_one_alarm_of_its_server_until_it_was_let_in_for_minutes() -> None:
    """A call over a connection that is open already, or to another database, says nothing about the admin login."""
    guarded = Guarded()
    answered = cycle([AdminRefused("28P01", advice="mend it"), None])
    guarded.fails = lambda _name: next(answered)
    with capture_logs() as lines:
        for _ in range(120):
            guarded.ask()
            guarded.clock.advance(SECOND)
            assert guarded.store.standing_alarms() == {"admin_refused": 1}
        guarded.fails = lambda _name: None
        guarded.clock.advance(5 * MINUTE)
        guarded.ask()
    assert guarded.store.standing_alarms() == {}
    assert [line["advice"] for line in lines if line.get("alarm")] == ["mend it"]


def test_whoever_waited_for_a_place_while_the_breaker_opened_does_not_ask_in_its_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    guarded = Guarded()
    guarded.always(Unreachable("no answer"))
    guarded.while_waiting(monkeypatch, guarded.ask)
    assert guarded.ask() is NotAsked
    assert guarded.asked == ["usage"] * 3


# -- Vercel


@pytest.mark.parametrize("answer", [answers.LOST_AND_UNKNOWN, answers.APPLIED_BUT_UNKNOWN, answers.UNREACHABLE])
def test_an_installation_whose_pushes_are_not_answered_is_soon_left_alone_and_others_are_not(answer: answers.Answer) -> None:
    guarded = Guarded()
    guarded.vercel.otherwise = answer
    assert [guarded.push() is None for _ in range(5)] == [False] * 3 + [True] * 2
    guarded.vercel.otherwise = answers.APPLIED
    assert guarded.push("icfg_2") is not None
    assert guarded.push() is None


def test_vercel_is_left_alone_as_a_whole_when_several_installations_are_not_answered() -> None:
    guarded = Guarded()
    guarded.vercel.otherwise = answers.LOST_AND_UNKNOWN
    pushed = [guarded.push(f"icfg_{number}") is not None for number in range(100)]
    assert sum(pushed) == 4
    assert guarded.push("icfg_new") is None


def test_one_push_at_a_time_finds_out_and_its_answer_lets_all_the_others_go() -> None:
    guarded = Guarded()
    guarded.vercel.otherwise = answers.LOST_AND_UNKNOWN
    for number in range(10):
        guarded.push(f"icfg_{number}")
    guarded.vercel.otherwise = answers.APPLIED
    guarded.clock.advance(15 * SECOND)
    waiting = Installation("icfg_waiting")
    during: list[object] = []

    def look() -> bool:
        during.append(guarded.sink.pause(waiting, emergency=False))
        during.append(guarded.push("icfg_waiting"))
        return True

    resource = Resource("res_1", ResourceState.ACTIVE, 1, SPEC, SERVER)
    first = guarded.sink.push(resource, Installation("icfg_first"), (), look, Deadline(guarded.clock.monotonic() + 20))
    assert first.verdict is PushVerdict.APPLIED
    assert None not in during[:1]
    assert during[1] is None
    assert guarded.push("icfg_waiting") is not None


def test_a_push_that_ends_with_an_error_of_ours_leaves_the_turn_to_another() -> None:
    guarded = Guarded()
    guarded.vercel.otherwise = answers.LOST_AND_UNKNOWN
    for number in range(10):
        guarded.push(f"icfg_{number}")
    guarded.clock.advance(15 * SECOND)

    def fail() -> bool:
        raise Unavailable("the store does not answer")

    resource = Resource("res_1", ResourceState.ACTIVE, 1, SPEC, SERVER)
    with pytest.raises(Unavailable):
        guarded.sink.push(resource, Installation("icfg_first"), (), fail, Deadline(guarded.clock.monotonic() + 20))
    guarded.vercel.otherwise = answers.APPLIED
    assert guarded.push("icfg_other") is not None


def test_whoever_waited_for_a_place_while_the_breaker_opened_does_not_push_in_its_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    guarded = Guarded()
    guarded.vercel.otherwise = answers.LOST_AND_UNKNOWN
    guarded.while_waiting(monkeypatch, guarded.push)
    outcome = guarded.push()
    assert outcome is not None
    assert outcome.verdict is PushVerdict.UNSENT
    assert len(guarded.vercel.pushes) == 3


def test_an_emergency_that_waited_for_a_place_is_pushed_in_the_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    guarded = Guarded()
    guarded.vercel.otherwise = answers.LOST_AND_UNKNOWN
    while guarded.push() is not None:
        pass
    resource = Resource("res_1", ResourceState.ACTIVE, 1, SPEC, SERVER)
    guarded.while_waiting(monkeypatch, guarded.push)
    guarded.sink.push(resource, Installation("icfg_1"), (), lambda: True, Deadline(guarded.clock.monotonic() + 20))
    assert len(guarded.vercel.pushes) == 4


def test_what_we_did_not_send_ourselves_says_nothing_about_vercel() -> None:
    guarded = Guarded()
    outcomes = [guarded.push(may_send=False) for _ in range(20)]
    assert None not in outcomes
    guarded.vercel.otherwise = answers.Answer(PushOutcome(PushVerdict.UNSENT, note="no token", asked=False), answers.Effect.NEVER)
    assert None not in [guarded.push() for _ in range(20)]


@pytest.mark.parametrize(
    "answer", [answers.UNAUTHORIZED, answers.MISSING, answers.CONFLICT, answers.REFUSED, answers.limited(FakeClock().now())]
)
def test_a_refusal_is_an_answer(answer: answers.Answer) -> None:
    guarded = Guarded()
    mixed = islice(cycle([answers.LOST_AND_UNKNOWN, answers.LOST_AND_UNKNOWN, answer]), 30)
    guarded.vercel.answers(*mixed)
    assert None not in [guarded.push() for _ in range(30)]


def test_an_emergency_is_not_held_back_while_nobody_else_is_trying() -> None:
    guarded = Guarded()
    guarded.vercel.otherwise = answers.LOST_AND_UNKNOWN
    while guarded.push() is not None:
        pass
    installation = Installation("icfg_1")
    assert guarded.sink.pause(installation, emergency=False) is not None
    assert guarded.sink.pause(installation, emergency=True) is None


def test_who_is_held_back_from_vercel_comes_back_well_within_a_minute() -> None:
    assert guarded_sink.TEMPER.longest + guarded_sink.SPREAD <= 40 * SECOND


def test_nobody_looks_whether_a_resource_is_there_while_vercel_does_not_answer() -> None:
    guarded = Guarded()
    guarded.vercel.otherwise = answers.LOST_AND_UNKNOWN
    resource = Resource("res_1", ResourceState.ACTIVE, 1, SPEC, SERVER)
    assert guarded.sink.resource_exists(resource, Installation("icfg_1"), Deadline(2000)) is True
    while guarded.push() is not None:
        pass
    assert guarded.sink.resource_exists(resource, Installation("icfg_1"), Deadline(2000)) is None


def test_looking_whether_resources_are_there_leaves_room_for_pushes(monkeypatch: pytest.MonkeyPatch) -> None:
    guarded = Guarded(threads=4)
    resource = Resource("res_1", ResourceState.ACTIVE, 1, SPEC, SERVER)
    asked: list[bool | None] = []
    pushed: list[PushOutcome | None] = []

    def look() -> bool | None:
        return guarded.sink.resource_exists(resource, Installation("icfg_1"), Deadline(guarded.clock.monotonic() + 20))

    def look_again(*_: object) -> bool:
        """Another thread looks while this takes long; the last one that does so pushes."""
        guarded.clock.advance(SECOND)
        asked.append(look())
        if asked[-1] is None:
            pushed.append(guarded.push())
        return True

    monkeypatch.setattr(guarded.vercel, "resource_exists", look_again)
    assert look() is True
    assert asked == [None, True]
    assert pushed == [answers.APPLIED.outcome]


def test_a_vercel_that_is_silent_for_minutes_is_one_alarm_until_it_answers() -> None:
    guarded = Guarded()
    guarded.vercel.otherwise = answers.LOST_AND_UNKNOWN
    with capture_logs() as lines:
        for number in range(60):
            guarded.push(f"icfg_{number % 3}")
            guarded.clock.advance(15 * SECOND)
        assert guarded.store.standing_alarms() == {"vercel_unreachable": 1}
        guarded.vercel.otherwise = answers.APPLIED
        guarded.clock.advance(15 * SECOND)
        assert guarded.push() is not None
    assert guarded.store.standing_alarms() == {}
    assert [line["alarm"] for line in lines if line["event"] == "vercel_unreachable"] == [True]


def test_where_one_installation_pushes_its_silence_is_that_of_vercel() -> None:
    guarded = Guarded()
    guarded.vercel.otherwise = answers.LOST_AND_UNKNOWN
    for _ in range(25):
        guarded.push()
        guarded.clock.advance(15 * SECOND)
    assert guarded.store.standing_alarms() == {"vercel_unreachable": 1}
    guarded.vercel.otherwise = answers.APPLIED
    assert guarded.push("icfg_2") is not None
    assert guarded.store.standing_alarms() == {}


def test_an_installation_that_is_silent_while_others_are_answered_is_no_alarm() -> None:
    guarded = Guarded()
    for _ in range(60):
        guarded.vercel.otherwise = answers.LOST_AND_UNKNOWN
        guarded.push()
        guarded.clock.advance(15 * SECOND)
        guarded.vercel.otherwise = answers.APPLIED
        assert guarded.push("icfg_2") is not None
        assert guarded.store.standing_alarms() == {}
