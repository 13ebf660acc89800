"""What the store says about every resource, as the demo wants to show it: retired generations and ended rotations too."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from sqlalchemy import select

from rotation.states import RotationState, Stage
from rotation.store.tables import credentials, resources, rotations
from worker.sandbox.scoreboard import Generation, Standing

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from rotation.model import Resource
    from rotation.store.database import Database

GENERATIONS = select(
    credentials.c.resource_id, credentials.c.generation, credentials.c.username, credentials.c.stage, credentials.c.grace_ends_at
).order_by(credentials.c.resource_id, credentials.c.generation)
ROTATIONS = select(rotations.c.resource_id, rotations.c.state, rotations.c.problem).order_by(rotations.c.id)
DATES = select(resources.c.id, resources.c.next_rotation_at)


def read_standings(database: Database, fleet: Mapping[str, Resource]) -> tuple[datetime, tuple[Standing, ...]]:
    """The store's time, and where each of these resources stands, by its name, at one instant."""
    generations: dict[str, list[Generation]] = defaultdict(list)
    states: dict[str, list[tuple[RotationState, str]]] = defaultdict(list)
    with database.snapshot() as connection:
        now = database.now_in(connection)
        for resource_id, number, username, stage, grace_ends_at in connection.execute(GENERATIONS):
            generations[resource_id].append(Generation(number, username, Stage(stage), grace_ends_at))
        for resource_id, state, problem in connection.execute(ROTATIONS):
            states[resource_id].append((RotationState(state), problem))
        dates = dict(connection.execute(DATES).tuples().all())
    return now, tuple(_standing(name, one, generations[one.id], states[one.id], dates.get(one.id)) for name, one in fleet.items())


def _standing(
    name: str, resource: Resource, generations: list[Generation], history: list[tuple[RotationState, str]], date: datetime | None
) -> Standing:
    ended = (RotationState.COMPLETED, RotationState.FAILED, RotationState.SUPERSEDED, RotationState.ABANDONED)
    return Standing(
        name=name,
        push_by=resource.spec.push_by,
        state=next((state for state, _ in history if state not in ended), None),
        next_rotation_at=date,
        completed=sum(state is RotationState.COMPLETED for state, _ in history),
        failed=sum(state is RotationState.FAILED for state, _ in history),
        problem=history[-1][1] if history else "",
        generations=tuple(generations),
    )
