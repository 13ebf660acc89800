"""What every clock and every source of randomness promises."""

from __future__ import annotations

from datetime import UTC, timedelta
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest

from tests.fakes.clock import FakeClock
from tests.fakes.entropy import FakeEntropy
from worker.machine import MachineClock, MachineEntropy

if TYPE_CHECKING:
    from rotation.ports import Clock, Entropy

CLOCKS = [FakeClock(), MachineClock()]
SOURCES = [FakeEntropy(), MachineEntropy()]


@pytest.mark.parametrize("clock", CLOCKS, ids=["fake", "machine"])
def test_the_wall_clock_is_aware_utc(clock: Clock) -> None:
    assert clock.now().tzinfo is UTC


@pytest.mark.parametrize("clock", CLOCKS, ids=["fake", "machine"])
def test_the_monotonic_clock_never_goes_back(clock: Clock) -> None:
    assert all(one <= other for one, other in pairwise(clock.monotonic() for _ in range(1000)))


@pytest.mark.parametrize("entropy", SOURCES, ids=["fake", "machine"])
@pytest.mark.parametrize("count", [0, 1, 16, 32, 33, 100])
def test_as_many_bytes_as_were_asked_for_and_never_the_same(entropy: Entropy, count: int) -> None:
    one, other = entropy.bytes(count), entropy.bytes(count)
    assert len(one) == len(other) == count
    assert one != other or count < 16


def test_a_seed_gives_the_same_bytes_again() -> None:
    assert FakeEntropy(1).bytes(40) == FakeEntropy(1).bytes(40) != FakeEntropy(2).bytes(40)


def test_the_fake_clock_goes_only_when_told_to() -> None:
    clock = FakeClock()
    before, ticks = clock.now(), clock.monotonic()
    clock.advance(timedelta(seconds=5))
    assert (clock.now() - before, clock.monotonic() - ticks) == (timedelta(seconds=5), 5)
    clock.jump(timedelta(hours=-1))
    assert (clock.now() - before, clock.monotonic() - ticks) == (timedelta(seconds=5, hours=-1), 5)
    clock.advance_to(before)
    assert clock.now() == before
    clock.advance_to(before - timedelta(days=1))
    assert clock.now() == before
    with pytest.raises(ValueError, match="does not go back"):
        clock.advance(timedelta(seconds=-1))
