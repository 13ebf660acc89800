"""How a worker listens: to messages that are in order, and to people who only look.

Celery obeys anybody who can write to the broker: `shutdown`, `pool_shrink`, `cancel_consumer`, `rate_limit`, `revoke` … Nothing of ours
sends those; processes are ended by signals, and settings are settings. It also believes other workers, in their events and their answers;
ours have nothing to say to each other.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import structlog
from celery.worker.consumer import Consumer
from celery.worker.control import Panel
from kombu import pidbox

from worker import messages

if TYPE_CHECKING:
    from collections.abc import Callable

LOOKING = frozenset(
    {"active", "active_queues", "clock", "conf", "enable_events", "ping", "query_task", "registered", "report", "reserved", "revoked"}
    | {"scheduled", "stats"}
)
"""The remote commands that change nothing: for health checks, `celery inspect` and Flower. Ours tell of their tasks anyway."""

log = structlog.get_logger()


class StrictNode(pidbox.Node):
    """Where a worker is asked: it hears only questions that are in order."""

    def listen(self, channel: Any = None, callback: Any = None) -> Any:  # noqa: ANN401 - the library's signature
        """Ask the channel for questions, as they came: kombu would have decoded them already."""

        def hear_if_in_order(message: Any) -> None:  # noqa: ANN401 - kombu's message
            problem = messages.fault_of_question(message, LOOKING)
            if problem is None:
                callback(json.loads(message.body), message)
            else:
                messages.refuse(problem, len(message.body or b""))

        consumer = self.Consumer(channel, on_message=hear_if_in_order)
        consumer.consume()
        return consumer


class StrictConsumer(Consumer):
    """Celery's consumer, which sees only messages that are in order, and obeys nobody."""

    def __init__(self, *given: Any, **named: Any) -> None:  # noqa: ANN401 - the library's signature
        for name in set(Panel.data) - LOOKING:
            del Panel.data[name]
        named["app"].control.mailbox.node_cls = StrictNode
        super().__init__(*given, **named, without_mingle=True, without_gossip=True)

    def create_task_handler(self, *given: Any, **named: Any) -> Callable[[Any], object]:  # noqa: ANN401 - the library's signature
        """What is called with each message that came for a task."""
        handle = super().create_task_handler(*given, **named)
        consumer: Any = self  # whose stubs leave much out

        def handle_if_in_order(message: Any) -> object:  # noqa: ANN401 - kombu's message
            problem = messages.fault_of(message, consumer.strategies)
            if problem is None:
                return handle(message)
            messages.refuse(problem, len(message.body or b""))
            return message.ack_log_error(log, consumer.connection_errors)

        return handle_if_in_order
