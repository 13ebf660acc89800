from __future__ import annotations

import time
from datetime import timedelta

import pytest
from structlog.testing import capture_logs

from rotation.errors import IllegalMove, Unavailable
from worker import tasks

ROWS = ["rot_1", "rot_2", "rot_3"]


def test_the_rows_of_a_message_have_their_turn_one_after_the_other() -> None:
    taken: list[str] = []

    def advance(row_id: str) -> int:
        taken.append(row_id)
        return 1

    tasks._each(advance, ROWS)
    assert taken == ROWS


def test_a_row_that_breaks_keeps_no_other_from_its_turn_and_is_raised_all_the_same() -> None:
    taken: list[str] = []

    def advance(row_id: str) -> int:
        taken.append(row_id)
        if row_id == ROWS[0]:
            raise IllegalMove("a bug of ours")
        return 1

    with pytest.raises(IllegalMove, match="a bug of ours"):
        tasks._each(advance, ROWS)
    assert taken == ROWS


def test_a_store_that_is_away_for_one_row_is_asked_for_the_next() -> None:
    taken: list[str] = []

    def advance(row_id: str) -> int:
        taken.append(row_id)
        raise Unavailable("the store does not answer")

    tasks._each(advance, ROWS)
    assert taken == ROWS


def test_what_is_left_when_the_time_is_over_is_left_to_the_sweep(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[str] = []
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])

    def advance(row_id: str) -> int:
        taken.append(row_id)
        now[0] += tasks.BATCH_SECONDS + 1
        return 1

    tasks._each(advance, ROWS)
    assert taken == ROWS[:1]


@pytest.mark.parametrize(("seconds", "told"), [(0, []), (60, []), (75, [("work_overdue", True, 75)])])
def test_work_that_nobody_takes_up_for_more_than_a_minute_is_told(seconds: int, told: list[tuple[str, bool, int]]) -> None:
    with capture_logs() as lines:
        tasks._tell_late(timedelta(seconds=seconds))
    assert [(line["event"], line["alarm"], line["seconds"]) for line in lines] == told
