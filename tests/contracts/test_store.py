"""What every store does, the one in memory as the real ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from rotation.model import RotationState, Schedule, Stage, Wait
from tests.fakes.store import FakeStore
from tests.store_samples import (
    INSTALLATION,
    SERVER,
    ask,
    completed,
    credential,
    event,
    fresh,
    offered,
    planned,
    present,
    spec,
    verified,
)

if TYPE_CHECKING:
    from rotation.model import Resource


@pytest.fixture
def store() -> FakeStore:
    store = FakeStore()
    store.add_installation(INSTALLATION, event("installation_added"))
    store.add_server(SERVER, event("server_added"))
    return store


@pytest.fixture
def resource(store: FakeStore) -> Resource:
    resource_id = fresh("res")
    current = credential(resource_id, 1, Stage.CURRENT, store.now())
    return store.register(spec(), resource_id, Schedule(), current, event("resource_registered"))


def test_a_rotation_goes_from_request_to_completion(store: FakeStore, resource: Resource) -> None:
    rotation_id = store.amend(resource.id, ask)
    case = present(store.claim_rotation(rotation_id))
    for step in (planned, verified, offered):
        case = present(store.record_rotation(case, step(case)))
    assert store.may_send(case.claim, case.attempts[0])
    assert store.record_rotation(case, completed(case)) is None
    assert store.rotations[rotation_id].state is RotationState.COMPLETED
    assert [one.stage for one in store.credentials.values()] == [Stage.PREVIOUS, Stage.CURRENT]
    assert [one.event.kind for one in store.events if one.chain == resource.id] == [
        "resource_registered",
        "rotation_requested",
        "rotation_planned",
        "rotation_verified",
        "rotation_offered",
        "rotation_completed",
    ]


def test_a_wait_frees_the_claim_and_writes_no_event(store: FakeStore, resource: Resource) -> None:
    rotation_id = store.amend(resource.id, ask)
    case = present(store.claim_rotation(rotation_id))
    before = len(store.events)
    assert store.record_rotation(case, Wait(None, "down", setback=True)) is None
    assert len(store.events) == before
    assert store.rotations[rotation_id].tries == 1
