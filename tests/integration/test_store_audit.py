"""The audit trail on both databases: what it tells, and what it costs. What shows when somebody tampers with it: `tests/canary/`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from rotation.model import Event, Schedule
from tests.store_samples import INSTALLATION, SERVER, ask, event, planned, present, spec

if TYPE_CHECKING:
    from rotation.store.sql import SqlStore
    from rotation.store.views import EventLine
    from tests.sql_stores import SqlBench


@pytest.fixture
def store(sql_bench: SqlBench) -> SqlStore:
    """Three resources with three events each, all of them under a checkpoint."""
    store = sql_bench.store
    store.add_installation(INSTALLATION, event("installation_added"))
    store.add_server(SERVER, event("server_added"))
    for number in range(3):
        fill(store, number)
    assert present(store.checkpoint()).events == 11
    assert problems(store) == []
    return store


def fill(store: SqlStore, number: int) -> None:
    resource_id = f"res_{number}"
    store.register(spec(f"store_{number}"), resource_id, Schedule(), None, event("resource_registered"))
    case = present(store.claim_rotation(store.amend(resource_id, ask)))
    store.record_rotation(case, planned(case))


def problems(store: SqlStore) -> list[tuple[str, int]]:
    return [(fault.chain, fault.number) for fault in store.verify_audit()]


def test_a_checkpoint_costs_what_has_changed(store: SqlStore) -> None:
    assert store.checkpoint() is None
    store.record_event(event("key_added"))
    second = present(store.checkpoint())
    assert (second.number, second.chains, second.events) == (2, 4, 12)
    assert problems(store) == []


def test_the_trail_tells_what_was_done_and_why(store: SqlStore) -> None:
    told = Event("key_added", "anna", "a new key", (("key", "k2"), ("ok", True), ("count", 3), ("none", None), ("text", 'ä\u2028\n"')))
    store.record_event(told)
    (line,) = store.views.events("installations", limit=1)
    assert line.event == told
    assert problems(store) == []


def test_pages_of_events_leave_nothing_out(store: SqlStore) -> None:
    everything = store.views.events(limit=1_000)
    pages: list[EventLine] = []
    before = None
    while page := store.views.events(limit=4, before=before):
        pages += page
        before = page[-1].place
    assert pages == list(everything)
    assert len(everything) == 11
    chain = store.views.events("res_1", limit=2)
    rest = store.views.events("res_1", before=chain[-1].place)
    assert [line.number for line in (*chain, *rest)] == [3, 2, 1]
