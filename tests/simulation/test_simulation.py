"""Worlds in which anything may happen: some hundreds here, as many as one likes by `make sim`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.simulation import runs, totals
from tests.simulation.stores import InMemory
from tests.simulation.world import World

BATCHES = 8
IN_MEMORY = 400
ON_SQLITE = 24


@pytest.fixture(autouse=True)
def _quiet() -> None:
    runs.quieten()


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


def test_a_world_that_breaks_a_promise_is_told_with_its_story() -> None:
    class Careless(InMemory):
        """Somebody drops the first customer's login."""

        def refresh(self) -> None:
            for server in worlds[0].engine.servers.values() if worlds else ():
                server.roles.pop("tenant1_app", None)

    worlds: list[World] = []
    story: list[str] = []
    world = World(11, Careless, story)
    worlds.append(world)
    with pytest.raises(AssertionError, match="tenant1_app is gone"):
        world.live()
    world.close()
    assert story


def test_the_hash_is_that_of_the_code_and_the_simulator() -> None:
    assert len(totals.code_hash()) == 12
    assert all((totals.ROOT / room).is_dir() for room in totals.PLAYED)
    assert Path(__file__).is_relative_to(totals.ROOT / "tests/simulation")
