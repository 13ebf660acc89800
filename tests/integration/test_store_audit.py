"""The audit trail on both databases: whatever somebody does to it who can write to the database, it shows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from sqlalchemy import text

from rotation.model import Event, Schedule
from rotation.ports import Terms
from rotation.store.sql import SqlStore
from tests.store_samples import INSTALLATION, SERVER, ask, event, planned, present, spec

if TYPE_CHECKING:
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


def tamper(store: SqlStore, *statements: str) -> None:
    with store.database.writing() as connection:
        for statement in statements:
            connection.execute(text(statement))


@pytest.mark.parametrize(
    ("statement", "place"),
    [
        ("UPDATE events SET actor = 'nobody' WHERE chain = 'res_1' AND number = 2", ("res_1", 2)),
        ("UPDATE events SET detail = '[]' WHERE chain = 'res_1' AND number = 1", ("res_1", 1)),
        ("UPDATE events SET rotation_id = NULL WHERE chain = 'res_1' AND number = 3", ("res_1", 3)),
        ("DELETE FROM events WHERE chain = 'res_1' AND number = 2", ("res_1", 2)),
        ("DELETE FROM events WHERE chain = 'res_1' AND number = 3", ("res_1", 2)),
        ("UPDATE chains SET length = length + 1 WHERE id = 'res_1'", ("res_1", 3)),
    ],
    ids=["changed", "emptied", "unlinked", "deleted", "cut off", "made longer"],
)
def test_a_changed_line_shows(store: SqlStore, statement: str, place: tuple[str, int]) -> None:
    tamper(store, statement)
    assert place in problems(store)


def test_lines_in_another_order_show(store: SqlStore) -> None:
    tamper(
        store,
        "UPDATE events SET number = 9 WHERE chain = 'res_1' AND number = 2",
        "UPDATE events SET number = 2 WHERE chain = 'res_1' AND number = 1",
        "UPDATE events SET number = 1 WHERE chain = 'res_1' AND number = 9",
    )
    assert ("res_1", 1) in problems(store)


def test_a_chain_that_was_set_back_shows_by_the_checkpoint(store: SqlStore) -> None:
    before = "SELECT hash FROM events WHERE chain = 'res_1' AND number = 2"
    tamper(
        store,
        f"UPDATE chains SET length = 2, head = ({before}), sealed_length = 2, sealed_head = ({before}) WHERE id = 'res_1'",  # noqa: S608 - constants
        "DELETE FROM events WHERE chain = 'res_1' AND number = 3",
    )
    assert problems(store) == [("checkpoints", 1)]


def test_a_chain_that_was_removed_whole_shows(store: SqlStore) -> None:
    tamper(store, "DELETE FROM events WHERE chain = 'res_1'", "DELETE FROM chains WHERE id = 'res_1'")
    assert problems(store) == [("checkpoints", 1)]


def test_lines_of_no_chain_show(store: SqlStore) -> None:
    columns = "number, at, kind, actor, why, detail, rotation_id, credential_id, hash"
    tamper(store, f"INSERT INTO events (chain, {columns}) SELECT 'res_9', {columns} FROM events WHERE chain = 'res_1'")  # noqa: S608 - constants
    assert ("", 0) in problems(store)


def test_a_trail_that_was_sealed_with_another_key_shows(store: SqlStore) -> None:
    other = SqlStore(store.database.engine, clock=store.clock, terms=Terms(), audit_key=b"another key")
    other.register(spec("store_9"), "res_9", Schedule(), None, event("resource_registered"))
    assert ("res_9", 1) in problems(store)
    assert ("res_0", 1) in problems(other)


def test_changed_and_removed_checkpoints_show(store: SqlStore) -> None:
    store.record_event(event("key_added"))
    assert present(store.checkpoint()).number == 2
    assert problems(store) == []
    tamper(store, "UPDATE checkpoints SET events = 10 WHERE number = 1")
    assert ("checkpoints", 1) in problems(store)
    tamper(store, "DELETE FROM checkpoints WHERE number = 1")
    assert ("checkpoints", 1) in problems(store)


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
