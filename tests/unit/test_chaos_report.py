"""The report of a chaos run: what makes it clean, what is told, and how several are summed."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from tests.chaos.mayhem import Kill
from tests.chaos.report import Report, Spread, summed
from tests.chaos.verdicts import next_acts

KEPT = Report(
    seed=7,
    resources=20,
    rotations=Counter(completed=30, superseded=1),
    kills=9,
    restarts=Counter(store=2, broker=1),
    probes=100,
    unreachable=4,
    blocked_afterwards=Spread(5, 0.5, 1.0, 1.0),
    emergency_afterwards=Spread(8, 2.0, 3.0, 3.0),
)


def test_a_report_is_clean_when_something_happened_and_no_promise_was_broken() -> None:
    assert KEPT.faults == []
    assert KEPT.as_json()["clean"] is True
    assert "rotations: 31 (completed 30, superseded 1); logins retired: 0; asked for: 0" in KEPT.lines()


@pytest.mark.parametrize(
    ("report", "fault"),
    [
        (replace(KEPT, refused=["orders_7 (28P01)"]), "a login was refused: orders_7 (28P01)"),
        (replace(KEPT, early=["orders_7"]), "a login was retired early: orders_7"),
        (replace(KEPT, orphans=["orders_7"]), "an orphan was left: orders_7"),
        (replace(KEPT, lost=["rot_7 is offered"]), "a rotation was lost: rot_7 is offered"),
        (replace(KEPT, broken=["the audit trail"]), "a promise was broken: the audit trail"),
        (replace(KEPT, rotations=Counter(failed=3)), "nothing was rotated"),
        (replace(KEPT, kills=0), "nothing was killed"),
        (replace(KEPT, unreachable=100), "nothing was tried by customers"),
        (replace(KEPT, next_act=Spread(1, 61.0, 61.0, 61.0)), "after a kill nothing was done for 61 s"),
        (replace(KEPT, overdue=["rot_7 took 61 s"]), "a rotation ended late after the chaos: rot_7 took 61 s"),
        (replace(KEPT, late=["orders_7 took 61 s"]), "a login was blocked late: orders_7 took 61 s"),
        (replace(KEPT, slow=["orders_7 took 31 s"]), "an emergency was slow: orders_7 took 31 s"),
        (replace(KEPT, blocked_afterwards=Spread()), "nothing was blocked after the chaos"),
        (replace(KEPT, emergency_afterwards=Spread()), "nothing was asked for as an emergency after the chaos"),
        (replace(KEPT, stalled=["rot_7 for 61 s"]), "a rotation stood still: rot_7 for 61 s"),
    ],
)
def test_a_report_is_not_clean_when(report: Report, fault: str) -> None:
    assert report.faults == [fault]
    assert report.as_json()["clean"] is False
    assert report.lines()[-1] == fault


def test_the_spread_of_nothing_is_nothing() -> None:
    assert Spread.of([]) == Spread()


def test_a_spread_tells_the_median_and_the_longest() -> None:
    assert Spread.of(float(number) for number in range(1, 101)) == Spread(100, 50.0, 99.0, 100.0)


def test_the_next_act_after_a_kill_is_the_first_one_later_and_a_kill_after_the_last_act_has_none() -> None:
    kills = [Kill("worker0", 10.0), Kill("worker1", 12.0), Kill("worker0", 30.0)]
    assert list(next_acts(kills, [9.0, 10.5, 11.0, 20.0])) == [0.5, 8.0]


def test_several_runs_are_summed_and_one_broken_promise_is_a_broken_promise_of_all() -> None:
    broken = replace(KEPT, seed=8, orphans=["orders_7"], slow=["orders_8 took 31 s"], next_act=Spread(1, 2.0, 2.0, 2.0))
    total = summed([KEPT.as_json(), broken.as_json()])
    assert total["seeds"] == [7, 8]
    assert total["rotations"] == {"completed": 60, "superseded": 2}
    assert (total["kills"], total["restarts"]) == (18, {"store": 4, "broker": 2})
    assert total["next_act_longest"] == 2.0
    assert (total["emergency_afterwards_count"], total["emergency_afterwards_longest"]) == (16, 3.0)
    assert (total["orphans"], total["slow"], total["clean"]) == (["orders_7"], ["orders_8 took 31 s"], False)
    assert summed([KEPT.as_json()])["clean"] is True
    assert summed([])["clean"] is False
