"""What a message may be: exactly what our own processes send. Whatever else lies in the broker is dropped, and told.

Whoever can write to the broker should be able to send hints and nothing else. Celery and kombu expect well-formed messages: one that is
not ends a worker (TypeError in the loop that reads from the broker), is given back when that worker ends, and ends the next one too. So a
message is looked at twice, each time before the library touches it: as it comes out of Redis, and before Celery makes a task of it or a
person's question.
"""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import structlog

from rotation.states import Alarm

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

LARGEST_MESSAGE = 16 << 20
"""Bytes. The largest of ours are what workers tell a dashboard of a busy second; as Python's values a message takes ten times its size."""
LARGEST_BODY = 64 * 1024
"""Bytes: ours are a hundred times smaller."""
LONGEST_ID = 256
LONGEST_WORD = 1_024
MOST_IDS = 100
LATEST_CLOCK = 1 << 53
"""Of Celery's logical clock: it takes the latest that it is told of, and all that a worker sends has it. AMQP has no place for more."""
NEVER: Mapping[str, tuple[object, ...]] = {
    **dict.fromkeys(("eta", "compression", "group", "group_index", "chord", "shadow", "stamped_headers", "delivery_info"), (None,)),
    "retries": (None, 0),
    "timelimit": (None, [None, None]),
    "stamps": (None, {}),
}
"""Headers that ask for something, and what stands in ours."""

log = structlog.get_logger()


def refuse(problem: str, size: int) -> None:
    """Tell of a message that was dropped; nothing of what is in it is repeated."""
    log.warning(Alarm.MESSAGE_REFUSED, alarm=True, problem=problem, size=size)


def fault_of(message: Any, tasks: Collection[str]) -> str | None:  # noqa: ANN401 - kombu's message
    """Why this is no message of ours, or None. `tasks` are the names of those that this worker runs."""
    headers, body = message.headers, message.body
    if message.content_type != "application/json" or message.content_encoding != "utf-8":
        return "it is not JSON"
    if not isinstance(headers, dict) or not _plain(headers):
        return "its headers are not in order"
    task = headers.get("task")
    if not isinstance(task, str) or task not in tasks or task.startswith("celery."):
        return "it is for no task of ours"
    return _fault_of_headers(headers) or _fault_of_body(body)


def _fault_of_headers(headers: dict[str, object]) -> str | None:
    """Our messages are never late on purpose, never tried again, never limited and never part of anything larger."""
    if not _word(headers.get("id")):
        return "it has no id"
    if any(headers.get(name) not in allowed for name, allowed in NEVER.items()):
        return "it asks for what our messages never ask for"
    try:
        if headers.get("expires") is not None:
            datetime.fromisoformat(str(headers["expires"]))
    except ValueError:
        return "it expires at no time"
    return None


def _fault_of_body(body: object) -> str | None:
    if not isinstance(body, str | bytes) or len(body) > LARGEST_BODY:
        return "its body is too large"
    try:
        match json.loads(body):
            case [list() as arguments, dict() as named, dict() as embedded] if not named and not any(embedded.values()) and _ids(arguments):
                return None
    except (ValueError, RecursionError):
        pass
    return "its body holds something else than ids"


def _ids(arguments: list[object]) -> bool:
    """Nothing, or one list of ids."""
    match arguments:
        case []:
            return True
        case [list() as ids] if len(ids) <= MOST_IDS:
            return all(isinstance(one, str) and 0 < len(one) <= LONGEST_ID and one.isprintable() for one in ids)
    return False


def _plain(headers: dict[str, object]) -> bool:
    """Whether each is a short text, a number or nothing; of what ours never ask for, more may be told."""
    others = {name: value for name, value in headers.items() if name not in NEVER}
    return all(map(_word, headers)) and all(value is None or isinstance(value, bool | int) or _word(value) for value in others.values())


def _word(value: object) -> bool:
    return isinstance(value, str) and len(value) <= LONGEST_WORD


# -- what people ask workers


def fault_of_question(message: Any, commands: Collection[str]) -> str | None:  # noqa: ANN401 - kombu's message
    """Why nobody who only looks would have sent this, or None. `commands` are the names of those that may be asked."""
    headers, body = message.headers, message.body
    if message.content_type != "application/json" or message.content_encoding != "utf-8":
        return "it is not JSON"
    if not isinstance(headers, dict) or not _clock(headers.get("clock")):
        return "its headers are not in order"
    if not isinstance(body, str | bytes) or len(body) > LARGEST_BODY:
        return "its body is too large"
    try:
        match json.loads(body):
            case {"method": str() as method, **others} if method in commands and all(map(_allowed, others, others.values())):
                return None
    except (ValueError, RecursionError):
        pass
    return "it asks for more than a look"


def _clock(value: object) -> bool:
    return value is None or (isinstance(value, int) and 0 <= value <= LATEST_CLOCK)


def _allowed(name: object, value: object) -> bool:
    """What may stand in a question beside what is asked. No pattern: one that never comes to an end would hold up the whole worker."""
    match name, value:
        case "arguments" | "destination" | "reply_to" | "ticket" | "pattern" | "matcher", None:
            return True
        case "ticket", str():
            return _word(value)
        case "destination", list() as workers:
            return len(workers) <= MOST_IDS and all(map(_word, workers))
        case "reply_to", {"exchange": "reply.celery.pidbox", "routing_key": key, **more}:
            return _word(key) and not more
        case "arguments", {**named}:
            return all(map(_argument, named, named.values()))
    return False


def _argument(name: object, value: object) -> bool:
    """Of which tasks, and how they are told. Not which of their attributes: that may be any in Python."""
    if name == "ids":
        return _ids([value])
    return name in ("safe", "with_defaults", "taskinfoitems") and value in (None, True, False, [])


# -- as it comes out of Redis


@dataclass(frozen=True)
class Unreadable:
    """Stands for a message that is no JSON, or too large."""

    size: int


def read(text: Any) -> Any:  # noqa: ANN401 - as kombu's own
    """Read a message, in place of kombu, which makes dates, numbers and more of what says that it is one, and fails in many ways."""
    if len(text) > LARGEST_MESSAGE:
        return Unreadable(len(text))
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return Unreadable(len(text))


def fault_of_envelope(envelope: object) -> str | None:
    """Why this is no message that kombu could have written, or None. It reads what it needs without a look at the types."""
    match envelope:
        case {
            "body": str() as body,
            "content-type": str() | None,
            "content-encoding": str() | None,
            "headers": dict() as headers,
            "properties": {"delivery_tag": str(), "delivery_info": {**delivery}, **properties},
        }:
            names = ("body_encoding", "priority", "correlation_id", "reply_to", "expiration", "delivery_mode")
            sound = all(isinstance(properties.get(name), str | int | None) for name in names)
            if sound and not headers.get("compression") and all(isinstance(one, str) for one in delivery.values()):
                return None if _opens(body, properties.get("body_encoding")) else "its body is not in base64"
        case Unreadable():
            return "it is not JSON, or too large"
    return "it is not in the form of a message"


def _opens(body: str, encoding: object) -> bool:
    if encoding is None:
        return True
    try:
        base64.b64decode(body)
    except ValueError:
        return False
    return encoding == "base64"
