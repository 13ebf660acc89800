"""The store behind each contract test: in memory, on SQLite, on PostgreSQL; and the first steps that most of those tests begin with."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from rotation.model import Schedule
from rotation.states import Stage
from tests.fakes.store import FakeStore
from tests.fakes.store_bench import MemoryBench
from tests.store_samples import INSTALLATION, SERVER, ask, completed, credential, event, fresh, offered, planned, present, spec, verified

if TYPE_CHECKING:
    from rotation.cases import RotationCase
    from rotation.model import Resource
    from tests.sql_stores import SqlBench

    Bench = MemoryBench | SqlBench

MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)


@pytest.fixture(params=["memory", "sqlite", "postgresql"])
def bench(request: pytest.FixtureRequest) -> Bench:
    bench: Bench = MemoryBench(FakeStore()) if request.param == "memory" else request.getfixturevalue(f"{request.param}_bench")
    bench.store.add_installation(INSTALLATION, event("installation_added"))
    bench.store.add_server(SERVER, event("server_added"))
    return bench


@pytest.fixture
def resource(bench: Bench) -> Resource:
    return register(bench)


def register(bench: Bench, external_id: str = "store_1", schedule: Schedule | None = None) -> Resource:
    resource_id = fresh("res")
    current = credential(resource_id, 1, Stage.CURRENT, bench.store.now())
    return bench.store.register(spec(external_id), resource_id, schedule or Schedule(), current, event("resource_registered"))


def begin(bench: Bench, resource: Resource, *steps: str) -> RotationCase:
    """A claimed rotation, taken as far as the steps go."""
    rotation_id = bench.store.amend(resource.id, ask)
    case = present(bench.store.claim_rotation(rotation_id))
    for step in steps:
        move = {"planned": planned, "verified": verified, "offered": offered}[step](case)
        case = present(bench.store.record_rotation(case, move))
    return case


def complete(bench: Bench, resource: Resource) -> str:
    case = begin(bench, resource, "planned", "verified", "offered")
    assert bench.store.record_rotation(case, completed(case)) is None
    return case.rotation.id
