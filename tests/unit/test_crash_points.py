"""The machinery of the crash points: that faults happen where they are ordered, and that a broken promise is found."""

from __future__ import annotations

import socket
from collections import Counter
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from structlog.testing import capture_logs

from rotation import endings, policy
from rotation.errors import Unavailable
from tests.crash import pairs
from tests.crash.boundaries import Boundary, Fault, Kind, Position, faults_at
from tests.crash.cables import cut
from tests.crash.injector import Injector
from tests.crash.journal import Journal, Told, told
from tests.crash.mistakes import gives_up
from tests.crash.report import Report
from tests.crash.runs import Order, Verdict

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PUSH = Boundary("sink", "push", "rotation offered")


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with capture_logs():
        yield


@pytest.mark.parametrize("scenario", list(pairs.SCENARIOS))
def test_every_fault_that_is_ordered_happens_and_breaks_no_promise(scenario: str) -> None:
    faults = [fault for faults in pairs.faults_of(scenario) for fault in faults]
    worlds = {fault: pairs.play(scenario, (fault,)) for fault in faults}
    assert {fault: world.happened for fault, world in worlds.items()} == {fault: [fault] for fault in faults}
    # A connection that nobody uses any more may be cut as one likes.
    in_vain = [fault for fault, world in worlds.items() if world.vain]
    assert {(one.kind, one.position) for one in in_vain} <= {(Kind.RESET, Position.AFTER)}
    assert len(in_vain) < len(faults) / 20


def test_the_scenarios_pass_through_everything_that_changes_something_outside() -> None:
    boundaries = {boundary for scenario in pairs.SCENARIOS for boundary in pairs.play(scenario).passed}
    calls = {f"{one.port}.{one.method}" for one in boundaries}
    records = {f"store.record_rotation {state}" for state in ("planned", "offered", "completed", "failed", "superseded", "a wait")}
    stages = {f"store.record_credential {stage}" for stage in ("blocked", "retired", "discarded")}
    acts = {"engine.admit", "engine.block", "engine.withdraw", "engine.prove_refused", "engine.usage", "store.see", "sink.push"}
    assert records | stages | acts | {"store.open_attempt", "store.may_send", "store.amend"} <= calls


def test_a_mistake_after_a_push_without_an_answer_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endings, "_again", gives_up)
    lost = Fault(PUSH, Position.LOST, Kind.TIMEOUT)
    late = Fault(Boundary("engine", "withdraw", "credential discarding"), Position.LOST, Kind.RESET)
    outcome = pairs.outcome(pairs.Pair("schedule", lost, late, 1))
    assert "I1" in outcome.story
    assert str(lost) in outcome.story
    assert outcome.happened == 1, "it is found before the second one"


def test_a_grace_that_is_too_short_is_found_though_its_row_says_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    real = policy.grace_end

    def early(*arguments: Any) -> policy.Dated:  # noqa: ANN401 - as the real one
        dated = real(*arguments)
        return replace(dated, at=dated.at - timedelta(minutes=10))

    monkeypatch.setattr(policy, "grace_end", early)
    with pytest.raises(AssertionError, match="I2: orders_app ended before its grace was over"):
        pairs.play("schedule")


def test_the_same_pair_and_seed_tell_the_same_story() -> None:
    first, second = (next(pair for pair in pairs.pairs(5) if pair.number == 12_345) for _ in range(2))
    assert first == second
    faults = first.first, first.second
    assert pairs.play(first.scenario, faults).told == pairs.play(first.scenario, faults).told


def test_a_rotation_that_is_lost_where_only_processes_died_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pairs, "FAIL", frozenset())
    admit = Boundary("engine", "admit", "rotation planned")
    killed, timed_out = Fault(admit, Position.BEFORE, Kind.KILL), Fault(admit, Position.BEFORE, Kind.TIMEOUT)
    assert "I4: a rotation failed because its worker died" in pairs.outcome(pairs.Pair("failure", killed, killed, 1)).story
    assert pairs.outcome(pairs.Pair("failure", killed, timed_out, 1)).story == ""


def test_what_changes_something_outside_can_fail_in_ten_ways_what_only_looks_in_six_and_what_is_computed_in_two() -> None:
    here = "rotation offered"
    ways = [len(faults_at(Boundary(*call, here))) for call in (("sink", "push"), ("engine", "check"), ("sealer", "open"))]
    assert ways == [10, 6, 2]
    assert {one.kind for one in faults_at(PUSH) if one.position is Position.LOST} == set(Kind)


def test_a_fault_arrives_as_it_was_sent() -> None:
    fault = Fault(PUSH, Position.LOST, Kind.TIMEOUT)
    assert Fault.read(fault.written()) == fault


def test_a_call_that_finds_nothing_is_told_from_one_that_finds_something() -> None:
    called = Boundary("store", "due_credentials", "after completed")
    assert called.may_become(Boundary("store", "due_credentials", "after completed", gives="rows"))
    assert called.may_become(Boundary("store", "due_credentials", "nothing in hand", gives="none"))
    assert not called.may_become(Boundary("store", "due_credentials", "after blocked", gives="rows"))


def test_a_journal_tells_what_was_passed_and_whether_the_fault_happened(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal")
    journal.passed(PUSH)
    journal.passed(PUSH)
    assert told(tmp_path / "journal") == Told((PUSH,), fired=False, in_vain=False)
    journal.fired()
    assert told(tmp_path / "journal") == Told((PUSH,), fired=True, in_vain=False)
    journal.in_vain()
    assert told(tmp_path / "journal") == Told((PUSH,), fired=True, in_vain=True)
    journal.close()


def test_a_journal_that_was_never_begun_is_empty(tmp_path: Path) -> None:
    assert told(tmp_path / "journal") == Told((), fired=False, in_vain=False)


def test_connections_to_one_port_are_cut_and_others_go_on() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_server(("127.0.0.1", 0)) as other,
        socket.create_connection(server.getsockname()) as lost,
        socket.create_connection(other.getsockname()) as kept,
        server.accept()[0],
        other.accept()[0] as far_end,
    ):
        assert cut(server.getsockname()[1]) == 1
        assert lost.recv(1) == b""
        far_end.sendall(b"x")
        assert kept.recv(1) == b"x"


class Shelf:
    """A store of one method, without a connection to anybody."""

    def resource(self, resource_id: str) -> str:
        return resource_id


LOOK = Boundary("store", "resource", "nothing in hand")


def a_store_that_meets(fault: Fault, directory: Path) -> Any:  # noqa: ANN401 - it stands for a port
    journal = Journal(directory / "journal")
    return Injector(journal, fault, {"store": 9}, timedelta(0), chance=0.0).watched("store", Shelf())


def test_a_call_fails_where_no_connection_was_there_to_be_cut(tmp_path: Path) -> None:
    store = a_store_that_meets(Fault(LOOK, Position.BEFORE, Kind.RESET), tmp_path)
    with pytest.raises(Unavailable):
        store.resource("one")
    assert store.resource("two") == "two"
    assert told(tmp_path / "journal") == Told((LOOK,), fired=True, in_vain=False)


def test_a_reset_after_a_call_that_left_no_connection_is_in_vain(tmp_path: Path) -> None:
    store = a_store_that_meets(Fault(LOOK, Position.AFTER, Kind.RESET), tmp_path)
    assert store.resource("one") == "one"
    assert told(tmp_path / "journal") == Told((LOOK,), fired=True, in_vain=True)


LOST_PUSH = Order(1, "schedule", Fault(PUSH, Position.LOST, Kind.KILL))
KEPT = Verdict(LOST_PUSH, Told((), fired=True, in_vain=False), seconds=5.0, resumed=3.0, logins=20)


def test_a_report_is_clean_when_something_went_wrong_and_no_promise_was_broken() -> None:
    report = Report(seed=1, found={PUSH: "schedule"}, verdicts=[KEPT])
    assert report.is_clean
    assert report.as_json()["runs_by_port_and_kind"] == {"sink": {"kill": 1}}
    assert "boundaries: 1 found, 1 tested; met by chance only: 0" in report.lines()


def test_a_fault_that_changed_nothing_has_tested_nothing() -> None:
    report = Report(seed=1, found={PUSH: "schedule"}, verdicts=[replace(KEPT, told=replace(KEPT.told, in_vain=True))])
    assert not report.is_clean
    assert "faults that did not happen: 0; without effect: 1" in report.lines()


@pytest.mark.parametrize(
    "report",
    [
        Report(seed=1, found={PUSH: "schedule"}),
        Report(seed=1, verdicts=[KEPT, replace(KEPT, told=Told((), fired=False, in_vain=False))]),
        Report(seed=1, verdicts=[KEPT, replace(KEPT, story="I1")]),
        Report(seed=1, pairs=Counter({2: 9, 0: 1}), pairs_missed=1),
        Report(seed=1, pairs=Counter({2: 9}), broken_pairs=1),
    ],
    ids=["nothing was run", "a fault did not happen", "a promise was broken", "a pair did not happen", "a pair broke a promise"],
)
def test_a_report_is_not_clean_when(report: Report) -> None:
    assert not report.is_clean
