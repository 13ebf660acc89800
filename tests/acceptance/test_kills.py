"""SIGKILL, on both kinds of store: in the middle of a step with the broker wiped, and at random moments for a while."""

from __future__ import annotations

import random
import time
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from rotation.states import AttemptState, RotationState, Stage, Trigger
from tests.acceptance.conftest import STORES
from tests.promises import assert_kept
from tests.rigs import Rig, logins_locked, waits_for_lock
from worker.sandbox.vercel_faults import delayed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.processes import Process
    from tests.rigs import CustomersServer

RESUMED_SECONDS = 60
KILLS = 30
PAUSES = (0.3, 2.0)
"""Seconds between two kills, at random."""
IN_THE_MIDDLE = 0.7
"""How many of the kills look for a worker that has a rotation in hand."""


@pytest.fixture(scope="module", params=STORES)
def running(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    customers: CustomersServer,
    new_store: Callable[[str], str | None],
) -> Iterator[Rig]:
    with Rig(tmp_path_factory.mktemp("rig"), [customers], new_store(request.param)) as rig:
        rig.start(workers=3)
        yield rig


@pytest.fixture
def rig(running: Rig) -> Rig:
    running.resources.clear()
    running.vercel.script([])
    return running


def test_a_worker_killed_while_it_pushes_is_replaced_by_another_although_the_broker_forgot(rig: Rig) -> None:
    (resource,) = rig.add()
    rig.vercel.script([delayed(1.0)])
    with rig.witness() as witness:
        rotation_id = rig.trigger(resource)
        rig.wait_until_pushing(rotation_id)
        victim = rig.holder(rotation_id)
        victim.kill()
        rig.forget_hints()
        rig.wait_for(rotation_id, RotationState.COMPLETED, within=RESUMED_SECONDS)
        rig.wait_until_settled()
    rig.start_again(victim)
    assert_kept(rig, witness)
    first, second = rig.attempts(rotation_id)
    assert (first.state, second.state) == (AttemptState.OPEN, AttemptState.APPLIED)
    assert first.credential_id == second.credential_id


def test_a_worker_killed_while_it_makes_a_login_is_replaced_by_another_although_the_broker_forgot(rig: Rig) -> None:
    (resource,) = rig.add()
    server = rig.server_of(resource)
    with rig.witness() as witness:
        with logins_locked(server):
            rotation_id = rig.trigger(resource)
            rig.wait("its login is being made", lambda: waits_for_lock(server))
            victim = rig.holder(rotation_id)
            victim.kill()
            rig.forget_hints()
        rig.wait_for(rotation_id, RotationState.COMPLETED, within=RESUMED_SECONDS)
        rig.wait_until_settled()
    rig.start_again(victim)
    assert_kept(rig, witness)
    assert [one.stage for one in rig.credentials(resource)] == [Stage.RETIRED, Stage.CURRENT]


@pytest.mark.timeout(300)
def test_kills_at_random_moments_lose_nothing_and_turn_nobody_away(rig: Rig) -> None:
    chance = random.Random(20)  # noqa: S311 - the same kills each time
    rig.add(3, every=timedelta(seconds=2), grace=timedelta(seconds=2))
    rig.add(2, grace=timedelta(seconds=2))
    # Long enough to be met in the middle.
    rig.vercel.script([delayed(0.5, times=None)])
    with rig.witness() as witness:
        for _ in range(KILLS):
            time.sleep(chance.uniform(*PAUSES))
            victim = chosen(rig, chance)
            victim.kill()
            rig.start_again(victim)
            rig.trigger(chance.choice(rig.resources), chance.choice([Trigger.MANUAL, Trigger.VERCEL]), timedelta(seconds=2))
        rig.unschedule()
        rig.wait_until_settled()
    assert_kept(rig, witness)
    states = {one.state for resource in rig.resources for one in rig.rotations(resource)}
    assert states == {RotationState.COMPLETED}
    assert sum(len(rig.rotations(resource)) for resource in rig.resources) >= len(rig.resources)


def chosen(rig: Rig, chance: random.Random) -> Process:
    """Any process, but mostly one that has a rotation in hand, where there is one."""
    under_way = [one.rotation for one in rig.store.views.rotations(under_way=True) if one.rotation.state is not RotationState.REQUESTED]
    if under_way and chance.random() < IN_THE_MIDDLE:
        holder = rig.holder(chance.choice(under_way).id)
        if holder.runs:
            return holder
    return chance.choice([one for one in rig.processes if one.runs])
