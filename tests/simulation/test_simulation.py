"""Worlds in which anything may happen: some hundreds here, as many as one likes by `make sim`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import structlog

from tests.simulation import runs, totals
from tests.simulation.violations import Violation
from tests.simulation.world import World

if TYPE_CHECKING:
    from collections.abc import Iterator

BATCHES = 8
IN_MEMORY = 400
ON_SQLITE = 24


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """Nobody reads the log lines of thousands of worlds; other tests of this process read theirs."""
    before = structlog.get_config()
    runs.quieten()
    yield
    structlog.configure(**before)


@pytest.mark.parametrize("batch", range(BATCHES))
def test_no_world_breaks_a_promise_and_every_one_comes_to_rest(batch: int) -> None:
    report = runs.run(batch * IN_MEMORY // BATCHES, IN_MEMORY // BATCHES, jobs=1)
    assert report.broken == []
    assert report.seen["completed"] > 0


@pytest.mark.parametrize("batch", range(BATCHES))
def test_none_does_on_the_real_store_on_sqlite(batch: int) -> None:
    assert runs.run(batch * ON_SQLITE // BATCHES, ON_SQLITE // BATCHES, store="sqlite", jobs=1).broken == []


def test_a_seed_is_one_history() -> None:
    assert runs.tell(7)[0] == runs.tell(7)[0]
    assert runs.tell(7)[0] != runs.tell(8)[0]


def test_a_login_that_vercel_holds_and_that_is_gone_is_a_broken_promise() -> None:
    world = World(11)
    world.check()
    for server in world.engine.servers.values():
        server.roles.pop("tenant1_app", None)
    world.dirty = True
    with pytest.raises(Violation, match="I1: tenant1_app is gone"):
        world.check()
    world.close()


def test_the_hash_is_that_of_the_code_and_the_simulator() -> None:
    assert len(totals.code_hash()) == 12
    assert all((totals.ROOT / place).exists() for place in totals.PLAYED)
    assert Path(__file__).is_relative_to(totals.ROOT / "tests/simulation")
