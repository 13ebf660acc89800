"""Moves in one statement, on PostgreSQL: they are what the careful way would have written, and give way to it when it is needed."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

import psycopg
import pytest
from sqlalchemy import event as happening

from rotation.cases import Move
from rotation.errors import IllegalMove, LostClaim, OutcomeUnknown, Unavailable
from rotation.ports import Terms
from rotation.states import RotationState, Stage
from tests.store_benches import begin, register
from tests.store_samples import INSTALLATION, SERVER, ask, blocked, completed, event, offered, planned, present, retired, verified

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rotation.cases import RotationCase
    from rotation.model import Resource
    from rotation.store.sql import SqlStore
    from tests.sql_stores import SqlBench

END_OTHERS = "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"


@pytest.fixture
def bench(postgresql_bench: SqlBench) -> SqlBench:
    postgresql_bench.store.add_installation(INSTALLATION, event("installation_added"))
    postgresql_bench.store.add_server(SERVER, event("server_added"))
    return postgresql_bench


@pytest.fixture
def resource(bench: SqlBench) -> Resource:
    return register(bench)


@contextmanager
def careful_statements(store: SqlStore) -> Iterator[list[str]]:
    """What goes by SQLAlchemy meanwhile: the careful way does, a move in one statement does not."""
    seen: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        seen.append(statement)

    happening.listen(store.database.engine, "before_cursor_execute", note)
    try:
        yield seen
    finally:
        happening.remove(store.database.engine, "before_cursor_execute", note)


def test_a_rotation_and_a_retirement_that_nobody_disturbs_need_no_other_statement(bench: SqlBench, resource: Resource) -> None:
    store = bench.store
    rotation_id = store.amend(resource.id, ask)
    with careful_statements(store) as seen:
        case: RotationCase | None = present(store.claim_rotation(rotation_id))
        for step in (planned, verified, offered, completed):
            case = store.record_rotation(present(case), step(present(case)))
    assert seen == []
    assert case is None
    assert list(store.verify_audit()) == []

    bench.advance(timedelta(days=2))
    (old,) = store.due_credentials(10)
    with careful_statements(store) as seen:
        ending = present(store.claim_credential(old))
        ending = present(store.record_credential(ending, blocked(ending)))
        assert store.record_credential(ending, retired(ending)) is None
    assert seen == []
    assert bench.credential(old).stage is Stage.RETIRED
    assert list(store.verify_audit()) == []


def test_what_somebody_else_has_written_since_makes_it_careful(bench: SqlBench, resource: Resource) -> None:
    case = begin(bench, resource, "planned")
    bench.store.amend(resource.id, ask)
    with careful_statements(bench.store) as seen:
        after = present(bench.store.record_rotation(case, verified(case)))
    assert len(seen) > 1
    assert after.rotation.state is RotationState.VERIFIED
    assert len(after.requests) == 2
    assert list(bench.store.verify_audit()) == []


@pytest.mark.parametrize("lost", [lambda case: replace(case, claim=replace(case.claim, fence=case.claim.fence + 1)), None])
def test_a_claim_that_is_lost_writes_nothing_though_the_chain_has_not_grown(
    bench: SqlBench, resource: Resource, lost: Callable[[RotationCase], RotationCase] | None
) -> None:
    """By another fence, or because somebody else holds the row by now."""
    case = begin(bench, resource, "planned")
    if lost is None:
        bench.advance(Terms().claim * 2)
        assert bench.store.claim_rotation(case.rotation.id) is not None
        stale = case
    else:
        stale = lost(case)
    known = bench.kinds(resource.id)
    with pytest.raises(LostClaim):
        bench.store.record_rotation(stale, verified(stale))
    assert bench.rotation(case.rotation.id).state is RotationState.PLANNED
    assert bench.kinds(resource.id) == known
    assert list(bench.store.verify_audit()) == []


def test_a_resource_that_was_revised_since_makes_the_whole_move_undone(bench: SqlBench, resource: Resource) -> None:
    case = begin(bench, resource, "planned", "verified", "offered")
    stale = replace(case, resource=replace(case.resource, revision=case.resource.revision + 1))
    with pytest.raises(LostClaim, match="revised"):
        bench.store.record_rotation(stale, completed(stale))
    assert bench.rotation(case.rotation.id).state is RotationState.OFFERED
    assert [one.stage for one in (bench.credential(each.id) for each in case.credentials)] == [Stage.CURRENT, Stage.PENDING]


def test_a_chain_that_was_set_back_is_not_written_on(bench: SqlBench, resource: Resource) -> None:
    """As after a restore of the store: as many events as the case knows, but others."""
    case = begin(bench, resource, "planned")
    with careful_statements(bench.store) as seen:
        bench.store.record_rotation(replace(case, head=b"another"), verified(case))
    assert seen
    assert list(bench.store.verify_audit()) == []


def test_only_a_rotation_opens_an_attempt(bench: SqlBench, resource: Resource) -> None:
    case = begin(bench, resource, "planned", "verified", "offered")
    bench.store.record_rotation(case, completed(case))
    bench.advance(timedelta(days=2))
    (old,) = bench.store.due_credentials(10)
    ending = present(bench.store.claim_credential(old))
    move = blocked(ending)
    with pytest.raises(IllegalMove):
        bench.store.record_credential(ending, Move(move.event, credentials=move.credentials, opens_attempt=offered(case).opens_attempt))


def test_a_row_that_is_written_unchanged_takes_the_next_fence_and_whoever_works_on_it_looks_again(
    bench: SqlBench, resource: Resource
) -> None:
    """So the last two logins of a leaving resource do not each see the other one left."""
    store = bench.store
    case = begin(bench, resource, "planned", "verified", "offered")
    store.record_rotation(case, completed(case))
    bench.advance(timedelta(days=2))
    old, new = (one.id for one in case.credentials)
    ending = present(store.claim_credential(old))
    unchanged = next(one for one in ending.credentials if one.id == new)
    move = blocked(ending)
    with careful_statements(store) as seen:
        store.record_credential(ending, replace(move, credentials=(*move.credentials, unchanged)))
    assert seen == []
    assert bench.credential(new).fence == unchanged.fence + 1
    assert bench.credential(new) == replace(unchanged, fence=unchanged.fence + 1)


def test_an_answer_that_is_lost_is_unknown_and_the_next_statement_has_a_new_connection(bench: SqlBench, resource: Resource) -> None:
    store = bench.store
    case = begin(bench, resource, "planned")
    url = store.database.engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(url, autocommit=True) as other:
        other.execute(END_OTHERS)
    with pytest.raises((OutcomeUnknown, Unavailable)):
        store.record_rotation(case, verified(case))
    assert present(store.record_rotation(case, verified(case))).rotation.state is RotationState.VERIFIED
