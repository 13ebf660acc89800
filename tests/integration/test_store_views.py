"""What lists and pages read, and what a person registers, on both databases."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from rotation.cases import Move, Wait
from rotation.errors import Conflict, NotFound
from rotation.model import Installation, Schedule, Session
from rotation.states import ResourceState, RotationState, Stage
from tests.store_samples import (
    INSTALLATION,
    SERVER,
    ask,
    completed,
    credential,
    event,
    failed,
    offered,
    planned,
    present,
    spec,
    verified,
)

if TYPE_CHECKING:
    from rotation.cases import ResourceCase, RotationCase
    from rotation.model import Credential
    from rotation.store.sql import SqlStore
    from tests.sql_stores import SqlBench

DAY = timedelta(days=1)
OTHER = replace(SERVER, name="pg-us-1")


@pytest.fixture
def store(sql_bench: SqlBench) -> SqlStore:
    """Two resources: one that has been rotated, one whose rotation is under way."""
    store = sql_bench.store
    store.add_installation(INSTALLATION, event("installation_added"))
    store.add_server(SERVER, event("server_added"))
    store.add_server(OTHER, event("server_added"))
    for name in ("a", "b"):
        register(store, name)
    case = begin(store, "res_a")
    for step in (verified, offered):
        case = present(store.record_rotation(case, step(case)))
    assert store.record_rotation(case, completed(case)) is None
    begin(store, "res_b")
    return store


def register(store: SqlStore, name: str, *, server: str = SERVER.name) -> Credential:
    current = credential(f"res_{name}", 1, Stage.CURRENT, store.now(), f"login_{name}")
    store.register(spec(f"store_{name}", server=server), f"res_{name}", Schedule(), current, event("resource_registered"))
    return current


def begin(store: SqlStore, resource_id: str) -> RotationCase:
    case = present(store.claim_rotation(store.amend(resource_id, ask)))
    return present(store.record_rotation(case, planned(case)))


def test_resources_are_listed_page_by_page_with_what_is_under_way(store: SqlStore) -> None:
    (first,) = store.views.resources(limit=1)
    (second,) = store.views.resources(after=first.id)
    assert (first.name, first.generation, first.rotation_state) == ("icfg_1/store_a", 2, None)
    assert (second.name, second.generation, second.rotation_state) == ("icfg_1/store_b", 1, RotationState.PLANNED)
    assert first.next_rotation_at is not None
    assert store.views.resources(after=second.id) == ()
    assert store.views.resources(state=ResourceState.PAUSED) == ()


def test_rotations_are_listed_newest_first(store: SqlStore) -> None:
    newest, oldest = store.views.rotations()
    assert (newest.resource_name, newest.triggers) == ("icfg_1/store_b", ("manual",))
    assert store.views.rotations(before=newest.rotation.id) == (oldest,)
    assert store.views.rotations("res_a") == (oldest,)
    assert store.views.rotations(under_way=True) == (newest,)


def test_a_rotation_is_told_from_request_to_end(store: SqlStore) -> None:
    (line,) = store.views.rotations("res_a")
    story = store.views.rotation(line.rotation.id)
    assert story.rotation.state is RotationState.COMPLETED
    assert [one.actor for one in story.requests] == ["test"]
    assert [one.status for one in story.attempts] == [201]
    assert [one.event.kind for one in story.events] == [
        f"rotation_{state}" for state in ("requested", "planned", "verified", "offered", "completed")
    ]
    with pytest.raises(NotFound):
        store.views.rotation("rot_unknown")


def test_credentials_are_listed_with_who_was_seen_using_them(store: SqlStore) -> None:
    store.see(SERVER, [Session("login_a", "10.0.0.1", "shop", "idle", 2, store.now())])
    newest, oldest = store.views.credentials("res_a")
    assert (newest.credential.stage, newest.sightings) == (Stage.CURRENT, ())
    assert oldest.credential.stage is Stage.PREVIOUS
    assert [(one.client, one.application, one.sessions) for one in oldest.sightings] == [("10.0.0.1", "shop", 2)]
    with pytest.raises(NotFound):
        store.views.credential("cred_unknown")


def test_the_fleet_in_numbers(sql_bench: SqlBench, store: SqlStore) -> None:
    status = store.views.status()
    assert dict(status.resources) == {ResourceState.ACTIVE: 2}
    assert dict(status.rotations) == {RotationState.PLANNED: 1}
    assert dict(status.credentials) == {Stage.PENDING: 1, Stage.PREVIOUS: 1}
    assert (status.due, status.in_grace, status.waiting_for_use, status.parked, status.failing) == (0, 1, 0, 0, 0)
    sql_bench.advance(40 * DAY)
    store.park(INSTALLATION.id, "401", event("installation_parked"))
    case = present(store.claim_rotation(store.views.rotations()[0].rotation.id))
    assert store.record_rotation(case, failed(case)) is None
    status = store.views.status()
    assert (status.due, status.in_grace, status.waiting_for_use, status.parked, status.failing) == (2, 0, 1, 1, 1)
    assert present(status.oldest_due_at) <= status.at - 9 * DAY


def test_what_nobody_takes_up_for_a_minute_is_an_alarm_that_needs_no_worker_to_be_raised(sql_bench: SqlBench, store: SqlStore) -> None:
    sql_bench.advance(timedelta(seconds=59))
    assert dict(store.views.status().alarms) == {}
    sql_bench.advance(timedelta(seconds=2))
    assert dict(store.views.status().alarms) == {"work_overdue": 1}
    assert store.views.late() > timedelta(seconds=60)


def test_what_a_paused_resource_holds_is_not_late(sql_bench: SqlBench, store: SqlStore) -> None:
    def pause(_case: ResourceCase) -> tuple[Move, None]:
        return Move(event("resource_paused"), resource_state=ResourceState.PAUSED), None

    store.amend("res_b", pause)
    sql_bench.advance(timedelta(minutes=2))
    status = store.views.status()
    assert (status.oldest_due_at, dict(status.alarms)) == (None, {})
    assert store.views.late() == timedelta(0)


def test_a_resource_is_found_by_each_of_its_names(store: SqlStore) -> None:
    for name in ("res_a", "store_a", "icfg_1/store_a"):
        assert store.find_resource(name).id == "res_a"
    for name in ("nothing", "icfg_2/store_a"):
        with pytest.raises(NotFound):
            store.find_resource(name)
    store.add_installation(Installation("icfg_2"), event("installation_added"))
    other = replace(spec("store_a", server=OTHER.name), installation_id="icfg_2")
    store.register(other, "res_c", Schedule(), None, event("resource_registered"))
    with pytest.raises(Conflict, match="installation/id"):
        store.find_resource("store_a")
    assert store.find_resource("icfg_2/store_a").id == "res_c"
    for gone in ("res_c", "res_a"):
        store.amend(gone, lambda _case: (Move(event("resource_left"), resource_state=ResourceState.GONE), None))
        assert store.find_resource("store_a").id == ("res_a" if gone == "res_c" else "res_c")


def test_logins_move_with_their_resource_to_another_server(store: SqlStore) -> None:
    store.revise("res_a", spec("store_a", server=OTHER.name), Schedule(), event("resource_revised"))
    store.see(OTHER, [Session("login_a", "10.0.0.1", "shop", "idle", 1, store.now())])
    assert store.views.credentials("res_a")[-1].credential.last_seen_at is not None
    register(store, "d", server="pg-eu-1")
    clash = replace(credential("res_e", 1, Stage.CURRENT, store.now()), username="login_d")
    store.register(spec("store_e", server=OTHER.name), "res_e", Schedule(), clash, event("resource_registered"))
    with pytest.raises(Conflict):
        store.revise("res_d", spec("store_d", server=OTHER.name), Schedule(), event("resource_revised"))
    assert store.resource("res_d").revision == 1


def test_servers_and_installations_are_listed_and_changed(store: SqlStore) -> None:
    moved = replace(SERVER, host="10.9.9.9")
    store.change_server(moved, event("server_changed"))
    assert store.servers() == (moved, OTHER)
    assert store.resource("res_a").server == moved
    assert store.installations() == (INSTALLATION,)
    for attempt in (
        lambda: store.change_server(replace(SERVER, name="x"), event("server_changed")),
        lambda: store.set_token("icfg_9", b"x", event("token_set")),
        lambda: store.park("icfg_9", "401", event("installation_parked")),
        lambda: store.unpark("icfg_9", event("installation_unparked")),
        lambda: store.installation("icfg_9"),
        lambda: store.server("x"),
    ):
        with pytest.raises(NotFound):
            attempt()


def test_a_wait_without_a_time_is_not_overdue(store: SqlStore) -> None:
    case = begin(store, "res_a")
    assert store.record_rotation(case, Wait(None, "held")) is None
    assert store.views.rotation(case.rotation.id).rotation.problem == "held"
