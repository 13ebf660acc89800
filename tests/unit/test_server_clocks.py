from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from rotation.cases import Deadline
from rotation.engines.server_clocks import ClockReading, ServerClocks
from rotation.errors import LostClaim
from rotation.model import Server
from tests.fakes.clock import FakeClock

START = datetime(2026, 11, 2, tzinfo=UTC)
SERVER = Server("pg-eu-1", "postgresql", "db.example.com", 5432)
CLAIM = 45.0


class Machine(FakeClock):
    """One that may be suspended: then its monotonic clock stands still, and its wall clock is right when it wakes up."""

    def __init__(self) -> None:
        super().__init__(START)
        self.slept = 0.0

    def monotonic(self) -> float:
        return super().monotonic() - self.slept

    def sleep(self, seconds: float) -> None:
        self.advance(timedelta(seconds=seconds))
        self.slept += seconds


class Asked:
    """The clocks of a machine, and a server whose clock is an hour ahead."""

    def __init__(self) -> None:
        self.machine = Machine()
        self.clocks = ServerClocks(self.machine)

    @property
    def now(self) -> datetime:
        return self.machine.now() + timedelta(hours=1)

    def read(self) -> None:
        self.clocks.note(SERVER, self.now, self.machine.monotonic())

    def claim(self) -> Deadline:
        return Deadline(self.machine.monotonic() + CLAIM)

    def in_time(self, deadline: Deadline) -> bool:
        """What the server says when it compares the limit with its own clock."""
        return self.now < self.clocks.limit(SERVER, deadline, "create a login", self.read)


def reading(earliest: float, latest: float) -> ClockReading:
    return ClockReading(START + timedelta(seconds=earliest), START + timedelta(seconds=latest), 0.0)


def test_two_readings_of_a_clock_narrow_each_other() -> None:
    assert reading(0, 3).renewed(reading(1, 2)) == reading(1, 2)
    assert reading(0, 3).renewed(reading(-1, 5)) == reading(0, 3)


def test_of_two_readings_that_contradict_each_other_the_earlier_is_believed() -> None:
    assert reading(0, 1).renewed(reading(5, 6)) == reading(0, 1)


def test_a_deadline_is_told_by_the_servers_own_clock() -> None:
    asked = Asked()
    deadline = asked.claim()
    assert asked.clocks.limit(SERVER, deadline, "create a login", asked.read) == asked.now + timedelta(seconds=CLAIM)


def test_a_machine_that_slept_before_it_ever_read_a_servers_clock_is_late() -> None:
    asked = Asked()
    deadline = asked.claim()
    asked.machine.sleep(5 * CLAIM)
    assert not asked.in_time(deadline)


def test_it_is_late_as_well_where_another_thread_reads_the_clock_first() -> None:
    asked = Asked()
    deadline = asked.claim()
    asked.machine.sleep(5 * CLAIM)
    asked.read()
    assert not asked.in_time(deadline)


def test_a_machine_that_slept_goes_on_once_no_earlier_claim_can_hold() -> None:
    asked = Asked()
    asked.machine.sleep(5 * CLAIM)
    asked.in_time(asked.claim())
    asked.machine.advance(timedelta(seconds=CLAIM))
    assert asked.in_time(asked.claim())
    asked.machine.advance(timedelta(seconds=CLAIM))
    assert asked.in_time(asked.claim())


def test_a_machine_that_slept_between_two_readings_lets_go() -> None:
    asked = Asked()
    assert asked.in_time(asked.claim())
    deadline = asked.claim()
    asked.machine.sleep(5 * CLAIM)
    assert not asked.in_time(deadline)
    asked.machine.advance(timedelta(seconds=31))
    with pytest.raises(LostClaim, match="time stood still"):
        asked.in_time(Deadline(asked.machine.monotonic() + 1))


def test_nothing_is_begun_when_the_time_for_it_is_over() -> None:
    asked = Asked()
    deadline = asked.claim()
    asked.machine.advance(timedelta(seconds=CLAIM))
    with pytest.raises(LostClaim, match="too late"):
        asked.in_time(deadline)
