"""The audit trail on both databases: whatever somebody does to it who can write to the database, `rollover audit verify` tells."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import make_url, select, text, update

from rotation.errors import NotFound
from rotation.model import Schedule
from rotation.ports import Terms
from rotation.store import audit, evidence
from rotation.store.audit import NOTHING, AuditTrail, ChainHead
from rotation.store.evidence import Period
from rotation.store.migration import migrate
from rotation.store.specs import canonical
from rotation.store.sql import SqlStore
from rotation.store.tables import events, metadata
from tests.sql_stores import AUDIT_KEY, new_database, sqlite_url
from tests.store_samples import INSTALLATION, SERVER, ask, event, planned, present, spec
from worker.machine import MachineClock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    Figure = Callable[[str, int], None]

EVER = Period(datetime(2000, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC))
HEAD_OF_TWO = "SELECT hash FROM events WHERE chain = 'res_1' AND number = 2"


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def trail(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SqlStore]:
    """Three resources with three events each, all of them under two checkpoints."""
    if request.param == "sqlite":
        url = make_url(sqlite_url(tmp_path_factory.mktemp("trail")))
    else:
        url = new_database(request.getfixturevalue("postgresql"), "tampered")
    migrate(url)
    store = SqlStore(url, clock=MachineClock(), terms=Terms(), audit_key=AUDIT_KEY)
    store.add_installation(INSTALLATION, event("installation_added"))
    store.add_server(SERVER, event("server_added"))
    for number in range(3):
        register(store, number)
        if number == 0:
            assert present(store.checkpoint()).events == 5
    assert present(store.checkpoint()).events == 11
    yield store
    store.dispose()


@pytest.fixture
def store(trail: SqlStore) -> Iterator[SqlStore]:
    """The same, as it was, also after another test has tampered with it."""
    with trail.database.reading() as connection:
        before = {table: connection.execute(select(table)).mappings().all() for table in metadata.sorted_tables}
    assert problems(trail) == []
    yield trail
    with trail.database.writing() as connection:
        for table in reversed(metadata.sorted_tables):
            connection.execute(table.delete())
        for table, rows in before.items():
            if rows:
                connection.execute(table.insert(), [dict(row) for row in rows])


@pytest.fixture(scope="module")
def export(trail: SqlStore) -> tuple[str, ...]:
    """The evidence for all that was ever done."""
    return tuple(trail.export_audit(EVER))


def register(store: SqlStore, number: int) -> None:
    resource_id = f"res_{number}"
    store.register(spec(f"store_{number}"), resource_id, Schedule(), None, event("resource_registered"))
    case = present(store.claim_rotation(store.amend(resource_id, ask)))
    store.record_rotation(case, planned(case))


def problems(store: SqlStore, seals: dict[int, bytes] | None = None) -> list[tuple[str, int]]:
    return [(fault.chain, fault.number) for fault in store.verify_audit(seals)]


def tamper(store: SqlStore, *statements: str) -> None:
    with store.database.writing() as connection:
        for statement in statements:
            connection.execute(text(statement))


@dataclass(frozen=True, slots=True)
class Tampering:
    """What somebody did with SQL alone, and where it must show."""

    name: str
    place: tuple[str, int]
    statements: tuple[str, ...]


def done(name: str, place: tuple[str, int], *statements: str) -> Tampering:
    return Tampering(name, place, statements)


CUT = f"UPDATE chains SET length = 2, head = ({HEAD_OF_TWO})"  # noqa: S608 - constants
SEALED_SHORTER = f"sealed_length = 2, sealed_head = ({HEAD_OF_TWO})"
COLUMNS = "number, at, kind, actor, why, detail, rotation_id, credential_id, hash"
TAMPERINGS = (
    done("an actor changed", ("res_1", 2), "UPDATE events SET actor = 'nobody' WHERE chain = 'res_1' AND number = 2"),
    done("a kind changed", ("res_1", 2), "UPDATE events SET kind = 'resource_paused' WHERE chain = 'res_1' AND number = 2"),
    done("a reason changed", ("res_1", 2), "UPDATE events SET why = 'no reason' WHERE chain = 'res_1' AND number = 2"),
    done("details emptied", ("res_1", 1), "UPDATE events SET detail = '[]' WHERE chain = 'res_1' AND number = 1"),
    done("a rotation unlinked", ("res_1", 3), "UPDATE events SET rotation_id = NULL WHERE chain = 'res_1' AND number = 3"),
    done("another credential named", ("res_1", 3), "UPDATE events SET credential_id = 'cred_9' WHERE chain = 'res_1' AND number = 3"),
    done("a line deleted", ("res_1", 2), "DELETE FROM events WHERE chain = 'res_1' AND number = 2"),
    done("the last line deleted", ("res_1", 2), "DELETE FROM events WHERE chain = 'res_1' AND number = 3"),
    done("a chain made longer", ("res_1", 3), "UPDATE chains SET length = length + 1 WHERE id = 'res_1'"),
    done(
        "lines in another order", ("res_1", 1),
        "UPDATE events SET number = 9 WHERE chain = 'res_1' AND number = 2",
        "UPDATE events SET number = 2 WHERE chain = 'res_1' AND number = 1",
        "UPDATE events SET number = 1 WHERE chain = 'res_1' AND number = 9",
    ),
    done(
        "a line moved up after one was deleted", ("res_1", 2),
        "DELETE FROM events WHERE chain = 'res_1' AND number = 2",
        "UPDATE events SET number = 2 WHERE chain = 'res_1' AND number = 3",
        "UPDATE chains SET length = 2 WHERE id = 'res_1'",
    ),
    done(
        "lines of two chains exchanged", ("res_1", 2),
        "UPDATE events SET chain = 'res_x' WHERE chain = 'res_1' AND number = 2",
        "UPDATE events SET chain = 'res_1' WHERE chain = 'res_2' AND number = 2",
        "UPDATE events SET chain = 'res_2' WHERE chain = 'res_x'",
    ),
    done(
        "a chain's end cut off, and its head set back", ("res_1", 3),
        "DELETE FROM events WHERE chain = 'res_1' AND number = 3", f"{CUT} WHERE id = 'res_1'",
    ),
    done(
        "a chain set back, its sealed head too", ("checkpoints", 2),
        f"{CUT}, {SEALED_SHORTER} WHERE id = 'res_1'", "DELETE FROM events WHERE chain = 'res_1' AND number = 3",
    ),
    done(
        "a chain removed whole", ("checkpoints", 2),
        "DELETE FROM events WHERE chain = 'res_1'", "DELETE FROM chains WHERE id = 'res_1'",
    ),
    done(
        "lines of no chain", ("", 0),
        f"INSERT INTO events (chain, {COLUMNS}) SELECT 'res_9', {COLUMNS} FROM events WHERE chain = 'res_1'",  # noqa: S608 - constants
    ),
    done(
        "a chain emptied, and all checkpoints removed", ("res_1", 0),
        "DELETE FROM checkpoints", "DELETE FROM events WHERE chain = 'res_1'", "DELETE FROM chains WHERE id = 'res_1'",
        "UPDATE chains SET sealed_length = 0",
    ),
    done("a checkpoint changed", ("checkpoints", 1), "UPDATE checkpoints SET events = 10 WHERE number = 1"),
    done("a checkpoint's time changed", ("checkpoints", 2), "UPDATE checkpoints SET at = (SELECT min(at) FROM events) WHERE number = 2"),
    done("the first checkpoint removed", ("checkpoints", 1), "DELETE FROM checkpoints WHERE number = 1"),
    done("the last checkpoint removed", ("checkpoints", 1), "DELETE FROM checkpoints WHERE number = 2"),
    done("all checkpoints removed", ("checkpoints", 0), "DELETE FROM checkpoints"),
    done(
        "checkpoints exchanged", ("checkpoints", 1),
        "UPDATE checkpoints SET number = number + 2", "UPDATE checkpoints SET number = 5 - number",
    ),
    done(
        "the end cut off, with the checkpoint that saw it", ("checkpoints", 1),
        "DELETE FROM checkpoints WHERE number = 2",
        "DELETE FROM events WHERE chain = 'res_1' AND number = 3", f"{CUT}, {SEALED_SHORTER} WHERE id = 'res_1'",
    ),
)  # fmt: skip


@pytest.mark.parametrize("tampering", TAMPERINGS, ids=lambda one: one.name)
def test_what_was_done_with_sql_alone_shows(store: SqlStore, tampering: Tampering, figure: Figure) -> None:
    tamper(store, *tampering.statements)
    assert tampering.place in problems(store)
    figure("audit tamperings detected", 1)


def test_a_store_that_was_set_back_as_a_whole_shows_by_a_seal_that_was_kept_elsewhere(store: SqlStore, figure: Figure) -> None:
    store.record_event(event("key_added"))
    kept = present(store.checkpoint())
    assert kept.number == 3
    seals = {kept.number: kept.signature}
    assert problems(store, seals) == []
    length, head = "SELECT max(number) FROM events WHERE chain = 'installations'", "chain = 'installations' AND number = 2"
    tamper(
        store,
        "DELETE FROM checkpoints WHERE number = 3",
        f"DELETE FROM events WHERE chain = 'installations' AND number = ({length})",  # noqa: S608 - constants
        f"UPDATE chains SET length = 2, sealed_length = 2, head = (SELECT hash FROM events WHERE {head}) WHERE id = 'installations'",  # noqa: S608 - constants
        "UPDATE chains SET sealed_head = head WHERE id = 'installations'",
    )
    assert problems(store) == []  # nothing in the store remembers
    assert problems(store, seals) == [("checkpoints", kept.number)]
    figure("audit tamperings detected", 1)


def test_a_seal_of_another_store_shows(store: SqlStore) -> None:
    assert problems(store, {1: NOTHING}) == [("checkpoints", 1)]


def test_lines_that_were_sealed_with_another_key_show(store: SqlStore, figure: Figure) -> None:
    other = SqlStore(store.database.engine, clock=store.clock, terms=Terms(), audit_key=b"another key")
    other.register(spec("store_9"), "res_9", Schedule(), None, event("resource_registered"))
    assert ("res_9", 1) in problems(store)
    assert ("res_0", 1) in problems(other)
    figure("audit tamperings detected", 1)


@pytest.mark.parametrize("way", ["another key", "no key", "an older format"])
def test_a_chain_that_was_changed_and_sealed_again_shows(
    store: SqlStore, way: str, figure: Figure, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All that anybody can do who has the code, the store and not the key; or who would pass off an older format for this one."""
    if way == "an older format":
        monkeypatch.setattr(audit, "VERSION", 0)
    trail = AuditTrail(AUDIT_KEY if way == "an older format" else b"a key of somebody else's")
    with store.database.writing() as connection:
        head = NOTHING
        for line in connection.execute(select(events).where(events.c.chain == "res_1").order_by(events.c.number)).mappings().all():
            told = {**line, "actor": "nobody"}
            named = {name: str(value) for name, value in told.items() if name != "hash"}
            unkeyed = hashlib.sha256(head + canonical(named).encode()).digest()
            head = unkeyed if way == "no key" else trail.line_hash(head, told)
            place = (events.c.chain == "res_1") & (events.c.number == line["number"])
            connection.execute(update(events).where(place).values(actor="nobody", hash=head))
        connection.execute(text("UPDATE chains SET head = :head, sealed_head = :head WHERE id = 'res_1'"), {"head": head})
    monkeypatch.undo()
    assert ("res_1", 1) in problems(store)
    figure("audit tamperings detected", 1)


def test_a_line_that_was_added_without_the_key_shows(store: SqlStore, figure: Figure) -> None:
    with store.database.writing() as connection:
        (head,) = connection.execute(text("SELECT head FROM chains WHERE id = 'res_1'")).one()
        end = ChainHead("res_1", 3, head, datetime.now(UTC))
        AuditTrail(b"a key of somebody else's").append(connection, end, event("credential_retired"))
    assert ("res_1", 4) in problems(store)
    figure("audit tamperings detected", 1)


# -- the evidence for a period


def exported(store: SqlStore, period: Period = EVER, chain: str | None = None) -> list[str]:
    return list(store.export_audit(period, chain))


def faults(lines: Sequence[str], key: bytes = AUDIT_KEY, seals: dict[int, bytes] | None = None) -> list[str]:
    return [fault.problem for fault in evidence.verify(AuditTrail(key), [f"{line}\n" for line in lines], seals)]


def things(lines: Sequence[str], what: str) -> list[dict[str, object]]:
    return [told for told in map(json.loads, lines) if told["is"] == what]


def test_an_export_proves_itself_to_whoever_has_the_key(store: SqlStore) -> None:
    lines = exported(store)
    assert faults(lines) == []
    assert faults(lines, b"another key")
    assert len(things(lines, "line")) == 11
    assert [told["number"] for told in things(lines, "checkpoint")] == [1, 2]
    assert {told["chain"] for told in things(lines, "head")} == {"installations", "res_0", "res_1", "res_2"}


def test_an_export_of_one_resource_holds_nothing_of_another(store: SqlStore) -> None:
    lines = exported(store, chain="res_1")
    assert faults(lines) == []
    assert {told["chain"] for told in (*things(lines, "line"), *things(lines, "head"))} == {"res_1"}
    with pytest.raises(NotFound):
        exported(store, chain="res_9")


def test_an_export_of_a_period_begins_and_ends_with_it(store: SqlStore) -> None:
    begin = store.now()
    store.record_event(event("key_added"))
    end = store.now()
    lines = exported(store, Period(begin, end))
    assert [(told["chain"], told["number"], told["kind"]) for told in things(lines, "line")] == [("installations", 3, "key_added")]
    assert faults(lines) == []
    assert things(exported(store, Period(end, EVER.end)), "line") == []
    assert faults(exported(store, Period(end, EVER.end))) == []


def test_an_export_tells_whether_it_holds_a_seal_that_was_kept(store: SqlStore) -> None:
    kept = {number: bytes.fromhex(str(told["signature"])) for number, told in enumerate(things(exported(store), "checkpoint"), start=1)}
    assert faults(exported(store), seals=kept) == []
    assert faults(exported(store), seals={2: NOTHING}) == ["the checkpoint that was seen outside is not here"]


CHANGES: dict[str, Callable[[Sequence[str]], list[str]]] = {
    "a line changed": lambda lines: [line.replace('"actor":"test"', '"actor":"nobody"', 1) for line in lines],
    "a line removed": lambda lines: [line for line in lines if not ('"is":"line"' in line and '"number":2,' in line)],
    "the last line of a chain removed": lambda lines: [line for line in lines if not ('"is":"line"' in line and '"number":3,' in line)],
    "two lines exchanged": lambda lines: [*lines[:2], lines[3], lines[2], *lines[4:]],
    "cut off": lambda lines: [*lines[:-3]],
    "without its seal": lambda lines: [*lines[:-1]],
    "without its beginning": lambda lines: [*lines[1:]],
    "with something behind the seal": lambda lines: [*lines, lines[2]],
    "another period named": lambda lines: [line.replace("2000-01-01", "2001-01-01") for line in lines],
    "another format named": lambda lines: [line.replace('"format":1', '"format":0') for line in lines],
    "a chain removed": lambda lines: [line for line in lines if '"chain":"res_1"' not in line],
    "a head changed": lambda lines: [line.replace('"length":3,', '"length":4,') for line in lines],
    "a checkpoint removed": lambda lines: [line for line in lines if not ('"is":"checkpoint"' in line and '"number":1,' in line)],
    "the last checkpoint removed": lambda lines: [line for line in lines if not ('"is":"checkpoint"' in line and '"number":2,' in line)],
    "no line of an export": lambda lines: [*lines[:2], "[]", *lines[2:]],
    "not JSON": lambda lines: [*lines[:2], "canary", *lines[2:]],
    "of a kind that nobody knows": lambda lines: [*lines[:2], '{"is":"gift"}', *lines[2:]],
    "nothing": lambda _: [],
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("resealed", [False, True], ids=["as it is", "sealed again without the key"])
def test_an_export_that_was_changed_shows(export: tuple[str, ...], change: str, resealed: bool, figure: Figure) -> None:  # noqa: FBT001 - a parameter
    changed = CHANGES[change](export)
    assert changed != [*export]
    if resealed:
        body = [line for line in changed if '"is":"seal"' not in line]
        digest = hashlib.sha256("".join(f"{line}\n" for line in body).encode()).hexdigest()
        changed = [*body, canonical({"is": "seal", "lines": len(body), "seal": digest})]
    assert faults(changed)
    figure("audit tamperings detected", 1)


def test_what_was_changed_in_an_export_is_told_besides_that_its_seal_is_broken(export: tuple[str, ...]) -> None:
    assert "the line was changed, or sealed with another key" in faults(CHANGES["a line changed"](export))
    removed = faults(CHANGES["a chain removed"](export))
    assert "the last checkpoint saw other chains: some were removed, cut off or set back" in removed
