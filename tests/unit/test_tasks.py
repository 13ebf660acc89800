from __future__ import annotations

import time
from datetime import timedelta

import pytest
from structlog.testing import capture_logs

from rotation.errors import IllegalMove, Unavailable
from tests.unit.test_healer import Ward
from worker import tasks
from worker.queues import Queue

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


def test_what_a_server_has_lost_is_sent_once_to_a_queue_of_its_own_and_no_more_than_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    world = Ward()
    world.rotate()
    world.run()
    world.roles.clear()
    sent: list[tuple[str, Queue, tuple[str, ...]]] = []
    monkeypatch.setattr(tasks, "OUTSTANDING", 1)
    monkeypatch.setattr(tasks, "ports", lambda: world.ports)
    monkeypatch.setattr(tasks, "depth", lambda _app, _queue: 0)
    monkeypatch.setattr(tasks, "send", lambda _app, task, queue, ids: sent.append((task, queue, ids)))

    for _ in range(3):
        tasks._look_after("pg-1")

    current, old = world.credential(2).id, world.credential(1).id
    assert sent == [(tasks.HEAL_LOGINS, Queue.HEALING, ids) for ids in [(current,), (old,), ()]]


@pytest.mark.parametrize(("seconds", "told"), [(0, []), (60, []), (75, [("work_overdue", True, 75)])])
def test_work_that_nobody_takes_up_for_more_than_a_minute_is_told(seconds: int, told: list[tuple[str, bool, int]]) -> None:
    with capture_logs() as lines:
        tasks._tell_late(timedelta(seconds=seconds))
    assert [(line["event"], line["alarm"], line["seconds"]) for line in lines] == told
