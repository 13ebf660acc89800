"""The machinery of the crash points: that faults happen where they are ordered, and that a broken promise is found."""

from __future__ import annotations

import socket
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from structlog.testing import capture_logs

from rotation import endings
from tests.crash import pairs
from tests.crash.boundaries import Boundary, Fault, Kind, Position, faults_at
from tests.crash.cables import cut
from tests.crash.journal import Journal, has_fired, passed
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
    points = pairs.points_of(scenario)
    happened = {str(point): pairs.play(scenario, (point,)).happened for point in points}
    assert happened == {str(point): 1 for point in points}


def test_the_scenarios_pass_through_everything_that_changes_something_outside() -> None:
    boundaries = {boundary for scenario in pairs.SCENARIOS for boundary in pairs.play(scenario).passed}
    calls = {f"{one.port}.{one.method}" for one in boundaries}
    records = {f"store.record_rotation {state}" for state in ("planned", "offered", "completed", "failed", "superseded", "a wait")}
    stages = {f"store.record_credential {stage}" for stage in ("blocked", "retired", "discarded")}
    acts = {"engine.admit", "engine.block", "engine.withdraw", "engine.prove_refused", "engine.usage", "store.see", "sink.push"}
    assert records | stages | acts | {"store.open_attempt", "store.may_send", "store.amend"} <= calls


def test_a_mistake_after_a_push_without_an_answer_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endings, "_again", gives_up)
    lost = pairs.Point(PUSH, Position.LOST)
    late = pairs.Point(Boundary("engine", "withdraw", "credential discarding"), Position.LOST)
    outcomes = [pairs.outcome(pairs.Pair("schedule", lost, late, number), seed=1) for number in range(20)]
    stories = [one.story for one in outcomes if one.story]
    assert stories
    assert all("I1" in story and str(lost) in story for story in stories)


def test_the_same_pair_and_seed_tell_the_same_story() -> None:
    first, second = pairs.points_of("emergency")[7], pairs.points_of("emergency")[40]
    assert pairs.play("emergency", (first, second), "5/1").told == pairs.play("emergency", (first, second), "5/1").told


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
    assert (passed(tmp_path / "journal"), has_fired(tmp_path / "journal")) == ([PUSH], False)
    journal.fired()
    assert (passed(tmp_path / "journal"), has_fired(tmp_path / "journal")) == ([PUSH], True)
    journal.close()


def test_a_journal_that_was_never_begun_is_empty(tmp_path: Path) -> None:
    assert passed(tmp_path / "journal") == []


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


LOST_PUSH = Order(1, "schedule", Fault(PUSH, Position.LOST, Kind.KILL))
KEPT = Verdict(LOST_PUSH, fired=True, seconds=5.0, resumed=3.0, logins=20)


def test_a_report_is_clean_when_something_went_wrong_and_no_promise_was_broken() -> None:
    report = Report(seed=1, found={PUSH: "schedule"}, verdicts=[KEPT])
    assert report.is_clean
    assert report.as_json()["runs_by_port_and_kind"] == {"sink": {"kill": 1}}
    assert "boundaries: 1 found, 1 tested" in report.lines()


@pytest.mark.parametrize(
    "report",
    [
        Report(seed=1, found={PUSH: "schedule"}),
        Report(seed=1, verdicts=[KEPT, replace(KEPT, fired=False)]),
        Report(seed=1, verdicts=[KEPT, replace(KEPT, story="I1")]),
        Report(seed=1, pairs=Counter({2: 9, 0: 1})),
        Report(seed=1, pairs=Counter({2: 9}), broken_pairs=1),
    ],
    ids=["nothing was run", "a fault did not happen", "a promise was broken", "a pair did not happen", "a pair broke a promise"],
)
def test_a_report_is_not_clean_when(report: Report) -> None:
    assert not report.is_clean
