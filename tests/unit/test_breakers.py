"""Breakers and bulkheads, by a clock that is moved by hand."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from threading import Event

from tests.fakes.clock import FakeClock
from tests.fakes.entropy import FakeEntropy
from worker.breakers import MOST_KEPT, PROMPT_SECONDS, Breaker, Bulkhead, ByName, Temper

SECOND = timedelta(seconds=1)
TEMPER = Temper(failures=3, first=2 * SECOND, longest=15 * SECOND, try_lasts=30 * SECOND)


class Subject:
    def __init__(self) -> None:
        self.clock = FakeClock()
        self.breaker = Breaker(self.clock, FakeEntropy(), TEMPER)

    def call(self, *, answered: bool) -> bool:
        """Whether a call was made."""
        if self.breaker.holds_back() is not None:
            return False
        began = self.breaker.begin()
        if began is None:
            return False
        if answered:
            self.breaker.heard()
        else:
            self.breaker.heard_nothing(began)
        return True

    def opened(self) -> Breaker:
        for _ in range(TEMPER.failures):
            self.call(answered=False)
        return self.breaker


def test_a_breaker_opens_after_a_few_unanswered_calls_in_a_row_and_not_before() -> None:
    subject = Subject()
    for answered in (False, False, True, False, False):
        assert subject.call(answered=answered)
    assert subject.call(answered=False)
    assert not subject.call(answered=True)


def test_whoever_opens_it_and_whoever_closes_it_is_told_so_once() -> None:
    breaker = Subject().breaker
    assert [breaker.heard_nothing(1000.0) for _ in range(5)] == [False, False, True, False, False]
    assert [breaker.heard() for _ in range(2)] == [True, False]


def test_the_pause_doubles_with_each_try_that_fails_up_to_the_longest() -> None:
    subject = Subject()
    subject.opened()
    pauses = []
    for _ in range(6):
        pause = subject.breaker.holds_back()
        assert pause is not None
        pauses.append(pause)
        subject.clock.advance(pause + timedelta(milliseconds=1))  # a pause is told to the microsecond
        assert subject.call(answered=False)
    for pause, whole in zip(pauses, (2, 4, 8, 15, 15, 15), strict=True):
        assert whole * SECOND / 2 <= pause <= whole * SECOND


def test_one_at_a_time_tries_and_its_answer_lets_everybody_through() -> None:
    subject = Subject()
    breaker = subject.opened()
    subject.clock.advance(TEMPER.longest)
    assert breaker.begin() is not None
    assert [subject.call(answered=True) for _ in range(3)] == [False] * 3
    breaker.heard()
    assert [subject.call(answered=True) for _ in range(3)] == [True] * 3


def test_a_try_of_which_nothing_is_heard_again_keeps_others_back_only_for_so_long() -> None:
    subject = Subject()
    breaker = subject.opened()
    subject.clock.advance(TEMPER.longest)
    assert breaker.begin() is not None
    subject.clock.advance(TEMPER.try_lasts - SECOND)
    assert breaker.begin() is None
    subject.clock.advance(SECOND)
    assert breaker.begin() is not None


def test_a_try_that_learned_nothing_leaves_the_turn_to_another() -> None:
    subject = Subject()
    breaker = subject.opened()
    subject.clock.advance(TEMPER.longest)
    began = breaker.begin()
    assert began is not None
    breaker.learned_nothing(began)
    assert subject.call(answered=True)


def test_a_call_that_is_not_the_try_does_not_end_it() -> None:
    subject = Subject()
    straggler = subject.breaker.begin()
    assert straggler is not None
    breaker = subject.opened()
    subject.clock.advance(TEMPER.longest)
    given_up = breaker.begin()
    assert given_up is not None
    breaker.learned_nothing(straggler)
    assert breaker.begin() is None
    subject.clock.advance(TEMPER.try_lasts)
    assert breaker.begin() is not None
    breaker.learned_nothing(given_up)
    assert breaker.begin() is None


def test_a_try_within_the_pause_does_not_make_the_next_one_longer() -> None:
    subject = Subject()
    breaker = subject.opened()
    before = breaker.holds_back()
    for _ in range(5):
        began = breaker.begin()
        assert began is not None
        assert not breaker.heard_nothing(began)
    assert breaker.holds_back() == before


def test_calls_that_began_before_it_opened_do_not_make_the_pause_longer() -> None:
    subject = Subject()
    stragglers = [subject.breaker.begin() for _ in range(8)]
    subject.clock.advance(SECOND)
    breaker = subject.opened()
    before = breaker.holds_back()
    for began in stragglers:
        assert began is not None
        breaker.heard_nothing(began)
    assert breaker.holds_back() == before


def test_an_emergency_does_not_wait_for_the_pause_but_for_one_who_is_trying() -> None:
    subject = Subject()
    breaker = subject.opened()
    assert breaker.holds_back() is not None
    assert breaker.holds_back(emergency=True) is None
    assert breaker.begin() is not None
    assert breaker.holds_back(emergency=True) is not None


def test_it_knows_since_when_nothing_was_answered() -> None:
    subject = Subject()
    for answered in (False, True, False, False, False):
        assert subject.breaker.open_for == timedelta(0)
        subject.clock.advance(SECOND)
        subject.call(answered=answered)
    assert subject.breaker.open_for == 2 * SECOND
    for _ in range(4):
        subject.clock.advance(TEMPER.longest)
        subject.call(answered=False)
    assert subject.breaker.open_for == 2 * SECOND + 4 * TEMPER.longest


def test_a_bulkhead_has_so_many_places() -> None:
    clock = FakeClock()
    bulkhead = Bulkhead(clock)
    first, second = bulkhead.take(2), bulkhead.take(2)
    assert first is not None
    assert second is not None
    clock.advance(SECOND)
    assert bulkhead.take(2) is None
    bulkhead.leave(first)
    assert bulkhead.take(2) is not None


def test_while_calls_are_prompt_one_waits_for_a_place() -> None:
    bulkhead = Bulkhead(FakeClock())
    taken = bulkhead.take(1)
    assert taken is not None
    waiting = Event()

    def wait() -> float | None:
        waiting.set()
        return bulkhead.take(1)

    with ThreadPoolExecutor(1) as pool:
        got = pool.submit(wait)
        assert waiting.wait(5)
        bulkhead.leave(taken)
        assert got.result(PROMPT_SECONDS) is not None


def test_nobody_waits_once_the_oldest_call_takes_long() -> None:
    clock = FakeClock()
    bulkhead = Bulkhead(clock)
    bulkhead.take(1)
    clock.advance(timedelta(seconds=PROMPT_SECONDS))
    assert bulkhead.take(1) is None


def test_of_many_systems_those_used_last_are_kept() -> None:
    made = ByName(object)
    first = made.of("first")
    for number in range(MOST_KEPT - 1):
        made.of(str(number))
    assert made.of("first") is first
    made.of("one more")
    assert made.of("first") is first
    assert len(made._kept) == MOST_KEPT
