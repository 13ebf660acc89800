"""How many rows a message holds: many while many wait, one at the end."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any, cast

import pytest
from kombu.exceptions import OperationalError

from worker.hints import MOST_ROWS, send
from worker.queues import Queue

if TYPE_CHECKING:
    from celery import Celery


class Broker:
    """Takes messages as Celery's application does, so many before it is lost."""

    def __init__(self, takes: int = 1_000) -> None:
        self.takes = takes
        self.messages: list[list[str]] = []

    def send_task(self, _name: str, *, args: list[list[str]], queue: str, retry: bool) -> None:
        assert queue == Queue.SCHEDULED.value
        assert not retry
        if len(self.messages) == self.takes:
            raise OperationalError("lost")
        self.messages.append(args[0])


def sent(count: int, broker: Broker) -> int:
    ids = [f"rot_{number}" for number in range(count)]
    taken = send(cast("Celery", cast("Any", broker)), "rollover.advance_rotations", Queue.SCHEDULED, ids)
    assert [one for message in broker.messages for one in message] == ids[:taken]
    return taken


@pytest.mark.parametrize("count", [1, 2, 7, 15])
def test_a_few_rows_go_one_by_one_so_that_every_worker_has_one(count: int) -> None:
    broker = Broker()
    assert sent(count, broker) == count
    assert len(broker.messages) == count


def test_many_rows_share_messages_that_grow_smaller_towards_the_end() -> None:
    broker = Broker()
    assert sent(500, broker) == 500
    sizes = [len(message) for message in broker.messages]
    assert sizes[0] == MOST_ROWS
    assert all(before >= after for before, after in pairwise(sizes))
    assert sizes[-8:] == [1] * 8
    assert len(sizes) < 500 / 5


def test_nothing_to_send_is_no_message() -> None:
    broker = Broker()
    assert sent(0, broker) == 0
    assert broker.messages == []


def test_what_a_lost_broker_did_not_take_is_not_counted() -> None:
    broker = Broker(takes=3)
    assert sent(500, broker) == 3 * MOST_ROWS
